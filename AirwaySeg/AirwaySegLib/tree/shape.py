"""Lengths and centres of an airway tree's branches and of all that springs from them; which side branches are spurs.

Letters in shapes: B branches. Points are in LPS mm; "outward" is away from the patient's middle.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.airway_tree import AirwayTree, Branch

RIGHT, LEFT = -1, 1
"""Sign of x in LPS on the patient's side."""

SPUR_MM, SPUR_SHARE = 6.0, 0.02
"""A side branch without children is a spur, not a branching, if it comes out of its parent's lumen by less than this
and carries less than this share of the length beyond the point where it leaves."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A forest with lengths and centres of length; arrays have B + 1 rows, so that a branch's id is its row.

    ``own_mm`` and ``own_centre_mm`` are the branch's, ``below_mm`` and ``centre_mm`` those of the branch together with
    everything that springs from it. Centres are (B + 1, 3).
    """

    tree: AirwayTree
    own_mm: Vector
    below_mm: Vector
    own_centre_mm: Vector
    centre_mm: Vector

    def branch(self, number: int) -> Branch:
        """The branch with this id."""
        return self.tree.branch(number)

    def start_mm(self, number: int) -> Vector:
        """A branch's first point (3,)."""
        return self.branch(number).points_mm[0]

    def end_mm(self, number: int) -> Vector:
        """A branch's last point (3,)."""
        return self.branch(number).points_mm[-1]

    def forks(self, number: int) -> list[int]:
        """The children that count: all but spurs."""
        children = self.branch(number).children
        beyond_mm = sum(float(self.below_mm[child]) for child in children)
        return [child for child in children if not self._is_spur(child, beyond_mm)]

    def _is_spur(self, child: int, beyond_mm: float) -> bool:
        branch, length_mm = self.branch(child), self.own_mm[child]
        # The first radius is that of the ball at the fork, so it reaches to the parent's wall.
        out_mm = length_mm - branch.radii_mm[0]
        return not branch.children and bool(out_mm < SPUR_MM and length_mm < SPUR_SHARE * beyond_mm)

    def run(self, number: int) -> list[int]:
        """The branch and what continues it past spurs."""
        run = [number]
        while len(ahead := self.forks(run[-1])) == 1:
            run.append(ahead[0])
        return run

    def towards(self, number: int, side: int) -> Vector:
        """From a branch's first point to the centre of its subtree in mm: (outward, back, up)."""
        x, y, z = self.centre_mm[number] - self.start_mm(number)
        return np.array([side * x, y, z])

    def sideways(self, numbers: list[int]) -> float:
        """Where branches that begin together lead: -1 straight to the right ... 1 straight to the left; 0 for none."""
        if not numbers:
            return 0.0
        centre_mm = np.average(self.centre_mm[numbers], axis=0, weights=self.below_mm[numbers])
        way = centre_mm - self.start_mm(numbers[0])
        return float(way[0] / max(np.linalg.norm(way), 1e-9))


def mean_diameter_mm(branches: list[Branch]) -> float:
    """Mean lumen diameter of several branches, each weighted by its length; NaN for none.

    By length, because a stretch of 2 mm between two branching points says little about the airway's width.
    """
    if not branches:
        return math.nan
    return float(np.average([branch.mean_diameter_mm for branch in branches], weights=length_weights(branches)))


def length_weights(branches: list[Branch]) -> Vector:
    """Lengths in mm, a little more than 0 also for branches of one point."""
    return np.array([branch.length_mm for branch in branches]) + 1e-6


@dataclass
class Findings:
    """What is known so far: names, lobe and segment, each with its confidence, by id; warnings, and the carina."""

    names: dict[int, str] = field(default_factory=dict)
    lobes: dict[int, tuple[str, float]] = field(default_factory=dict)
    segments: dict[int, tuple[str, float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    carina_mm: tuple[float, float, float] | None = None

    def name(self, numbers: list[int], name: str) -> None:
        """Give several branches the same name."""
        self.names.update(dict.fromkeys(numbers, name))


def measure_shape(tree: AirwayTree) -> Shape:
    """Lengths and centres in one pass over all points, then summed from the tips to the roots."""
    rows = len(tree.branches) + 1
    points = np.concatenate([np.zeros((1, 3)), *(branch.points_mm for branch in tree.branches)])
    owner = np.repeat(np.arange(rows), [1, *(len(branch.points_mm) for branch in tree.branches)])
    step_mm = np.linalg.norm(np.diff(points, axis=0), axis=1) * (owner[1:] == owner[:-1])
    own_mm = np.bincount(owner[1:], step_mm, rows).astype(float)
    # A branch of one point has no length but a position: 1e-6 mm at each first point gives it one.
    moment = 1e-6 * points[np.searchsorted(owner, np.arange(rows))]
    halfway = (points[1:] + points[:-1]) / 2 * step_mm[:, None]
    moment += np.stack([np.bincount(owner[1:], halfway[:, axis], rows) for axis in range(3)], axis=1)
    below_mm = own_mm + 1e-6
    own_centre_mm = moment / below_mm[:, None]
    for branch in reversed(tree.branches):
        if branch.parent is not None:
            moment[branch.parent] += moment[branch.id]
            below_mm[branch.parent] += below_mm[branch.id]
    return Shape(tree, own_mm, below_mm, own_centre_mm, moment / below_mm[:, None])
