"""Which end of a loose fragment may be joined to which point of another airway, and how likely it is that one.

Letters in shapes: E ends of fragments, M points of the components' centerlines, C pairs of an end and a point it might
be joined to. Points are (z, y, x) in mm from voxel (0, 0, 0) of the grid, lengths in mm. ``ramp(x, a, b)`` is 0 at a,
1 at b, straight between them and flat outside.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.masks.threshold import SMALLEST_FRAGMENT_VOXELS
from AirwaySegLib.repair.bridge import MAIN
from AirwaySegLib.repair.decide import branches_by_component
from AirwaySegLib.tree.airway_tree import Branch
from AirwaySegLib.tree.build import ParsedAirways
from AirwaySegLib.tree.fragment_joints import AXIS_MM, NOISE_LENGTH_MM, ramp

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Facts = dict[str, Floats]

REACH_MM = 16.0
"""Widest gap, from wall to wall, that a path may bridge."""

ARM_MM = 3.0
"""Shortest arm of a bend; directions are taken over up to `AXIS_MM`."""

BEND_COSINE = -0.5
"""Cosine between the arms of a bend from which on it may be what is left of a fork: airways bend less."""

SAMPLING_STRIDE_MM = 0.8
"""Sampling stride along the centerlines that ends are compared with."""

PATHS_PER_FRAGMENT, MAX_PATHS = 5, 2000
"""Pairs for which a path is searched: the best of each fragment, and the best of all, to finish within seconds."""

SAMPLED_POINTS = 100
"""Points sampled from a fragment to measure its distance from all others."""

PROBABILITY_WEIGHT = 3.0
"""Weight of the probability in the gap: enough to decide where the other terms are balanced."""


@dataclass(frozen=True, eq=False)
class Points:
    """Positions (K, 3), unit vectors (K, 3), radii, component numbers, branch ids, and whether they are free ends.

    Of a free end the vector points outwards, 0 where a fragment is a single point; else away from the branch's root.
    """

    points_mm: Floats
    axes: Floats
    radii: Floats
    components: Numbers
    branches: Numbers
    free: NDArray[np.bool_]

    def take(self, rows: NDArray) -> "Points":
        """Some of the points."""
        return Points(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @classmethod
    def joined(cls, parts: "list[Points]") -> "Points":
        """All points of several."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Pairs:
    """C pairs of an end and a point of another component, and their facts by name, each (C,)."""

    ends: Points
    others: Points
    facts: Facts

    def __len__(self) -> int:
        return len(self.ends.radii)

    def take(self, rows: NDArray) -> "Pairs":
        """Some of the pairs."""
        return Pairs(
            self.ends.take(rows), self.others.take(rows), {name: values[rows] for name, values in self.facts.items()}
        )


def find_pairs(parsed: ParsedAirways, labels: NDArray) -> tuple[Pairs | None, NDArray[np.bool_]]:
    """The pairs worth a search, best first (None for none), and by number which components may be joined.

    Each free end of a fragment, and its sharpest bend (a fork that was broken off), is compared with points of all
    other centerlines within `REACH_MM`. Of the pairs of an end and a component the best with an end and the best with a
    side are kept, of a fragment's `PATHS_PER_FRAGMENT`, and of all `MAX_PATHS`. Fragments shorter than
    `NOISE_LENGTH_MM` (both ends included) or of fewer voxels than `SMALLEST_FRAGMENT_VOXELS` are not searched for.
    """
    members = branches_by_component(parsed, labels, parsed.branch_of_voxel())
    voxels = np.bincount(labels[labels > 0], minlength=MAIN + 1)
    length, radius = np.zeros(len(voxels)), np.full(len(voxels), 1e-3)
    for number, branches in members.items():
        radius[number] = max(np.concatenate([branch.radii_mm for branch in branches]).mean(), 1e-3)
        length[number] = sum(branch.length_mm for branch in branches) + 2 * radius[number]
    joinable = (length >= NOISE_LENGTH_MM) & (voxels >= SMALLEST_FRAGMENT_VOXELS)
    joinable[MAIN] = True
    candidates = [(branch, number) for number, branches in members.items() if joinable[number] for branch in branches]
    if len({number for _, number in candidates}) < 2:
        return None, joinable
    ends = Points.joined([_free_ends(parsed, branch, number) for branch, number in candidates])
    targets = Points.joined([ends, *(_along(parsed, branch, number) for branch, number in candidates)])
    whole = {"slenderness": length / (2 * radius), "apart_mm": _apart_mm(targets, len(voxels))}
    for values in whole.values():
        values[MAIN] = np.inf  # of two fragments the less likely one counts, beside the tree the only one
    pairs = _pairs(ends.take(ends.components != MAIN), targets, whole)
    return (_best_pairs(pairs) if len(pairs) else None), joinable


