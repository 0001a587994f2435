"""From probability to airways: a threshold that does not leak, chosen for each scan, and the trachea's component."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.masks.components import (
    bounding_box,
    component_through,
    components_of_size,
    distance_to,
    label_components,
    opening,
)

LEVELS = tuple(round(0.35 + 0.05 * step, 2) for step in range(11))
"""Thresholds that are tried, from the most generous on. Against one from 0.5 on, the bundled weights find half a point
more of the tree's length and a point more of its branches for 0.3 points of precision (model card)."""

LARGEST_GROWTH = 0.25
"""A step of one level down may enlarge the thin airways by this share; more is taken for a leak."""

WIDE_RADIUS_MM = 3.0
"""Lumens wider than this are taken from the lowest level: they do not leak, and a high level would hollow them."""

SMALLEST_PART_ML = 0.3
"""Where there is no trachea, smaller components are left out."""

SMALLEST_FRAGMENT_VOXELS = 5
"""Smaller pieces are noise, which neither this mask keeps nor the search for paths joins (`repair.path_score`): in two
real scans these are four of ten pieces. One of 5 to 20 voxels may be a stretch of an airway with several breaks."""


NOTHING = "No airway was found in this scan."


@dataclass(frozen=True)
class Choice:
    """The airways (Z, Y, X) bool, the threshold that was used, and sentences about what is unusual."""

    mask: NDArray[np.bool_]
    threshold: float
    warnings: list[str] = field(default_factory=list)


def choose_airways(
    probability: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    seeds: NDArray,
    threshold: float | None,
) -> Choice:
    """The airways in a probability map.

    Parameters
    ----------
    probability
        (Z, Y, X) uint8, 0..255.
    spacing_mm
        z, y, x.
    seeds
        (N, 3) voxels that are surely in the trachea; they belong to the airways whatever their probability. None at all
        means that no trachea was found, and all plausible components are kept.
    threshold
        0..1, or None: the lowest of `LEVELS` from which on the airways do not jump in volume.
    """
    marked = probability.copy()
    marked[tuple(seeds.T)] = 255
    lowest = LEVELS[0] if threshold is None else threshold
    box = bounding_box(marked >= _level(lowest), margin=1)
    mask = np.zeros(probability.shape, bool)
    if box is None:
        return Choice(mask, lowest, [NOTHING])
    seeds = seeds - [part.start for part in box]
    if threshold is None:
        lowest, mask[box] = strict_enough(marked[box], spacing_mm, seeds)
    else:
        mask[box] = tree_at(marked[box], spacing_mm, seeds, threshold)
    return Choice(mask, lowest, [] if mask.any() else [NOTHING])


def _level(threshold: float) -> int:
    """The threshold on the scale 0..255."""
    return max(1, round(threshold * 255))


def strict_enough(
    probability: NDArray[np.uint8], spacing_mm: tuple[float, float, float], seeds: NDArray
) -> tuple[float, NDArray[np.bool_]]:
    """The lowest level without a leak, and the airways at it, with wide lumens whole."""
    index = lowest_without_leak(probability, spacing_mm, seeds)
    tree = tree_at(probability, spacing_mm, seeds, LEVELS[index])
    if index == 0:
        return LEVELS[0], tree
    # Wide lumens come from the lowest level. A leak is wide too, but the strict tree does not reach into it.
    wide = opening(tree_at(probability, spacing_mm, seeds, LEVELS[0]), WIDE_RADIUS_MM, spacing_mm)
    tree |= wide & (distance_to(tree, spacing_mm) < WIDE_RADIUS_MM)
    return LEVELS[index], component_through(tree, seeds) if len(seeds) else tree


def loose_fragments(probability: NDArray[np.uint8], tree: NDArray[np.bool_], threshold: float) -> NDArray[np.bool_]:
    """Airway at the threshold that does not touch the tree, in pieces of at least `SMALLEST_FRAGMENT_VOXELS`.

    All arrays are (Z, Y, X) on one grid; ``probability`` is 0..255 and 0 where no airway can be.
    """
    labels = label_components((probability >= _level(threshold)) | tree)
    # Background left out: counting it too would take a copy of eight bytes for every voxel.
    keep = np.bincount(labels[labels > 0], minlength=1) >= SMALLEST_FRAGMENT_VOXELS
    keep[np.unique(labels[tree])] = False
    return keep[labels]


def tree_with(
    grown: NDArray[np.bool_], choice: Choice, probability: NDArray[np.uint8]
) -> tuple[NDArray[np.bool_], int]:
    """The chosen airways with ``grown`` (Z, Y, X) as far as it touches them, and the fragments that it joins to them.

    Returns the mask and how many fragments, of those of `loose_fragments`, are joined.
    """
    if not grown.any():
        return choice.mask, 0
    fragments = label_components(loose_fragments(probability, choice.mask, choice.threshold))
    labels = label_components(choice.mask | grown | (fragments > 0))
    in_tree = np.zeros(int(labels.max()) + 1, bool)
    in_tree[labels[choice.mask]] = True
    in_tree[0] = False
    whole = in_tree[labels]
    return whole, len(np.unique(fragments[whole & (fragments > 0)]))


def tree_at(
    probability: NDArray[np.uint8], spacing_mm: tuple[float, float, float], seeds: NDArray, threshold: float
) -> NDArray[np.bool_]:
    """The component through the seeds at one threshold; without seeds, every component of at least 0.3 ml."""
    mask = probability >= _level(threshold)
    if len(seeds):
        return component_through(mask, seeds)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return components_of_size(mask, max(1, round(SMALLEST_PART_ML / voxel_ml)))


def lowest_without_leak(probability: NDArray[np.uint8], spacing_mm: tuple[float, float, float], seeds: NDArray) -> int:
    """The index in `LEVELS` of the lowest level after the last jump.

    A jump is a step from one level to the next lower one that adds more than `LARGEST_GROWTH` to the thin airways (and
    more than 0.3 ml): a leak opens at once, real airways come in slowly. Thin is what lies off the strictest tree's
    wide lumens. Only voxels below the higher level count as added; others are a branch that is joined again.
    """
    strictest = tree_at(probability, spacing_mm, seeds, LEVELS[-1])
    thin = distance_to(opening(strictest, WIDE_RADIUS_MM, spacing_mm), spacing_mm) > WIDE_RADIUS_MM
    least = SMALLEST_PART_ML * 1000 / float(np.prod(spacing_mm))
    for index in range(len(LEVELS) - 1, 0, -1):
        lower = tree_at(probability, spacing_mm, seeds, LEVELS[index - 1]) & thin
        added = np.count_nonzero(probability[lower] < _level(LEVELS[index]))
        if added > max(LARGEST_GROWTH * (np.count_nonzero(lower) - added), least):
            return index
    return 0
