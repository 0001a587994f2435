"""Adds corrected airways and their CT to a training folder, as a case with a name and a patient."""

from __future__ import annotations

import os
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.child_process import TRAINING
from AirwaySegSlicer.commands.export import PROVENANCE, case_name, check_in_scene, provenance_document, write_provenance
from AirwaySegSlicer.commands.finetune import TrainingCase, training_cases
from AirwaySegSlicer.commands.jobs import Job, Steps
from AirwaySegSlicer.commands.nrrd_writer import write_pieces
from AirwaySegSlicer.scene.nodes import INITIAL, companion, ijk_to_ras
from AirwaySegSlicer.scene.origin import origins_on
from AirwaySegSlicer.scene.scans import ct_for, mask_for, patient_of, scan_key
from AirwaySegSlicer.scene.segments import Array, check_airways, mask_on_ct

TRUST = "--trust-label"
"""The option that adds a case although the command doubts its label; the command's message names it."""


@dataclass(frozen=True)
class NewCase:
    """A case that can be added to the training folder ``data``: its CT, name, patient, and the case it replaces.

    ``trusted``: add the case even if the command doubts its label.
    """

    data: str
    ct: slicer.vtkMRMLScalarVolumeNode
    name: str
    patient: str
    replaces: TrainingCase | None = None
    trusted: bool = False


def new_case(
    segmentation_node: slicer.vtkMRMLSegmentationNode, data: str, chosen: slicer.vtkMRMLScalarVolumeNode | None = None
) -> NewCase:
    """The case of the airways and their CT; ``chosen`` is the CT of airways without a CT of their own.

    It replaces a case of the same scan, whatever its name. Raises RuntimeError without a CT, and for a mask before
    correction.
    """
    check_airways(segmentation_node)
    data, ct = os.path.abspath(data), ct_for(segmentation_node, chosen)
    ending = f"-{scan_key(ct)}"
    there = next((case for case in training_cases(data) if case.name.endswith(ending)), None)
    return NewCase(data, ct, there.name if there else case_name(ct.GetName()) + ending, patient_of(ct), there)


def adding_job(segmentation_node: slicer.vtkMRMLSegmentationNode, case: NewCase) -> Job:
    """Add CT, corrected mask, edited voxels and origins to a training folder; the job's result is the case's name.

    The mask before correction is added too where it is known; for a segmentation from elsewhere it is not, nor what
    was edited. Once masks and CT are copied the scene may be closed; the case is added nevertheless.
    """
    documents: list[dict] = []

    def prepare(temporary: str) -> Steps:
        """Write CT, label and origins."""
        documents.append(provenance_document(segmentation_node))
        arrays: dict[str, Array] = {"label": mask_for(segmentation_node, case.ct)}
        origins = origins_on(segmentation_node, case.ct)
        if origins is not None:
            arrays["origin"] = origins
        yield
        check_in_scene(segmentation_node, case.ct)
        initial = companion(segmentation_node, INITIAL)
        if initial is not None:
            arrays["initial"] = mask_on_ct(initial, case.ct)
        # The array keeps the voxels alive after the scene is closed.
        arrays["ct"], matrix = slicer.util.arrayFromVolume(case.ct), ijk_to_ras(case.ct)
        files = []
        for key in list(arrays):
            yield
            path = os.path.join(temporary, f"{key}.nrrd")
            yield from write_pieces(arrays.pop(key), matrix, path)
            files += [f"--{key}", path]
        named = ["--name", case.name, f"--patient={case.patient}"]
        return [
            "cases",
            "add",
            case.data,
            *files,
            *named,
            *(["--force"] if case.replaces else []),
            *([TRUST] if case.trusted else []),
        ]

    def collect(temporary: str) -> str:
        """Write where the case comes from; its name."""
        write_provenance(documents[0], os.path.join(case.data, "cases", case.name, PROVENANCE))
        return case.name

    airways = segmentation_node.GetName()
    names = {"ct.nrrd": case.ct.GetName(), "label.nrrd": airways, "initial.nrrd": f"{airways} before correction"}
    names["origin.nrrd"] = _("the origins of {name}").format(name=airways)
    return Job(prepare, collect, TRAINING, names)
