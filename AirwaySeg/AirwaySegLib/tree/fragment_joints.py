"""Where loose fragments of an airway tree would join it: pairs of ends and points, and how well they fit.

Two questions are asked of a fragment, here of the mask alone and in `repair` with the CT: is it airway (`piece_score`
there, `shape_terms` here), and where does it come from (`joint_terms`). Letters in shapes: K points, C pairs of an end
and a point that it might come from. Lengths are in mm. ``ramp(x, a, b)`` is 0 at a, 1 at b, straight between them and
flat outside.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from AirwaySegLib.tree.airway_tree import AirwayTree, Branch
from AirwaySegLib.tree.fragment_ends import (
    Course,
    Facts,
    Floats,
    Numbers,
    Points,
    ends_of,
    logistic,
    points_along,
    ramp,
    shape_facts,
    shape_terms,
    unit,
    weighed,
)

Point = tuple[float, float, float]

MAIN = 1
"""The number of the tree among the components."""

USUAL_GAP_MM, LARGE_GAP_MM = 8.0, 20.0
"""Widest gaps, from wall to wall, before a short fragment and before a long one: repair bridges up to ten voxels
(DeepTree), which are 6 to 8 mm; a long one is hardly anything but airway, so that a plug before it may be longer."""

SHORT_PIECE_MM, LONG_PIECE_MM = 5.0, 30.0
"""Lengths of fragments, centerline and both ends, between which the widest gap grows."""

WIDEST_JOINT = 1.3
"""Fragment's radius over the tree's: daughters have 0.5 to 0.9 of it (Weibel, 1963), a continued branch 1."""

SHAPE_ALONE = {
    "one": -2.12,
    "long": 0.85,
    "slender": 1.37,
    "blunt": -0.5,
}
JOINT_ALONE = {
    "one": 3.54,
    "gap": -0.49,
    "far": -0.21,
    "bend": -1.86,
    "aside": -1.92,
    "turn": -1.26,
    "beside": -1.02,
    "backwards": -0.29,
    "wider": -1.68,
    "proximal": 1.06,
    "long": 1.0,
}
"""Weights of both questions for a mask alone, fitted by `fit_repair_scores.py` in Testing/benchmarks on three simulated
cases, broken once each (--draws 1)."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """C pairs of a fragment's end and a point of another component, and their facts by name, each (C,)."""

    ends: Points
    others: Points
    facts: Facts

    def __len__(self) -> int:
        return len(self.ends.radii)

    def take(self, rows: Numbers) -> "Pairs":
        """Some of the pairs."""
        return Pairs(
            self.ends.take(rows), self.others.take(rows), {name: values[rows] for name, values in self.facts.items()}
        )


@dataclass(frozen=True)
class Joint:
    """The best way for a fragment to join the tree.

    ``branch`` is the fragment's and ``place_mm`` (x, y, z) its end that looks to the tree; ``other_branch`` the tree's
    and ``other_place_mm`` the point on its centerline. ``score`` 0..1. ``facts``: distance_mm between the lumens,
    angle_deg (none for a single point), tree_angle_deg, radius_ratio, at_tip (1 or 0), and of the whole fragment
    length_mm, radius_mm, volume_mm3.
    """

    branch: int
    place_mm: Point
    other_branch: int
    other_place_mm: Point
    score: float
    facts: dict[str, float]


def reach_mm(length_mm: Floats) -> Floats:
    """Widest gap before a fragment by its length: from `USUAL_GAP_MM` to `LARGE_GAP_MM`."""
    return USUAL_GAP_MM + (LARGE_GAP_MM - USUAL_GAP_MM) * ramp(length_mm, SHORT_PIECE_MM, LONG_PIECE_MM)


def ends_and_targets(courses: list[Course]) -> tuple[Points, Points]:
    """The free ends and bends of the fragments, and all points that they might come from, free ends first."""
    main, pieces = _parted(courses)
    ends = ends_of(pieces, with_bend=True)
    return ends, Points.joined([ends, ends_of(main, with_bend=False), *map(points_along, courses)])


