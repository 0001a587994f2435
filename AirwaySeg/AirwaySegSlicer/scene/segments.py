"""Segments: from a mask to the airways' segment and that of unconnected pieces, voxels, bounding box and surface."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.nodes import INITIAL, Box, companion, ijk_to_ras, shifted, transform_between

# With this code (SCT 110726009) a DICOM SEG export needs no further input.
TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^123037004^Anatomical Structure"
    "~SCT^110726009^Trachea and bronchus~^^~Anatomic codes - DICOM master list~^^~^^"
)
CODE = "110726009"
# Another code, so that a program that reads both segments can tell the airways from what was not joined to them.
UNCONNECTED_TERMINOLOGY = TERMINOLOGY.replace("110726009^Trachea and bronchus", "955009^Bronchus")
AIRWAY_COLOR, UNCONNECTED_COLOR = "96d7ff", "ffbe46"
"""Red, green, blue as hexadecimal bytes; the library has the same."""
SEGMENT_ID, UNCONNECTED_ID = "airways", "unconnected"
"""The segment of the airways, and that of certain pieces of airway that were not joined to them."""
SMOOTHING_FACTOR = "0.2"  # With more, thin airways vanish in 3D.

Array = Any
"""A numpy array; numpy is imported only where it is used."""


def new_segmentation(name: str, volume_node: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSegmentationNode:
    """An empty segmentation node in the scene, on the volume's grid and under its transform."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    # The transform first: the reference geometry is that of the volume in the segmentation's own space.
    node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    node.GetSegmentation().SetConversionParameter("Smoothing factor", SMOOTHING_FACTOR)
    return node


def airway_segment(
    mask_node: slicer.vtkMRMLScalarVolumeNode, volume_node: slicer.vtkMRMLScalarVolumeNode
) -> slicer.vtkSegment:
    """The airways' segment with the mask's voxels that are not 0, on the volume's grid.

    The mask covers the whole grid or a box of it. Raises RuntimeError when it is empty or on another grid.
    """
    segment = _segment_of(mask_node, volume_node)
    if segment is None:
        raise RuntimeError(_("No airways were found in {name}.").format(name=volume_node.GetName()))
    return _looking(segment, "Airways", AIRWAY_COLOR, TERMINOLOGY)


def unconnected_segment(
    pieces_node: slicer.vtkMRMLScalarVolumeNode, volume_node: slicer.vtkMRMLScalarVolumeNode
) -> slicer.vtkSegment | None:
    """The segment of the pieces that were not joined, like `airway_segment`; None where there are none."""
    segment = _segment_of(pieces_node, volume_node)
    if segment is None:
        return None
    return look_unconnected(segment)


def look_unconnected(segment: slicer.vtkSegment) -> slicer.vtkSegment:
    """Give a segment name, colour and code of unconnected airways, and return it."""
    return _looking(segment, "Unconnected airways", UNCONNECTED_COLOR, UNCONNECTED_TERMINOLOGY)


def _looking(segment: slicer.vtkSegment, name: str, color: str, terminology: str) -> slicer.vtkSegment:
    segment.SetName(name)
    segment.SetColor(*(part / 255 for part in bytes.fromhex(color)))
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology)
    return segment


def _segment_of(
    mask_node: slicer.vtkMRMLScalarVolumeNode, volume_node: slicer.vtkMRMLScalarVolumeNode
) -> slicer.vtkSegment | None:
    """A segment with the mask's voxels that are not 0, on the volume's grid; None where all are 0."""
    array = slicer.util.arrayFromVolume(mask_node)
    box = nonzero_box(array)
    if box is None:
        return None
    extent = [
        edge + first
        for (low, high), first in zip(box, first_voxel(mask_node, volume_node), strict=True)
        for edge in (low, high - 1)
    ]
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*extent)
    image.SetGeometryFromImageToWorldMatrix(ijk_to_ras(volume_node))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    array_of(image)[:] = part_of(array, box) != 0
    segment = slicer.vtkSegment()
    segment.AddRepresentation(labelmap_name(), image)
    return segment


