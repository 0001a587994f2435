"""How likely a loose piece of a mask is airway: from its probability, its shape, the CT in and around it, its position.

Letters in shapes: C components, K points on the centerlines of all pieces, D directions. Points are (z, y, x) in mm
from voxel (0, 0, 0) of the grid, lengths in mm. ``ramp(x, a, b)`` is 0 at a, 1 at b, straight between and flat outside.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from AirwaySegLib.masks.rays import rays_across
from AirwaySegLib.repair.bridge import MAIN
from AirwaySegLib.repair.path_bridges import Evidence
from AirwaySegLib.tree.fragment_ends import (
    Course,
    Facts,
    Floats,
    logistic,
    ramp,
    shape_facts,
    shape_terms,
    unit,
    weighed,
)
from AirwaySegLib.tree.fragment_joints import SHAPE_ALONE

Spacing = tuple[float, float, float]

STRIDE_MM = 1.0
"""Of the points at which the CT is looked at, along the centerlines."""

MOST_POINTS = 40
"""Of one piece, evenly taken from all of its branches."""

DIRECTIONS = 12
"""Rays across the centerline from each point."""

RAY_STEP_MM, BEYOND_WALL_MM = 0.4, 2.4
"""Along a ray, and how far beyond the radius the wall is looked for: walls of peripheral bronchi are 0.5 to 1.5 mm
thick, and the scanner blurs them over about 1 mm."""

OPEN_HU = 50.0
"""The wall is this much denser than the middle of the lumen, on average and in three quarters of the directions, where
a lumen is seen: twice the noise of an average of `DIRECTIONS` samples."""

AROUND_MM = (4.0, 6.0, 8.0)
"""Beyond the radius, where the tissue around a piece is looked at."""

SOFT_HU = -400.0
"""Halfway between lung and soft tissue."""

MIDLINE_MM, BEHIND_MM = 22.0, 6.0
"""The oesophagus lies so near to the midline, and its middle at least so far behind that of the trachea."""


PARENT_MM, WIDE_MM = 40.0, 2.5
"""An airway springs from a wider one. It is looked for so far around a piece whose lumen has this radius or more."""

WIDER, MUCH_WIDER = 1.3, 1.8
"""A piece so many times as wide as the widest airway around it is as plausible as any other; from the second on it is
no airway."""


def airway_probability(facts: Facts) -> Floats:
    """P(airway) of pieces, (C,), by facts of `facts_of`: the logistic of the weighted `terms_of`.

    A piece much wider than every airway around it, or a wide one with none around it, is no airway: gas of stomach,
    bowel or oesophagus.
    """
    terms = terms_of(facts)
    weights = SHAPE_ALONE
    if "open" in terms:
        weights = WITH_CT if "probability" in facts else WITHOUT_PROBABILITY
    airway = logistic(weighed(terms, {name: weight for name, weight in weights.items() if name in terms}))
    return airway * ramp(facts["wider"], MUCH_WIDER, WIDER) if "wider" in facts else airway


def facts_of(courses: list[Course], labels: NDArray, spacing_mm: Spacing, seen: Evidence) -> Facts:
    """Facts of all components by name, each (C,) by number; of the background and the tree they mean nothing.

    Of the shape those of `fragment_ends.shape_facts`. With a probability its mean and the upper decile. With a CT:

    - open_share: share of the centerline's points where a dark lumen is seen within a brighter ring. Of the profile
      along `DIRECTIONS` rays across the line, the largest value between the radius less a step and `BEYOND_WALL_MM`
      beyond it exceeds that of the middle by `OPEN_HU`, for the average of all rays and for three rays in four;
    - ring_hu: mean of that average's contrast;
    - around_hu: median HU at `AROUND_MM` beyond the wall less the mean HU in the middle: airways are darker than lung;
    - lumen_hu: mean HU in the middle;
    - soft_share: share of soft tissue there;
    - behind: how much the piece lies as the oesophagus does, 0..1: in the midline, behind the trachea, in soft tissue;
    - far_mm: distance from the tree;
    - wider: how many times as wide a piece is as the widest airway within `PARENT_MM`, by radius; 0 for one thinner
      than `WIDE_MM` and one above the tree, where the trachea is; inf for one with no airway there.
    """
    count = int(labels.max(initial=MAIN)) + 1
    facts = shape_facts(courses, count)
    voxels = np.argwhere(labels > MAIN)
    numbers = labels[tuple(voxels.T)]
    facts["voxels"] = np.bincount(numbers, minlength=count).astype(float)
    if seen.probability is not None:
        facts |= _of_probability(seen.probability[tuple(voxels.T)] / 255, numbers, count)
    pieces = [course for course in courses if course.component != MAIN]
    if seen.hu is not None and pieces:
        facts |= _of_ct(seen.hu, _points_of(pieces), spacing_mm, count)
        facts |= _of_position(courses, facts["soft_share"], count)
    return facts


def _of_probability(values: Floats, numbers: NDArray, count: int) -> Facts:
    order = np.lexsort((values, numbers))
    values, numbers = values[order], numbers[order]
    first = np.searchsorted(numbers, np.arange(count))
    last = np.searchsorted(numbers, np.arange(count), side="right")
    held = last > first
    upper = np.zeros(count)
    upper[held] = values[(first + 0.9 * (last - 1 - first)).round().astype(int)[held]]
    return {"probability": np.bincount(numbers, values, count) / np.maximum(last - first, 1), "upper_decile": upper}


@dataclass(frozen=True, eq=False)
class _Points:
    """Points (K, 3) on the pieces' centerlines, unit vectors along them (K, 3), radii and component numbers (K,)."""

    points_mm: Floats
    along: Floats
    radii: Floats
    numbers: NDArray[np.int64]


