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
from AirwaySegSlicer.scene.nodes import CENTERLINE, PROBABILITY, companion, ijk_to_ras
from AirwaySegSlicer.scene.origin import CLICK, note_origins
from AirwaySegSlicer.scene.segments import (
    UNCONNECTED_ID,
    Array,
    airways_box,
    check_airways,
    ct_of,
    first_voxel_between,
    segment_voxels,
)
from AirwaySegSlicer.scene.steps import Steps
from AirwaySegSlicer.scene.surfaces import surface_kept
from AirwaySegSlicer.scene.voxel_changes import change, which_are_in

if TYPE_CHECKING:
    from AirwaySegLib.edit.scan import Scan

ADD, SUBTREE, BEYOND, BETWEEN = "add", "subtree", "beyond", "between"
"""Tools: add an airway; delete a branch with its subtree, what is beyond a point, or a leak."""
POINTS = {ADD: 1, SUBTREE: 1, BEYOND: 1, BETWEEN: 2}
"""How many points each needs; more steer an added airway, and a second one says which side of `BEYOND` stays."""
MOST_POINTS = {SUBTREE: 1, BEYOND: 2, BETWEEN: 2}


@dataclass(frozen=True)
class Proposed:
    """An edit that nothing has applied yet.

    ``add`` and ``remove`` are voxels (N, 3), as i, j, k on the airways' grid, ``name`` that of the step, ``sentence``
    what it would do. ``length_mm`` and ``score`` (0..1) are of what is added, None for a cut.
    """

    name: str
    sentence: str
    add: Array = field(default_factory=no_voxels)
    remove: Array = field(default_factory=no_voxels)
    length_mm: float | None = None
    score: float | None = None


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
    }
    if len(points) < POINTS[tool]:
        raise RuntimeError(_("Click {count} points first.").format(count=POINTS[tool]))
    try:
        return tools[tool](airways, points)
    except AirwaySegError as error:
        raise RuntimeError(str(error)) from error


def apply(airways: slicer.vtkMRMLSegmentationNode, proposed: Proposed, steps: Steps) -> None:
    """Add and remove the voxels as one step; what is added is no longer an unconnected piece."""
    check_airways(airways)
    loose = proposed.add[which_are_in(airways, proposed.add, UNCONNECTED_ID)]
    steps.begin(airways, proposed.name)
    with surface_kept(airways):
        change(airways, proposed.add, proposed.remove)
        note_origins(airways, proposed.remove, 0)
        note_origins(airways, proposed.add, CLICK)
        if len(loose):
            change(airways, no_voxels(), loose, UNCONNECTED_ID)


# The scene as arrays -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grid:
    """The library's view of a result: its scan, and what is added to (z, y, x) of the CT for i, j, k of the airways."""

    scan: Scan
    to_airways: Array
    to_ijk: Array
    airways: slicer.vtkMRMLSegmentationNode

    def voxel(self, world: Point) -> Array:
        """A point (RAS, world) as a voxel (z, y, x) of the scan, with fractions."""
        import numpy as np

        local = [0.0, 0.0, 0.0]
        self.airways.TransformPointFromWorld(world, local)
        return (self.to_ijk @ np.array([*local, 1.0]))[:3][::-1]

    def on_airways(self, voxels: Array) -> Array:
        """Voxels (N, 3) of the scan as i, j, k on the airways' grid."""
        return voxels[:, ::-1].astype(int) + self.to_airways


def _grid_of(airways: slicer.vtkMRMLSegmentationNode) -> _Grid:
    """The airways, their CT and, where it is known, their probability."""
    import numpy as np

    from AirwaySegLib.edit.scan import Part, Scan

    airways_box(airways)  # raises where there are none
    ct, voxels = ct_of(airways), segment_voxels(airways)
    matrix = ijk_to_ras(ct)
    low = first_voxel_between(voxels.matrix, matrix, voxels.low)
    if low is None:
        sentence = _("The airways of {name} are not on the grid of {ct}.")
        raise RuntimeError(sentence.format(name=airways.GetName(), ct=ct.GetName()))
    hu = slicer.util.arrayFromVolume(ct)
    spacing = np.linalg.norm(slicer.util.arrayFromVTKMatrix(matrix)[:3, :3], axis=0)[::-1]
    scan = Scan(
        airways=Part(voxels.array, (low[2], low[1], low[0])),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        shape=(hu.shape[0], hu.shape[1], hu.shape[2]),
        hu=hu,
        probability=_probability_part(airways, ct),
    )
    to_ijk = np.linalg.inv(slicer.util.arrayFromVTKMatrix(matrix))
    return _Grid(scan, np.subtract(voxels.low, low), to_ijk, airways)


def _probability_part(airways: slicer.vtkMRMLSegmentationNode, ct: slicer.vtkMRMLScalarVolumeNode) -> Array | None:
    from AirwaySegLib.edit.scan import Part

    node = companion(airways, PROBABILITY)
    low = first_voxel_between(ijk_to_ras(node), ijk_to_ras(ct)) if node is not None else None
    return Part(slicer.util.arrayFromVolume(node), (low[2], low[1], low[0])) if low is not None else None


# The tools -----------------------------------------------------------------------------------------------------------


def _grown(airways: slicer.vtkMRMLSegmentationNode, points: Sequence[Point]) -> Proposed:
    import numpy as np

    from AirwaySegLib.edit.grow import grow

    grid = _grid_of(airways)
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
    return Proposed(
        name=_("delete branch {number} and its subtree").format(number=number),
        sentence=_cut_sentence(
            _("Branch {number} and its subtree: {count} branches").format(number=number, count=count), voxels
        ),
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

    grid = _grid_of(airways)
    keep = grid.voxel(points[1]) if len(points) > 1 else None
    voxels = grid.on_airways(beyond(grid.scan, grid.voxel(points[0]), keep).voxels)
    return Proposed(_("delete beyond a point"), _cut_sentence(_("Beyond the point"), voxels), remove=voxels)


def _without_leak(airways: slicer.vtkMRMLSegmentationNode, points: Sequence[Point]) -> Proposed:
    from AirwaySegLib.edit.cut import between

    grid = _grid_of(airways)
    cut = between(grid.scan, grid.voxel(points[0]), grid.voxel(points[1]))
    voxels = grid.on_airways(cut.voxels)
    words = _("The side of the second point, cut through {count} voxels").format(count=cut.section)
    return Proposed(_("cut a leak"), _cut_sentence(words, voxels), remove=voxels)


def _cut_sentence(words: str, voxels: Array) -> str:
    return _("{what} would be deleted, {count} voxels.").format(what=words, count=f"{len(voxels):,}")
