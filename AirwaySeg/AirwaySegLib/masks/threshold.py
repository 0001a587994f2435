"""From probability to airways: a threshold without leak, chosen per scan, and the trachea's component.

The rule of the threshold is `lowest_without_leak`.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.masks.certain import CERTAIN, SMALLEST_PIECE_VOXELS, certainty
from AirwaySegLib.masks.components import (
    Box,
    bounding_box,
    component_through,
    components_of_size,
    distance_to,
    label_components,
    opening,
)

LEVELS = tuple(round(0.35 + 0.05 * step, 2) for step in range(11))
"""Thresholds that are tried, lowest first. Compared with levels that start at 0.5, the bundled weights find half a
point more of the tree's length and a point more of its branches, for 0.3 points of precision (model card)."""

LARGEST_GROWTH = 0.25
"""One level down may enlarge the thin airways by this share; a larger growth is taken for a leak."""

WIDE_RADIUS_MM = 3.0
"""Lumens of a larger radius are taken from the lowest level: they do not leak, and a high level would hollow them."""

SMALLEST_PART_ML = 0.3
"""Without a trachea and without an airway that the scan's edge cuts, smaller components are left out."""

EDGE_VOXELS = 2
"""A component so near to the scan's edge is cut by it."""

Edges = tuple[tuple[bool, bool], tuple[bool, bool], tuple[bool, bool]]
"""For each axis whether the array's first and last voxels are the scan's."""

SMALLEST_FRAGMENT_VOXELS = 5
"""Smaller pieces are noise: neither this mask keeps them nor does the path search join them (`repair.path_score`). In
two real scans these are four of ten pieces. One of 5 to 20 voxels may be a part of an airway with several breaks."""


NOTHING = "No airway was found in this scan."


@dataclass(frozen=True)
class Choice:
    """The airways (Z, Y, X) bool, the threshold that was used, and warnings."""

    mask: NDArray[np.bool_]
    threshold: float
    warnings: list[str] = field(default_factory=list)


def choose_airways(
    probability: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    seeds: NDArray,
    threshold: float | None,
    edges: Edges | None = None,
) -> Choice:
    """The airways in a probability map.

    Parameters
    ----------
    probability
        (Z, Y, X) uint8, 0..255.
    spacing_mm
        z, y, x.
    seeds
        (N, 3) voxels that are certainly in the trachea; they belong to the airways whatever their probability. N = 0
        means that no trachea was found; then all plausible components are kept.
    threshold
        0..1, or None: chosen per scan, the lowest of `LEVELS` without a jump in volume (see `lowest_without_leak`).
    edges
        None where the scan holds the carina, so that there is a single tree. Otherwise a component that the scan's edge
        cuts may be a tree of its own (`cut_trees`).
    """
    marked = probability.copy()
    marked[tuple(seeds.T)] = 255
    lowest = LEVELS[0] if threshold is None else threshold
    box = bounding_box(marked >= _level(lowest), margin=1)
    mask = np.zeros(probability.shape, bool)
    if box is None:
        return Choice(mask, lowest, [NOTHING])
    seeds = seeds - [part.start for part in box]
    inner = None if edges is None else _edges_of(box, edges, probability.shape)
    if threshold is None:
        lowest, mask[box] = strict_enough(marked[box], spacing_mm, seeds, inner)
    else:
        mask[box] = tree_at(marked[box], spacing_mm, seeds, threshold, inner)
    return Choice(mask, lowest, [] if mask.any() else [NOTHING])


def _level(threshold: float) -> int:
    """The threshold on the scale 0..255."""
    return max(1, round(threshold * 255))


def _edges_of(box: Box, edges: Edges, shape: tuple[int, ...]) -> Edges:
    """The same for a box within the array."""
    z, y, x = (
        (first and part.start == 0, last and part.stop == count)
        for part, (first, last), count in zip(box, edges, shape, strict=True)
    )
    return z, y, x


def strict_enough(
    probability: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    seeds: NDArray,
    edges: Edges | None = None,
) -> tuple[float, NDArray[np.bool_]]:
    """The lowest level without a leak, and the airways at it, with complete wide lumens."""
    index = lowest_without_leak(probability, spacing_mm, seeds)
    tree = tree_at(probability, spacing_mm, seeds, LEVELS[index], edges)
    if index == 0:
        return LEVELS[0], tree
    # Wide lumens are taken from the lowest level. A leak is wide too, but the strict tree does not reach into it.
    wide = opening(tree_at(probability, spacing_mm, seeds, LEVELS[0]), WIDE_RADIUS_MM, spacing_mm)
    tree |= wide & (distance_to(tree, spacing_mm) < WIDE_RADIUS_MM)
    return LEVELS[index], component_through(tree, seeds) if len(seeds) and edges is None else tree


def loose_fragments(probability: NDArray[np.uint8], tree: NDArray[np.bool_], threshold: float) -> NDArray[np.bool_]:
    """Airway at the threshold that does not touch the tree, in components of at least `SMALLEST_FRAGMENT_VOXELS`.

    All arrays are (Z, Y, X) on one grid; ``probability`` is 0..255 and 0 where no airway can be.
    """
    labels = label_components((probability >= _level(threshold)) | tree)
    # Without the background: counting it would take a copy of eight bytes per voxel.
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
    probability: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    seeds: NDArray,
    threshold: float,
    edges: Edges | None = None,
) -> NDArray[np.bool_]:
    """The component through the seeds at one threshold, and with ``edges`` `cut_trees`.

    Where there is neither, every component of at least 0.3 ml.
    """
    mask = probability >= _level(threshold)
    cut = None if edges is None else cut_trees(probability, mask, edges)
    if len(seeds):
        tree = component_through(mask, seeds)
        return tree if cut is None else tree | cut
    if cut is not None and cut.any():
        return cut
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return components_of_size(mask, max(1, round(SMALLEST_PART_ML / voxel_ml)))


def cut_trees(probability: NDArray[np.uint8], mask: NDArray[np.bool_], edges: Edges) -> NDArray[np.bool_]:
    """The components of a mask that the scan's edge cuts and that are airway for certain.

    Where the carina is not in the scan, its airways enter the scan through its edge, each by itself: so do those of the
    lung's apices in a scan of the neck, and those of the lower lobes in one of the abdomen.
    """
    labels = label_components(mask)
    counts = np.bincount(labels[labels > 0], minlength=1)
    cut = np.zeros(len(counts), bool)
    for axis, (first, last) in enumerate(edges):
        along = np.moveaxis(labels, axis, 0)
        cut[np.unique(along[:EDGE_VOXELS])] |= first
        cut[np.unique(along[-EDGE_VOXELS:])] |= last
    cut &= (counts >= SMALLEST_PIECE_VOXELS) & (certainty(labels, probability) >= CERTAIN)
    cut[0] = False
    return cut[labels]


def lowest_without_leak(probability: NDArray[np.uint8], spacing_mm: tuple[float, float, float], seeds: NDArray) -> int:
    """The index in `LEVELS` of the lowest level after the last jump.

    A jump is a step from one level to the next lower one that adds more than `LARGEST_GROWTH` to the thin airways (and
    more than 0.3 ml): a leak appears suddenly, real airways appear gradually. Thin airways are those outside the wide
    lumens of the strictest tree. Only voxels below the higher level count as added; others are a branch that is
    connected again.
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
