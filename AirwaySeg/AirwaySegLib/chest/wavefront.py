"""A wavefront that advances through the air of a CT, and rays from its middle to the wall.

Voxels are numbers in the flattened array (Z, Y, X), so that a front of a few hundred voxels costs nothing beside it.
Letters in shapes: N voxels.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from AirwaySegLib.masks.rays import RAY_STEP_MM, profiles_around

Spacing = tuple[float, float, float]
Numbers = NDArray[np.intp]
"""Voxels (N,) as numbers in the flattened array."""

_NOT_BEFORE_MM = 0.8
"""How near to the middle no wall is looked for: noise is there too. By hand."""

_WALL_SAMPLES = 6
"""The wall's own brightness is the greatest within so many samples (2.4 mm) from where the ray meets it. By hand."""

_WALL_PERCENTILE = 25
"""Of the rays' walls this one counts: towards lung a wall is thinner and darker than towards tissue. By hand."""


@dataclass(frozen=True)
class Ring:
    """What surrounds a lumen at one position.

    ``center_mm`` (3,) as z, y, x; ``radius_mm`` the root mean square distance of the wall; ``closed`` 0..1 the share of
    the rays that meet a wall not much farther off than that; ``hu`` of the lumen (median), ``wall_hu`` of the wall.
    """

    center_mm: NDArray[np.float64]
    radius_mm: float
    closed: float
    hu: float
    wall_hu: float


