"""Breakage attention: where two components of a mask come close to each other, and the centres of patches worth a look.

DeepTree (Accurate Airway Tree Segmentation in CT Scans via Anatomy-aware Multi-class Segmentation and Deep Breakage
Connection), section 2.2. Arrays are (Z, Y, X). Distances H are in voxels, or, where a spacing is given, in lengths of
`USUAL_VOXEL_MM`, so that thick slices do not stretch a gap. Letters in shapes: C candidates, K centres.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from AirwaySegLib.masks.components import Box
from AirwaySegLib.masks.sparse_mask import FORWARD_OFFSETS

Labels = NDArray[np.int32]
Attention = NDArray[np.float32]
Unit = tuple[float, float, float]
Boxes = dict[int, Box]

ALPHA = 5.0
"""The distance at which attention is 1/2, so that it exceeds 1/2 in the middle of gaps of less than twice as much."""

REACH = 12
"""Attention is 0 from here on; sigmoid(5 - 12) is 0.0009."""

USUAL_VOXEL_MM = 0.7
"""Edge of a voxel of a usual chest CT: with a spacing, attention is 1/2 at 3.5 mm and ends at 8.4 mm."""

LARGEST_IGNORED_VOXELS = 50
"""Components of at most so many voxels (of 0.7 mm where a spacing is given) get no attention unless they lie on a path:
the network is trained on larger pieces only (`BreakSettings.least_voxels`). The search for minimum-cost paths has no
such limit of its own and joins smaller ones (`masks.threshold.SMALLEST_FRAGMENT_VOXELS`)."""

BETWEEN, OPPOSITE_COSINE = 20.0, -0.5
"""A small component lies on a path if two larger ones, each this near, are seen from it more than 120 degrees apart."""

LEVEL = 0.02
"""Least attention of a patch's centre: that of the middle of a gap of 17 voxels, about 10 mm."""

APART = 8.0
"""No two centres are nearer to each other, in voxels."""

RIDGE, VALLEY = 24.0, 0.9
"""Of two centres between the same two components, at most `RIDGE` voxels apart, the lower one goes if the attention on
the straight way between them does not fall below `VALLEY` of its own: both are on the ridge beside a fragment that runs
along another branch, and one patch shows them both."""


def breakage_attention(labels: Labels, spacing_mm: Unit | None = None) -> Attention:
    """Attention sigmoid(5 - H) to gaps between components, float32 in [0, 1).

    H is the second smallest distance from a voxel's centre to the components of ``labels`` (0 is background); 0 from
    `REACH` on and where there are fewer than two components. Components of at most `LARGEST_IGNORED_VOXELS` are left
    out unless they lie on a path (see `BETWEEN`). Exact: in voxels to the last bit, with a spacing to the rounding of
    float32.

    Notes
    -----
    Of the two components within reach of a voxel one is not the largest. So all is worked out in the boxes of the
    other ones, grown by the reach, and the largest is looked at there only. Kept for each voxel are the two best values
    of closeness = REACH^2 - distance^2: where nothing is near they are 0, and memory is never touched.
    """
    unit = _unit(spacing_mm)
    attention = np.zeros(labels.shape, np.float32)
    boxes = kept_components(labels, spacing_mm)
    if len(boxes) < 2:
        return attention
    largest = max(boxes, key=lambda number: _volume(boxes[number]))
    dtype = np.dtype(np.uint8 if spacing_mm is None else np.float32)
    nearest, second = np.zeros(labels.shape, dtype), np.zeros(labels.shape, dtype)
    grown = {number: _grown(box, labels.shape, unit) for number, box in boxes.items() if number != largest}
    for box in grown.values():
        np.maximum(nearest[box], _closeness(labels, largest, box, unit, dtype), out=nearest[box])
    for number, box in grown.items():
        closeness = _closeness(labels, number, box, unit, dtype)
        np.maximum(second[box], np.minimum(nearest[box], closeness), out=second[box])
        np.maximum(nearest[box], closeness, out=nearest[box])
    table = _sigmoid(np.arange(REACH**2 + 1))
    for box in grown.values():
        attention[box] = table[second[box]] if spacing_mm is None else _sigmoid(second[box])
    return attention


