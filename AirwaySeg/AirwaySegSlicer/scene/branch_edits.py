"""Edits whose unit is the branch: a missed airway grown from clicks, and branches cut off.

Each is proposed first, as voxels and a sentence, and changes nothing; `apply` makes it one step that can be undone. The
library computes on the arrays of the scene, in Slicer's own process, in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.branch_voxels import branch_voxels, subtree
from AirwaySegSlicer.scene.branches import Point, nearest_branch
from AirwaySegSlicer.scene.changes import no_voxels
from AirwaySegSlicer.scene.freshness import is_out_of_date
from AirwaySegSlicer.scene.nodes import CENTERLINE, companion
from AirwaySegSlicer.scene.origin import CLICK, NETWORK, note_origins
from AirwaySegSlicer.scene.scan_grid import scan_grid
from AirwaySegSlicer.scene.segments import (
    UNCONNECTED_ID,
    Array,
    check_airways,
    first_voxel_between,
    segment_voxels,
)
from AirwaySegSlicer.scene.steps import Steps
from AirwaySegSlicer.scene.surfaces import surface_kept
from AirwaySegSlicer.scene.voxel_changes import change, which_are_in

if TYPE_CHECKING:
    from AirwaySegLib.edit.scan import Scan

ADD, SUBTREE, BEYOND, BETWEEN, RECONNECT = "add", "subtree", "beyond", "between", "reconnect"
"""Tools: add an airway; delete a branch with its subtree, what is beyond a point, or a leak; join to another parent."""
POINTS = {ADD: 1, SUBTREE: 1, BEYOND: 1, BETWEEN: 2, RECONNECT: 2}
"""How many points each needs; more steer an added airway, and a second one says which side of `BEYOND` stays."""
MOST_POINTS = {SUBTREE: 1, BEYOND: 2, BETWEEN: 2, RECONNECT: 2}
PIECE_MM = 3.0
"""A point so near to an unconnected piece, and nearer than to the airways, means the piece."""


@dataclass(frozen=True)
class Proposed:
    """An edit that nothing has applied yet.

    ``add`` and ``remove`` are voxels (N, 3), as i, j, k on the airways' grid, ``name`` that of the step, ``sentence``
    what it would do. ``length_mm`` and ``score`` (0..1) are of what is added, None for a cut. ``origins`` are those of
    what is added (`origin`), one or (N,).
    """

    name: str
    sentence: str
    add: Array = field(default_factory=no_voxels)
    remove: Array = field(default_factory=no_voxels)
    length_mm: float | None = None
    score: float | None = None
    origins: Array | int = CLICK


def propose(airways: slicer.vtkMRMLSegmentationNode, tool: str, points: Sequence[Point]) -> Proposed:
    """What a tool would do at points (RAS, world); nothing is changed.

    Raises RuntimeError, one sentence, where it can do nothing there.
    """
    from AirwaySegLib.errors import AirwaySegError

    check_airways(airways)
    tools: dict[str, Callable[[slicer.vtkMRMLSegmentationNode, Sequence[Point]], Proposed]] = {
        ADD: _grown,
        SUBTREE: _without_subtree,
        BEYOND: _without_beyond,
        BETWEEN: _without_leak,
        RECONNECT: _reconnected,
    }
    if len(points) < POINTS[tool]:
        raise RuntimeError(_("Click {count} points first.").format(count=POINTS[tool]))
    try:
        return tools[tool](airways, points)
    except AirwaySegError as error:
        raise RuntimeError(str(error)) from error


def check_first(airways: slicer.vtkMRMLSegmentationNode, tool: str, point: Point) -> None:
    """Raise RuntimeError, one sentence, where the first of several points (RAS, world) is near nothing to work on."""
    import numpy as np

    from AirwaySegLib.edit.cut import NEAR_MM

    check_airways(airways)
    if tool == RECONNECT and len(_piece_at(airways, point)):
        return
    if _away(airways, "", point)[1].min(initial=np.inf) > NEAR_MM:
        raise RuntimeError(_("There is no airway near this point; click another one."))


def apply(airways: slicer.vtkMRMLSegmentationNode, proposed: Proposed, steps: Steps) -> None:
    """Add and remove the voxels as one step; what is added is no longer an unconnected piece."""
    check_airways(airways)
    loose = proposed.add[which_are_in(airways, proposed.add, UNCONNECTED_ID)]
    steps.begin(airways, proposed.name)
    with surface_kept(airways):
        change(airways, proposed.add, proposed.remove)
        note_origins(airways, proposed.remove, 0)
        note_origins(airways, proposed.add, proposed.origins)
        if len(loose):
            change(airways, no_voxels(), loose, UNCONNECTED_ID)


# The tools -----------------------------------------------------------------------------------------------------------


def _grown(airways: slicer.vtkMRMLSegmentationNode, points: Sequence[Point]) -> Proposed:
    import numpy as np

    from AirwaySegLib.edit.grow import grow

    grid = scan_grid(airways)
    growth = grow(grid.scan, np.array([grid.voxel(point) for point in points]))
    text = _("{length} mm of airway, score {score}. {reason}")
    return Proposed(
        name=_("add {length} mm of airway").format(length=f"{growth.length_mm:.1f}"),
        sentence=text.format(length=f"{growth.length_mm:.1f}", score=f"{growth.score:.2f}", reason=growth.reason),
        add=grid.on_airways(growth.voxels),
        length_mm=growth.length_mm,
        score=growth.score,
    )


def _without_subtree(airways: slicer.vtkMRMLSegmentationNode, points: Sequence[Point]) -> Proposed:
    number, voxels = _subtree_at(airways, points[0])
    count = len(subtree(airways, number))
    what = (
        _("Branch {number} and its subtree: {count} branches")
        if count > 1
        else _("Branch {number} and its subtree: 1 branch")
    )
    return Proposed(
        name=_("delete branch {number} and its subtree").format(number=number),
        sentence=_cut_sentence(what.format(number=number, count=count), voxels),
        remove=voxels,
    )


def _subtree_at(airways: slicer.vtkMRMLSegmentationNode, point: Point) -> tuple[int, Array]:
    """The branch at a point and the voxels of its subtree, of a tree that is up to date."""
    centerline = companion(airways, CENTERLINE)
    if centerline is None:
        raise RuntimeError(_("Measure {name} first.").format(name=airways.GetName()))
    if is_out_of_date(airways):
        raise RuntimeError(_("The tree is older than the airways; press Update first, or cut beyond a point."))
    number = nearest_branch(centerline, point)
    voxels = branch_voxels(airways, subtree(airways, number)) if number is not None else no_voxels()
    if number is None or not len(voxels):
        raise RuntimeError(_("There is no branch near this point."))
    if len(voxels) > 0.95 * int(segment_voxels(airways).array.sum()):
        raise RuntimeError(_("This is the root of the tree: nothing would be left."))
    return number, voxels


def _without_beyond(airways: slicer.vtkMRMLSegmentationNode, points: Sequence[Point]) -> Proposed:
    from AirwaySegLib.edit.cut import beyond

    grid = scan_grid(airways)
    keep = grid.voxel(points[1]) if len(points) > 1 else None
    voxels = grid.on_airways(beyond(grid.scan, grid.voxel(points[0]), keep).voxels)
    return Proposed(_("delete beyond a point"), _cut_sentence(_("Beyond the point"), voxels), remove=voxels)


def _without_leak(airways: slicer.vtkMRMLSegmentationNode, points: Sequence[Point]) -> Proposed:
    from AirwaySegLib.edit.cut import between

    grid = scan_grid(airways)
    cut = between(grid.scan, grid.voxel(points[0]), grid.voxel(points[1]))
    voxels = grid.on_airways(cut.voxels)
    words = _("The side of the second point, cut through {count} voxels").format(count=cut.section)
    return Proposed(_("cut a leak"), _cut_sentence(words, voxels), remove=voxels)


def _reconnected(airways: slicer.vtkMRMLSegmentationNode, points: Sequence[Point]) -> Proposed:
    """The subtree at the first point, or the unconnected piece there, on the parent at the second."""
    import numpy as np

    from AirwaySegLib.edit.reconnect import bridge, reconnect

    grid = scan_grid(airways)
    first, parent = (grid.voxel(point) for point in points)
    piece = _piece_at(airways, points[0])
    if len(piece):
        inside = grid.on_scan(piece)
        built, remove = bridge(grid.scan, inside[~_are_airways(grid.scan, inside)], parent), no_voxels()
        bridging = grid.on_airways(built.voxels)
        add, origins = np.concatenate([piece, bridging]), np.repeat([NETWORK, CLICK], [len(piece), len(bridging)])
        name = _("join a piece by {length} mm")
        text = _("The piece would be joined by {length} mm, score {score}. {reason}")
    else:
        found = reconnect(grid.scan, first, parent)
        built, remove = found.bridge, grid.on_airways(found.remove)
        add, origins = grid.on_airways(built.voxels), np.array([CLICK])
        name = _("join a subtree to another parent by {length} mm")
        text = _("The joint would be cut and the subtree joined by {length} mm, score {score}. {reason}")
    length, score = f"{built.length_mm:.1f}", f"{built.score:.2f}"
    return Proposed(
        name=name.format(length=length),
        sentence=text.format(length=length, score=score, reason=built.reason),
        add=add,
        remove=remove,
        length_mm=built.length_mm,
        score=built.score,
        origins=origins,
    )


def _are_airways(scan: Scan, voxels: Array) -> Array:
    """Whether voxels (N, 3) of a scan are in its airways, (N,)."""
    import numpy as np

    found, local = np.zeros(len(voxels), bool), voxels - np.array(scan.airways.corner)
    inside = ((local >= 0) & (local < scan.airways.array.shape)).all(axis=1)
    found[inside] = scan.airways.array[tuple(local[inside].T)] != 0
    return found


def _piece_at(airways: slicer.vtkMRMLSegmentationNode, point: Point) -> Array:
    """The voxels (N, 3), i, j, k on the airways' grid, of the unconnected piece at a point; none without one."""
    import numpy as np
    from scipy import ndimage

    if airways.GetSegmentation().GetSegment(UNCONNECTED_ID) is None:
        return no_voxels()
    gaps: list[float] = []
    places: list[Array] = []
    for segment_id in (UNCONNECTED_ID, ""):
        voxels, away = _away(airways, segment_id, point)
        gaps.append(float(away.min(initial=np.inf)))
        places.append(voxels[away.argmin()] if len(voxels) else voxels)
    if gaps[0] > PIECE_MM or gaps[0] >= gaps[1]:
        return no_voxels()
    pieces = segment_voxels(airways, UNCONNECTED_ID)
    labels, _count = ndimage.label(pieces.array, np.ones((3, 3, 3)))
    number = labels[tuple((places[0] - pieces.low)[::-1])]
    found = np.argwhere(labels == number)[:, ::-1] + pieces.low
    shift = first_voxel_between(pieces.matrix, segment_voxels(airways).matrix)
    return found + shift if shift is not None else no_voxels()


def _away(airways: slicer.vtkMRMLSegmentationNode, segment_id: str, point: Point) -> tuple[Array, Array]:
    """The voxels (N, 3), i, j, k, of a segment, by default the airways, and how far (N,) each is from a point, mm."""
    import numpy as np

    local = [0.0, 0.0, 0.0]
    airways.TransformPointFromWorld(point, local)
    mine = segment_voxels(airways, segment_id)
    matrix = slicer.util.arrayFromVTKMatrix(mine.matrix)
    voxels = np.argwhere(mine.array)[:, ::-1] + mine.low
    return voxels, np.linalg.norm(voxels @ matrix[:3, :3].T + matrix[:3, 3] - local, axis=1)


def _cut_sentence(words: str, voxels: Array) -> str:
    return _("{what} would be deleted, {count} voxels.").format(what=words, count=f"{len(voxels):,}")
