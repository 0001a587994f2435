"""What a run found beside its mask: probability, origin of its voxels, and every repair; saved with the result."""

from __future__ import annotations

import json
import os
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.nodes import (
    ORIGIN,
    PROBABILITY,
    REPAIRS,
    add_companion,
    companion,
    ijk_to_ras,
    read_volume,
    remove_companion,
    shifted,
)
from AirwaySegSlicer.scene.segments import Array, array_of, first_voxel_between, nonzero_box, part_of, paste
from AirwaySegSlicer.scene.texts import put_document

REPAIRS_FILE, PROBABILITY_FILE, ORIGIN_FILE = "repairs.json", "probability.nrrd", "origin.nrrd"


class Evidence:
    """The evidence in a folder of `airwayseg segment`, read before the scene is changed; each may be missing.

    Raises RuntimeError where a file cannot be read.
    """

    def __init__(self, folder: str) -> None:
        self.repairs = _read_repairs(os.path.join(folder, REPAIRS_FILE))
        self.probability = _read_box(os.path.join(folder, PROBABILITY_FILE))
        self.origin = _read_box(os.path.join(folder, ORIGIN_FILE))

    def keep(self, segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
        """Add it to the result, instead of that of an earlier run."""
        for role in (REPAIRS, PROBABILITY, ORIGIN):
            remove_companion(segmentation_node, role)
        if self.repairs is not None:
            put_document(segmentation_node, REPAIRS, self.repairs, "repairs")
        if self.probability is not None:
            add_companion(segmentation_node, PROBABILITY, self.probability, "probability")
        if self.origin is not None:
            add_companion(segmentation_node, ORIGIN, self.origin, "origin")


def _read_repairs(path: str) -> dict[str, Any] | None:
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
        for repair in document["repairs"]:
            repair["state"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(_("The segmentation wrote no readable repairs.json.")) from error
    return document


def _read_box(path: str) -> slicer.vtkMRMLScalarVolumeNode | None:
    """A map of bytes in the box outside which it is 0, as a volume that is not in a scene; None without a file."""
    if not os.path.exists(path):
        return None
    whole = read_volume(path)
    array = slicer.util.arrayFromVolume(whole)
    box = nonzero_box(array)
    if box is None:
        return None
    image, node = vtk.vtkImageData(), slicer.vtkMRMLScalarVolumeNode()
    image.SetDimensions(*(high - low for low, high in box))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    array_of(image)[:] = part_of(array, box)
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(shifted(ijk_to_ras(whole), [low for low, _high in box]))
    return node


def probability_on(
    segmentation_node: slicer.vtkMRMLSegmentationNode, shape: tuple[int, ...], matrix: vtk.vtkMatrix4x4
) -> Array | None:
    """The result's probability (Z, Y, X), 0..255, on a box of its CT's grid; None where it is not known there."""
    import numpy as np

    node = companion(segmentation_node, PROBABILITY)
    if node is None:
        return None
    values, low = slicer.util.arrayFromVolume(node), first_voxel_between(ijk_to_ras(node), matrix)
    if low is None:
        return None
    found = np.zeros(shape, np.uint8)
    paste(found, values, low)
    return found
