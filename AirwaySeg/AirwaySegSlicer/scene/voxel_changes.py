"""Adds voxels to a segment and takes them out of it, without touching the rest of the grid."""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.segments import (
    UNCONNECTED_ID,
    Array,
    Voxels,
    airway_segment_id,
    array_of,
    first_voxel_between,
    labelmap_name,
    look_unconnected,
    put_segment,
    segment_voxels,
)


def change(segmentation_node: slicer.vtkMRMLSegmentationNode, add: Array, remove: Array, segment_id: str = "") -> None:
    """Add and remove voxels (N, 3), as i, j, k on the airways' grid, of a segment, by default of the airways.

    The segment of unconnected airways is made where it is missing, and removed when it becomes empty. A voxel in both
    is added.
    """
    import numpy as np

    segment_id = segment_id or airway_segment_id(segmentation_node)
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    if segment is None and (segment_id != UNCONNECTED_ID or not len(add)):
        return
    before = _voxels(segmentation_node, segment_id)
    low, high = np.array(before.low), np.array(before.low) + before.array.shape[::-1]
    if len(add):
        empty = not before.array.size
        low = add.min(axis=0) if empty else np.minimum(low, add.min(axis=0))
        high = add.max(axis=0) + 1 if empty else np.maximum(high, add.max(axis=0) + 1)
    image, array = _image(low, high, before)
    for voxels, value in ((remove, 0), (add, 1)):
        inside = voxels[((voxels >= low) & (voxels < high)).all(axis=1)] - low
        array[tuple(inside.T[::-1])] = value
    if segment_id == UNCONNECTED_ID and not array.any():
        put_segment(segmentation_node, segment_id, None)
        return
    changed = slicer.vtkSegment()
    changed.AddRepresentation(labelmap_name(), image)
    if segment is None:
        look_unconnected(changed)
    put_segment(segmentation_node, segment_id, changed)


def _voxels(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> Voxels:
    """The segment's voxels; of a missing segment none, on the grid of the airways."""
    import numpy as np

    grid = segment_voxels(segmentation_node).matrix
    if segmentation_node.GetSegmentation().GetSegment(segment_id) is not None:
        mine = _on_grid(segment_voxels(segmentation_node, segment_id), grid)
        if mine is None:
            sentence = _("The segments of {name} are on different grids.")
            raise RuntimeError(sentence.format(name=segmentation_node.GetName()))
        return mine
    return Voxels(np.zeros((0, 0, 0), bool), (0, 0, 0), grid)


def _on_grid(voxels: Voxels, grid: vtk.vtkMatrix4x4) -> Voxels | None:
    """The same voxels, counted on another grid; None where the grids do not match."""
    low = first_voxel_between(voxels.matrix, grid, voxels.low)
    return Voxels(voxels.array, (low[0], low[1], low[2]), grid) if low is not None else None


def _image(low: Array, high: Array, before: Voxels) -> tuple[vtk.vtkImageData, Array]:
    """An image from ``low`` to below ``high`` with these voxels in it, and its array (Z, Y, X)."""
    import numpy as np

    image = slicer.vtkOrientedImageData()
    image.SetExtent(*(int(edge) for first, last in zip(low, high, strict=True) for edge in (first, last - 1)))
    image.SetGeometryFromImageToWorldMatrix(before.matrix)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    array = array_of(image)
    array[:] = 0
    start = (np.array(before.low) - low)[::-1]
    array[tuple(slice(first, first + count) for first, count in zip(start, before.array.shape, strict=True))] = (
        before.array
    )
    return image, array


def which_are_in(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    voxels: Array,
    segment_id: str = "",
    grid: vtk.vtkMatrix4x4 | None = None,
) -> Array:
    """Whether each voxel (N, 3), as i, j, k, is in the segment, by default the airways; (N,) bool.

    ``grid`` is the matrix of the voxels' grid, by default that of the node's airways; on another grid none is.
    """
    import numpy as np

    segment_id = segment_id or airway_segment_id(segmentation_node)
    found, segment = np.zeros(len(voxels), bool), segmentation_node.GetSegmentation().GetSegment(segment_id)
    image = segment.GetRepresentation(labelmap_name()) if segment is not None else None
    if image is None or not image.GetNumberOfPoints() or not len(voxels):
        return found
    low = first_voxel_between(matrix_of(image), grid or grid_of(segmentation_node), image.GetExtent()[::2])
    if low is None:
        return found
    local = voxels - np.array(low)
    inside = ((local >= 0) & (local < image.GetDimensions())).all(axis=1)
    found[inside] = array_of(image)[tuple(local[inside].T[::-1])] == segment.GetLabelValue()
    return found


def grid_of(segmentation_node: slicer.vtkMRMLSegmentationNode) -> vtk.vtkMatrix4x4:
    """The matrix of the airways' grid, without looking at their voxels; RuntimeError where there are none."""
    segment = segmentation_node.GetSegmentation().GetSegment(airway_segment_id(segmentation_node))
    image = segment.GetRepresentation(labelmap_name())
    if image is None:
        raise RuntimeError(_("{name} has no voxels.").format(name=segmentation_node.GetName()))
    return matrix_of(image)


def matrix_of(image: vtk.vtkImageData) -> vtk.vtkMatrix4x4:
    """The matrix from the indices of an oriented image to its space."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return matrix


def slivers(segmentation_node: slicer.vtkMRMLSegmentationNode, removed: Array) -> Array:
    """What is left of the airways, within two voxels of removed ones, and touches nothing else; (N, 3) as i, j, k.

    Such are the voxels that joined a piece to a bridge by faces.
    """
    import numpy as np
    from scipy import ndimage

    if not len(removed):
        return removed
    mine = segment_voxels(segmentation_node)
    low = np.maximum(removed.min(axis=0) - 3, mine.low)
    high = np.minimum(removed.max(axis=0) + 4, np.array(mine.low) + mine.array.shape[::-1])
    if (low >= high).any():
        return removed[:0]
    box = tuple(slice(a, b) for a, b in zip((low - mine.low)[::-1], (high - mine.low)[::-1], strict=True))
    part = mine.array[box].copy()
    near = np.zeros(part.shape, bool)
    local = removed - low
    inside = ((local >= 0) & (local < part.shape[::-1])).all(axis=1)
    near[tuple(local[inside].T[::-1])] = True
    part &= ~near
    labels, count = ndimage.label(part, np.ones((3, 3, 3)))
    far = np.unique(labels[~ndimage.binary_dilation(near, np.ones((3, 3, 3)), iterations=2)])
    left = np.isin(labels, np.setdiff1d(np.arange(1, count + 1), far))
    return np.argwhere(left)[:, ::-1] + low