def kept_components(labels: Labels, spacing_mm: Unit | None = None) -> Boxes:
    """Number and box of each component that attention is paid to: all but small ones that lie on no path."""
    unit = _unit(spacing_mm)
    boxes: Boxes = {number: box for number, box in enumerate(find_objects(labels), start=1) if box is not None}
    most = LARGEST_IGNORED_VOXELS / np.prod(unit)
    # A box of few voxels holds few; only the others are worth counting.
    small = [n for n, box in boxes.items() if _volume(box) <= most or np.count_nonzero(labels[box] == n) <= most]
    larger = np.ones(max(boxes, default=0) + 1, bool)
    larger[[0, *small]] = False
    sides = [[(part.start, part.stop) for part in box] for number, box in boxes.items() if larger[number]]
    starts, stops = np.moveaxis(np.array(sides, int).reshape(-1, 3, 2), 2, 0)
    left_out = set()
    for number in small:
        around = _grown(boxes[number], labels.shape, unit, BETWEEN)
        first, last = zip(*((part.start, part.stop) for part in around))
        # Hardly one of thousands of small components has the boxes of two larger components near.
        near = ((starts < last) & (stops > first)).all(axis=1)
        if np.count_nonzero(near) < 2 or not _lies_on_a_path(labels, boxes[number], larger, unit):
            left_out.add(number)
    return {number: box for number, box in boxes.items() if number not in left_out}


def _lies_on_a_path(labels: Labels, box: Box, larger: NDArray[np.bool_], unit: Unit) -> bool:
    """Whether a small component's middle lies between two components that are ``larger`` (by number); see `BETWEEN`."""
    around = _grown(box, labels.shape, unit, BETWEEN)
    part = labels[around]
    found = np.argwhere(larger[part])
    middle = [(own.start + own.stop - 1) / 2 - wide.start for own, wide in zip(box, around)]
    towards = (found - middle) * unit
    distance = np.linalg.norm(towards, axis=1)
    order = np.flatnonzero(distance <= BETWEEN)
    order = order[np.argsort(distance[order], kind="stable")]
    _, first = np.unique(part[tuple(found[order].T)], return_index=True)
    # 0 for what runs through the middle of a component that is a ring.
    directions = towards[order[first]] / np.maximum(distance[order[first], None], 1e-9)
    return bool((directions @ directions.T < OPPOSITE_COSINE).any())


def _unit(spacing_mm: Unit | None) -> Unit:
    """Edges of a voxel in the unit of H."""
    if spacing_mm is None:
        return 1.0, 1.0, 1.0
    z, y, x = spacing_mm
    return z / USUAL_VOXEL_MM, y / USUAL_VOXEL_MM, x / USUAL_VOXEL_MM


def _volume(box: Box) -> int:
    return int(np.prod([part.stop - part.start for part in box]))


def _grown(box: Box, shape: tuple[int, ...], unit: Unit, reach: float = REACH) -> Box:
    z, y, x = (
        slice(max(0, part.start - int(reach / step)), min(count, part.stop + int(reach / step)))
        for part, count, step in zip(box, shape, unit)
    )
    return z, y, x


def _closeness(labels: Labels, number: int, box: Box, unit: Unit, dtype: np.dtype) -> NDArray:
    """REACH^2 less the squared distance to a component, 0 where that is negative, in a box.

    The squared distance is the least sum of squares over the axes, hence is spread along one axis after the other. The
    axis that is worked on comes first, so that each shift is one run through memory; what is needed along it around the
    box is cut off at once.
    """
    around = _grown(box, labels.shape, unit)
    values = (labels[around] == number).astype(dtype)
    if not values.any():
        return values[tuple(slice(0, part.stop - part.start) for part in box)]
    values *= dtype.type(REACH**2)
    for inner, outer, step in zip(box, around, unit):
        spread = _spread(values, step)[inner.start - outer.start : inner.stop - outer.start]
        values = np.ascontiguousarray(spread.transpose(1, 2, 0))
    return values


