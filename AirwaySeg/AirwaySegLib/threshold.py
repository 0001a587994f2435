"""From probability to airways: a threshold that does not leak, chosen for each scan, and the trachea's component."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.components import component_through, components_of_size, distance_to, opening

LEVELS = tuple(round(0.5 + 0.05 * step, 2) for step in range(8))
"""Thresholds that are tried, from the most generous on."""

LARGEST_GROWTH = 0.25
"""A step of one level down may enlarge the thin airways by this share; more is taken for a leak."""

WIDE_RADIUS_MM = 3.0
"""Lumens wider than this are taken from the lowest level: they do not leak, and a high level would hollow them."""

SMALLEST_PART_ML = 0.3
"""Where there is no trachea, smaller components are left out."""


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
    probability = probability.copy()
    probability[tuple(seeds.T)] = 255
    if threshold is not None:
        return _warned(Choice(tree_at(probability, spacing_mm, seeds, threshold), threshold))
    trees = [tree_at(probability, spacing_mm, seeds, level) for level in LEVELS]
    place = lowest_without_leak(trees, spacing_mm)
    mask = trees[place]
    if place > 0:
        # Wide lumens come whole from the lowest level. A leak is wide too, but the strict tree does not reach into it.
        wide = opening(trees[0], WIDE_RADIUS_MM, spacing_mm)
        mask = mask | (wide & (distance_to(mask, spacing_mm) < WIDE_RADIUS_MM))
    return _warned(Choice(mask, LEVELS[place]))


def tree_at(
    probability: NDArray[np.uint8], spacing_mm: tuple[float, float, float], seeds: NDArray, threshold: float
) -> NDArray[np.bool_]:
    """The component through the seeds at one threshold; without seeds, every component of at least 0.3 ml."""
    mask = probability >= max(1, round(threshold * 255))
    if len(seeds):
        return component_through(mask, seeds)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return components_of_size(mask, max(1, round(SMALLEST_PART_ML / voxel_ml)))


def lowest_without_leak(trees: list[NDArray[np.bool_]], spacing_mm: tuple[float, float, float]) -> int:
    """The place in `LEVELS` of the lowest level after the last jump; ``trees`` holds the tree of each level.

    A jump is a step from one level to the next lower one that enlarges the thin airways by more than
    `LARGEST_GROWTH`: a leak opens at once, real airways come in slowly. Thin is what lies off the strictest tree's wide
    lumens.
    """
    wide = opening(trees[-1], WIDE_RADIUS_MM, spacing_mm)
    thin = distance_to(wide, spacing_mm) > WIDE_RADIUS_MM
    volumes = [int(np.count_nonzero(tree & thin)) for tree in trees]
    jumps = [
        place
        for place in range(1, len(volumes))
        if volumes[place - 1] > (1 + LARGEST_GROWTH) * max(volumes[place], 1)
    ]
    return max(jumps, default=0)


def _warned(choice: Choice) -> Choice:
    if not choice.mask.any():
        choice.warnings.append("No airway was found in this scan.")
    return choice
