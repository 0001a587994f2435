"""Shows a point of the review: slices across and along the branch, the 3D camera, and what would be added or removed.

What is shown is temporary: it is not saved with the scene, and `ReviewViews.restore` gives the slices back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import slicer
import vtk

from AirwaySegSlicer.scene.branches import Point, branch_points, centre_views, nearest_branch
from AirwaySegSlicer.scene.changes import no_voxels, preview_of
from AirwaySegSlicer.scene.nodes import (
    CENTERLINE,
    REVIEWED,
    REVIEWED_CUT,
    add_companion,
    companion,
    remove_companion,
    shifted,
    undone_on_failure,
)
from AirwaySegSlicer.scene.review_kinds import ReviewItem
from AirwaySegSlicer.scene.segments import Array, array_of, segment_voxels

ADDED, REMOVED, LOOKED_AT = (0.2, 0.85, 0.3), (0.95, 0.2, 0.15), (1.0, 0.2, 0.6)
"""Colours of what would be added, of what would be removed, and of a point without either."""
POINT_RADIUS_MM = 2.5
ACROSS, ALONG = "Red", "Green"
"""Slice views that are turned across the branch and along it; the others keep their orientation."""
FIELD_MM = 70.0
"""Width of the turned slice views."""
CAMERA_MM, CAMERA_SIDES = 140.0, 24
"""Distance of the camera, and how many sides are compared from which it may look."""
TURN_MM = 20.0
"""What a turn by 90 degrees costs; what hides the point costs the sum of the radii at the centerline's points there."""
CLEAR_MM, HIDDEN_MM = 6.0, 3.0
"""Airway nearer to the point than the first hides nothing, nor does one whose lumen is farther than the second from the
line of sight."""


@dataclass(frozen=True)
class _Slice:
    """How a slice view was before it was turned."""

    orientation: str
    matrix: vtk.vtkMatrix4x4
    field_mm: tuple[float, float, float]


class ReviewViews:
    """Turns the views to points, and back."""

    def __init__(self) -> None:
        self._before: dict[str, _Slice] = {}
        self._previews: dict[str, tuple[Array, bool]] = {}  # of the points that are selected together, by their keys

    def show(
        self, airways: slicer.vtkMRMLSegmentationNode, item: ReviewItem, beside: Sequence[ReviewItem] = ()
    ) -> None:
        """Turn the views to a point, and highlight what a decision would change there and at those ``beside`` it."""
        voxels, adds = preview_of(airways, item)
        together = {other.key: self._previews.get(other.key) or preview_of(airways, other) for other in beside}
        self._previews = together | {item.key: (voxels, adds)}
        if beside:
            highlight_all(airways, list(self._previews.values()))
        else:
            highlight(airways, item, voxels, adds)
        centre = _world(airways, item.point)
        direction = _world_direction(airways, item.point, direction_of(airways, item, voxels))
        centre_views(centre)
        self._turn(ACROSS, centre, direction, _perpendicular(direction))
        self._turn(ALONG, centre, _perpendicular(direction), direction)
        for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
            _turn_camera(camera, centre, direction, airways)

    def restore(self, airways: slicer.vtkMRMLSegmentationNode | None) -> None:
        """Give the slice views their orientation and field of view back, and remove the highlight."""
        for name, before in self._before.items():
            node = slice_node(name)
            if node is not None:
                node.SetFieldOfView(*before.field_mm)
                node.SetOrientation(before.orientation)
                if before.orientation == "Reformat":
                    node.GetSliceToRAS().DeepCopy(before.matrix)
                    node.UpdateMatrices()
        self._before.clear()
        self.changed()
        if airways is not None and airways.GetScene() is not None:
            hide_change(airways)

    def changed(self) -> None:
        """Voxels or decisions have changed, so that other voxels may be what decisions would change."""
        self._previews.clear()

    def forget(self) -> None:
        """The scene is closed."""
        self._before.clear()
        self.changed()

    def _turn(self, name: str, centre: Point, normal: Point, transverse: Point) -> None:
        node = slice_node(name)
        if node is None:
            return
        if name not in self._before:
            matrix = vtk.vtkMatrix4x4()
            matrix.DeepCopy(node.GetSliceToRAS())
            width, height, depth = node.GetFieldOfView()
            self._before[name] = _Slice(node.GetOrientation(), matrix, (width, height, depth))
            node.SetFieldOfView(FIELD_MM, FIELD_MM * height / width, depth)
        node.SetSliceToRASByNTP(*normal, *transverse, *centre, 0)
        node.JumpSliceByCentering(*centre)


