"""What hangs on a branch that was grown, as far as the network found it: airways beyond a gap, and side branches."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from AirwaySegLib.edit.branch import Stretch, Surroundings, by_faces
from AirwaySegLib.masks.least_cost import Ways

_PASSABLE, _LIKELY = 0.1, 0.35
"""Ways lead through what has the first probability, to tips of the second: the lowest threshold of a result."""

_SURE = 0.5
"""Least mean probability along a stretch that is taken."""

_STRICTNESS = 4.0
"""How much the absence of lumen costs, as in `grow`."""

_LEAST_MM, _MOST = 4.0, 12
"""Least length of a stretch, and how many are looked at."""

_APART_MM = 3.0
"""What lies so near to a stretch or to a tip that was given up is not looked at again."""


def certain_beyond(around: Surroundings, stretches: Sequence[Stretch], widest_mm: float) -> Iterator[Stretch]:
    """Stretches that spring from some stretches or from one before, the farthest tip first.

    Only the network's probability counts: of what the CT alone shows round a missing branch, less than a fifth was
    airway.
    """
    scan, tree = around.scan, around.tree
    if scan.probability is None:
        return
    spacing = np.asarray(scan.spacing_mm)
    taken = np.logical_or.reduce([stretch.lumen(around) for stretch in stretches])
    probability = ndimage.uniform_filter(scan.probability.within(around.box).astype(np.float32) / 255, 3)
    open_ = taken | ((probability >= _PASSABLE) & ~tree)
    cost = np.where(open_, around.evidence.cost(_STRICTNESS), np.float32(np.inf))
    worth = np.where((probability >= _LIKELY) & ~taken & ~tree, ndimage.distance_transform_edt(~taken, spacing), 0)
    if worth.max() < _LEAST_MM:
        return
    ways = Ways(cost, np.argwhere(taken), scan.spacing_mm)
    worth[~np.isfinite(ways.costs)] = 0
    for _ in range(_MOST):
        tip = np.array(np.unravel_index(int(worth.argmax()), worth.shape))
        if worth[tuple(tip)] < _LEAST_MM:
            return
        way = ways.to(tip)
        way = by_faces(way[np.flatnonzero(taken[tuple(way.T)])[-1] :], cost)
        if float(probability[tuple(way.T)].mean()) >= _SURE:
            yield (stretch := Stretch.seen(around, way, widest_mm).centered(around, widest_mm))
            taken |= stretch.lumen(around)
        _forget(worth, way, spacing)


def _forget(worth: NDArray[np.float64], way: NDArray[np.intp], spacing: NDArray[np.float64]) -> None:
    """No tip lies near a way (P, 3) any more."""
    reach = np.ceil(_APART_MM / spacing).astype(int)
    low = np.maximum(way.min(axis=0) - reach, 0)
    part = tuple(map(slice, low, way.max(axis=0) + reach + 1))
    apart = np.ones(worth[part].shape, bool)
    apart[tuple((way - low).T)] = False
    worth[part][ndimage.distance_transform_edt(apart, spacing) <= _APART_MM] = 0
