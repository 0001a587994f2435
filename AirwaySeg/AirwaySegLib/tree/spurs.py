"""Which lines of a skeleton are no branches: ribs into the corners of a lumen that is not round, bumps, ends of loops.

Letters in shapes: K skeleton voxels, P points of a line, S points of the axis of the lumen that it springs from.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.spatial.distance import cdist

from AirwaySegLib.masks.sparse_mask import Lumen, Rows
from AirwaySegLib.tree.along_axis import Moved, drawn_on_axis
from AirwaySegLib.tree.centerline import Course, Forest, Points, courses_of, thick_mm
from AirwaySegLib.tree.known_parts import KnownParts, checksum

SPUR_RADII, SPUR_VOXELS, RIB_VOXELS = 2.0, 2.0, 5.0
"""A branch stands out of the balls of the lumen that it springs from by so many of its own radii and by so many of the
longest side of a voxel at least; out of a cross-section by `RIB_VOXELS` of the mean side: along a sharp edge it is a
staircase. Of 641 branches of six CTs 17 stand out by 3 to 5: but for three at most, the CT shows no lumen there."""

TRUNK_RADII, LEAST_RIB_VOXELS = 1.0, 3.0
"""The same for what springs from a lumen as wide as the trachea's: its wall is smooth, a stub as wide a bronchus. Of a
loose piece, whose stubs tell where it goes on, a stub stands out of a cross-section by no more either."""

SPUR_FLAT = 1.4
"""How far the rim of a flat end is from the axis, in radii: there thinning draws lines into the corners."""

RUN_RADII, RUN_VOXELS, RUN_HEIGHTS = 4.0, 2.0, 2.0
"""What belongs to a lumen's cross-section goes on along the lumen: for so many of its own radii and so many voxels more
(the mouth of a round branch that leaves at 30 degrees is 4 of its radii long), and for so many times its height above
the largest ball at the axis, so that a flat branch that is longer than wide is none."""

LONGER = 1.5
"""The axis is looked at over so many times the length needed: beside a curved axis points move less than along it."""

RESOLVED_VOXELS = 2.0
"""A lumen of this radius has a cross-section whose shape can be told; of thinner ones balls along the line must do."""

AXIS_RADII = 1.5
"""Ribs make a zigzag of the line between them: it is smoothed by a Gaussian of so many lumen radii."""

EDGE_VOXELS = 0.75
"""Points are moved along the axis so much nearer to it: in a sharp edge a lumen is one voxel wide, and its border a
staircase."""

MOST_POINTS, MOST_PIXELS = 24, 48
"""Points of a line that are looked at, and pixels along a side of a cross-section, at the most."""

CUT_NODES, LOOP_RADII, NECK_SHARE = 3, 8.0, 0.6
"""What a cut loop leaves ends within so many voxels of the cut. It leads nowhere unless it is longer than so many of
its radii (bronchi are about 6 long) and the other end is no tip, or is a branch whose lumen narrows to this share where
it touches another."""

THIN_SHARE = 0.12
"""What is thinner than this share of the trachea's radius is a shred of its wall if it is no longer than it is wide."""


def prune(forest: Forest, lumen: Lumen, known: KnownParts | None = None) -> tuple[Forest, int]:
    """The forest without spurs, and how many they were.

    A spur is a line to a tip that stands out too little (`SPUR_RADII`, `SPUR_VOXELS`) of the cross-section of the lumen
    that it springs from. What belongs to that cross-section is found by moving the line's points along the lumen's axis
    (`RUN_RADII`): the side of a flat bronchus goes on, a branch does not. Where two spurs spring from one point the
    shorter goes first. What remains is looked at again until nothing changes. Cross-sections may be ``known``.
    """
    judge = _Judge(lumen, thick_mm(lumen.wall_mm[forest.rows]), known or KnownParts())
    pruned = 0
    while True:
        courses = courses_of(forest)
        spurs = judge.spurs(forest, courses)
        if not spurs:
            return forest, pruned
        judge.remember(forest, spurs)
        keep = np.ones(len(forest.rows), bool)
        keep[np.concatenate([course.nodes[1:] for course in spurs])] = False
        forest = forest.kept(keep)
        pruned += len(spurs)


