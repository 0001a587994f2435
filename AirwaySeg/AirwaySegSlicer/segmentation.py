"""One segmentation from volume node to segmentation node: the CT out, the command, mask and provenance in."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.jobs import Audience, Steps, start_job
from AirwaySegSlicer.nodes import (
    INITIAL,
    ROLE,
    add_companion,
    check_ct,
    ijk_to_ras,
    place_beside,
    read_volume,
    region_box,
    remove_result,
    shifted,
    undone_on_failure,
)
from AirwaySegSlicer.nrrdfile import write_pieces
from AirwaySegSlicer.process import ConsoleProcess
from AirwaySegSlicer.segments import SEGMENT_ID, airway_segment, ct_of, new_segmentation, part_of

MODEL, MODEL_SHA256, DEVICE, PROGRAM = ROLE + "model", ROLE + "modelSha256", ROLE + "device", ROLE + "program"
FINISHED, SETTINGS, REPORT = ROLE + "finished", ROLE + "settings", ROLE + "report"

SURFACE_OPACITY = 0.6
"""The centerline shines through."""


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment: name or file of the weights, device, a region of the CT (None: all of it), what it replaces."""

    model: str = "default"
    device: str = "auto"
    region: slicer.vtkMRMLMarkupsROINode | None = None
    replace: slicer.vtkMRMLSegmentationNode | None = None


def start_segmentation(
    volume_node: slicer.vtkMRMLScalarVolumeNode, options: SegmentOptions, audience: Audience
) -> ConsoleProcess:
    """Start to segment the CT; the audience's result is the new segmentation node.

    Raises RuntimeError, one sentence, for a volume that is no single CT image.
    """
    check_ct(volume_node)
    box = region_box(volume_node, options.region) if options.region else None

    def prepare(folder: str) -> Steps:
        path = os.path.join(folder, "ct.nrrd")
        array, matrix = slicer.util.arrayFromVolume(volume_node), ijk_to_ras(volume_node)
        if box is not None:
            array, matrix = part_of(array, box), shifted(matrix, [low for low, _high in box])
        yield from write_pieces(array, matrix, path)
        settings = ["--weights", options.model, "--device", options.device]
        return ["segment", path, "-o", result_folder(folder), "--no-measure", "--progress", "json", *settings]

    def collect(folder: str) -> slicer.vtkMRMLSegmentationNode:
        return take_in(result_folder(folder), volume_node, options.replace)

    return start_job(audience, prepare, collect)


def result_folder(folder: str) -> str:
    """Where in a job's folder the command puts its result."""
    return os.path.join(folder, "result")


def take_in(
    folder: str,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    replace: slicer.vtkMRMLSegmentationNode | None = None,
) -> slicer.vtkMRMLSegmentationNode:
    """Make the result's nodes from a folder of `airwayseg segment`, and remove the result that they replace.

    The scene stays as it was when something fails. Raises RuntimeError when the volume is no longer in the scene.
    """
    if volume_node.GetScene() is None:
        sentence = _("{name} was removed from the scene before its airways were ready.")
        raise RuntimeError(sentence.format(name=volume_node.GetName()))
    segment = airway_segment(read_volume(os.path.join(folder, "airways.nrrd")), volume_node)
    report = _read_report(os.path.join(folder, "report.json"))
    old = replace if replace is not None and replace.GetScene() is not None else None
    with undone_on_failure():
        name = old.GetName() if old else slicer.mrmlScene.GenerateUniqueName(f"{volume_node.GetName()} airways")
        node = new_segmentation(name, volume_node)
        node.GetSegmentation().AddSegment(segment, SEGMENT_ID)
        place_beside(node, volume_node)
        _note_provenance(node, report)
        _keep_initial(node, volume_node)
        node.CreateClosedSurfaceRepresentation()
        node.GetDisplayNode().SetOpacity3D(SURFACE_OPACITY)
    if old:
        remove_result(old)
    return node


def _keep_initial(node: slicer.vtkMRMLSegmentationNode, volume_node: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Keep the mask as the network made it, hidden, so that later corrections are known voxel by voxel."""
    initial = new_segmentation("initial", volume_node)
    initial.GetSegmentation().CopySegmentFromSegmentation(node.GetSegmentation(), SEGMENT_ID)
    initial.SetDisplayVisibility(False)
    add_companion(node, INITIAL, initial, "before correction")


def _read_report(path: str) -> dict:
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as error:
        raise RuntimeError(_("The segmentation left no readable report.json.")) from error


def _note_provenance(node: slicer.vtkMRMLSegmentationNode, report: dict) -> None:
    model, decisions = report.get("model", {}), report.get("decisions", {})
    for key, value in (
        (MODEL, model.get("name")),
        (MODEL_SHA256, model.get("sha256")),
        (DEVICE, decisions.get("device")),
        (PROGRAM, report.get("program")),
        (FINISHED, report.get("finished")),
        (SETTINGS, json.dumps(report.get("settings", {}))),
        (REPORT, json.dumps(report)),
    ):
        node.SetAttribute(key, str(value or ""))


def provenance(node: slicer.vtkMRMLSegmentationNode) -> dict:
    """The report of the run that made the segmentation; empty for one from elsewhere."""
    return json.loads(node.GetAttribute(REPORT) or "{}")


def warnings_of(node: slicer.vtkMRMLSegmentationNode) -> list[str]:
    """What the run warned of, one sentence each."""
    return [str(text) for text in provenance(node).get("warnings", [])]


def is_result_of(node: slicer.vtkMRMLSegmentationNode | None, volume_node: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Whether the segmentation was made by this module from this CT."""
    if node is None or not node.GetAttribute(REPORT):
        return False
    try:
        return ct_of(node) is volume_node
    except RuntimeError:
        return False
