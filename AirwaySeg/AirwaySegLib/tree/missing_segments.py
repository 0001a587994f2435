"""Segments to which no airway leads: all airways of their lobe lie far off the direction in which theirs usually do.

Directions are (outward, back, up) in the patient's own axes, points in LPS mm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.airway_tree import LEFT_MAIN, RIGHT_MAIN, TRACHEA, AirwayTree, Branch
from AirwaySegLib.tree.fragment_ends import ramp
from AirwaySegLib.tree.missing import Lack
from AirwaySegLib.tree.patient_axes import patient_axes, turned
from AirwaySegLib.tree.segments import SEGMENTS, full_name, origin_of_lobe
from AirwaySegLib.tree.shape import LEFT, RIGHT, Shape, measure_shape

FREE_DEG, FREE_THOUGH_NAMED_DEG, SURE_DEG = 25.0, 45.0, 20.0
"""From so far off a segment lacks airways if none has its name, or if one has; and so much farther off it is certain.
In whole trees of three CTs in thin slices the nearest airway is at most 22 degrees off."""

FROM_MM = 15.0
"""The direction of what is nearer to the hilum says nothing."""

LEAST_LOBE_MM = 50.0
"""Of a lobe with less airway than this nothing is said."""

VARIABLE = ("RB7",)
"""Segments that some people lack, or whose airways come from those of another."""

TERRITORY_MM = 40.0
"""The middle of a segment is about so far from where its lobe's directions are seen."""

DIRECT = 2.0
"""A bronchus comes from the point from which the way is shortest: down the tree, and this many times straight on."""

LEAST_SCORE, MOST_SCORE = 0.5, 0.8


@dataclass(frozen=True)
class _Lobe:
    """One lobe's branches in the patient's own axes, the point from which they are seen (3,), and its side."""

    name: str
    side: int
    shape: Shape
    members: list[int]
    origin_mm: NDArray[np.float64]

    def direction(self, segment: str) -> NDArray[np.float64]:
        """Unit vector (x, y, z) to a segment."""
        way = np.array(SEGMENTS[segment][2]) * [self.side, 1, 1]
        return np.asarray(way / np.linalg.norm(way))

    def free_deg(self, segment: str) -> float:
        """How far off a segment's direction the nearest airway lies; 180 without any."""
        points = np.concatenate([self.shape.branch(number).points_mm for number in self.members]) - self.origin_mm
        far_mm = np.linalg.norm(points, axis=1)
        beyond = far_mm > FROM_MM
        if not beyond.any():
            return 180.0
        cosine = points[beyond] @ self.direction(segment) / far_mm[beyond]
        return float(np.degrees(np.arccos(np.clip(cosine.max(), -1, 1))))

    def length_of_a_segment_mm(self) -> float:
        """Of the lobe's airway, how much each of its segments but one has on average."""
        others = sum(of == self.name for of, _, _ in SEGMENTS.values()) - 1
        return float(self.shape.own_mm[self.members].sum()) / others

    def where_it_leaves(self, segment: str) -> tuple[int, int]:
        """The branch and the row of its point from which a segment's bronchus should come (`DIRECT`)."""
        middle = self.origin_mm + TERRITORY_MM * self.direction(segment)
        before_mm: dict[int, float] = {}
        best = (np.inf, self.members[0], 0)
        for number in self.members:  # parents come before their children
            branch = self.shape.branch(number)
            start_mm = before_mm.get(branch.parent or 0, 0.0)
            before_mm[number] = start_mm + branch.length_mm
            way_mm = start_mm + branch.along_mm + DIRECT * np.linalg.norm(branch.points_mm - middle, axis=1)
            row = int(way_mm.argmin())
            best = min(best, (float(way_mm[row]), number, row))
        return best[1], best[2]


def missing_segments(tree: AirwayTree, without: frozenset[str] = frozenset()) -> list[Lack]:
    """Segments without airways in a tree with names, the farthest off first; none where no carina was found.

    A segment lacks airways if the nearest airway of its lobe, seen from the lobe's origin (`segments.origin_of_lobe`),
    lies more than `FREE_DEG` off the segment's usual direction and no branch has its name, or more than
    `FREE_THOUGH_NAMED_DEG`. The point is that of the lobe's tree from which its bronchus should come. Nothing is said
    of lobes ``without`` airways, and of those with little.
    """
    found = []
    for lobe in _lobes(tree):
        if lobe.name in without:
            continue
        named = {tree.branch(number).segment for number in lobe.members}
        for segment in (code for code, (of, _, _) in SEGMENTS.items() if of == lobe.name and code not in VARIABLE):
            free_deg = lobe.free_deg(segment)
            limit_deg = FREE_THOUGH_NAMED_DEG if segment in named else FREE_DEG
            if free_deg >= limit_deg:
                score = LEAST_SCORE + (MOST_SCORE - LEAST_SCORE) * float(ramp(free_deg - limit_deg, 0, SURE_DEG))
                number, row = lobe.where_it_leaves(segment)
                facts = {"free_deg": free_deg, "segment_mm": round(lobe.length_of_a_segment_mm(), 1)}
                found.append(_lack(tree.branch(number), row, segment, score, facts))
    return sorted(found, key=lambda lack: -lack.score)


def _lobes(tree: AirwayTree) -> list[_Lobe]:
    """The lobes with enough airway to say what they lack."""
    ways = [[branch.id for branch in tree.named(name)] for name in (TRACHEA, RIGHT_MAIN, LEFT_MAIN)]
    if tree.carina_mm is None or not all(ways):
        return []
    shape = measure_shape(tree)
    shape = turned(shape, patient_axes(shape, (ways[0], ways[1][0], ways[2][0])))
    members: dict[str, list[int]] = {}
    for branch in tree.main():
        if branch.lobe:
            members.setdefault(branch.lobe, []).append(branch.id)
    return [
        _Lobe(name, RIGHT if name.startswith("right") else LEFT, shape, own, origin_of_lobe(shape, own, name))
        for name, own in members.items()
        if shape.own_mm[own].sum() >= LEAST_LOBE_MM
    ]


def _lack(branch: Branch, row: int, segment: str, score: float, facts: dict[str, float]) -> Lack:
    reason = (
        f"No airway leads to segment {full_name(segment)}: the nearest one of this lobe lies "
        f"{facts['free_deg']:.0f} degrees off; its bronchus should leave branch {branch.id} here."
    )
    return Lack(segment, branch, branch.points_mm[row], score, reason, facts)