@dataclass
class _Forks:
    """The courses of a forest: which meet in a voxel, which follow each, and the voxels of each with those beyond."""

    courses: list[Course]
    meeting: dict[int, list[int]]
    following: list[list[int]]
    weight: list[int]

    @classmethod
    def of(cls, courses: list[Course]) -> "_Forks":
        """The forks of all courses; parents come before their children."""
        meeting: dict[int, list[int]] = {}
        following: list[list[int]] = [[] for _ in courses]
        weight = [len(course.nodes) for course in courses]
        for index, course in enumerate(courses):
            for end in course.nodes[[0, -1]].tolist():
                meeting.setdefault(end, []).append(index)
            if course.parent >= 0:
                following[course.parent].append(index)
        for index in reversed(range(len(courses))):
            if courses[index].parent >= 0:
                weight[courses[index].parent] += weight[index]
        return cls(courses, meeting, following, weight)

    def is_terminal(self, index: int) -> bool:
        """Whether a course leads to a tip."""
        return self.meeting[int(self.courses[index].nodes[-1])] == [index]

    def beside(self, index: int) -> list[int]:
        """The other courses that meet where a course begins."""
        return [other for other in self.meeting[int(self.courses[index].nodes[0])] if other != index]

    def ways(self, index: int, count: int, short: int) -> list[tuple[Rows, Rows]]:
        """Pairs of ways on from where a course begins, without it, that may be two halves of one lumen.

        The one way leads up, or at the root into the heaviest course; the others lead down. Each begins at that point
        and has ``count`` nodes at the most. Where the next fork is nearer than ``short`` nodes there are several ways
        down. If only tips spring from that point, the first way may end there: a last pair has one node as its second
        half.
        """
        parent = self.courses[index].parent
        down = sorted((other for other in self.beside(index) if other != parent), key=lambda other: -self.weight[other])
        first = self._up(parent, count) if parent >= 0 else self._down([down.pop(0)], count)
        firsts = [[other] for other in down]
        for start in list(firsts):
            if len(self.courses[start[0]].nodes) <= short:
                following = sorted(self.following[start[0]], key=lambda other: -self.weight[other])
                firsts += [[*start, other] for other in following[1:]]
        ways = [(first, self._down(start, count)) for start in firsts]
        if parent >= 0 and all(self.is_terminal(other) for other in self.beside(index) if other != parent):
            ways.append((first, first[:1]))
        return ways

    def _up(self, index: int, count: int) -> Rows:
        parts: list[Rows] = []
        found = 0
        while index >= 0 and found < count:
            nodes = self.courses[index].nodes[::-1]
            parts.append(nodes if not parts else nodes[1:])
            found += len(parts[-1])
            index = self.courses[index].parent
        return np.concatenate(parts)[:count]

    def _down(self, start: list[int], count: int) -> Rows:
        way, found = list(start), sum(len(self.courses[index].nodes) for index in start)
        while self.following[way[-1]] and found < count:
            way.append(max(self.following[way[-1]], key=lambda other: self.weight[other]))
            found += len(self.courses[way[-1]].nodes)
        parts = [self.courses[way[0]].nodes[:1], *(self.courses[index].nodes[1:] for index in way)]
        return np.concatenate(parts)[:count]