def put_segment(
    segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str, segment: slicer.vtkSegment | None
) -> None:
    """Give a segment's voxels to the node's segment of this id; it is added if missing, and removed for None.

    The node's segment keeps its name and colour, and its other segments keep their voxels, also in a shared layer.
    """
    segmentation = segmentation_node.GetSegmentation()
    mine = segmentation.GetSegment(segment_id)
    if segment is None:
        segmentation.RemoveSegment(segment_id)
        return
    if mine is None:
        segmentation.AddSegment(segment, segment_id)
        return
    segmentation.SeparateSegmentLabelmap(segment_id)
    mine.GetRepresentation(labelmap_name()).DeepCopy(segment.GetRepresentation(labelmap_name()))
    mine.SetLabelValue(segment.GetLabelValue())
    mine.Modified()
    segmentation.InvokeEvent(segmentation.SourceRepresentationModified, segment_id)


def stored_segment(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> slicer.vtkSegment | None:
    """A copy of a segment with its voxels in a layer of its own; None where there is none, or it has no voxels."""
    segment, image = segmentation_node.GetSegmentation().GetSegment(segment_id), slicer.vtkOrientedImageData()
    if segment is None or not segmentation_node.GetBinaryLabelmapRepresentation(segment_id, image):
        return None
    copy, terminology = slicer.vtkSegment(), vtk.reference("")
    segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology)
    copy.SetName(segment.GetName())
    copy.SetColor(*segment.GetColor())
    copy.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), str(terminology))
    copy.AddRepresentation(labelmap_name(), image)
    return copy


def labelmap_name() -> str:
    """The name of a segmentation's binary labelmap representation."""
    return slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def array_of(image: vtk.vtkImageData) -> Array:
    """The voxels (Z, Y, X) of an image, not copied."""
    from vtk.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def nonzero_box(array: Array) -> Box | None:
    """The bounding box of the voxels that are not 0, along i, j and k; None for an empty array (Z, Y, X)."""
    import numpy as np

    filled = array if array.dtype == bool else array != 0
    box = []
    for others in ((0, 1), (0, 2), (1, 2)):
        indices = np.flatnonzero(filled.any(axis=others))
        if not len(indices):
            return None
        box.append((int(indices[0]), int(indices[-1]) + 1))
    along_i, along_j, along_k = box
    return along_i, along_j, along_k


def part_of(array: Array, box: Box) -> Array:
    """The voxels (Z, Y, X) in the box."""
    return array[tuple(slice(low, high) for low, high in box[::-1])]


def first_voxel(part: slicer.vtkMRMLVolumeNode, volume_node: slicer.vtkMRMLVolumeNode) -> list[int]:
    """The index (i, j, k) in the volume of the part's first voxel; RuntimeError when their grids do not match."""
    to_ijk = vtk.vtkMatrix4x4()
    volume_node.GetRASToIJKMatrix(to_ijk)
    origin = to_ijk.MultiplyPoint([*part.GetOrigin(), 1.0])[:3]
    counts = zip(part.GetImageData().GetDimensions(), volume_node.GetImageData().GetDimensions(), strict=True)
    first = [round(index) for index in origin]
    off = max(abs(index - whole) for index, whole in zip(origin, first, strict=True))
    if off > 0.01 or any(low < 0 or low + mine > all_ for low, (mine, all_) in zip(first, counts, strict=True)):
        sentence = _("The mask does not lie on the grid of {name}.")
        raise RuntimeError(sentence.format(name=volume_node.GetName()))
    return first


# The airways of a segmentation ---------------------------------------------------------------------------------------


