"""A second segmentation against the airways: where both agree, as a map of three values, and the metrics, as a table.

Both are nodes of the result, saved with it, and marked as out of date when the airways are edited.
"""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.airway_voxels import AirwayVoxels
from AirwaySegSlicer.scene.freshness import sign, update_marks
from AirwaySegSlicer.scene.nodes import (
    COMPARED,
    COMPARISON,
    Box,
    add_companion,
    companion,
    ijk_to_ras,
    remove_companion,
    shifted,
    transform_between,
)
from AirwaySegSlicer.scene.segments import (
    Array,
    airway_segment_id,
    array_of,
    check_airways,
    first_voxel_between,
    mask_on_ct,
    part_of,
    resampled,
)

BOTH, ONLY_THIS, ONLY_OTHER = 1, 2, 3
"""Values of the map: airway in both, in this result only, in the other segmentation only; 0 is neither."""
OTHER = "AirwaySeg.comparedWith"
"""Attribute of the table: the name of the other segmentation."""
AGREEMENT = "agreement"
"""The overlay that shows the map."""


def other_mask(node: slicer.vtkMRMLNode, ct: slicer.vtkMRMLScalarVolumeNode) -> Array:
    """Another program's or person's airways (Z, Y, X), 0 and 1, on the CT's grid.

    Of a segmentation its airways (`segments.airway_segment_id`), of a label map what is not 0. Raises RuntimeError,
    one sentence, where none lie in the CT. They lie where the parent transforms of both nodes show them.
    """
    if node.IsA("vtkMRMLSegmentationNode"):
        mask = mask_on_ct(node, ct, airway_segment_id(node))
    else:
        mask = _label_on_ct(node, ct)
    if not mask.any():
        raise RuntimeError(_("No airways of {name} lie in {ct}.").format(name=node.GetName(), ct=ct.GetName()))
    return mask


def _label_on_ct(node: slicer.vtkMRMLLabelMapVolumeNode, ct: slicer.vtkMRMLScalarVolumeNode) -> Array:
    if node.GetImageData() is None:
        raise RuntimeError(_("{name} holds no image.").format(name=node.GetName()))
    array = (slicer.util.arrayFromVolume(node) != 0).astype("uint8")
    between = transform_between(node, ct)
    same_size = node.GetImageData().GetDimensions() == ct.GetImageData().GetDimensions()
    if between is None and same_size and first_voxel_between(ijk_to_ras(node), ijk_to_ras(ct)) == [0, 0, 0]:
        return array
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*node.GetImageData().GetDimensions())
    image.SetGeometryFromImageToWorldMatrix(ijk_to_ras(node))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    array_of(image)[:] = array
    return resampled(image, ct, between, node.GetName())


def check_other(airways: slicer.vtkMRMLSegmentationNode, other: slicer.vtkMRMLNode | None) -> None:
    """Raise RuntimeError, one sentence, for nothing to compare with, and for the airways themselves."""
    check_airways(airways)
    if other is None:
        raise RuntimeError(_("Choose a segmentation or label map to compare with first."))
    if other is airways:
        raise RuntimeError(_("{name} is compared with itself; choose another one.").format(name=other.GetName()))


def keep_comparison(
    airways: slicer.vtkMRMLSegmentationNode, agreement: tuple[Array, vtk.vtkMatrix4x4], rows: list[tuple[str, str]]
) -> None:
    """Add the map (Z, Y, X) with its matrix and the (measure, value) rows to the result, instead of earlier ones."""
    array, matrix = agreement
    image, volume = vtk.vtkImageData(), slicer.vtkMRMLScalarVolumeNode()
    image.SetDimensions(*array.shape[::-1])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    array_of(image)[:] = array
    volume.SetAndObserveImageData(image)
    volume.SetIJKToRASMatrix(matrix)
    add_companion(airways, COMPARED, volume, "agreement")
    table, node = vtk.vtkTable(), slicer.vtkMRMLTableNode()
    for title, column in ((_("Measure"), 0), (_("Value"), 1)):
        words = vtk.vtkStringArray()
        words.SetName(title)
        for row in rows:
            words.InsertNextValue(row[column])
        table.AddColumn(words)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetAndObserveTable(table)
    add_companion(airways, COMPARISON, node, "comparison")


