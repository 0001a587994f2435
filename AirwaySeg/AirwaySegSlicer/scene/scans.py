"""The CT of airways, a key that identifies a scan whatever its name, and the patient."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.nodes import ROLE, Box, check_ct, ijk_to_ras, subject_hierarchy, transform_between
from AirwaySegSlicer.scene.segments import Array, ct_of, first_voxel_between, mask_on_ct, segment_voxels

REGION = ROLE + "region"
"""Attribute of a result: the box of its CT that was segmented, as JSON; empty for all of it."""

PATIENT = ROLE + "patient"
"""Attribute of a CT: the patient as entered by the user."""

INSTANCES = "DICOM.instanceUIDs"
"""Attribute of a volume that Slicer read from DICOM: its SOP Instance UIDs."""

PLANES_LOOKED_AT = 32


@dataclass(frozen=True)
class Scan:
    """The grid of the CT on which airways were segmented, and the part of it, along i, j and k, that was."""

    ijk_to_ras: vtk.vtkMatrix4x4
    box: Box

    def first_voxel(self, matrix: vtk.vtkMatrix4x4) -> list[int] | None:
        """The index (i, j, k) of the first voxel of another grid; None where their voxels do not match."""
        return first_voxel_between(matrix, self.ijk_to_ras)


def note_region(segmentation_node: slicer.vtkMRMLSegmentationNode, box: Box | None) -> None:
    """Keep which part of its CT a result was segmented in; None: all of it."""
    segmentation_node.SetAttribute(REGION, json.dumps(box) if box else "")


def scan_of(segmentation_node: slicer.vtkMRMLSegmentationNode) -> Scan | None:
    """Where the airways were segmented; None where their CT is not in the scene."""
    try:
        ct = ct_of(segmentation_node)
    except RuntimeError:
        return None
    if ct.GetImageData() is None:
        return None
    noted = json.loads(segmentation_node.GetAttribute(REGION) or "null")
    i, j, k = noted or [(0, count) for count in ct.GetImageData().GetDimensions()]
    return Scan(ijk_to_ras(ct), ((i[0], i[1]), (j[0], j[1]), (k[0], k[1])))


def ct_for(
    segmentation_node: slicer.vtkMRMLSegmentationNode, chosen: slicer.vtkMRMLScalarVolumeNode | None
) -> slicer.vtkMRMLScalarVolumeNode:
    """The CT of airways: the one that they were segmented on; where that is not known, the chosen one.

    Airways that were read from a file have no CT, or a label map instead. Raises RuntimeError when there is neither.
    """
    try:
        ct = ct_of(segmentation_node)
    except RuntimeError:
        ct = None
    if ct is not None and not ct.IsA("vtkMRMLLabelMapVolumeNode"):
        return ct
    if chosen is None:
        sentence = _("The CT of {name} is not in the scene; choose a chest CT.")
        raise RuntimeError(sentence.format(name=segmentation_node.GetName()))
    check_ct(chosen)
    return chosen


def check_same_transform(segmentation_node: slicer.vtkMRMLSegmentationNode, ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Raise RuntimeError, one sentence, where the parent transforms place airways and CT differently."""
    if transform_between(segmentation_node, ct) is not None:
        sentence = _("{name} and {ct} are under different transforms; put both under the same one first.")
        raise RuntimeError(sentence.format(name=segmentation_node.GetName(), ct=ct.GetName()))


def mask_for(segmentation_node: slicer.vtkMRMLSegmentationNode, ct: slicer.vtkMRMLScalarVolumeNode) -> Array:
    """The airways (Z, Y, X) as 0 and 1 on the CT's grid; RuntimeError where none are inside it.

    Airways on the CT's own grid must be under its transform: otherwise it cannot be said which of the two was moved.
    """
    if first_voxel_between(segment_voxels(segmentation_node).matrix, ijk_to_ras(ct)) is not None:
        check_same_transform(segmentation_node, ct)
    mask = mask_on_ct(segmentation_node, ct)
    if not mask.any():
        sentence = _("No airways of {name} lie in {ct}.")
        raise RuntimeError(sentence.format(name=segmentation_node.GetName(), ct=ct.GetName()))
    return mask


def scan_key(volume_node: slicer.vtkMRMLScalarVolumeNode) -> str:
    """A hash of eight hexadecimal digits that stays the same when the node is renamed, moved, or saved and read again.

    It is of the SOP Instance UIDs where these are known; else of the DICOM series; else of the voxels.
    """
    hierarchy = subject_hierarchy()
    uid_name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    known = " ".join(sorted((volume_node.GetAttribute(INSTANCES) or "").split()))
    known = known or hierarchy.GetItemUID(hierarchy.GetItemByDataNode(volume_node), uid_name)
    digest = hashlib.blake2b(known.encode(), digest_size=4)
    if not known:
        import numpy as np

        array = slicer.util.arrayFromVolume(volume_node)
        spacing = [round(mm, 4) for mm in volume_node.GetSpacing()]
        digest.update(f"{array.dtype.name} {array.shape} {spacing}".encode())
        for plane in np.unique(np.linspace(0, len(array) - 1, PLANES_LOOKED_AT).astype(int)):
            digest.update(np.ascontiguousarray(array[plane]).data)
    return digest.hexdigest()


def patient_of(volume_node: slicer.vtkMRMLScalarVolumeNode) -> str:
    """The patient as entered for this CT; else from DICOM; else the CT's name."""
    return volume_node.GetAttribute(PATIENT) or dicom_patient(volume_node) or volume_node.GetName()


def dicom_patient(volume_node: slicer.vtkMRMLScalarVolumeNode) -> str:
    """The patient's ID in the subject hierarchy, or the patient's name, or the study's UID; empty without them."""
    hierarchy, constants = subject_hierarchy(), slicer.vtkMRMLSubjectHierarchyConstants
    item, study = hierarchy.GetItemByDataNode(volume_node), ""
    while item and item != hierarchy.GetSceneItemID():
        level, uid = hierarchy.GetItemLevel(item), hierarchy.GetItemUID(item, constants.GetDICOMUIDName())
        found = hierarchy.GetItemAttribute(item, constants.GetDICOMPatientIDAttributeName())
        if level == constants.GetDICOMLevelPatient():
            name = hierarchy.GetItemAttribute(item, constants.GetDICOMPatientNameAttributeName())
            found = found or uid or name or hierarchy.GetItemName(item)
        if found.strip():
            return found.strip()
        if level == constants.GetDICOMLevelStudy():
            study = study or uid
        item = hierarchy.GetItemParent(item)
    return study


def set_patient(volume_node: slicer.vtkMRMLScalarVolumeNode, patient: str) -> None:
    """Save the entered patient with the CT; if empty, use the proposal again."""
    if patient.strip():
        volume_node.SetAttribute(PATIENT, " ".join(patient.split()))
    else:
        volume_node.RemoveAttribute(PATIENT)