def slice_node(name: str) -> slicer.vtkMRMLSliceNode | None:
    """The slice node of a slice view; None where the scene has none of this name."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    return next((node for node in nodes if node.GetLayoutName() == name), None)


def highlight(airways: slicer.vtkMRMLSegmentationNode, item: ReviewItem, voxels: Array, adds: bool) -> None:
    """Show these voxels (N, 3), or a ball at the point where there are none, instead of those of an earlier point."""
    hide_change(airways)
    if len(voxels):
        _show(airways, surface_of(airways, voxels), ADDED if adds else REMOVED)
    else:
        _show(airways, _ball(item.point), LOOKED_AT)


def highlight_all(airways: slicer.vtkMRMLSegmentationNode, changes: Sequence[tuple[Array, bool]]) -> None:
    """Show what decisions about several points would change: their voxels (N, 3), and whether they would be added."""
    import numpy as np

    added, removed = (
        np.concatenate([no_voxels(), *(voxels for voxels, adds in changes if adds is wanted)])
        for wanted in (True, False)
    )
    hide_change(airways)
    if len(added) or len(removed):
        show_change(airways, added, removed)


def show_change(airways: slicer.vtkMRMLSegmentationNode, add: Array, remove: Array) -> None:
    """Show what an edit would add and remove (N, 3), in two colours, instead of what was shown before."""
    hide_change(airways)
    _show(airways, surface_of(airways, add if len(add) else remove), ADDED if len(add) else REMOVED)
    if len(add) and len(remove):
        _show(airways, surface_of(airways, remove), REMOVED, REVIEWED_CUT)


def hide_change(airways: slicer.vtkMRMLSegmentationNode) -> None:
    """Remove what is shown of a decision or an edit."""
    for role in (REVIEWED, REVIEWED_CUT):
        remove_companion(airways, role)


def _show(
    airways: slicer.vtkMRMLSegmentationNode,
    surface: vtk.vtkPolyData,
    color: tuple[float, float, float],
    role: str = REVIEWED,
) -> None:
    with undone_on_failure():
        model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
        model.SetSaveWithScene(False)
        model.SetHideFromEditors(True)
        model.SetAndObservePolyData(surface)
        model.CreateDefaultDisplayNodes()
    add_companion(airways, role, model, "reviewed")
    display = model.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetColor(*color)
    display.SetAmbient(0.4)
    display.SetVisibility2D(True)
    display.SetSliceIntersectionThickness(3)


def surface_of(airways: slicer.vtkMRMLSegmentationNode, voxels: Array) -> vtk.vtkPolyData:
    """The surface of voxels (N, 3), i, j, k on the airways' grid, in the airways' own space."""
    low = voxels.min(axis=0) - 1
    image, flying, move = vtk.vtkImageData(), vtk.vtkFlyingEdges3D(), vtk.vtkTransformPolyDataFilter()
    image.SetDimensions(*(int(count) for count in voxels.max(axis=0) + 2 - low))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    array = array_of(image)
    array[:] = 0
    array[tuple((voxels - low).T[::-1])] = 1
    flying.SetInputData(image)
    flying.SetValue(0, 0.4)
    transform = vtk.vtkTransform()
    transform.SetMatrix(shifted(segment_voxels(airways).matrix, low.tolist()))
    move.SetTransform(transform)
    move.SetInputConnection(flying.GetOutputPort())
    move.Update()
    move.GetOutput().GetPointData().SetScalars(None)
    return move.GetOutput()


def _ball(point: Point) -> vtk.vtkPolyData:
    ball = vtk.vtkSphereSource()
    ball.SetCenter(*point)
    ball.SetRadius(POINT_RADIUS_MM)
    ball.SetThetaResolution(16)
    ball.SetPhiResolution(16)
    ball.Update()
    return ball.GetOutput()


# Directions ----------------------------------------------------------------------------------------------------------


def direction_of(airways: slicer.vtkMRMLSegmentationNode, item: ReviewItem, voxels: Array) -> Point:
    """The direction (RAS, own space) of the airway at a point: of the branch there, or of the voxels around it."""
    import numpy as np

    centerline = companion(airways, CENTERLINE)
    matrix = slicer.util.arrayFromVTKMatrix(segment_voxels(airways).matrix)
    if item.branch == 0 and len(voxels) > 3:
        places = voxels @ matrix[:3, :3].T + matrix[:3, 3]
        return _unit(np.linalg.svd(places - places.mean(axis=0), full_matrices=False)[2][0])
    number = nearest_branch(centerline, _world(airways, item.point)) if centerline is not None else None
    if centerline is None or number is None:
        return 0.0, 0.0, 1.0
    points, _indices = branch_points(centerline, number)
    nearest = int(np.linalg.norm(points - item.point, axis=1).argmin())
    part = points[max(0, nearest - 5) : nearest + 6]
    return _unit(part[-1] - part[0]) if len(part) > 1 else (0.0, 0.0, 1.0)


def _unit(vector: Array) -> Point:
    import numpy as np

    length = float(np.linalg.norm(vector))
    x, y, z = (vector / length).tolist() if length else (0.0, 0.0, 1.0)
    return x, y, z


def _perpendicular(direction: Point) -> Point:
    """A direction at a right angle, as near to the patient's front as there is; to the right for one to the front."""
    import numpy as np

    wanted = np.array([0.0, 1.0, 0.0] if abs(direction[1]) < 0.9 else [1.0, 0.0, 0.0])
    return _unit(wanted - np.dot(wanted, direction) * np.array(direction))