class _Judge:
    """Tells spurs from branches in one lumen; what it has looked at it remembers from round to round."""

    def __init__(self, lumen: Lumen, thick: float, parts: KnownParts) -> None:
        self.lumen, self.thick_mm, self.parts = lumen, thick, parts
        self.voxel_mm = max(lumen.spacing_mm)
        self.mean_mm = float(np.prod(lumen.spacing_mm)) ** (1 / 3)
        self.known: dict[bytes, bool] = {}
        self.ends: dict[int, Rows] = {}
        self.inside = lumen.padded

    def spurs(self, forest: Forest, courses: list[Course]) -> list[Course]:
        """Spurs that can go at once."""
        forks = _Forks.of(courses)
        loose_ends = [
            int(course.nodes[-1])
            for index, course in enumerate(courses)
            if forks.is_terminal(index) and forest.at_cut[course.nodes[-CUT_NODES:]].any()
        ]
        found: list[Course] = []
        ribs: dict[int, Course] = {}  # the shortest at each point
        for index, course in enumerate(courses):
            beside = forks.beside(index)
            if not beside or not forks.is_terminal(index):
                continue
            others = np.concatenate([courses[other].nodes for other in beside])
            rows = forest.rows[course.nodes]
            is_resolved = self._is_resolved(np.append(forest.rows[others], rows[0]))
            if self._is_rest_of_loop(forest, course, loose_ends) or self._is_bump(
                rows, forest.rows[others], SPUR_FLAT if len(beside) == 1 or not is_resolved else 1.0
            ):
                found.append(course)
            elif len(beside) > 1 and self._is_rib(self._whole(rows), forest, forks, index, is_resolved):
                start = int(course.nodes[0])
                ribs[start] = min(ribs.get(start, course), course, key=lambda other: len(other.nodes))
        begins = {int(course.nodes[0]) for course in found}
        return found + [rib for start, rib in ribs.items() if start not in begins]

    def remember(self, forest: Forest, spurs: list[Course]) -> None:
        """Keep the longest of the spurs that go from each voxel: two lines into the corners of a flat end are its end.

        So a bronchus of the trachea is not judged by a line that lost its end.
        """
        for spur in sorted(spurs, key=lambda one: len(one.nodes)):
            rows = forest.rows[spur.nodes]
            self.ends[int(rows[0])] = rows[1:]

    def _whole(self, rows: Rows) -> Rows:
        """A line that springs from a lumen as wide as the trachea's, with the end that it lost."""
        if self.lumen.wall_mm[rows[0]] < self.thick_mm or int(rows[-1]) not in self.ends:
            return rows
        return np.concatenate([rows, self.ends[int(rows[-1])]])

    def least_mm(self, own_mm: float, beside_mm: float, least_mm: float) -> float:
        """How far a line with a lumen of radius ``own_mm`` has to stand out of one of radius ``beside_mm``."""
        if beside_mm < self.thick_mm:
            return max(SPUR_RADII * own_mm, least_mm)
        if own_mm < THIN_SHARE * beside_mm:
            return max(SPUR_RADII * own_mm, least_mm, beside_mm)
        return max(TRUNK_RADII * own_mm, least_mm)

    def _rib_mm(self, start: int) -> float:
        """How far a line has to stand out of the cross-section of the lumen in which it starts (a row of it), in mm."""
        is_usual = self.lumen.wall_mm[start] < self.thick_mm and self.lumen.components[start] == 0
        return (RIB_VOXELS if is_usual else LEAST_RIB_VOXELS) * self.mean_mm

    def _is_rest_of_loop(self, forest: Forest, course: Course, loose_ends: list[int]) -> bool:
        """Whether a line ends where a loop was cut, and is no branch whose tip only touches another.

        ``loose_ends`` are the tips that lie where loops were cut, this one among them.
        """
        if not forest.at_cut[course.nodes[-CUT_NODES:]].any():
            return False
        rows = forest.rows[course.nodes]
        radii_mm, places = self.lumen.wall_mm[rows], self.lumen.places_mm[rows]
        from_start_mm = np.linalg.norm(places - places[0], axis=1)
        outside = from_start_mm > radii_mm[0]
        if not outside.any():
            return True
        own_mm = float(np.median(radii_mm[outside]))
        touches = own_mm >= RESOLVED_VOXELS * self.mean_mm and radii_mm[-CUT_NODES:].min() < NECK_SHARE * own_mm
        if touches:
            return False
        is_short = float(from_start_mm.max() - radii_mm[0]) < LOOP_RADII * own_mm
        apart_mm = np.linalg.norm(self.lumen.places_mm[forest.rows[loose_ends]] - places[-1], axis=1)
        return is_short or int(np.count_nonzero(apart_mm <= 2 * CUT_NODES * self.voxel_mm)) > 1

    def _is_resolved(self, rows: Rows) -> bool:
        """Whether a lumen is so many voxels wide that the shape of its cross-section can be told."""
        radius_mm = float(np.quantile(self.lumen.wall_mm[rows], 0.9))
        return radius_mm >= RESOLVED_VOXELS * self.mean_mm

    def _is_bump(self, rows: Rows, beside: Rows, flat: float) -> bool:
        """Whether the lumen along ``rows`` stands out too little of the balls along the rows ``beside`` it."""
        radii_mm = self.lumen.wall_mm[rows]
        apart_mm = cdist(self.lumen.places_mm[rows], self.lumen.places_mm[beside])
        stands_out_mm = (apart_mm - flat * self.lumen.wall_mm[beside]).min(axis=1) + radii_mm
        outside = radii_mm[stands_out_mm > radii_mm]
        own_mm = float(np.median(outside)) if len(outside) else 0.0
        return bool(stands_out_mm.max() < self.least_mm(own_mm, float(radii_mm[0]), SPUR_VOXELS * self.voxel_mm))

    def _is_rib(self, rows: Rows, forest: Forest, forks: _Forks, index: int, is_resolved: bool) -> bool:
        """Whether the lumen along ``rows`` stands out too little of the cross-sections beside it.

        Beside lumens whose balls are not ``is_resolved`` the cross-sections' areas have to be.
        """
        places = self.lumen.places_mm[rows]
        extent_mm = float(np.linalg.norm(places - places[0], axis=1).max())
        longest_mm = RUN_HEIGHTS * extent_mm + RUN_RADII * float(self.lumen.wall_mm[rows].max()) + 2 * self.voxel_mm
        reach_mm = extent_mm + longest_mm
        short = int(float(self.lumen.wall_mm[rows[0]]) / min(self.lumen.spacing_mm)) + 1
        return any(
            self._is_rib_of(
                rows, forest.rows[np.concatenate([first[::-1], second[1:]])], reach_mm, len(second) == 1, is_resolved
            )
            for first, second in forks.ways(index, int(reach_mm / min(self.lumen.spacing_mm)) + 2, short)
        )

    def _is_rib_of(self, rows: Rows, path: Rows, reach_mm: float, ends: bool, is_resolved: bool) -> bool:
        """`_is_rib` for one way along the lumen; with ``ends`` it is drawn on straight beyond its end."""
        key = rows.tobytes() + b"/" + path.tobytes() + bytes([is_resolved])
        if key not in self.known:
            sigma_mm = AXIS_RADII * float(self.lumen.wall_mm[rows[0]])
            self.known[key] = (is_resolved or self._has_wide_sections(rows, path, sigma_mm, reach_mm)) and (
                self._stays_inside(rows, path, sigma_mm, reach_mm, ends)
            )
        return self.known[key]

    def _has_wide_sections(self, rows: Rows, path: Rows, sigma_mm: float, reach_mm: float) -> bool:
        """Whether the usual cross-section along a way is as large as a disc whose shape can be told.

        From the way it is known in which box the cross-sections are drawn, and from what is in it how wide they are.
        """
        line, ends = self.lumen.places_mm[path], self.lumen.places_mm[rows[[0, -1]]]
        key = checksum(line, ends, sigma_mm, reach_mm, self.lumen.spacing_mm)
        box = self.parts.find("axis", key)
        found = self.parts.find("sections", key + checksum(self._within(box[0]))) if box is not None else None
        if found is None:
            radius_mm = RESOLVED_VOXELS * self.mean_mm
            moved = Moved.of(ends, drawn_on_axis(line, sigma_mm, reach_mm, self.mean_mm))
            moved = moved.within(int(4 * radius_mm / self.mean_mm))
            around = self._around(moved)
            self.parts.keep("axis", key, (around,))
            there = key + checksum(self._within(around))
            found = self.parts.keep("sections", there, (np.array(self._are_wide(moved, radius_mm)),))
        return bool(found[0])

    def _within(self, box: NDArray[np.int64]) -> NDArray[np.bool_]:
        """A part of `inside`; the box (2, 3) is its first voxel and the one behind its last."""
        return self.inside[tuple(slice(int(a), int(b)) for a, b in box.T)]

    def _around(self, moved: Moved) -> NDArray[np.int64]:
        """The box (2, 3) of `inside` in which cross-sections are drawn."""
        reach_mm = 2**0.5 * float(self._ticks(moved)[-1])
        ends = np.stack([moved.axis.min(axis=0) - reach_mm, moved.axis.max(axis=0) + reach_mm])
        voxels = np.rint(ends / self.lumen.spacing_mm).astype(np.int64)
        return np.maximum(voxels + [[0], [3]], 0)  # the border is one voxel wide

    def _are_wide(self, moved: Moved, radius_mm: float) -> bool:
        """Whether the usual cross-section is as large as a disc of this radius."""
        least_mm2 = np.pi * radius_mm**2
        section, pixel_mm = self._drawn(moved)
        whole_mm2 = section.sum(axis=(1, 2)) * pixel_mm**2
        if not whole_mm2.any() or np.median(whole_mm2[whole_mm2 > 0]) < least_mm2:
            return False  # with all their pieces they are too small
        pieces, middle, pixel_mm = self._sections(moved)
        areas_mm2 = ((pieces > 0) & (pieces == middle[:, None])).sum(axis=1) * pixel_mm**2
        return bool(np.median(areas_mm2[areas_mm2 > 0]) >= least_mm2)

    def _stays_inside(self, rows: Rows, path: Rows, sigma_mm: float, reach_mm: float, ends: bool) -> bool:
        """Whether no point of a line stands out far enough of the cross-sections along a way.

        The way is drawn on straight at either end: a line that follows that is what goes on.
        """
        axis = drawn_on_axis(self.lumen.places_mm[path], sigma_mm, reach_mm, self.mean_mm)
        axis_radius_mm, drawn_on = float(np.median(self.lumen.wall_mm[path])), int(reach_mm / self.mean_mm)
        some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_POINTS)).round().astype(int))
        rows = rows[some]
        radii_mm = self.lumen.wall_mm[rows]
        moved = Moved.of(self.lumen.places_mm[rows], axis, EDGE_VOXELS * self.mean_mm)
        needed_mm = np.maximum(
            RUN_RADII * radii_mm + RUN_VOXELS * self.voxel_mm, RUN_HEIGHTS * (moved.height_mm - axis_radius_mm)
        )
        follows = ends or not drawn_on <= moved.at[-1] < len(axis) - drawn_on
        if follows and moved.leads_on_mm() > moved.height_mm.max():
            return False
        moved = moved.within(int(LONGER * needed_mm.max() / self.mean_mm) + 1)
        for occupied in (self._in_lumen, self._in_section):  # the first costs little and tells most branches
            occupied_there = occupied(moved, ends)
            goes_on = moved.run_mm(occupied_there) >= needed_mm
            goes_on[0] = True
            stands_out_mm = self._beyond_mm(rows, moved, occupied_there, goes_on) + radii_mm
            own_mm = float(np.median(radii_mm[~goes_on])) if not goes_on.all() else 0.0
            if stands_out_mm.max() >= self.least_mm(own_mm, float(radii_mm[0]), self._rib_mm(int(rows[0]))):
                return False
        return True

    def _beyond_mm(
        self, rows: Rows, moved: Moved, occupied: NDArray[np.bool_], goes_on: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """How far each point of a line (P,) is from the balls at those that go on, as they are moved along the axis."""
        radii_mm, places = self.lumen.wall_mm[rows], self.lumen.places_mm[rows]
        beyond_mm = (cdist(places, places[goes_on]) - radii_mm[goes_on]).min(axis=1)
        beside = moved.points[goes_on][:, moved.at]  # (of those, P, 3)
        voxels = np.rint(beside / self.lumen.spacing_mm).astype(np.int32)
        there = self.lumen.rows_of(np.clip(voxels, 0, np.asarray(self.lumen.shape) - 1).reshape(-1, 3))
        ball_mm = np.where(there >= 0, self.lumen.wall_mm[there], 0.0).reshape(beside.shape[:2])
        leaves = np.concatenate([np.zeros((len(beside), 1)), np.cumsum(~occupied[goes_on], axis=1)], axis=1)
        own, other = moved.at[goes_on][:, None], moved.at[None]
        index = np.arange(len(beside))[:, None]
        reached = leaves[index, np.maximum(own, other) + 1] == leaves[index, np.minimum(own, other)]
        reached &= there.reshape(reached.shape) >= 0
        apart_mm = np.where(reached, np.linalg.norm(beside - places, axis=2) - ball_mm, np.inf)
        return np.minimum(beyond_mm, apart_mm.min(axis=0))

    def _in_lumen(self, moved: Moved, _: bool) -> NDArray[np.bool_]:
        """Which of the moved points lie in the lumen, (P, S)."""
        return self._at(moved.points)

    def _at(self, points: Points) -> NDArray[np.bool_]:
        """Which points (..., 3) lie in the lumen."""
        number = np.zeros(points.shape[:-1], np.intp)
        for axis, (mm, count) in enumerate(zip(self.lumen.spacing_mm, self.inside.shape, strict=True)):
            index = np.rint(points[..., axis] * (1 / mm)) + 1
            number *= count
            number += np.clip(index, 0, count - 1, out=index).astype(np.intp)
        return self.inside.ravel()[number]

    def _in_section(self, moved: Moved, ends: bool) -> NDArray[np.bool_]:
        """Which of the moved points lie in that piece of the lumen's cross-section that is nearest to the axis, (P, S).

        Where the lumen only ``ends`` the axis has to lie in it: beyond a fork it runs between two others.
        """
        pieces, middle, pixel_mm = self._sections(moved)
        if ends:
            middle[~self._at(moved.axis)] = 0
        side = math.isqrt(pieces.shape[1])
        pixel = np.rint(moved.offset_mm / pixel_mm + (side - 1) / 2).astype(int)
        there = pieces[:, pixel[:, 0] * side + pixel[:, 1]].T
        return (there > 0) & (there == middle)

    def _sections(self, moved: Moved) -> tuple[NDArray[np.int32], NDArray[np.int32], float]:
        """The lumen's cross-sections along the axis: numbers of their pieces (S, pixels), 0 for none, of the piece that
        is nearest to the axis (S,), and the side of a pixel in mm.
        """
        section, pixel_mm = self._drawn(moved)
        in_plane = np.zeros((3, 3, 3), bool)
        in_plane[1] = True
        pieces = label(section, in_plane)[0].reshape(len(section), -1)
        ticks = self._ticks(moved)
        away = np.hypot(ticks[:, None], ticks).ravel()
        middle = pieces[np.arange(len(pieces)), np.where(pieces > 0, away, np.inf).argmin(axis=1)]
        return pieces, middle, pixel_mm

    def _ticks(self, moved: Moved) -> NDArray[np.float64]:
        """The pixels along a side of a cross-section, in mm from its middle."""
        half_mm = 1.3 * float(moved.height_mm.max()) + 2 * self.voxel_mm
        side = min(MOST_PIXELS, 2 * int(half_mm / self.mean_mm) + 1)
        return np.linspace(-half_mm, half_mm, side)

    def _drawn(self, moved: Moved) -> tuple[NDArray[np.bool_], float]:
        """The lumen's cross-sections along the axis, (S, side, side), and the side of a pixel in mm."""
        ticks = self._ticks(moved)
        plane = ticks[:, None, None] * moved.across[:, None, None] + ticks[:, None] * moved.over[:, None, None]
        return self._at(moved.axis[:, None, None] + plane), 2 * float(ticks[-1]) / (len(ticks) - 1)
