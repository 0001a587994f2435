"""Estimates which bronchopulmonary segment each airway of a lobe serves, by where its subtree leads.

A drawn atlas of directions, not learned. Letters in shapes: K segments of a lobe, M = 2 ** K sets of them. Directions
are (outward, back, up) in the patient's own axes, the same in both lungs.
"""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.shape import LEFT, RIGHT, Findings, Shape, Vector

Numbers = NDArray[np.int64]

SEGMENTS: dict[str, tuple[str, str, tuple[float, float, float]]] = {
    "RB1": ("right upper lobe", "apical", (0.25, 0.05, 0.97)),
    "RB2": ("right upper lobe", "posterior", (0.60, 0.66, 0.45)),
    "RB3": ("right upper lobe", "anterior", (0.58, -0.80, 0.15)),
    "RB4": ("right middle lobe", "lateral", (0.72, -0.58, -0.38)),
    "RB5": ("right middle lobe", "medial", (0.15, -0.86, -0.48)),
    "RB6": ("right lower lobe", "superior", (0.32, 0.80, 0.50)),
    "RB7": ("right lower lobe", "medial basal", (-0.05, -0.10, -0.99)),
    "RB8": ("right lower lobe", "anterior basal", (0.55, -0.38, -0.74)),
    "RB9": ("right lower lobe", "lateral basal", (0.66, 0.20, -0.72)),
    "RB10": ("right lower lobe", "posterior basal", (0.13, 0.53, -0.84)),
    "LB1+2": ("left upper lobe", "apicoposterior", (0.35, 0.20, 0.91)),
    "LB3": ("left upper lobe", "anterior", (0.55, -0.80, 0.22)),
    "LB4": ("left upper lobe", "superior lingular", (0.86, -0.48, -0.17)),
    "LB5": ("left upper lobe", "inferior lingular", (0.60, -0.52, -0.61)),
    "LB6": ("left lower lobe", "superior", (0.32, 0.80, 0.50)),
    "LB8": ("left lower lobe", "anteromedial basal", (0.55, -0.34, -0.76)),
    "LB9": ("left lower lobe", "lateral basal", (0.67, 0.16, -0.72)),
    "LB10": ("left lower lobe", "posterior basal", (0.17, 0.46, -0.87)),
}
"""Lobe, name and direction of each segment's airways, seen from `origin_of_lobe`. LB8 includes the
medial basal bronchus, which leaves with it (Boyden, Segmental Anatomy of the Lungs, 1955)."""

SPREAD_DEG = 25.0
"""The airways of a segment scatter by so much around its direction (SD)."""
LOWER_LOBES = ("right lower lobe", "left lower lobe")
STEM_SHARE, MOST_STEM_MM = 0.6, 25.0
"""A lower lobe's directions are seen from the end of its stem: branches that carry this share, at most so far on."""
OBSERVATION_MM = 20.0
"""So much length of airway counts as one independent observation: neighbouring airways lead the same way."""
NEAR_MM = 15.0
"""Points this far from the origin have half the weight of distant ones: the way out of the hilum says little."""
NEW_COST, AGAIN_COST, MISSING_COST, NONE_DEG = 0.7, 1.5, 3.0, 55.0
"""Costs, in halves of squared standard deviations: of each subtree that is a segment, more if another subtree of the
same segment has left before, and of a segment without airways. What lies in no segment costs as if so far off."""
SMALL_COST, SMALL_SHARE = 3.0, 0.05
"""A subtree costs more, up to the first, if it has about this share of the lobe's length or less."""
SURE_COST, SURE_MM = 1.2, 8.0
"""A lead of this cost leaves another segment a chance of 0.5 / e; a subtree of this length halves the confidence."""
LEAST_CONFIDENCE = 0.5
"""Below this a segment is not named."""


def full_name(segment: str) -> str:
    """A segment's name in words, such as "RB1 apical, right upper lobe"; empty for none."""
    return f"{segment} {SEGMENTS[segment][1]}, {SEGMENTS[segment][0]}" if segment else ""


@dataclass
class _Lobe:
    """The branches of one lobe, parents first, with their costs.

    ``cost`` (B, K) is that of each branch alone in each segment, ``off`` (B,) that of being in none; B branches.
    """

    names: list[str]
    members: list[int]
    children: dict[int, list[int]]
    cost: Vector
    off: Vector
    length_mm: Vector
    row: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.row = {number: row for row, number in enumerate(self.members)}


