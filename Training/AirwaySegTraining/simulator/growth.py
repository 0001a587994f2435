"""Grows the branching trees of a simulated chest: airways with their arteries, and veins.

A tree is a list of `Branch`. Positions are (z, y, x) in mm in the patient's frame: z to the head, y to the back, x to
the patient's left, the carina at the origin.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Inside = Callable[[Points], NDArray[np.bool_]]


@dataclass
class Branch:
    """A tube: points (P, 3) in mm, radii (P,) in mm, its parent's index in the list (-1: root), its generation."""

    points_mm: Points
    radii_mm: NDArray[np.float64]
    parent: int
    generation: int
    squash: float = 1.0
    """Ratio of the cross-section's two diameters; 1 is round."""
    squash_axis: Points = field(default_factory=lambda: np.array([0.0, 1.0, 0.0]))
    plugged: bool = False
    """Whether the airway is filled with mucus."""
    froth: bool = False
    """Whether the mucus is mixed with bubbles."""
    narrowed: bool = False
    """Whether this piece is compressed or collapsed; the lumen continues behind it."""
    thicker_mm: float = 0.0
    """Wall thickness in mm in addition to the usual one for the calibre."""


@dataclass(frozen=True)
class Central:
    """Bronchi down to ``last_generation`` are about ``length_mm`` long at most, and side branches leave a stem.

    The smaller child of such a bronchus serves at least ``least_share`` of its parent's lung.
    """

    last_generation: int
    length_mm: float
    least_share: float


@dataclass
class _Tip:
    """A growing tip: the end of branch ``parent``, with the seeds that its children have to reach."""

    position_mm: Points
    direction: Points
    radius_mm: float
    seeds_mm: Points
    parent: int
    generation: int


def unit(vector: Points) -> Points:
    """The vector at length 1 (a zero vector stays zero)."""
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def wobbly_line(
    start_mm: Points, end_mm: Points, wobble: float, rng: np.random.Generator, step_mm: float = 2.0
) -> Points:
    """Points about every ``step_mm`` from start to end, bent sideways by up to about ``wobble`` of the length."""
    axis = end_mm - start_mm
    length_mm = float(np.linalg.norm(axis))
    count = max(3, int(np.ceil(length_mm / step_mm)) + 1)
    along = np.linspace(0, 1, count)[:, None]
    bend = np.zeros((count, 3))
    for wave in (1, 2):
        side = rng.normal(size=3)
        side -= unit(axis) * float(side @ unit(axis))
        bend += np.sin(np.pi * wave * along) * unit(side) * length_mm * wobble * rng.uniform(-1, 1) / wave
    return start_mm + along * axis + bend


