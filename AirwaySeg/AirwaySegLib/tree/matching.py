"""Two trees of one patient at two times: which branches are the same, and whether that can be trusted.

Both trees are walked down from the carina together. At a pair of forkings each way to a forking below is compared, as a
vector, with the ways of the other tree: the patient may lie otherwise, and another breath bends the whole tree. A way
may pass a forking or two that the other scan does not show. Turn and scale follow from the pairs, and the walk is
repeated with them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.airway_tree import LEFT_MAIN, RIGHT_MAIN, TRACHEA, AirwayTree, Branch

TOLERANCE_MM, TOLERANCE = 2.0, 0.3
"""Two ways are the same if their ends lie no further apart than this, and this share of their length."""
PASSED, PASSED_COST = 2, 0.2
"""How many forkings a way may pass that the other tree does not have, and what each costs of the tolerance."""
ROUNDS = 8
AXIS_MM = 25.0
"""How much of trachea and main bronchi gives the first guess of the turn."""

FEWEST, COVERED, LARGEST_ERROR, SCALES = 10, 0.6, 0.35, (0.8, 1.25)
"""Limits of a sound match. Of 43 pairs of different patients, 15 real and 28 grown, those with 10 pairs of branches or
more had an error of 0.52 or more; 40 trees that were turned, scaled, bent and lost tips one of 0.11 or less."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """Branches of two trees that are the same.

    ``pairs`` (N, 2) are ids of branches between two forkings that both trees have, and no other between them.
    ``covered`` is the share of the length between the forkings of the lesser tree that lies on ways which the other
    has, too; ``error`` the median distance of their ends, in parts of the tolerance; ``scale`` the size of the second
    tree in parts of the first; ``turn_deg`` by how much it is turned.
    """

    pairs: NDArray[np.int64]
    covered: float = 0.0
    error: float = np.inf
    scale: float = 1.0
    turn_deg: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether both trees are of one patient as far as they tell; if not, no pair should be used."""
        return (
            len(self.pairs) >= FEWEST
            and self.covered >= COVERED
            and self.error <= LARGEST_ERROR
            and SCALES[0] <= self.scale <= SCALES[1]
        )


@dataclass(frozen=True)
class _Way:
    """Branches from a forking to one below; ``vector_mm`` (3,) leads from its start to its end."""

    branches: tuple[Branch, ...]

    @property
    def vector_mm(self) -> Matrix:
        return self.branches[-1].points_mm[-1] - self.branches[0].points_mm[0]

    @property
    def length_mm(self) -> float:
        return sum(branch.length_mm for branch in self.branches)


NO_MATCH = Match(np.empty((0, 2), np.int64))


def match_trees(one: AirwayTree, other: AirwayTree) -> Match:
    """Match the branches of two trees; `NO_MATCH` where one of them shows no carina or no main bronchi."""
    axes = _axes(one), _axes(other)
    if axes[0] is None or axes[1] is None:
        return NO_MATCH
    turn, scale = _turn(axes[1], axes[0]), 1.0
    found: list[tuple[_Way, _Way, float]] = []
    known: set[tuple[int, int]] = set()
    for _ in range(ROUNDS):
        found = _walk(one, other, scale * turn)
        ends = {(first.branches[-1].id, second.branches[-1].id) for first, second, _ in found}
        if len(found) < 4 or ends == known:
            break
        known = ends
        forkings = np.array([[way.branches[-1].points_mm[-1] for way in pair[:2]] for pair in found])
        turn, scale = _similarity(forkings[:, 1], forkings[:, 0])
    return _match(one, other, found, scale, turn)


def _axes(tree: AirwayTree) -> Matrix | None:
    """Unit vectors up the trachea and down the right and left main bronchus, (3, 3); None if one is missing."""
    if tree.carina_mm is None:
        return None
    vectors = []
    for name in (TRACHEA, RIGHT_MAIN, LEFT_MAIN):
        points = [branch.points_mm for branch in tree.named(name)]
        if not points:
            return None
        away = np.concatenate(points) - tree.carina_mm
        near = away[np.linalg.norm(away, axis=1) <= AXIS_MM]
        vector = near[np.linalg.norm(near, axis=1).argmax()] if len(near) else away[0]
        vectors.append(vector / max(float(np.linalg.norm(vector)), 1e-6))
    return np.array(vectors)