def name_segments(shape: Shape, found: Findings) -> None:
    """Add the segment of each branch that has a lobe to ``found``, with a confidence 0..1; none where it is doubtful.

    Within a lobe all ways to divide its tree into subtrees of segments are compared: a common stem belongs to none, and
    a segment may have several subtrees. ``shape`` is in the patient's own axes. The confidence grows with the lead over
    the best division in which the subtree is of another segment (no lead: 0.5), with its length, and with the lobe's.
    """
    for lobe in sorted({lobe for lobe, _ in found.lobes.values()}):
        inside = _lobe(shape, found, lobe)
        chosen = _divide(inside)
        least = _total(inside, inside.cost)
        for first, segment in chosen.items():
            below = _below(inside, first)
            rows = [inside.row[number] for number in below]
            rival = inside.cost.copy()
            rival[rows, segment] += 1e6
            lead = _total(inside, rival) - least
            length_mm = float(inside.length_mm[rows].sum())
            confidence = (1 - 0.5 * float(np.exp(-lead / SURE_COST))) * length_mm / (length_mm + SURE_MM)
            confidence *= found.lobes[first][1]
            if confidence >= LEAST_CONFIDENCE * found.lobes[first][1] and confidence > 0:
                found.segments.update(dict.fromkeys(below, (inside.names[segment], confidence)))


def _lobe(shape: Shape, found: Findings, lobe: str) -> _Lobe:
    """The lobe's branches and what they cost."""
    side = RIGHT if lobe.startswith("right") else LEFT
    names = [name for name, (of, _, _) in SEGMENTS.items() if of == lobe]
    directions = np.array([SEGMENTS[name][2] for name in names])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    members = [branch.id for branch in shape.tree.branches if found.lobes.get(branch.id, ("", 0.0))[0] == lobe]
    inside = set(members)
    firsts = [number for number in members if shape.branch(number).parent not in inside]
    origin = origin_of_lobe(shape, members, lobe)
    cost, off, lengths = [], [], []
    for number in members:
        branch = shape.branch(number)
        middle = (branch.points_mm[1:] + branch.points_mm[:-1]) / 2 - origin
        step_mm = np.diff(branch.along_mm)
        far_mm = np.linalg.norm(middle, axis=1)
        ways = middle * [side, 1, 1] / np.maximum(far_mm, 1e-6)[:, None]
        weight = step_mm * far_mm / (far_mm + NEAR_MM) / OBSERVATION_MM
        degrees = np.degrees(np.arccos(np.clip(ways @ directions.T, -1, 1)))
        cost.append(weight @ (0.5 * (degrees / SPREAD_DEG) ** 2))
        off.append(0.5 * (NONE_DEG / SPREAD_DEG) ** 2 * float(weight.sum()))
        lengths.append(branch.length_mm)
    children = {number: [child for child in shape.branch(number).children if child in inside] for number in members}
    children[0] = firsts
    return _Lobe(names, members, children, np.array(cost), np.array(off), np.array(lengths))


def origin_of_lobe(shape: Shape, members: list[int], lobe: str) -> Vector:
    """The point from which the directions of a lobe's airways, the branches ``members``, are seen, (3,)."""
    inside = set(members)
    firsts = [number for number in members if shape.branch(number).parent not in inside]
    return np.average([_origin_mm(shape, first, lobe) for first in firsts], axis=0, weights=shape.below_mm[firsts])


def _origin_mm(shape: Shape, first: int, lobe: str) -> Vector:
    """That of the airways that begin with one branch, (3,).

    It is the start of the lobe's bronchus; of a lower lobe the end of the stem that most of the lobe's airways share.
    """
    if lobe not in LOWER_LOBES:
        return shape.start_mm(first)
    stem, number = 0, first
    while shape.below_mm[number] >= STEM_SHARE * shape.below_mm[first]:
        stem, ahead = number, shape.forks(number)
        if not ahead:
            break
        number = max(ahead, key=lambda child: float(shape.below_mm[child]))
    way = shape.end_mm(stem) - shape.start_mm(first)
    return shape.start_mm(first) + way * min(1.0, MOST_STEM_MM / max(float(np.linalg.norm(way)), 1e-9))


def _below(lobe: _Lobe, first: int) -> list[int]:
    """A branch and what springs from it within the lobe."""
    found = [first]
    for number in found:
        found += lobe.children[number]
    return found


