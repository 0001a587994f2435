"""The branches of a measured result: rows for the table, the branch of a row in the views, the branch at a point.

All is read from the centerline model, so that it also works in a reloaded scene.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.freshness import sign_like_tree
from AirwaySegSlicer.scene.nodes import (
    CENTERLINE,
    HIGHLIGHT,
    add_companion,
    companion,
    remove_companion,
    undone_on_failure,
)

HIGHLIGHT_COLOR = (1.0, 0.2, 0.6)
LEAST_RADIUS_MM = 1.0
"""Minimum radius of the highlight, so that thin branches are visible."""

Array = Any
Point = tuple[float, float, float]


@dataclass(frozen=True)
class BranchRow:
    """A branch in the table; parent 0 means none, name and lobe may be empty; ``is_loose``: it is of no tree.

    ``probability`` is the mean of the network's probability over its voxels, None where it is not known.
    ``segment`` is its full name, ``by_hand`` what a person gave ("lobe", "segment" and "generation", joined by
    "and"); both may be empty. The figures of the wall, shares from 0 to 1, are None where the CT did not show them:
    its outer radius, its thickness, the wall area of the whole area, and the rays on which its outer edge was found.
    """

    id: int
    parent: int
    component: int
    generation: int
    name: str
    lobe: str
    length_mm: float
    diameter_mm: float
    is_loose: bool = False
    probability: float | None = None
    segment: str = ""
    by_hand: str = ""
    outer_radius_mm: float | None = None
    wall_mm: float | None = None
    wall_area: float | None = None
    usable_rays: float | None = None


def branch_rows(centerline_node: slicer.vtkMRMLModelNode | None) -> list[BranchRow]:
    """A row for each branch, by id; none without a centerline."""
    if centerline_node is None or centerline_node.GetPolyData() is None:
        return []
    cells = centerline_node.GetPolyData().GetCellData()
    names = ("branch_id", "parent_id", "component", "generation", "name", "lobe_name", "length_mm", "mean_diameter_mm")
    columns = [cells.GetAbstractArray(name) for name in names]
    if None in columns:
        return []
    found = (
        BranchRow(*(column.GetValue(cell) for column in columns))
        for cell in range(centerline_node.GetPolyData().GetNumberOfCells())
    )
    trees, likely = _trees(centerline_node), _figures(centerline_node, "mean_probability")
    inner, thick, area, rays = (
        _figures(centerline_node, name)
        for name in ("inner_diameter_mm", "wall_thickness_mm", "wall_area_fraction", "usable_rays")
    )
    segments, by_hand = (_words(centerline_node, name) for name in ("segment_name", "by_hand"))
    return [
        replace(
            row,
            is_loose=row.component not in trees,
            probability=likely.get(row.id),
            segment=segments.get(row.id, ""),
            by_hand=by_hand.get(row.id, ""),
            outer_radius_mm=inner[row.id] / 2 + thick[row.id] if row.id in inner and row.id in thick else None,
            wall_mm=thick.get(row.id),
            wall_area=area.get(row.id),
            usable_rays=rays.get(row.id),
        )
        for row in sorted(found, key=lambda row: row.id)
    ]


def _figures(centerline_node: slicer.vtkMRMLModelNode, name: str) -> dict[int, float]:
    """A measure of each branch by its id, where it is known; none in a centerline that an earlier version measured."""
    cells = centerline_node.GetPolyData().GetCellData()
    ids, values = cells.GetArray("branch_id"), cells.GetArray(name)
    if values is None:
        return {}
    found = {int(ids.GetValue(cell)): float(values.GetValue(cell)) for cell in range(ids.GetNumberOfValues())}
    return {number: value for number, value in found.items() if value == value}


def _words(centerline_node: slicer.vtkMRMLModelNode, name: str) -> dict[int, str]:
    """A text of each branch by its id; none in a centerline that an earlier version measured."""
    cells = centerline_node.GetPolyData().GetCellData()
    ids, values = cells.GetArray("branch_id"), cells.GetAbstractArray(name)
    if values is None:
        return {}
    return {int(ids.GetValue(cell)): str(values.GetValue(cell)) for cell in range(ids.GetNumberOfValues())}


def _trees(centerline_node: slicer.vtkMRMLModelNode) -> set[int]:
    """The components that are trees: where a scan shows no carina there may be several."""
    named = centerline_node.GetPolyData().GetFieldData().GetArray("trees")
    return {1} if named is None else {int(named.GetValue(row)) for row in range(named.GetNumberOfTuples())}


def summary(rows: list[BranchRow]) -> str:
    """A summary of the tree or trees, with the number of loose fragments if there are any; empty without branches."""
    tree = [row for row in rows if not row.is_loose]
    if not tree:
        return ""
    trees, loose = ({row.component for row in rows if row.is_loose is loose} for loose in (False, True))
    text = _("{count} branches, {metres} m, down to generation {generation}")
    if len(trees) > 1:
        text = _("{trees} trees: {count} branches, {metres} m, down to generation {generation}")
    if loose:
        text += _("; {loose} loose fragment") if len(loose) == 1 else _("; {loose} loose fragments")
    return text.format(
        trees=len(trees),
        count=len(tree),
        metres=f"{sum(row.length_mm for row in tree) / 1000:.2f}",
        generation=max(row.generation for row in tree),
        loose=len(loose),
    )


def branch_points(centerline_node: slicer.vtkMRMLModelNode, number: int) -> tuple[Array, Array]:
    """Points (P, 3) of a branch in the model's own space, proximal first, and their indices in the point arrays.

    Raises RuntimeError when there is no such branch.
    """
    from vtk.util.numpy_support import vtk_to_numpy

    polydata = centerline_node.GetPolyData()
    ids = polydata.GetCellData().GetArray("branch_id")
    cell = next((cell for cell in range(ids.GetNumberOfValues()) if int(ids.GetValue(cell)) == number), None)
    if cell is None:
        raise RuntimeError(_("There is no branch {number}.").format(number=number))
    points = vtk.vtkIdList()
    polydata.GetCellPoints(cell, points)
    indices = [points.GetId(number) for number in range(points.GetNumberOfIds())]
    return vtk_to_numpy(polydata.GetPoints().GetData())[indices], indices


def nearest_branch(centerline_node: slicer.vtkMRMLModelNode, world: Point, farthest_mm: float = 15.0) -> int | None:
    """The branch whose lumen is nearest to a point (RAS, world); None when it is farther than ``farthest_mm``."""
    import numpy as np
    from vtk.util.numpy_support import vtk_to_numpy

    polydata, local = centerline_node.GetPolyData(), [0.0, 0.0, 0.0]
    centerline_node.TransformPointFromWorld(world, local)
    points = vtk_to_numpy(polydata.GetPoints().GetData())
    gaps = np.linalg.norm(points - local, axis=1)
    gaps = gaps - vtk_to_numpy(polydata.GetPointData().GetArray("radius_mm"))
    nearest = int(gaps.argmin())
    if gaps[nearest] > farthest_mm:
        return None
    cells = vtk.vtkIdList()
    polydata.BuildLinks()
    polydata.GetPointCells(nearest, cells)
    return int(polydata.GetCellData().GetArray("branch_id").GetValue(cells.GetId(0)))


def show_branch(segmentation_node: slicer.vtkMRMLSegmentationNode, number: int) -> None:
    """Centre slice and 3D views on the branch's middle, and highlight it."""
    centerline = companion(segmentation_node, CENTERLINE)
    if centerline is None:
        raise RuntimeError(_("Measure {name} first.").format(name=segmentation_node.GetName()))
    points, indices = branch_points(centerline, number)
    with undone_on_failure():
        model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
        model.SetAndObservePolyData(_tube(centerline, points, indices))
        model.CreateDefaultDisplayNodes()
    add_companion(segmentation_node, HIGHLIGHT, model, "chosen branch")
    sign_like_tree(segmentation_node, model)
    display = model.GetDisplayNode()
    display.SetColor(*HIGHLIGHT_COLOR)
    display.SetAmbient(0.4)  # Stands out from the colours of an overlay.
    display.SetVisibility2D(True)
    display.SetSliceIntersectionThickness(3)
    middle = [0.0, 0.0, 0.0]
    centerline.TransformPointToWorld(points[len(points) // 2].tolist(), middle)
    centre_views((middle[0], middle[1], middle[2]))


def hide_branch(segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
    """Remove the highlight."""
    remove_companion(segmentation_node, HIGHLIGHT)


def hide_branches() -> None:
    """Remove every highlight of the scene, unless that is being closed or read."""
    if not slicer.mrmlScene.IsClosing() and not slicer.mrmlScene.IsImporting():
        for segmentation_node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            hide_branch(segmentation_node)


def _tube(centerline: slicer.vtkMRMLModelNode, points: Array, indices: list[int]) -> vtk.vtkPolyData:
    """A tube slightly wider than the branch; a sphere for a branch of one point."""
    radii_array = centerline.GetPolyData().GetPointData().GetArray("radius_mm")
    radii = [max(LEAST_RADIUS_MM, 1.15 * radii_array.GetValue(index)) for index in indices]
    if len(indices) == 1:
        sphere = vtk.vtkSphereSource()
        sphere.SetCenter(*points[0])
        sphere.SetRadius(radii[0])
        sphere.Update()
        return sphere.GetOutput()
    line, corners, width = vtk.vtkPolyLine(), vtk.vtkPoints(), vtk.vtkFloatArray()
    width.SetName("radius")
    line.GetPointIds().SetNumberOfIds(len(indices))
    for number, (point, radius) in enumerate(zip(points, radii, strict=True)):
        corners.InsertNextPoint(*point)
        width.InsertNextValue(radius)
        line.GetPointIds().SetId(number, number)
    cells, polydata, tube = vtk.vtkCellArray(), vtk.vtkPolyData(), vtk.vtkTubeFilter()
    cells.InsertNextCell(line)
    polydata.SetPoints(corners)
    polydata.SetLines(cells)
    polydata.GetPointData().SetScalars(width)
    tube.SetInputData(polydata)
    tube.SetVaryRadiusToVaryRadiusByAbsoluteScalar()
    tube.SetNumberOfSides(12)
    tube.CappingOn()
    tube.Update()
    tube.GetOutput().GetPointData().SetScalars(None)
    return tube.GetOutput()


def centre_views(world: Point) -> None:
    """Centre every slice view on the point, and move every camera's focal point to it."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *world, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
        step = [to - at for to, at in zip(world, camera.GetFocalPoint(), strict=True)]
        camera.SetPosition(*(at + by for at, by in zip(camera.GetPosition(), step, strict=True)))
        camera.SetFocalPoint(*world)
        camera.ResetClippingRange()
