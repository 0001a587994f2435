"""Joining a piece of airway, or a subtree whose joint is wrong, to a parent by the path of least cost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.edit.branch import Growth, Surroundings, branch_along, by_faces, surface_of, widest_at
from AirwaySegLib.edit.cut import NEAR_MM, beyond
from AirwaySegLib.edit.grow import GOOD, LEAST_SCORE
from AirwaySegLib.edit.scan import Crop, Part, Scan, Voxels
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.masks.least_cost import cheapest_way

FARTHEST_MM = 40.0
"""No bridge is looked for over a wider gap: `grow` does not look farther either."""

_UNASKED_MM, _UNASKED_SCORE = 20.0, 0.5
"""Where nobody says to which parent, the widest gap and the least score: on real CTs pieces farther off get bridges of
30 to 50 mm along whatever lumen leads somewhere."""

_MARGIN_MM = 12.0
"""A path may leave the box of both ends by so much."""

_AROUND_MM = 2.0
"""A branch joins its parent within the lumen's radius and so many mm of the point that is given."""

_STUMP_MM = 15.0
"""A subtree is joined by what lies so near to the cut: its branch there, not the tips of its other branches."""

_STRICTNESS = (1.0, 4.0, 16.0)
"""How much the absence of lumen costs, as in `grow`; as there, the bridge with the shortest unseen stretch is taken."""


@dataclass(frozen=True, eq=False)
class Reconnection:
    """A subtree on another parent: the voxels (N, 3) of the wrong joint to remove, and the bridge to add."""

    remove: Voxels
    bridge: Growth


def bridge(scan: Scan, piece: Voxels, parent: NDArray | None = None, ends: NDArray | None = None) -> Growth:
    """The bridge by which a piece outside the airways is joined to them.

    Parameters
    ----------
    piece
        (N, 3) voxels of the scan, N >= 1, none of them in its airways.
    parent
        A point (3,) of the airways, fractions of voxels allowed, near which the piece is joined; None: anywhere, if the
        gap is not wider than 20 mm and the score at least 0.5.
    ends
        (M, 3) those voxels of the piece from which the bridge may start; None: all.

    Raises
    ------
    AirwaySegError
        If the parent is not within `NEAR_MM` of the airways, the gap is wider than `FARTHEST_MM`, no way leads across
        it, or what is seen along it scores less than `grow.LEAST_SCORE`.
    """
    if scan.hu is None and scan.probability is None:
        raise AirwaySegError("A bridge is built on the CT or on a probability; neither is given.")
    starts = piece if ends is None else ends
    stops = _stops(scan, starts, parent)
    around = Surroundings.of(scan, _box(scan, starts, stops))
    if around is None:
        raise AirwaySegError("There are no airways near the piece.")
    best: Growth | None = None
    for strictness in _STRICTNESS:
        found = _bridged(around, piece, starts, stops, strictness)
        best = found if best is None or found.unsure_mm < best.unsure_mm else best
        if best.score >= GOOD:
            break
    if best is None or best.score < (_UNASKED_SCORE if parent is None else LEAST_SCORE):
        reason = best.reason[0].lower() + best.reason[1:] if best is not None else ""
        raise AirwaySegError(f"No airway is seen between the piece and its parent: {reason}")
    return best


def reconnect(scan: Scan, joint: NDArray, parent: NDArray) -> Reconnection:
    """Cut the airways at a wrong joint, and join what hangs there to another parent.

    ``joint`` and ``parent`` are points (3,), fractions of voxels allowed. The narrowest cross-section through the joint
    is removed; of what it parts the side without the parent is joined by its end at the cut.

    Raises
    ------
    AirwaySegError
        As `cut.beyond` and `bridge`, or if more than half of the airways would be moved.
    """
    _near(scan, parent)
    cut = beyond(scan, joint, parent, keep_anywhere=True)
    whole = int(np.count_nonzero(scan.airways.array))
    if 2 * len(cut.voxels) > whole:
        raise AirwaySegError("The new parent lies beyond the cut: choose one on the side that stays.")
    moved = _without(cut.voxels, cut.section_voxels, scan.shape)
    if not len(moved):
        raise AirwaySegError("Nothing lies beyond the cut that could be joined to another parent.")
    rest = scan.airways.array.copy()
    rest[tuple((cut.voxels - scan.airways.corner).T)] = 0
    remaining = Scan(Part(rest, scan.airways.corner), scan.spacing_mm, scan.shape, scan.hu, scan.probability)
    spacing = np.asarray(scan.spacing_mm)
    near_mm, _ = cKDTree(cut.section_voxels * spacing).query(moved * spacing)
    ends = moved[near_mm <= max(_STUMP_MM, float(near_mm.min()))]
    built = bridge(remaining, moved, parent, ends)
    return Reconnection(_without(cut.section_voxels, built.voxels, scan.shape), built)