def _parted(courses: list[Course]) -> tuple[list[Course], list[Course]]:
    """The tree's branches and the fragments'."""
    main = [course for course in courses if course.component == MAIN]
    return main, [course for course in courses if course.component != MAIN]


def pair_facts(one: Points, other: Points, whole: Facts) -> Facts:
    """Facts of pairs by name, each (C,); ``whole`` are facts of components by number, of which the first one's count.

    distance_mm: between the lumens. angle_deg: between the end's axis and the way, 60 where it has none. turn_deg:
    between the other point's direction and the way back. at_end: whether that is a free end. radius_ratio: end to
    point. at_tree: whether the point is the tree's. proximal: log of the end's radius over the fragment's mean.
    """
    way = other.points_mm - one.points_mm
    apart = np.linalg.norm(way, axis=1)
    return {
        "distance_mm": np.maximum(apart - one.radii - other.radii, 0),
        "angle_deg": np.degrees(np.arccos(np.where(one.axes.any(axis=1), _cosine(one.axes, way), 0.5))),
        "turn_deg": np.degrees(np.arccos(np.where(other.axes.any(axis=1), _cosine(other.axes, -way), 0.5))),
        "at_end": other.free.astype(float),
        "radius_ratio": one.radii / np.maximum(other.radii, 1e-3),
        "at_tree": (other.components == MAIN).astype(float),
        "at_root": one.is_root.astype(float),
        "proximal": np.log(np.maximum(one.radii, 1e-3) / whole["radius_mm"][one.components]),
        "length_mm": whole["length_mm"][one.components],
    }


def joint_terms(facts: Facts) -> Facts:
    """What the second question weighs, by name, each (C,).

    gap: distance between the lumens in 5 mm. far: the same as a share of the widest gap for such a fragment
    (`reach_mm`). bend: 1 - cos of the angle between the end's axis and the way. aside: gap times sin of that angle.
    turn: 1 - cos of the angle between the other end's axis and the way back; where the other is no end but a branch's
    side, beside = 1, and backwards = how far cos of the angle with that branch's direction is below 0.2 (of a
    fragment's side, whose direction is not known, of the smaller angle). wider, thinner: log of the ratio of radii,
    that beyond 1 and, at an end, that below. proximal: log of the end's radius over the fragment's mean, from -1/2 to
    1/2: the wide end is the proximal one. wrong_way: whether the end is not the one from which the fragment's branches
    are counted, the more the longer it is, from 5 to 15 mm. long: log of the fragment's length in 5 mm, from 2 to 60.
    """
    angle, turn = np.radians(facts["angle_deg"]), np.radians(facts["turn_deg"])
    free, gap_mm = facts["at_end"], facts["distance_mm"]
    ratio = np.log(np.maximum(facts["radius_ratio"], 1e-3))
    along = np.where(facts["at_tree"] > 0, np.cos(turn), np.abs(np.cos(turn)))
    return {
        "one": np.ones_like(free),
        "gap": gap_mm / 5,
        "far": gap_mm / reach_mm(facts["length_mm"]),
        "bend": 1 - np.cos(angle),
        "aside": gap_mm * np.sin(angle) / 5,
        "turn": free * (1 - np.cos(turn)),
        "beside": 1 - free,
        "backwards": (1 - free) * np.maximum(0, 0.2 - along),
        "wider": np.maximum(0, ratio),
        "thinner": free * np.maximum(0, -ratio),
        "proximal": np.clip(facts["proximal"], -0.5, 0.5),
        "long": np.log(np.clip(facts["length_mm"], 2, 60) / 5),
        "wrong_way": (1 - facts["at_root"]) * ramp(facts["length_mm"], 5, 15),
    }