def _world(airways: slicer.vtkMRMLSegmentationNode, point: Point) -> Point:
    world = [0.0, 0.0, 0.0]
    airways.TransformPointToWorld(point, world)
    return world[0], world[1], world[2]


def _world_direction(airways: slicer.vtkMRMLSegmentationNode, point: Point, direction: Point) -> Point:
    import numpy as np

    ahead = _world(airways, (point[0] + direction[0], point[1] + direction[1], point[2] + direction[2]))
    return _unit(np.subtract(ahead, _world(airways, point)))


def _turn_camera(
    camera: slicer.vtkMRMLCameraNode, centre: Point, direction: Point, airways: slicer.vtkMRMLSegmentationNode
) -> None:
    """Look at the point at a right angle to the branch: from where little airway is in between, and near to before."""
    import numpy as np

    towards = np.subtract(camera.GetPosition(), camera.GetFocalPoint())
    before = towards - np.dot(towards, direction) * np.array(direction)
    if np.linalg.norm(before) < 1e-3 * np.linalg.norm(towards):
        before = np.array(_perpendicular(direction))
    first = np.array(_unit(before))
    over = np.cross(direction, first)
    turns = 2 * np.pi * np.arange(CAMERA_SIDES) / CAMERA_SIDES
    sides = np.cos(turns)[:, None] * first + np.sin(turns)[:, None] * over
    cost = _hidden_mm(airways, centre, sides) + TURN_MM * (1 - np.cos(turns))
    side = sides[int(cost.argmin())]
    camera.SetFocalPoint(*centre)
    camera.SetPosition(*(np.array(centre) + CAMERA_MM * side))
    up = np.array([0.0, 0.0, 1.0])
    if abs(np.dot(up, side)) < 0.95:
        camera.SetViewUp(*up)
    camera.ResetClippingRange()


def _hidden_mm(airways: slicer.vtkMRMLSegmentationNode, centre: Point, sides: Array) -> Array:
    """How much lumen lies before a point (world) when it is looked at from each side (N, 3), in mm of radius, (N,)."""
    import numpy as np
    from vtk.util.numpy_support import vtk_to_numpy

    centerline = companion(airways, CENTERLINE)
    if centerline is None:
        return np.zeros(len(sides))
    polydata, own = centerline.GetPolyData(), [0.0, 0.0, 0.0]
    centerline.TransformPointFromWorld(centre, own)
    away = vtk_to_numpy(polydata.GetPoints().GetData()) - own
    radii = vtk_to_numpy(polydata.GetPointData().GetArray("radius_mm"))
    ahead = away @ np.array([_own_direction(centerline, centre, side) for side in sides]).T
    beside = np.sqrt(np.maximum((away**2).sum(axis=1)[:, None] - ahead**2, 0))
    hides = (ahead > CLEAR_MM) & (ahead < CAMERA_MM) & (beside < radii[:, None] + HIDDEN_MM)
    return (hides * radii[:, None]).sum(axis=0)


def _own_direction(centerline: slicer.vtkMRMLModelNode, centre: Point, side: Array) -> Point:
    """A direction of the world in the space of the centerline."""
    import numpy as np

    ends = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    for end, point in zip(ends, (centre, np.add(centre, side).tolist()), strict=True):
        centerline.TransformPointFromWorld(point, end)
    return _unit(np.subtract(ends[1], ends[0]))