def _points_of(pieces: list[Course]) -> _Points:
    total: dict[int, float] = {}
    for piece in pieces:
        total[piece.component] = total.get(piece.component, 0.0) + piece.length_mm
    found = []
    for piece in pieces:
        stride = max(STRIDE_MM, total[piece.component] / MOST_POINTS)
        rows = np.unique(np.searchsorted(piece.along_mm, np.arange(0, piece.length_mm + 1e-6, stride)))
        rows = np.minimum(rows, len(piece.radii_mm) - 1)
        steps = np.gradient(piece.points_mm, axis=0) if len(piece.points_mm) > 1 else np.array([[1.0, 0.0, 0.0]])
        numbers = np.full(len(rows), piece.component)
        found.append((piece.points_mm[rows], unit(steps[rows]), piece.radii_mm[rows], numbers))
    return _Points(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _of_ct(hu: NDArray, at: _Points, spacing_mm: Spacing, count: int) -> Facts:
    radii = np.clip(at.radii, 0.5 * min(spacing_mm), None)
    across = rays_across(at.along, DIRECTIONS)
    steps = np.arange(0, radii.max() + BEYOND_WALL_MM + RAY_STEP_MM, RAY_STEP_MM)
    rays = at.points_mm[:, None, None] + across[:, :, None] * steps[:, None]
    profile = _sampled(hu, rays, spacing_mm)  # (K, D, steps)
    middle = profile[..., steps <= np.maximum(RAY_STEP_MM, 0.5 * np.median(radii))].mean(axis=(1, 2))
    low, high = np.maximum(radii - RAY_STEP_MM, RAY_STEP_MM), radii + BEYOND_WALL_MM
    in_wall = (steps >= low[:, None]) & (steps <= high[:, None])
    ring = np.where(in_wall, profile.mean(axis=1), -np.inf).max(axis=1) - middle
    each = np.where(in_wall[:, None], profile, -np.inf).max(axis=2)
    open_here = (ring > OPEN_HU) & (np.quantile(each, 0.25, axis=1) - middle > OPEN_HU)
    outside = radii[:, None] + np.array(AROUND_MM)
    shell = _sampled(hu, at.points_mm[:, None, None] + across[:, :, None] * outside[:, None, :, None], spacing_mm)
    shell = shell.reshape(len(shell), -1)
    points = np.maximum(np.bincount(at.numbers, minlength=count), 1)

    def mean_of(values: NDArray) -> Floats:
        return np.bincount(at.numbers, values, count) / points

    return {
        "open_share": mean_of(open_here),
        "ring_hu": mean_of(ring),
        "around_hu": mean_of(np.median(shell, axis=1) - middle),
        "soft_share": mean_of((shell > SOFT_HU).mean(axis=1)),
        "lumen_hu": mean_of(middle),
    }


def _sampled(hu: NDArray, points_mm: Floats, spacing_mm: Spacing) -> Floats:
    """HU at points (..., 3), between voxels along straight lines; beyond the border that of the border."""
    places = np.moveaxis(points_mm / np.asarray(spacing_mm), -1, 0)
    return map_coordinates(hu, places, output=np.float32, order=1, mode="nearest")


def _of_position(courses: list[Course], soft_share: Floats, count: int) -> Facts:
    """How far each piece is from the tree, and how much it lies as the oesophagus does."""
    far, behind = np.full(count, np.inf), np.zeros(count)
    of_piece: dict[int, list[Course]] = {}
    for course in courses:
        of_piece.setdefault(course.component, []).append(course)
    if MAIN not in of_piece:
        return {"far_mm": far, "behind": behind, "wider": np.zeros(count)}
    points_of = {number: np.concatenate([course.points_mm for course in own]) for number, own in of_piece.items()}
    radii_of = {number: np.concatenate([course.radii_mm for course in own]) for number, own in of_piece.items()}
    tree, radii = cKDTree(points_of[MAIN]), radii_of[MAIN]
    trachea = max(of_piece[MAIN], key=lambda course: float(course.points_mm[:, 0].max())).points_mm
    for number in points_of.keys() - {MAIN}:
        points = points_of[number]
        distance, nearest = tree.query(points)
        far[number] = max(float((distance - radii[nearest]).min()), 0.0)
        level = trachea[np.abs(trachea[:, 0] - points[:, :1]).argmin(axis=1)]
        aside, back = np.abs(points[:, 2] - level[:, 2]), points[:, 1] - level[:, 1]
        like = ramp(aside, 1.5 * MIDLINE_MM, MIDLINE_MM) * ramp(back, 0, BEHIND_MM)
        behind[number] = float(like.mean()) * float(ramp(soft_share[number], 0.3, 0.6))
    return {"far_mm": far, "behind": behind, "wider": _wider(points_of, radii_of, count)}


def _wider(points: dict[int, Floats], radii: dict[int, Floats], count: int) -> Floats:
    """How many times as wide each piece is as what it could spring from: the tree, a thin piece, or one no wider."""
    median_mm = {number: float(np.median(own)) for number, own in radii.items()}
    wider = np.zeros(count)
    top_mm = points[MAIN][:, 0].max()
    wide = {number for number, mm in median_mm.items() if number != MAIN and mm >= WIDE_MM}
    parents = [number for number in points if number not in wide]
    waiting = {number for number in wide if points[number][:, 0].mean() <= top_mm}
    for number in waiting:
        wider[number] = np.inf
    while waiting and parents:
        tree = cKDTree(np.concatenate([points[number] for number in parents]))
        around_mm, parents = np.concatenate([radii[number] for number in parents]), []
        for number in sorted(waiting):
            near = np.unique(np.concatenate(tree.query_ball_point(points[number], PARENT_MM))).astype(int)
            if len(near):
                wider[number] = min(wider[number], median_mm[number] / float(around_mm[near].max()))
            if wider[number] <= WIDER:
                parents.append(number)
        waiting -= set(parents)
    return wider


WITH_CT = {
    "one": -1.61,
    "slender": 0.38,
    "blunt": -1.2,
    "decile": 0.21,
    "open": 1.2,
    "ring": 0.77,
    "lumen": 0.74,
    "soft": -4.77,
    "pocket": -1.74,
    "behind": -1.92,
}
"""Weights with a CT; fitted on three simulated cases, broken once each, on what the network left loose in two others
and on 112 pieces of four real CTs that were judged by eye (`fit_repair_scores.py` in Testing/benchmarks, with --draws
1, --results and --judged)."""

WITHOUT_PROBABILITY = {
    "one": -4.7,
    "long": 0.42,
    "slender": 1.49,
    "blunt": -0.53,
    "open": 2.55,
    "ring": 0.96,
    "soft": -5.24,
    "pocket": -1.74,
    "behind": -2.47,
}
"""Weights with a CT for a mask that no probability came with: the CT has to show more. Fitted as those above, on five
simulated cases and other shares of the sources."""


def terms_of(facts: Facts) -> Facts:
    """What `airway_probability` weighs, by name, each (C,); facts are those of `facts_of`.

    Beside `fragment_ends.shape_terms`: probability, decile: ramp of the mean probability and of the upper decile from
    0.5 to 1. open: open_share. ring: ring_hu in 100, from -1 to 4. darker: around_hu in 100, from -2 to 2, as far as
    there is lung around. lumen: ramp(lumen_hu, -550, -850). soft: soft_share. pocket: soft tissue all around, far from
    the tree: gas of stomach, colon or oesophagus. behind: the same fact.
    """
    terms = shape_terms(facts)
    if "probability" in facts:
        terms["probability"] = ramp(facts["probability"], 0.5, 1)
        terms["decile"] = ramp(facts["upper_decile"], 0.5, 1)
    if "open_share" in facts:
        terms["open"] = facts["open_share"]
        terms["ring"] = np.clip(facts["ring_hu"] / 100, -1, 4)
        terms["darker"] = np.clip(facts["around_hu"] / 100, -2, 2) * (1 - facts["soft_share"])
        terms["lumen"] = ramp(facts["lumen_hu"], -550, -850)
        terms["soft"] = facts["soft_share"]
        terms["pocket"] = ramp(facts["soft_share"], 0.5, 0.9) * ramp(facts["far_mm"], 5, 25)
        terms["behind"] = facts["behind"]
    return terms
