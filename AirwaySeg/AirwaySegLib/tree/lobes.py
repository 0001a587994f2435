"""Estimates which lobe each airway of a lung serves, from where its subtrees lie.

Rules of thumb about adult chests. Letters in shapes: S sides, the subtrees of one lung. Directions are (outward, back,
up), the same in both lungs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.airway_tree import LEFT_MAIN, LOBES, RIGHT_MAIN
from AirwaySegLib.tree.shape import LEFT, RIGHT, Findings, Shape, Vector

INTERMEDIUS = "bronchus intermedius"
LOBAR_BRONCHUS = {lobe: f"{lobe} bronchus" for lobe in LOBES}
MAIN_NAME = {RIGHT: RIGHT_MAIN, LEFT: LEFT_MAIN}
SIDE_NAME = {RIGHT: "right", LEFT: "left"}

KINDS = UPPER, MIDDLE, LOWER = 0, 1, 2
LOBE_OF = {
    RIGHT: {UPPER: "right upper lobe", MIDDLE: "right middle lobe", LOWER: "right lower lobe"},
    LEFT: {UPPER: "left upper lobe", LOWER: "left lower lobe"},
}
LOWER_LOBES = ("right lower lobe", "left lower lobe")

TO_THE_BASE = np.array([0.0, 0.45, -0.9])
"""The way that is followed from the hilum leads to the subtree that lies farthest in this direction."""
DIRECTIONS = {
    UPPER: ((0.6, 0.0, 0.8), (0.4, 0.5, 0.75), (0.65, -0.6, 0.45)),
    MIDDLE: ((0.5, -0.75, -0.4),),
    LOWER: ((0.35, 0.3, -0.9), (0.4, 0.85, 0.2)),
}
"""Where the subtrees of a lobe lie, seen from where they leave that way: the whole lobe, or parts that leave alone."""
LEFT_UPPER_DIRECTIONS = (*DIRECTIONS[UPPER], *DIRECTIONS[MIDDLE])
"""The lingula lies where the middle lobe does on the other side."""

REACH_MM, BEYOND_REACH_MM = np.array([20.0, 45.0, np.inf]), 15.0
"""The bronchi of upper, middle and lower lobe leave within this distance of the first branching; out of reach is what
leaves farther on by the second distance, and in part what lies between."""
NO_LOWER_LOBE = 0.02
"""What the mean cosine must gain if the lower lobe is said to be missing."""
INTERMEDIUS_MM = 40.0
"""A bronchus intermedius that ends without a branching may be this long before it counts as lower lobe."""
MOST_FORKS = 8
"""So many branchings along the way to the base are looked at; what lies beyond follows."""
NAME_CONFIDENCE = 0.6
"""A lobar bronchus gets its name from this confidence on."""
SURE_LEAD, SURE_MM = 0.3, 10.0
"""A lead of this much in cosine leaves another lobe a chance of 0.5 / e; a subtree of this length halves the
confidence."""
TRUST_WITHOUT_A_LOBE = 0.8
"""Factor of a lung's confidences for each lobe of which no branch was found: another one may have its name."""


@dataclass
class Lung:
    """One lung's tree along the way from its main bronchus to the base.

    ``runs[n]`` are the stretches from branching n to the next, ``sides`` the other subtrees with the number of the
    branching at which they leave: 0 is the carina or above. The subtree of the last run is the last side, with a number
    of its own, if there is any branching.
    """

    shape: Shape
    side: int
    runs: list[list[int]]
    sides: list[tuple[int, int]]

    @cached_property
    def branching(self) -> NDArray[np.int64]:
        """Number of the branching at which each side leaves, (S,)."""
        return np.array([number for _, number in self.sides])

    @cached_property
    def length_mm(self) -> Vector:
        """Length of each side, (S,)."""
        return self.shape.below_mm[[first for first, _ in self.sides]]

    @cached_property
    def run_mm(self) -> Vector:
        """Length of each run."""
        return np.array([self.shape.own_mm[run].sum() for run in self.runs])


def walk_to_the_base(shape: Shape, side: int, main: int, high: list[int]) -> Lung:
    """Follow a main bronchus to the back of the base; ``high`` are subtrees that leave at the carina or above."""
    runs, sides = [shape.run(main)], [(first, 0) for first in high]
    while len(runs) <= MOST_FORKS and len(ahead := shape.forks(runs[-1][-1])) > 1:
        onward = max(ahead, key=lambda child: float(shape.towards(child, side) @ TO_THE_BASE))
        sides += [(child, len(runs)) for child in ahead if child != onward]
        runs.append(shape.run(onward))
    if len(runs) > 1:
        sides.append((runs[-1][0], len(runs)))
    return Lung(shape, side, runs, sides)


def name_lung(lung: Lung, trust: float, found: Findings) -> None:
    """Add names, lobes and warnings of one lung to ``found``; ``trust`` 0..1 scales the confidence."""
    found.name(lung.runs[0], MAIN_NAME[lung.side])
    if len(lung.runs) == 1:
        found.warnings.append(f"The {SIDE_NAME[lung.side]} lung's airways end with the main bronchus.")
    if not lung.sides:
        return
    kinds, confidence = choose_lobes(lung)
    base = _name_the_way(lung, kinds, found)
    groups = [
        (first, [row]) for row, (first, number) in enumerate(lung.sides) if number <= min(base, len(lung.runs) - 1)
    ]
    if base < len(lung.runs):
        groups.append((lung.runs[base][0], np.flatnonzero(lung.branching > base).tolist()))
    seen = {int(kinds[rows[0]]) for _, rows in groups}
    missing = [lobe for kind, lobe in LOBE_OF[lung.side].items() if kind not in seen]
    found.warnings.extend(f"No branch of the {lobe} was found." for lobe in missing)
    trust *= TRUST_WITHOUT_A_LOBE ** len(missing)
    for first, rows in groups:
        lobe = LOBE_OF[lung.side][int(kinds[rows[0]])]
        value = trust * float(np.average(confidence[rows], weights=lung.length_mm[rows]))
        found.lobes.update({branch.id: (lobe, value) for branch in lung.shape.tree.below(first)})
    _name_lobar_bronchi(lung.shape, [first for first, _ in groups], found)