def _spread(values: NDArray, step: float) -> NDArray:
    """The largest of ``values`` less the squared distance along the first axis, and 0."""
    best, lowered = values.copy(), np.empty_like(values)
    shift = 1
    while (shift * step) ** 2 < REACH**2:
        loss = values.dtype.type((shift * step) ** 2)
        np.maximum(values, loss, out=lowered)  # so that unsigned numbers end at 0
        lowered -= loss
        np.maximum(best[shift:], lowered[:-shift], out=best[shift:])
        np.maximum(best[:-shift], lowered[shift:], out=best[:-shift])
        shift += 1
    return best


def _sigmoid(closeness: NDArray) -> Attention:
    """Attention of a closeness; 0 stays 0."""
    far = np.sqrt(REACH**2 - closeness.astype(np.float64))
    return np.where(closeness > 0, 1 / (1 + np.exp(far - ALPHA)), 0).astype(np.float32)


# Patch centres -------------------------------------------------------------------------------------------------------


def patch_centres(attention: Attention, labels: Labels, level: float = LEVEL) -> NDArray[np.int32]:
    """Voxels (K, 3) at which patches are centred, the highest attention first.

    They are local maxima of at least ``level`` that no higher one within `APART` voxels suppresses, so that the middle
    of every gap that stands out has a centre that near; along a ridge they are thinned out (see `RIDGE`).
    """
    voxels = _suppressed(*_local_maxima(attention, level))
    pairs = [_two_nearest(labels, voxel) for voxel in voxels]
    beside = cKDTree(voxels).query_ball_point(voxels, RIDGE) if len(voxels) else []
    chosen: list[int] = []
    for candidate, near in enumerate(beside):
        rivals = [k for k in set(near).intersection(chosen) if pairs[k] == pairs[candidate]]
        if not any(_no_valley(attention, voxels[candidate], voxels[rival]) for rival in rivals):
            chosen.append(candidate)
    return voxels[chosen].astype(np.int32)


def _local_maxima(attention: Attention, level: float) -> tuple[NDArray[np.intp], Attention]:
    """Voxels (C, 3) of at least ``level`` that none of the 26 neighbours exceeds, and their attention (C,)."""
    flat = np.flatnonzero(attention >= level)
    voxels = np.stack(np.unravel_index(flat, attention.shape), axis=1)
    values = attention.ravel()[flat]
    last = np.array(attention.shape) - 1
    for forward in FORWARD_OFFSETS:
        for offset in (np.array(forward), -np.array(forward)):
            beside = np.clip(voxels + offset, 0, last)
            highest = values >= attention[tuple(beside.T)]
            voxels, values = voxels[highest], values[highest]
    return voxels, values


def _suppressed(voxels: NDArray[np.intp], values: Attention) -> NDArray[np.intp]:
    """The voxels (K, 3) that are left when each, from the highest on, removes those within `APART` of it."""
    if not len(voxels):
        return voxels
    voxels = voxels[np.argsort(-values, kind="stable")]
    tree, alive, chosen = cKDTree(voxels), np.ones(len(voxels), bool), []
    for candidate in range(len(voxels)):
        if alive[candidate]:
            chosen.append(candidate)
            alive[tree.query_ball_point(voxels[candidate], APART)] = False
    return voxels[chosen]


def _two_nearest(labels: Labels, voxel: NDArray[np.intp]) -> tuple[int, ...]:
    """Numbers of the two components nearest to a voxel, ascending; fewer where there are not two within `REACH`."""
    start = np.maximum(voxel - REACH, 0)
    part = labels[tuple(slice(a, b + REACH + 1) for a, b in zip(start, voxel))]
    found = np.argwhere(part)
    numbers = part[tuple(found.T)]
    order = np.argsort(((found + start - voxel) ** 2).sum(axis=1), kind="stable")
    present, first = np.unique(numbers[order], return_index=True)
    return tuple(sorted(present[np.argsort(first)[:2]].tolist()))


def _no_valley(attention: Attention, voxel: NDArray[np.intp], higher: NDArray[np.intp]) -> bool:
    """Whether attention stays above `VALLEY` of that at ``voxel`` on the straight way to a higher one."""
    steps = np.linspace(0, 1, int(RIDGE))[:, None]
    way = np.rint(voxel + steps * (higher - voxel)).astype(int)
    return bool(attention[tuple(way.T)].min() >= VALLEY * attention[tuple(voxel)])