def _turn(moving: Matrix, fixed: Matrix) -> Matrix:
    """The rotation (3, 3) that turns vectors (N, 3) best onto others (Kabsch 1976, doi:10.1107/S0567739476001873)."""
    u, _, vt = np.linalg.svd(fixed.T @ moving)
    sign = np.sign(np.linalg.det(u @ vt))
    return np.asarray(u @ np.diag([1.0, 1.0, sign]) @ vt)


def _similarity(moving: Matrix, fixed: Matrix) -> tuple[Matrix, float]:
    """Rotation and scale that bring points (N, 3) onto others (Umeyama 1991, doi:10.1109/34.88573)."""
    moving, fixed = moving - moving.mean(axis=0), fixed - fixed.mean(axis=0)
    turn = _turn(moving, fixed)
    spread = float((moving**2).sum())
    return turn, float((fixed * (moving @ turn.T)).sum()) / spread if spread else 1.0


def _walk(one: AirwayTree, other: AirwayTree, matrix: Matrix) -> list[tuple[_Way, _Way, float]]:
    """The ways that both trees have, with the distance of their ends in parts of the tolerance.

    ``matrix`` (3, 3) turns and scales the other tree.
    """
    found = []
    open_pairs = [(tuple(_mains(one)), tuple(_mains(other)))]
    while open_pairs:
        first, second = open_pairs.pop()
        for way, like, error in _alike(one, other, (first, second), matrix):
            found.append((way, like, error))
            open_pairs.append((_children(one, way.branches[-1]), _children(other, like.branches[-1])))
    return found


def _mains(tree: AirwayTree) -> Iterator[Branch]:
    """What leaves the carina: the first stretches of the main bronchi."""
    for name in (RIGHT_MAIN, LEFT_MAIN):
        yield tree.named(name)[0]


def _children(tree: AirwayTree, branch: Branch) -> tuple[Branch, ...]:
    return tuple(tree.branch(child) for child in branch.children)


def _alike(
    one: AirwayTree, other: AirwayTree, below: tuple[tuple[Branch, ...], tuple[Branch, ...]], matrix: Matrix
) -> list[tuple[_Way, _Way, float]]:
    """Pairs of ways from a forking of each tree, the best first; each branch at the forking is on one way at most."""
    ways = [[way for branch in branches for way in _ways(tree, branch)] for tree, branches in zip((one, other), below)]
    rated = []
    for way, like in product(*ways):
        vector, turned = way.vector_mm, matrix @ like.vector_mm
        reach = TOLERANCE_MM + TOLERANCE * max(float(np.linalg.norm(vector)), float(np.linalg.norm(turned)))
        error = float(np.linalg.norm(vector - turned)) / reach
        passed = len(way.branches) + len(like.branches) - 2
        if error <= 1 and passed <= PASSED:
            rated.append((error + PASSED_COST * passed, error, way, like))
    rated.sort(key=lambda each: each[0])
    taken: tuple[set[int], set[int]] = set(), set()
    chosen = []
    for _, error, way, like in rated:
        if way.branches[0].id not in taken[0] and like.branches[0].id not in taken[1]:
            taken[0].add(way.branches[0].id)
            taken[1].add(like.branches[0].id)
            chosen.append((way, like, error))
    return chosen


def _ways(tree: AirwayTree, branch: Branch) -> Iterator[_Way]:
    """The ways that begin with a branch and end in a forking, past `PASSED` others at most."""
    unfinished: list[tuple[Branch, ...]] = [(branch,)]
    while unfinished:
        branches = unfinished.pop()
        children = _children(tree, branches[-1])
        if children:
            yield _Way(branches)
        if len(branches) <= PASSED:
            unfinished += [(*branches, child) for child in children]


def _match(
    one: AirwayTree, other: AirwayTree, found: list[tuple[_Way, _Way, float]], scale: float, turn: Matrix
) -> Match:
    if not found:
        return NO_MATCH
    pairs = [
        (way.branches[0].id, like.branches[0].id)
        for way, like, _ in found
        if len(way.branches) == len(like.branches) == 1
    ]
    covered = max(
        sum(way.length_mm for way in ways) / max(_between_forkings_mm(tree), 1e-6)
        for ways, tree in (([way for way, _, _ in found], one), ([like for _, like, _ in found], other))
    )
    return Match(
        pairs=np.array(sorted(pairs), np.int64).reshape(-1, 2),
        covered=covered,
        error=float(np.median([error for _, _, error in found])),
        scale=1 / scale,
        turn_deg=float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))),
    )


def _between_forkings_mm(tree: AirwayTree) -> float:
    """Length of all branches below the carina that end in a forking."""
    return sum(branch.length_mm for start in _mains(tree) for branch in tree.below(start.id) if branch.children)