ALONE = {
    "one": -0.35,
    "gap": -0.3,
    "bend": -0.15,
    "aside": -2.8,
    "turn": -2.75,
    "beside": -1.95,
    "backwards": -0.5,
    "wider": -2.8,
    "thinner": -0.3,
    "slender": 1.8,
    "apart": 2.6,
}
"""Weights of `terms_of` where there is no CT: a logistic regression on 5 400 paths in twelve broken trees, four of them
in real lungs, with about six distractors to every ten pieces of airway; then shifted, because a missed airway and a
distractor that was joined weigh alike there although most paths are neither."""

WITH_CT = {
    "one": 1.7,
    "bend": -0.65,
    "aside": -2.0,
    "turn": -1.6,
    "beside": -1.0,
    "backwards": -0.9,
    "wider": -0.25,
    "wall": 1.75,
    "mean_cost": -3.2,
    "most_cost": -3.6,
}
"""The same with a CT. What it shows makes the fragment's shape and position superfluous; hardly a distractor looks like
an airway, so that the sum was shifted towards joining."""


def terms_of(facts: Facts) -> Facts:
    """What `score_of` weighs, by name, each (C,).

    gap: distance between the lumens in 5 mm. bend: 1 - cos of the angle between the end's axis and the way. aside: gap
    times sin of that angle. turn: 1 - cos of the angle between the other end's axis and the way back; where the other
    is no end but a branch's side, beside = 1 and backwards = how far cos of the angle with that branch's direction is
    below 0.2. wider, thinner: log of the ratio of radii, that beyond 1 and, at an end, that below. slender: log of the
    fragment's length in widths, from 1 to 4. apart: log of the median distance of its centerlines from all others in
    5 mm, from 1 to 15 mm: vessels run along airways, airways part. wall: (contrast - 30 HU) / 30 HU, from -2 to 2, the
    contrast being that of `path_bridges.wall_contrast`. Of two fragments the lesser slender, apart and wall count.
    mean_cost, most_cost: of the path in the gap by the evidence.
    """
    angle, turn = np.radians(facts["angle_deg"]), np.radians(facts["turn_deg"])
    free, gap_mm = facts["at_end"], facts["distance_mm"]
    ratio = np.log(np.maximum(facts["radius_ratio"], 1e-3))
    terms = {
        "one": np.ones_like(free),
        "gap": gap_mm / 5,
        "bend": 1 - np.cos(angle),
        "aside": gap_mm * np.sin(angle) / 5,
        "turn": free * (1 - np.cos(turn)),
        "beside": 1 - free,
        "backwards": (1 - free) * np.maximum(0, 0.2 - np.cos(turn)),
        "wider": np.maximum(0, ratio),
        "thinner": free * np.maximum(0, -ratio),
        "slender": np.log(np.clip(facts["slenderness"], 1, 4)),
        "apart": np.log(np.clip(facts["apart_mm"], 1, 15) / 5),
    }
    if "contrast_hu" in facts:
        terms["wall"] = np.clip((facts["contrast_hu"] - 30) / 30, -2, 2)
        terms["mean_cost"], terms["most_cost"] = facts["mean_cost"], facts["most_cost"]
    return terms


def score_of(facts: Facts) -> Floats:
    """Score 0..1 of paths by their facts, (C,): 1 / (1 + exp(-sum of weight * term)).

    The weights are `WITH_CT` where the facts hold what the CT shows and `ALONE` elsewhere. Where there is a
    probability, `PROBABILITY_WEIGHT` * (ramp(mean probability in the gap, 0.02, 0.3) - 1/3) is added to the sum. It is
    in the costs, too, and so counts twice: with the CT's alone twice as many paths were applied on two real CTs, some
    of them with sharp turns, through lung where the first stage saw nothing, and none led to airway that a reference
    had.
    """
    terms = terms_of(facts)
    weights = WITH_CT if "wall" in terms else ALONE
    logit = np.sum([weight * terms[name] for name, weight in weights.items()], axis=0)
    if "probability" in facts:
        logit = logit + PROBABILITY_WEIGHT * (ramp(facts["probability"], 0.02, 0.3) - 1 / 3)
    return 1 / (1 + np.exp(-logit))


def unit(vectors: Floats) -> Floats:
    """Vectors (..., 3) of length 1; 0 stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _cosine(first: Floats, second: Floats) -> Floats:
    return np.clip((unit(first) * unit(second)).sum(axis=-1), -1, 1)


def _line(parsed: ParsedAirways, branch: Branch) -> tuple[Floats, Floats, Floats]:
    """Points (P, 3) of a branch on the grid, its radii and the way along it, (P,)."""
    part, lines = parsed.lines.of(branch.id - 1), parsed.lines
    corner_mm = np.array([side.start for side in parsed.box]) * np.asarray(parsed.lumen.spacing_mm)
    return lines.places_mm[part] + corner_mm, lines.radii_mm[part], lines.along_mm[part]


def _free_ends(parsed: ParsedAirways, branch: Branch, number: int) -> Points:
    """The free ends of a branch; of a fragment's also the sharpest bend if it is one."""
    points, radii, along = _line(parsed, branch)
    rows, axes, widths = [], [], []
    for row in ([0] if branch.parent is None else []) + ([-1] if not branch.children and len(points) > 1 else []):
        from_end = along if row == 0 else along[-1] - along
        rows.append(row)
        axes.append(unit(points[row] - points[np.abs(from_end - AXIS_MM).argmin()]))
        widths.append(float(np.median(radii[from_end <= AXIS_MM])))
    middle = np.flatnonzero((along >= ARM_MM) & (along <= along[-1] - ARM_MM))
    if number != MAIN and len(middle):
        reached = np.searchsorted(along, along[middle] + np.array([[-AXIS_MM], [AXIS_MM]]))
        arms = unit(points[np.minimum(reached, len(along) - 1)] - points[middle])
        cosines = (arms[0] * arms[1]).sum(axis=1)
        sharpest = int(cosines.argmax())
        if cosines[sharpest] > BEND_COSINE:
            rows.append(int(middle[sharpest]))
            axes.append(unit(-arms[:, sharpest].sum(axis=0)))
            widths.append(float(radii[middle[sharpest]]))
    return _points(points[rows], np.reshape(axes, (-1, 3)), np.array(widths), (number, branch.id), free=True)