def sign_comparison(airways: slicer.vtkMRMLSegmentationNode, other: str, signature: str) -> None:
    """Note with what and of which mask the comparison was made, and mark it where the airways have changed since."""
    for role in (COMPARED, COMPARISON):
        node = companion(airways, role)
        if node is not None:
            node.SetAttribute(OTHER, other)
            sign(node, signature)
    update_marks(airways)


def comparison_rows(airways: slicer.vtkMRMLSegmentationNode) -> list[tuple[str, str]]:
    """The (measure, value) rows of the result's comparison; none without one."""
    node = companion(airways, COMPARISON)
    if node is None:
        return []
    measures, values = (node.GetTable().GetColumn(column) for column in (0, 1))
    return [(measures.GetValue(row), values.GetValue(row)) for row in range(node.GetTable().GetNumberOfRows())]


def compared_with(airways: slicer.vtkMRMLSegmentationNode) -> str:
    """The name of what the airways were compared with; empty without a comparison."""
    node = companion(airways, COMPARISON)
    return (node.GetAttribute(OTHER) or "") if node is not None else ""


def remove_comparison(airways: slicer.vtkMRMLSegmentationNode) -> None:
    """Remove map and table; the overlay must be hidden before."""
    for role in (COMPARED, COMPARISON):
        remove_companion(airways, role)


# The map -------------------------------------------------------------------------------------------------------------


def agreement_of(this: Array, other: Array, box: Box, matrix: vtk.vtkMatrix4x4) -> tuple[Array, vtk.vtkMatrix4x4]:
    """The map (Z, Y, X) of two masks in a box of their grid, uint8, and the matrix of the box."""
    import numpy as np

    one, two = part_of(this, box) != 0, part_of(other, box) != 0
    values = np.select([one & two, one, two], [BOTH, ONLY_THIS, ONLY_OTHER], 0).astype(np.uint8)
    return values, shifted(matrix, [low for low, _high in box])


def agreement_voxels(airways: slicer.vtkMRMLSegmentationNode) -> AirwayVoxels:
    """The voxels of the map with their values counted from 0; RuntimeError without a comparison."""
    import numpy as np

    node = companion(airways, COMPARED)
    if node is None:
        raise RuntimeError(_("Compare {name} with another segmentation first.").format(name=airways.GetName()))
    array = slicer.util.arrayFromVolume(node)
    where = np.flatnonzero(array)
    values = array.ravel()[where].astype(np.float32) - 1
    z, y, x = (int(count) for count in array.shape)
    to_ras = slicer.util.arrayFromVTKMatrix(ijk_to_ras(node))
    return AirwayVoxels(where, {AGREEMENT: values}, (z, y, x), to_ras)


def agreement_surface(airways: slicer.vtkMRMLSegmentationNode) -> vtk.vtkPolyData:
    """The surface round all that is airway in one of the two, slightly smoothed, in the airways' own space."""
    node = companion(airways, COMPARED)
    if node is None:
        raise RuntimeError(_("Compare {name} with another segmentation first.").format(name=airways.GetName()))
    padded, flying = vtk.vtkImageConstantPad(), vtk.vtkFlyingEdges3D()
    smooth, move, transform = vtk.vtkWindowedSincPolyDataFilter(), vtk.vtkTransformPolyDataFilter(), vtk.vtkTransform()
    x, y, z = node.GetImageData().GetDimensions()
    padded.SetInputData(node.GetImageData())
    padded.SetOutputWholeExtent(-1, x, -1, y, -1, z)
    flying.SetInputConnection(padded.GetOutputPort())
    flying.SetValue(0, 0.5)
    flying.ComputeNormalsOff()
    flying.ComputeScalarsOff()
    smooth.SetInputConnection(flying.GetOutputPort())
    smooth.SetNumberOfIterations(20)
    smooth.SetPassBand(0.2)
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    transform.SetMatrix(ijk_to_ras(node))
    move.SetTransform(transform)
    move.SetInputConnection(smooth.GetOutputPort())
    move.Update()
    return move.GetOutput()