def joints_of_fragments(tree: AirwayTree) -> list[Joint]:
    """One joint for every component but the tree's, in their order.

    Each end of a fragment, and each sharp bend, is compared with the points of the tree that are nearest to it and to
    its prolonged axis, and with the nearest tips. Where it would join is the best by `joint_terms`; the score is
    P(airway) * (1/4 + 3/4 P(joint)), both of the mask alone (`SHAPE_ALONE`, `JOINT_ALONE`); P(joint) falls to 0 between
    the widest gap (`reach_mm`) and twice as much.
    """
    main, pieces = tree.main(), [branch for branch in tree.branches if branch.component > MAIN]
    if not pieces or not main:
        return []
    courses = [Course.of(branch) for branch in [*main, *pieces]]
    whole = shape_facts(courses, max(branch.component for branch in pieces) + 1)
    ends = ends_of(courses[len(main) :], with_bend=True)
    targets = Points.joined([ends_of(courses[: len(main)], with_bend=False), *map(points_along, courses[: len(main)])])
    rows, columns = _candidates(ends, targets)
    facts = pair_facts(ends.take(rows), targets.take(columns), whole)
    fit = logistic(weighed(joint_terms(facts), JOINT_ALONE))
    widest = reach_mm(facts["length_mm"])
    fit *= ramp(facts["distance_mm"], 2 * widest, widest)
    order = np.lexsort((facts["distance_mm"], -fit, ends.components[rows]))
    first = order[np.unique(ends.components[rows][order], return_index=True)[1]]
    airway = logistic(weighed(shape_terms(whole), SHAPE_ALONE))
    volumes = np.bincount([branch.component for branch in pieces], [branch.volume_mm3 for branch in pieces]).astype(
        float
    )
    whole = {"length_mm": whole["length_mm"], "radius_mm": whole["radius_mm"], "volume_mm3": volumes}
    return [
        _joint(ends.take(rows[[row]]), targets.take(columns[[row]]), _of_row(facts, row), whole, airway, fit[row])
        for row in first.tolist()
    ]


def far_radius_mm(branch: Branch) -> float:
    """Median radius of the last third of the branch outside its parent's lumen."""
    own = branch.own_radii_mm
    return float(np.median(own[-max(1, len(own) // 3) :]))


def rounded_point(point: Floats) -> Point:
    """A point (3,) as plain numbers, to the micrometre."""
    x, y, z = (round(float(value), 3) for value in point)
    return x, y, z


RAY_MM = (0.0, 5.0, 10.0, 15.0, 20.0)
"""How far an end is prolonged in search of the tree: a side branch does not spring from the point nearest to it."""

NEAREST_TIPS = 3
"""The tip that a fragment continues need not be the nearest one."""


def _candidates(ends: Points, targets: Points) -> tuple[Numbers, Numbers]:
    """Rows of ends and of the tree's points that are compared, each (C,)."""
    free = np.flatnonzero(targets.free)
    rays = ends.points_mm[:, None] + np.array(RAY_MM)[:, None] * ends.axes[:, None]
    columns = [cKDTree(targets.points_mm).query(rays)[1]]
    if len(free):
        nearest = list(range(1, 1 + min(NEAREST_TIPS, len(free))))
        columns.append(free[cKDTree(targets.points_mm[free]).query(ends.points_mm, k=nearest)[1]])
    together = np.concatenate(columns, axis=1)
    return np.repeat(np.arange(len(together)), together.shape[1]), together.ravel()


def _of_row(facts: Facts, row: int) -> dict[str, float]:
    return {name: float(values[row]) for name, values in facts.items()}


def _joint(end: Points, point: Points, pair: dict[str, float], whole: Facts, airway: Floats, fit: float) -> Joint:
    number = int(end.components[0])
    facts = {
        "distance_mm": pair["distance_mm"],
        "angle_deg": pair["angle_deg"],
        "tree_angle_deg": pair["turn_deg"],
        "radius_ratio": pair["radius_ratio"],
        "at_tip": pair["at_end"],
        **{name: float(values[number]) for name, values in whole.items()},
    }
    if not end.axes.any():
        del facts["angle_deg"]
    score = float(airway[number]) * (0.25 + 0.75 * fit)
    return Joint(
        int(end.branches[0]),
        rounded_point(end.points_mm[0]),
        int(point.branches[0]),
        rounded_point(point.points_mm[0]),
        score,
        {name: round(value, 3) for name, value in facts.items()},
    )


def _cosine(first: Floats, second: Floats) -> Floats:
    return np.clip((unit(first) * unit(second)).sum(axis=-1), -1, 1)