def _along(parsed: ParsedAirways, branch: Branch, number: int) -> Points:
    """Points of a branch every `SAMPLING_STRIDE_MM` with its direction."""
    points, radii, along = _line(parsed, branch)
    # At the very end a step's rounding may point one beyond the last row.
    wanted = np.searchsorted(along, np.arange(0, along[-1] + 1e-6, SAMPLING_STRIDE_MM))
    rows = np.unique(np.minimum(wanted, len(along) - 1))
    steps = np.gradient(points, axis=0) if len(points) > 1 else np.zeros((1, 3))
    return _points(points[rows], unit(steps[rows]), radii[rows], (number, branch.id), free=False)


def _points(points: Floats, axes: Floats, radii: Floats, owner: tuple[int, int], free: bool) -> Points:
    number, branch = (np.full(len(points), one) for one in owner)
    return Points(points, axes, radii, number, branch, np.full(len(points), free))


def _pairs(ends: Points, targets: Points, whole: Facts) -> Pairs:
    """All pairs within reach (beside much wider lumens than most somewhat less of it is searched).

    ``whole`` are facts of the fragments, by number.
    """
    near = cKDTree(targets.points_mm).query_ball_point(ends.points_mm, REACH_MM + 2 * float(np.median(targets.radii)))
    first = np.repeat(np.arange(len(near)), [len(rows) for rows in near])
    second = np.concatenate([np.asarray(rows, int) for rows in near])
    apart = ends.components[first] != targets.components[second]
    one, other = ends.take(first[apart]), targets.take(second[apart])
    way = other.points_mm - one.points_mm
    distance = np.maximum(np.linalg.norm(way, axis=1) - one.radii - other.radii, 0)
    has_axis = one.axes.any(axis=1)
    number = one.components
    facts = {
        "distance_mm": distance,
        "angle_deg": np.degrees(np.arccos(np.where(has_axis, _cosine(one.axes, way), 0.5))),
        "turn_deg": np.degrees(np.arccos(np.where(other.axes.any(axis=1), _cosine(other.axes, -way), 0.5))),
        "at_end": other.free.astype(float),
        "radius_ratio": one.radii / np.maximum(other.radii, 1e-3),
        **{name: np.minimum(values[number], values[other.components]) for name, values in whole.items()},
    }
    pairs = Pairs(one, other, facts)
    return pairs.take(np.flatnonzero(distance <= REACH_MM))


def _apart_mm(targets: Points, count: int) -> Floats:
    """Median distance of each fragment's centerlines from those of all other components, by number."""
    apart, everything = np.zeros(count), cKDTree(targets.points_mm)
    order = np.argsort(targets.components, kind="stable")
    numbers, first = np.unique(targets.components[order], return_index=True)
    for number, rows in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
        if number != MAIN:
            # Among so many neighbours there is at least one that is not the fragment's own.
            some = rows[:: 1 + len(rows) // SAMPLED_POINTS]
            distance, nearest = everything.query(targets.points_mm[some], k=len(rows) + 1)
            distance[targets.components[nearest] == number] = np.inf
            apart[number] = np.median(distance.min(axis=1))
    return apart


def _best_pairs(pairs: Pairs) -> Pairs:
    """The best of each end, other component and kind; of these the best of each fragment; of these the best of all."""
    score = score_of(pairs.facts)
    order = np.argsort(-score, kind="stable")
    key = np.column_stack([pairs.ends.points_mm, pairs.others.components, pairs.others.free])[order]
    order = order[np.sort(np.unique(key, axis=0, return_index=True)[1])]
    by_fragment = order[np.argsort(pairs.ends.components[order], kind="stable")]
    numbers = pairs.ends.components[by_fragment]
    _, first, count = np.unique(numbers, return_index=True, return_counts=True)
    rank = np.arange(len(numbers)) - np.repeat(first, count)
    kept = by_fragment[rank < PATHS_PER_FRAGMENT]
    return pairs.take(kept[np.argsort(-score[kept], kind="stable")][:MAX_PATHS])
