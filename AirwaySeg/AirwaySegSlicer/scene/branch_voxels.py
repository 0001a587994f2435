"""Which voxels of the airways belong to a branch: those whose nearest lumen on the centerline is the branch's.

Found again for each question, so that it holds in a reloaded scene and after edits.
"""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.branches import branch_points, branch_rows
from AirwaySegSlicer.scene.nodes import CENTERLINE, companion
from AirwaySegSlicer.scene.segments import Array, segment_voxels

MARGIN_MM = 3.0
NEIGHBOURS = 24
"""Points of the centerline that are compared for each voxel."""


def subtree(segmentation_node: slicer.vtkMRMLSegmentationNode, number: int) -> list[int]:
    """A branch and all that spring from it, by id."""
    children: dict[int, list[int]] = {}
    for row in branch_rows(companion(segmentation_node, CENTERLINE)):
        children.setdefault(row.parent, []).append(row.id)
    found = [number]
    for one in found:
        found.extend(children.get(one, []))
    return found


def branch_voxels(segmentation_node: slicer.vtkMRMLSegmentationNode, numbers: list[int]) -> Array:
    """The voxels (N, 3) of branches, as i, j, k on the airways' grid; RuntimeError where there is no centerline.

    Each voxel near them belongs to the point of the whole centerline whose sphere of the lumen's radius it lies deepest
    in, or is nearest to.
    """
    import numpy as np
    from scipy.spatial import cKDTree
    from vtk.util.numpy_support import vtk_to_numpy

    centerline = companion(segmentation_node, CENTERLINE)
    if centerline is None:
        raise RuntimeError(_("Measure {name} first.").format(name=segmentation_node.GetName()))
    polydata = centerline.GetPolyData()
    points = vtk_to_numpy(polydata.GetPoints().GetData()).astype(float)
    radii = vtk_to_numpy(polydata.GetPointData().GetArray("radius_mm"))
    indices = np.concatenate([branch_points(centerline, number)[1] for number in numbers])
    wanted = np.zeros(len(points), bool)
    wanted[indices] = True
    reach = float(radii[indices].max()) + MARGIN_MM
    voxels, places = _airways_near(segmentation_node, points[indices], reach)
    if not len(voxels):
        return voxels
    gaps, nearest = cKDTree(points).query(places, k=min(NEIGHBOURS, len(points)))
    gaps, nearest = gaps.reshape(len(places), -1), nearest.reshape(len(places), -1)
    best = (gaps - radii[nearest]).argmin(axis=1)
    rows = np.arange(len(places))
    return voxels[wanted[nearest[rows, best]] & (gaps[rows, best] <= reach)]


def _airways_near(
    segmentation_node: slicer.vtkMRMLSegmentationNode, points: Array, reach_mm: float
) -> tuple[Array, Array]:
    """The airways' voxels (N, 3) in a box round points (P, 3), and their centres (RAS, own space)."""
    import numpy as np

    mine = segment_voxels(segmentation_node)
    matrix = slicer.util.arrayFromVTKMatrix(mine.matrix)
    around = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * reach_mm
    corners = (points[:, None] + around).reshape(-1, 3)
    ijk = (corners - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T - mine.low
    low = np.maximum(np.floor(ijk.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(ijk.max(axis=0)).astype(int) + 1, mine.array.shape[::-1])
    part = mine.array[tuple(slice(first, last) for first, last in zip(low[::-1], high[::-1], strict=True))]
    voxels = np.argwhere(part)[:, ::-1] + low + mine.low
    return voxels, voxels @ matrix[:3, :3].T + matrix[:3, 3]