class Wavefront:
    """A CT in HU (Z, Y, X), the voxels that are still free to enter, and what is done on them.

    ``half_width_mm``: only voxels that have nothing but air within this distance are entered, so that narrower openings
    are not passed. ``step_mm``: how far the front advances at a time.
    """

    def __init__(
        self, hu: NDArray, free: NDArray[np.bool_], spacing_mm: Spacing, half_width_mm: float, step_mm: float
    ) -> None:
        self.spacing_mm = np.asarray(spacing_mm, float)
        self.step_mm = max(step_mm, 1.01 * max(spacing_mm))
        self._volume = np.ascontiguousarray(hu)
        self._hu = self._volume.reshape(-1)
        # Pixels wider than that: at least the four beside a voxel, or the front would pass between two that touch.
        ball = _within(max(half_width_mm, *spacing_mm[1:]), spacing_mm)
        inner = _off_the_border(hu.shape, np.abs(ball).max(axis=0) + 1)
        self.free, self._inner = (free & inner).reshape(-1), inner.reshape(-1)
        strides = np.array([hu.shape[1] * hu.shape[2], hu.shape[2], 1])
        self.ball = ball @ strides
        beside = np.array([offset for offset in itertools.product((-1, 0, 1), repeat=3) if any(offset)])
        self._beside = beside @ strides
        self._faces = self._beside[np.abs(beside).sum(axis=1) == 1]
        self._beside_mm = np.linalg.norm(beside * self.spacing_mm, axis=1)

    def numbers_of(self, voxels: NDArray) -> Numbers:
        """Voxels (N, 3) -> their numbers."""
        return np.ravel_multi_index(tuple(np.asarray(voxels, np.intp).T), self._volume.shape)

    def voxels_of(self, numbers: Numbers) -> NDArray[np.intp]:
        """Numbers -> voxels (N, 3)."""
        return np.stack(np.unravel_index(numbers, self._volume.shape), axis=1)

    def advance(self, source: Numbers, threshold_hu: float) -> Numbers:
        """Enter what lies within one step of ``source`` through wide enough air; these voxels are no longer free.

        Distances are those along 26-neighbours. Air is what is darker than the threshold.
        """
        way_mm = np.zeros(len(source))
        entered = [np.empty(0, np.intp)]
        while len(source):
            beside, beside_mm = source[:, None] + self._beside, way_mm[:, None] + self._beside_mm
            possible = self.free[beside] & (beside_mm <= self.step_mm)
            beside, beside_mm = beside[possible], beside_mm[possible]
            order = np.lexsort((beside_mm, beside))
            source, first = np.unique(beside[order], return_index=True)
            way_mm = beside_mm[order][first]
            wide = self.is_wide(source, threshold_hu)
            source, way_mm = source[wide], way_mm[wide]
            self.free[source] = False
            entered.append(source)
        return np.concatenate(entered)

    def is_wide(self, numbers: Numbers, threshold_hu: float) -> NDArray[np.bool_]:
        """Which voxels have nothing but air within the half width; false at the array's border."""
        wide: NDArray[np.bool_] = np.logical_and(self._inner[numbers], self._hu[numbers] < threshold_hu)
        all_around = self._hu[numbers[wide][:, None] + self.ball] < threshold_hu
        wide[wide] = np.all(all_around, axis=1)
        return wide

    def lumen_around(self, numbers: Numbers, threshold_hu: float) -> Numbers:
        """Some entered voxels with the air around them up to the wall.

        That is the ball around each, and those of the voxels beside it that are darker than the threshold.
        """
        lumen = np.unique(numbers[:, None] + self.ball)
        rim = np.unique(lumen[:, None] + self._faces)
        return np.union1d(lumen, rim[self._hu[rim] < threshold_hu])

    def parts(self, numbers: Numbers) -> list[Numbers]:
        """The 26-connected components of some voxels."""
        voxels = self.voxels_of(numbers)
        voxels -= voxels.min(axis=0)
        mask = np.zeros(voxels.max(axis=0) + 1, bool)
        mask[tuple(voxels.T)] = True
        labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
        which = labels[tuple(voxels.T)]
        return [numbers[which == part] for part in range(1, count + 1)]

    def middle_of(self, numbers: Numbers) -> NDArray[np.float64]:
        """Of some voxels the one nearest to their mean, (3,) as z, y, x in mm."""
        places_mm = self.voxels_of(numbers) * self.spacing_mm
        return places_mm[((places_mm - places_mm.mean(axis=0)) ** 2).sum(axis=1).argmin()]

    def values_of(self, numbers: Numbers) -> NDArray:
        """HU (N,) of some voxels."""
        values: NDArray = np.take(self._hu, numbers)
        return values

    def ring_around(self, numbers: Numbers, axis: NDArray[np.float64], reach_mm: float, brighter_hu: float) -> Ring:
        """Look for the wall around some voxels of a lumen, at right angles to ``axis`` (3,) and up to ``reach_mm``.

        A ray meets the wall where the CT is brighter than the lumen by ``brighter_hu``.
        """
        center_mm, hu = self.middle_of(numbers), float(np.median(self._hu[numbers]))
        steps_mm = np.arange(0, reach_mm, RAY_STEP_MM)
        profiles = profiles_around(self._volume, self.spacing_mm, center_mm[None], axis[None], steps_mm)[0]
        over = profiles > hu + brighter_hu
        over[:, steps_mm < _NOT_BEFORE_MM] = False
        met: NDArray[np.bool_] = np.any(over, axis=1)
        first = np.where(met, np.argmax(over, axis=1), len(steps_mm) - 1)
        from_mm = steps_mm[first]
        radius_mm = float(np.sqrt((from_mm**2).mean()))
        behind = np.arange(len(steps_mm)) - first[:, None]
        counts = ~met[:, None] | ((behind >= 0) & (behind < _WALL_SAMPLES))
        wall_hu = np.percentile(np.where(counts, profiles, -np.inf).max(axis=1), _WALL_PERCENTILE)
        closed = float((met & (from_mm <= 1.8 * max(radius_mm, 1.5) + 1)).mean())
        return Ring(center_mm, radius_mm, closed, hu, float(wall_hu))


def _within(radius_mm: float, spacing_mm: Spacing) -> NDArray[np.intp]:
    """Offsets (K, 3) in voxels of at most ``radius_mm``."""
    counts = [int(radius_mm / mm) for mm in spacing_mm]
    offsets = np.array(list(itertools.product(*(range(-count, count + 1) for count in counts))))
    return offsets[np.linalg.norm(offsets * np.asarray(spacing_mm), axis=1) <= radius_mm + 1e-6]


def _off_the_border(shape: tuple[int, ...], voxels: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Mark an array of a shape without so many voxels at both ends of each axis."""
    inner = np.zeros(shape, bool)
    inner[tuple(slice(int(count), -int(count)) for count in voxels)] = True
    return inner