def _without(voxels: NDArray, others: NDArray, shape: tuple[int, int, int]) -> Voxels:
    """The voxels (N, 3) that are not among the others (M, 3)."""
    flat, gone = (np.ravel_multi_index(tuple(each.T), shape) for each in (voxels, others))
    return voxels[~np.isin(flat, gone)].astype(np.int32)


def _stops(scan: Scan, starts: NDArray, parent: NDArray | None) -> NDArray[np.intp]:
    """The voxels (M, 3) of the airways' surface at which a bridge may end."""
    spacing = np.asarray(scan.spacing_mm)
    if parent is None:
        box = Crop.around(starts, _UNASKED_MM, scan.spacing_mm, scan.shape)
        found = surface_of(scan.airways_in(box)) + np.array(box.low)
        gaps_mm = cKDTree(starts * spacing).query(found * spacing)[0] if len(found) else np.array([np.inf])
        if gaps_mm.min() > _UNASKED_MM:
            raise AirwaySegError(f"There are no airways within {_UNASKED_MM:.0f} mm of the piece.")
        return found[gaps_mm <= gaps_mm.min() + _MARGIN_MM]
    place = _near(scan, parent)
    box = Crop.around(place[None], _MARGIN_MM + NEAR_MM, scan.spacing_mm, scan.shape)
    tree = scan.airways_in(box)
    radius_mm = widest_at(place - np.array(box.low), tree, scan)
    found = surface_of(tree) + np.array(box.low)
    if not len(found):
        raise AirwaySegError("The new parent's wall is far from the point: click nearer to its wall.")
    away_mm = np.linalg.norm((found - place) * spacing, axis=1)
    found = found[away_mm <= max(radius_mm, away_mm.min()) + _AROUND_MM]
    gaps_mm, _ = cKDTree(starts * spacing).query(found * spacing)
    if gaps_mm.min() > FARTHEST_MM:
        raise AirwaySegError(
            f"The new parent is {gaps_mm.min():.0f} mm away; no bridge is longer than {FARTHEST_MM:.0f} mm."
        )
    return found


def _near(scan: Scan, parent: NDArray) -> NDArray[np.intp]:
    """The airways' voxel (3,) nearest to the point of the new parent."""
    middle = np.rint(np.asarray(parent, float)).astype(np.intp)
    box = Crop.around(middle[None], NEAR_MM, scan.spacing_mm, scan.shape)
    voxels = np.argwhere(scan.airways_in(box)) + np.array(box.low)
    away_mm = np.linalg.norm((voxels - middle) * np.asarray(scan.spacing_mm), axis=1)
    if not len(voxels) or away_mm.min() > NEAR_MM:
        raise AirwaySegError("The new parent is not in the airways: click on the branch to which it belongs.")
    return voxels[away_mm.argmin()]


def _box(scan: Scan, starts: NDArray, stops: NDArray) -> Crop:
    """The box of both ends where they are nearest, and a margin."""
    spacing = np.asarray(scan.spacing_mm)
    gaps_mm, nearest = cKDTree(starts * spacing).query(stops * spacing)
    near = gaps_mm <= gaps_mm.min() + _MARGIN_MM
    ends = np.concatenate([stops[near], starts[nearest[near]]])
    return Crop.around(ends, _MARGIN_MM, scan.spacing_mm, scan.shape)


def _bridged(around: Surroundings, piece: NDArray, starts: NDArray, stops: NDArray, strictness: float) -> Growth:
    """The bridge of one strictness; ``starts`` and ``stops`` are voxels of the scan."""
    box, tree = around.box, around.tree
    low = np.array(box.low)
    inside = [_in_box(each, box) - low for each in (piece, starts, stops)]
    mine, first, last = inside
    if not len(first) or not len(last):
        raise AirwaySegError("No way leads from the piece to the airways.")
    other = np.zeros(tree.shape, bool)
    other[tuple(mine.T)] = True
    cost = around.evidence.cost(strictness)
    through = np.where(tree | other, np.float32(np.inf), cost)
    for ends in (first, last):
        through[tuple(ends.T)] = cost[tuple(ends.T)]
    way = cheapest_way(through, first, last, around.scan.spacing_mm)
    if way is None:
        raise AirwaySegError("No way leads from the piece to the airways.")
    way = _between(way[::-1], tree, other)
    widest_mm = min(widest_at(way[0], tree, around.scan), widest_at(way[-1], other, around.scan))
    return branch_along(around, [by_faces(way, through)], widest_mm, tree | other)


def _in_box(voxels: NDArray, box: Crop) -> NDArray[np.intp]:
    low = np.array(box.low)
    return voxels[((voxels >= low) & (voxels < low + box.shape)).all(axis=1)].astype(np.intp)


def _between(way: NDArray, tree: NDArray[np.bool_], piece: NDArray[np.bool_]) -> NDArray:
    """A way from the tree to the piece, from the last voxel in the one to the first in the other."""
    way = way[np.flatnonzero(tree[tuple(way.T)])[-1] :]
    return way[: np.flatnonzero(piece[tuple(way.T)])[0] + 1]