def taper(count: int, start_mm: float, end_mm: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Radii (count,) from start to end with a slow waviness of about 4 %."""
    phase = rng.uniform(0, 2 * np.pi)
    waves = 1 + 0.04 * np.sin(np.linspace(0, rng.uniform(2, 7), count) + phase)
    return np.linspace(start_mm, end_mm, count) * waves


def limit_angle(direction: Points, parent: Points, most_degrees: float) -> Points:
    """The direction, turned towards the parent's until it is within ``most_degrees`` of it."""
    cosine = float(np.clip(direction @ parent, -1, 1))
    if cosine >= np.cos(np.radians(most_degrees)):
        return direction
    side = unit(direction - cosine * parent)
    return np.cos(np.radians(most_degrees)) * parent + np.sin(np.radians(most_degrees)) * side


def _split(seeds_mm: Points, direction: Points, least: float, rng: np.random.Generator) -> tuple[Points, Points]:
    """Two groups of seeds, each of a share of at least ``least``, cut across their largest extent.

    Only their extent perpendicular to ``direction`` counts.
    """
    spread = seeds_mm - seeds_mm.mean(axis=0)
    spread = spread - np.outer(spread @ direction, direction) * 0.85
    _, _, axes = np.linalg.svd(spread, full_matrices=False)
    position = spread @ axes[0]
    first = position < np.quantile(position, rng.uniform(least, 1 - least))
    return seeds_mm[first], seeds_mm[~first]


def _grow_one(tip: _Tip, inside: Inside, most_mm: float, rng: np.random.Generator) -> tuple[Branch, Points] | None:
    """The branch from a tip towards its seeds, and its direction; None where it would leave the lung at once."""
    to_seeds = tip.seeds_mm.mean(axis=0) - tip.position_mm
    direction = limit_angle(unit(to_seeds), tip.direction, rng.uniform(45, 75))
    length_mm = 0.45 * float(np.linalg.norm(to_seeds)) * rng.uniform(0.8, 1.3)
    length_mm = min(float(np.clip(length_mm, 3 * tip.radius_mm, 14 * tip.radius_mm)), most_mm)
    for _ in range(4):
        line = wobbly_line(tip.position_mm, tip.position_mm + direction * length_mm, 0.06, rng)
        if inside(line[1:]).mean() > 0.75:
            break
        length_mm *= 0.6
    else:
        return None
    radii = taper(len(line), tip.radius_mm * 1.04, tip.radius_mm * rng.uniform(0.9, 1.0), rng)
    return Branch(line, radii, tip.parent, tip.generation), unit(line[-1] - line[-2])


def grow(
    trunk: list[Branch],
    seeds_mm: Points,
    inside: Inside,
    smallest_mm: float,
    rng: np.random.Generator,
    central: Central | None = None,
) -> list[Branch]:
    """The branches that grow from the end of the trunk's last branch until ``smallest_mm`` (radius) or no seed is left.

    Parameters
    ----------
    trunk : the branches so far; growth begins at the last one and the result starts with copies of them.
    seeds_mm : (N, 3) points that the tree must serve: it splits them in two at each bifurcation.
    inside : tells for (P, 3) points whether they lie in the lung.
    smallest_mm : a child thinner than this is not grown.
    central : how the first generations differ; by default they do not.

    Notes
    -----
    Child radius = parent's radius * fraction of seeds ** (1 / n), with n 2.3 above 3 mm diameter and 3 below (Murray's
    law holds in the periphery).
    """
    branches = list(trunk)
    last = branches[-1]
    direction = unit(last.points_mm[-1] - last.points_mm[-3])
    stack = [_Tip(last.points_mm[-1], direction, float(last.radii_mm[-1]), seeds_mm, len(trunk) - 1, last.generation)]
    while stack:
        tip = stack.pop()
        near = central if central is not None and tip.generation < central.last_generation else None
        least = near.least_share if near else 0.28
        groups = _split(tip.seeds_mm, tip.direction, least, rng) if len(tip.seeds_mm) >= 4 else ()
        for group in groups:
            exponent = rng.uniform(2.2, 2.4) if tip.radius_mm > 1.5 else rng.uniform(2.8, 3.2)
            radius_mm = tip.radius_mm * (len(group) / len(tip.seeds_mm)) ** (1 / exponent)
            if radius_mm < smallest_mm:
                continue
            child = _Tip(tip.position_mm, tip.direction, radius_mm, group, tip.parent, tip.generation + 1)
            most_mm = near.length_mm * float(np.exp(rng.normal(scale=0.35))) if near else np.inf
            grown = _grow_one(child, inside, most_mm, rng)
            if grown is None:
                continue
            branch, direction = grown
            branches.append(branch)
            stack.append(_Tip(branch.points_mm[-1], direction, radius_mm, group, len(branches) - 1, child.generation))
    return branches


def companions(airways: list[Branch], wall_mm: Callable[[float], float], rng: np.random.Generator) -> list[Branch]:
    """The arteries that run beside the airways, touching their walls, 1.1 to 1.7 times their lumen's radius.

    The side on which the artery lies turns slowly from parent to child, and each begins where its parent ends. The
    first of the list lies beside the trachea; the caller leaves it out.
    """
    arteries: list[Branch] = []
    sides: list[Points] = []
    for branch in airways:
        before = sides[branch.parent] if branch.parent >= 0 else rng.normal(size=3)
        side = unit(before + rng.normal(scale=0.35, size=3))
        axis = unit(branch.points_mm[-1] - branch.points_mm[0])
        side = unit(side - axis * float(side @ axis))
        sides.append(side)
        ratio = rng.uniform(1.1, 1.7) if branch.generation > 1 else rng.uniform(0.7, 1.0)
        radii = branch.radii_mm * ratio
        gap = branch.radii_mm + radii + np.array([wall_mm(2 * r) for r in branch.radii_mm]) * rng.uniform(0.7, 1.1)
        points = branch.points_mm + side * gap[:, None]
        if branch.generation > 1:
            points = np.vstack([arteries[branch.parent].points_mm[-1], points])
            radii = np.concatenate([radii[:1], radii])
        arteries.append(Branch(points, radii, branch.parent, branch.generation))
    return arteries


def total_length_mm(branches: list[Branch]) -> float:
    """Sum of the branches' centerline lengths in mm."""
    return float(sum(np.linalg.norm(np.diff(b.points_mm, axis=0), axis=1).sum() for b in branches))