def airway_segment_id(segmentation_node: slicer.vtkMRMLSegmentationNode | None) -> str:
    """The id of the segment with the airways; raises RuntimeError when there is none, or it is ambiguous which.

    It is this module's own, else the only one, else the only one coded as airways, else the only one named so, else the
    only visible one. A segment of the airway walls or of unconnected pieces is used only if it is the only one, or the
    only visible one.
    """
    if segmentation_node is None:
        raise RuntimeError(_("Choose a segmentation of the airways first."))
    segmentation, name = segmentation_node.GetSegmentation(), segmentation_node.GetName()
    if segmentation.GetSegment(SEGMENT_ID):
        return SEGMENT_ID
    ids = list(segmentation.GetSegmentIDs())
    if not ids:
        raise RuntimeError(_("{name} has no segment.").format(name=name))
    display = segmentation_node.GetDisplayNode()
    lumens = [one for one in ids if not re.search("wall|unconnected", _words(segmentation, one), re.IGNORECASE)]
    coded = [one for one in lumens if _is_coded_airways(segmentation.GetSegment(one))]
    named = [one for one in lumens if re.search("airway|bronch", _words(segmentation, one), re.IGNORECASE)]
    shown = [one for one in ids if display is not None and display.GetSegmentVisibility(one)]
    for candidates in (ids, coded, named, shown):
        if len(candidates) == 1:
            return candidates[0]
    sentence = _("{name} has {count} segments; show only the one with the airways, or call it Airways.")
    raise RuntimeError(sentence.format(name=name, count=len(ids)))


def _words(segmentation: slicer.vtkSegmentation, segment_id: str) -> str:
    """The segment's name and id."""
    return f"{segmentation.GetSegment(segment_id).GetName() or ''} {segment_id}"


def _is_coded_airways(segment: slicer.vtkSegment) -> bool:
    """Whether its code is that of trachea and bronchus."""
    tag, code = slicer.vtkSegment.GetTerminologyEntryTagName(), vtk.reference("")
    segment.GetTag(tag, code)
    return f"^{CODE}^" in str(code)


def check_airways(segmentation_node: slicer.vtkMRMLSegmentationNode | None) -> None:
    """Raise RuntimeError, one sentence, for no segmentation, and for the mask of another one before correction."""
    if segmentation_node is None:
        raise RuntimeError(_("Choose a segmentation of the airways first."))
    for other in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        initial = companion(other, INITIAL)
        if initial is not None and initial is segmentation_node:
            sentence = _("{name} is the mask of {other} before correction; choose {other} instead.")
            raise RuntimeError(sentence.format(name=segmentation_node.GetName(), other=other.GetName()))