def _tables(lobe: _Lobe, cost: Vector) -> tuple[dict[int, Vector], dict[int, Vector]]:
    """The least cost of each subtree that holds exactly each set of segments, (M,), and its cost in one, (K,), by id.

    Set 0 is that of a subtree in no segment. Id 0 is the whole lobe.
    """
    best: dict[int, Vector] = {}
    whole: dict[int, Vector] = {}
    one = 1 << np.arange(len(lobe.names))
    for number in [*reversed(lobe.members), 0]:
        table = _together([best[child] for child in lobe.children[number]], len(lobe.names))
        if number:
            row = lobe.row[number]
            whole[number] = cost[row] + np.sum([whole[child] for child in lobe.children[number]], axis=0)
            stem = 0.0 if lobe.children[number] else float(lobe.off[row])
            table = table + stem
            table[0] = lobe.off[row] + (table[0] if lobe.children[number] else 0.0)
            table[one] = np.minimum(table[one], whole[number] + _new_cost(lobe, number))
        best[number] = table
    return best, whole


def _new_cost(lobe: _Lobe, first: int) -> float:
    """The cost of a subtree that is a segment: more for a small one, which may lead anywhere."""
    length_mm = float(lobe.length_mm[[lobe.row[number] for number in _below(lobe, first)]].sum())
    return NEW_COST + SMALL_COST * float(np.exp(-length_mm / (SMALL_SHARE * max(float(lobe.length_mm.sum()), 1e-6))))


def _members(sets: Numbers) -> Numbers:
    """How many segments each set holds."""
    return np.array([int(one).bit_count() for one in range(int(sets.max()) + 1)])[sets]


@cache
def _pairs(segments: int) -> tuple[NDArray, NDArray, NDArray]:
    """Of all pairs of sets: the cost of what they share, (M, M); their order by union, and where each union begins."""
    sets = np.arange(1 << segments)
    union = (sets[:, None] | sets).ravel()
    order = np.argsort(union, kind="stable")
    return _members(sets[:, None] & sets) * AGAIN_COST, order, np.searchsorted(union[order], sets)


def _together(tables: list[Vector], segments: int) -> Vector:
    """The least cost of several subtrees that together hold each set, (M,)."""
    total = np.full(1 << segments, np.inf)
    total[0] = 0.0
    shared, order, starts = _pairs(segments)
    for table in tables:
        pairs = total[:, None] + table + shared
        total = np.minimum.reduceat(pairs.ravel()[order], starts)
    return total


def _with_missing(table: Vector, segments: int) -> Vector:
    """A whole lobe's table with the cost of what it lacks."""
    return table + MISSING_COST * (segments - _members(np.arange(len(table))))


def _total(lobe: _Lobe, cost: Vector) -> float:
    """The cost of the best division of a lobe."""
    return float(_with_missing(_tables(lobe, cost)[0][0], len(lobe.names)).min())


def _divide(lobe: _Lobe) -> dict[int, int]:
    """The best division: the segment (its number) by the id of the subtree's first branch."""
    best, whole = _tables(lobe, lobe.cost)
    chosen: dict[int, int] = {}
    todo = [(0, int(_with_missing(best[0], len(lobe.names)).argmin()))]
    while todo:
        number, wanted = todo.pop()
        if number and wanted and wanted & (wanted - 1) == 0:
            segment = wanted.bit_length() - 1
            if whole[number][segment] + _new_cost(lobe, number) <= best[number][wanted] + 1e-9:
                chosen[number] = segment
                continue
        if wanted:
            todo += _shared_out(lobe, [(child, best[child]) for child in lobe.children[number]], wanted)
    return chosen


def _shared_out(lobe: _Lobe, tables: list[tuple[int, Vector]], wanted: int) -> list[tuple[int, int]]:
    """Which set each child holds in the cheapest way to hold ``wanted`` together."""
    found = []
    while tables:
        child, table = tables[-1]
        before = _together([other for _, other in tables[:-1]], len(lobe.names))
        sets = np.arange(len(table))
        pairs = before[:, None] + table + _members(sets[:, None] & sets) * AGAIN_COST
        pairs[(sets[:, None] | sets) != wanted] = np.inf
        first, second = np.unravel_index(int(pairs.argmin()), pairs.shape)
        found.append((child, int(second)))
        wanted, tables = int(first), tables[:-1]
    return found