def choose_lobes(lung: Lung) -> tuple[NDArray[np.int64], Vector]:
    """The kind of lobe of each of the lung's S sides, and the confidence 0..1, both (S,).

    A side fits a kind as well as its direction fits the best of the kind's `DIRECTIONS` (cosine, weighted by length),
    less up to 1 if the lobe's bronchus leaves out of reach. Of all `_assignments` the best fitting one is taken. The
    confidence grows with its lead over the best assignment in which the side is of another kind (no lead: 0.5), and
    with the side's length.
    """
    cosine = _cosines(lung)
    weight = lung.length_mm / lung.length_mm.sum()
    best = np.full(cosine.shape, -np.inf)
    for possible in _assignments(lung):
        fit = cosine - _out_of_reach(lung, possible.leaves)
        score = np.where(possible.kinds, fit * weight[:, None], -np.inf)
        own = score.max(axis=1, keepdims=True)
        best = np.maximum(best, own.sum() - own + score - possible.unlikely)
    ranked = np.sort(best, axis=1)
    lead = (ranked[:, -1] - np.maximum(ranked[:, -2], ranked[:, -1] - 9)) / weight
    seen = lung.length_mm / (lung.length_mm + SURE_MM)
    return best.argmax(axis=1), (1 - 0.5 * np.exp(-lead / SURE_LEAD)) * seen


@dataclass(frozen=True)
class _Assignment:
    """Which kinds each side may be of, (S, 3), the branching at which its lobe leaves the way, (S,), and a penalty."""

    kinds: NDArray[np.bool_]
    leaves: NDArray[np.int64]
    unlikely: float = 0.0


def _assignments(lung: Lung) -> Iterator[_Assignment]:
    """No upper lobe leaves below another lobe, and the middle lobe at one branching.

    Or the lower lobe is missing; then the way to the base leads into the last lobe that is left.
    """
    numbers = range(len(lung.runs) + 1)
    none, every = np.zeros(len(lung.sides), bool), np.ones(len(lung.sides), bool)
    for last_upper in numbers:
        upper, below = lung.branching <= last_upper, lung.branching >= last_upper
        yield _Assignment(np.stack([upper, none, below], axis=1), lung.branching)
        if lung.side == RIGHT:
            for middle in numbers[last_upper:]:
                yield _Assignment(np.stack([upper, lung.branching == middle, below], axis=1), lung.branching)
            leaves = np.minimum(lung.branching, last_upper + 1)
            yield _Assignment(np.stack([upper, below, none], axis=1), leaves, NO_LOWER_LOBE)
    yield _Assignment(np.stack([every, none, none], axis=1), np.minimum(lung.branching, 1), NO_LOWER_LOBE)


def _cosines(lung: Lung) -> Vector:
    """Cosine between each side's direction and the nearest one of each kind of lobe, (S, 3)."""
    ways = np.array([lung.shape.towards(first, lung.side) for first, _ in lung.sides])
    ways /= np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-9)
    directions = [LEFT_UPPER_DIRECTIONS if lung.side == LEFT and kind == UPPER else DIRECTIONS[kind] for kind in KINDS]
    units = [np.array(kind) / np.linalg.norm(kind, axis=1, keepdims=True) for kind in directions]
    return np.stack([(ways @ kind.T).max(axis=1) for kind in units], axis=1)


def _out_of_reach(lung: Lung, leaves: NDArray[np.int64]) -> Vector:
    """How far, 0..1, each kind of lobe is out of reach where a side's lobe leaves, (S, 3)."""
    way_mm = np.cumsum([0.0, *lung.run_mm])[np.minimum(leaves, len(lung.runs) - 1)]
    return np.clip((way_mm[:, None] - lung.run_mm[0] - REACH_MM) / BEYOND_REACH_MM, 0, 1)


def _name_the_way(lung: Lung, kinds: NDArray[np.int64], found: Findings) -> int:
    """Name the runs beyond the main bronchus that serve several lobes; the number of the first run within one lobe."""
    for number in range(1, len(lung.runs)):
        before, beyond = kinds[lung.branching <= number], kinds[lung.branching > number]
        upper_is_past = lung.side == RIGHT and UPPER in before and UPPER not in beyond
        ends = number == len(lung.runs) - 1 and not lung.shape.branch(lung.runs[number][-1]).children
        stump = ends and bool((before == UPPER).all()) and lung.run_mm[number] <= INTERMEDIUS_MM
        if len(set(beyond.tolist())) == 1 and not (stump and upper_is_past):
            return number
        found.name(lung.runs[number], INTERMEDIUS if upper_is_past else MAIN_NAME[lung.side])
    return len(lung.runs)


def _name_lobar_bronchi(shape: Shape, firsts: list[int], found: Findings) -> None:
    """Name the bronchus of each lobe that has but one; a lower lobe's is the last one, on the way to the base."""
    lobes = [found.lobes[first][0] for first in firsts]
    for index, (first, lobe) in enumerate(zip(firsts, lobes, strict=True)):
        is_only = lobes.count(lobe) == 1 or (index == len(firsts) - 1 and lobe in LOWER_LOBES)
        if is_only and found.lobes[first][1] >= NAME_CONFIDENCE:
            found.name(shape.run(first), LOBAR_BRONCHUS[lobe])