def ct_of(segmentation_node: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLScalarVolumeNode:
    """The CT that gives the segmentation its grid; raises RuntimeError when it is not in the scene."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    volume_node = segmentation_node.GetNodeReference(role)
    if volume_node is None:
        raise RuntimeError(_("The CT of {name} is not in the scene.").format(name=segmentation_node.GetName()))
    return volume_node


@dataclass(frozen=True)
class Voxels:
    """The airways' voxels: True and False (Z, Y, X), the first of them at ``low`` (i, j, k), and the grid's matrix."""

    array: Array
    low: tuple[int, int, int]
    matrix: vtk.vtkMatrix4x4


def segment_voxels(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str = "") -> Voxels:
    """The stored voxels of a segment, by default the airways; of a shared layer only this segment.

    Raises RuntimeError where there is none.
    """
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id or airway_segment_id(segmentation_node))
    image = segment.GetRepresentation(labelmap_name()) if segment is not None else None
    matrix = vtk.vtkMatrix4x4()
    if image is None:
        raise RuntimeError(_("{name} has no voxels.").format(name=segmentation_node.GetName()))
    image.GetImageToWorldMatrix(matrix)
    if not image.GetNumberOfPoints():
        import numpy as np

        return Voxels(np.zeros((0, 0, 0), bool), (0, 0, 0), matrix)
    return Voxels(array_of(image) == segment.GetLabelValue(), tuple(image.GetExtent()[::2]), matrix)


def airways_box(
    segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str = ""
) -> tuple[Array, vtk.vtkMatrix4x4]:
    """The airways, or a segment, (Z, Y, X) in their bounding box, and the matrix of its grid.

    Raises RuntimeError where there are none.
    """
    voxels = segment_voxels(segmentation_node, segment_id)
    box = nonzero_box(voxels.array) if voxels.array.size else None
    if box is None:
        raise RuntimeError(_("The airways of {name} are empty.").format(name=segmentation_node.GetName()))
    low = [first + start for first, (start, _stop) in zip(voxels.low, box, strict=True)]
    return part_of(voxels.array, box), shifted(voxels.matrix, low)


def closed_surface(segmentation_node: slicer.vtkMRMLSegmentationNode) -> vtk.vtkPolyData:
    """A copy of the airways' closed surface, made if there is none; raises RuntimeError where there can be none."""
    surface = vtk.vtkPolyData()
    segmentation_node.CreateClosedSurfaceRepresentation()
    segmentation_node.GetClosedSurfaceRepresentation(airway_segment_id(segmentation_node), surface)
    if not surface.GetNumberOfPoints():
        raise RuntimeError(_("{name} has no surface.").format(name=segmentation_node.GetName()))
    return surface


def mask_on_ct(
    segmentation_node: slicer.vtkMRMLSegmentationNode, ct: slicer.vtkMRMLScalarVolumeNode, segment_id: str = ""
) -> Array:
    """The airways, or a segment, (Z, Y, X) as 0 and 1 on the whole grid of the CT; the scene is not changed.

    They lie where the parent transforms of both nodes show them.
    """
    import numpy as np

    segment_id = segment_id or airway_segment_id(segmentation_node)
    voxels, between = segment_voxels(segmentation_node, segment_id), transform_between(segmentation_node, ct)
    low = first_voxel_between(voxels.matrix, ijk_to_ras(ct), voxels.low)
    if low is None or between is not None:
        image = slicer.vtkOrientedImageData()
        segmentation_node.GetBinaryLabelmapRepresentation(segment_id, image)
        return resampled(image, ct, between, segmentation_node.GetName())
    whole = np.zeros(ct.GetImageData().GetDimensions()[::-1], np.uint8)
    paste(whole, voxels.array, low)  # Slicer's editor may leave voxels outside the CT.
    return whole


def paste(into: Array, part: Array, low: list[int]) -> None:
    """Put a part (Z, Y, X) whose first voxel has the index ``low`` (i, j, k) into an array, as far as it lies in it."""
    import numpy as np

    first = np.array(low[::-1])
    start, end = np.maximum(first, 0), np.minimum(first + part.shape, into.shape)
    if (start < end).all():
        into[tuple(map(slice, start, end))] = part[tuple(map(slice, start - first, end - first))]


def first_voxel_between(
    mine: vtk.vtkMatrix4x4, its: vtk.vtkMatrix4x4, low: tuple[int, int, int] = (0, 0, 0)
) -> list[int] | None:
    """The index (i, j, k) on a grid of the voxel ``low`` of another one; None where their voxels do not match."""
    import numpy as np

    between = np.linalg.solve(*(slicer.util.arrayFromVTKMatrix(matrix) for matrix in (its, mine)))
    first = between @ np.array([*low, 1.0])
    # Over the largest CT this is a hundredth of a voxel.
    same = np.abs(between[:3, :3] - np.eye(3)).max() < 1e-5 and np.abs(first[:3] - np.rint(first[:3])).max() < 0.01
    return [int(number) for number in np.rint(first[:3])] if same else None


def resampled(
    image: slicer.vtkOrientedImageData,
    ct: slicer.vtkMRMLScalarVolumeNode,
    between: vtk.vtkAbstractTransform | None,
    name: str,
) -> Array:
    """A mask on the whole grid of the CT (Z, Y, X), nearest neighbours; ``between`` leads from its space to the CT's.

    Raises RuntimeError, with the mask's name, where that cannot be done.
    """
    grid, on_grid = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
    grid.SetExtent(*(edge for count in ct.GetImageData().GetDimensions() for edge in (0, count - 1)))
    grid.SetGeometryFromImageToWorldMatrix(ijk_to_ras(ct))
    grid.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    if not resample(image, grid, on_grid, False, False, between):
        raise RuntimeError(_("{name} does not fit on the grid of {ct}.").format(name=name, ct=ct.GetName()))
    return array_of(on_grid).copy()
