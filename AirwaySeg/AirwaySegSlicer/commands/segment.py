"""Segments a volume node: writes the CT, runs the command, and reads mask, tree and provenance into the scene."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.jobs import Job, Partial, Steps, one_line, result_folder
from AirwaySegSlicer.commands.measure import take_in_tree
from AirwaySegSlicer.commands.nrrd_writer import write_pieces
from AirwaySegSlicer.scene.evidence import Evidence
from AirwaySegSlicer.scene.left_out import read_left_out
from AirwaySegSlicer.scene.maps import Maps
from AirwaySegSlicer.scene.nodes import (
    INITIAL,
    OF_THE_TREE,
    ROLE,
    SLICES,
    SURFACE,
    add_companion,
    check_ct,
    check_size,
    ijk_to_ras,
    place_beside,
    read_volume,
    region_box,
    remove_companion,
    shifted,
    undone_on_failure,
)
from AirwaySegSlicer.scene.overlays import hide_overlay
from AirwaySegSlicer.scene.scans import note_region
from AirwaySegSlicer.scene.segments import (
    SEGMENT_ID,
    UNCONNECTED_ID,
    airway_segment,
    airways_box,
    ct_of,
    labelmap_name,
    new_segmentation,
    part_of,
    put_segment,
    unconnected_segment,
)
from AirwaySegSlicer.scene.tags import forget_tags

MODEL, MODEL_SHA256, DEVICE, PROGRAM = ROLE + "model", ROLE + "modelSha256", ROLE + "device", ROLE + "program"
FINISHED, SETTINGS, REPORT = ROLE + "finished", ROLE + "settings", ROLE + "report"
UNCONNECTED = "unconnected.nrrd"
NOT_MEASURED = "not_measured"
"""Key among the decisions in report.json: why there is no tree."""
SURFACE_OPACITY = 0.6
"""Lets the centerline be seen."""


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment: name or file of the weights, device, a region of the CT (None: all of it).

    ``replace`` is the result whose airways are replaced, unless they are edited meanwhile; None adds a new result.
    ``measure``: find the tree too.
    """

    model: str = "default"
    device: str = "auto"
    region: slicer.vtkMRMLMarkupsROINode | None = None
    replace: slicer.vtkMRMLSegmentationNode | None = None
    measure: bool = True


def segmentation_job(volume_node: slicer.vtkMRMLScalarVolumeNode, options: SegmentOptions, maps: Maps) -> Job:
    """Segment and measure the CT in one command; the job's result is the segmentation node.

    Where only measuring fails, the result is the segmentation without its tree, and the sentence says why. Raises
    RuntimeError, one sentence, for a volume that is not a single CT image.
    """
    check_ct(volume_node)
    box = region_box(volume_node, options.region) if options.region else None
    whole = volume_node.GetImageData().GetDimensions()
    check_size(volume_node.GetName(), [high - low for low, high in box] if box else whole)
    before = voxels_key(options.replace) if options.replace else ""

    def prepare(folder: str) -> Steps:
        """Write the CT, or its region."""
        path = os.path.join(folder, "ct.nrrd")
        array, matrix = slicer.util.arrayFromVolume(volume_node), ijk_to_ras(volume_node)
        if box is not None:
            array, matrix = part_of(array, box), shifted(matrix, [low for low, _high in box])
        yield from write_pieces(array, matrix, path)
        # The command has another working directory.
        weights = os.path.abspath(options.model) if os.path.isfile(options.model) else options.model
        settings = ["--weights", weights, "--device", options.device]
        measuring = "--voxels" if options.measure else "--no-measure"
        return ["segment", path, "-o", result_folder(folder), measuring, "--progress", "json", *settings]

    def collect(folder: str) -> slicer.vtkMRMLSegmentationNode | Partial:
        """Take mask and tree into the scene."""
        old = options.replace if options.replace and voxels_key(options.replace) == before else None
        node = take_in(result_folder(folder), volume_node, old)
        note_region(node, box)
        if node is old:  # Its overlay and its file of voxels are of the old mask.
            hide_overlay(node)
            maps.forget(node)
        sentence = _take_in_tree(result_folder(folder), node, maps) if options.measure else ""
        return Partial(node, sentence) if sentence else node

    return Job(prepare, collect, names={"ct.nrrd": volume_node.GetName()})


def voxels_key(node: slicer.vtkMRMLSegmentationNode) -> str:
    """A hash of the voxels and grid of the airways and of the unconnected pieces; empty where there are no airways."""
    airways = _key_of(node, SEGMENT_ID) if _has_airways(node) else ""
    return airways and airways + _key_of(node, UNCONNECTED_ID)


def _key_of(node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> str:
    """A hash of a segment's voxels and their grid; empty where there are none."""
    if node.GetSegmentation().GetSegment(segment_id) is None:
        return ""
    try:
        array, matrix = airways_box(node, segment_id)
    except RuntimeError:
        return ""
    grid = [[matrix.GetElement(row, column) for column in range(4)] for row in range(3)]
    return hashlib.blake2b(f"{grid} {array.shape} ".encode() + array.tobytes()).hexdigest()


def take_in(
    folder: str,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    replace: slicer.vtkMRMLSegmentationNode | None = None,
) -> slicer.vtkMRMLSegmentationNode:
    """Read a folder of `airwayseg segment` into the scene: as a new segmentation, or as the airways of an old one.

    Certain pieces that were not joined become a second segment. ``replace`` keeps its name, display and other segments;
    it gets the new mask and pieces and loses the old tree. Where it is no
    longer in the scene, or has no airways, a new segmentation is made. The scene stays unchanged when something fails.
    Raises RuntimeError when the volume is no longer in the scene.
    """
    if volume_node.GetScene() is None:
        sentence = _("{name} was removed from the scene before its airways were ready.")
        raise RuntimeError(sentence.format(name=volume_node.GetName()))
    segment = airway_segment(read_volume(os.path.join(folder, "airways.nrrd")), volume_node)
    pieces = _unconnected(os.path.join(folder, UNCONNECTED), volume_node)
    report = _read_report(os.path.join(folder, "report.json"))
    left_out, evidence = read_left_out(folder, report), Evidence(folder)
    old = replace if replace is not None and _has_airways(replace) else None
    with undone_on_failure():
        node = old or _new_result(volume_node)
        for role in OF_THE_TREE if old is not None else ():
            if role not in (SURFACE, SLICES):  # `hide_overlay` removes these, and restores what they replaced.
                remove_companion(node, role)
        put_segment(node, SEGMENT_ID, segment)
        put_segment(node, UNCONNECTED_ID, pieces)
        _note_provenance(node, report)
        for key, value in left_out.items():
            node.SetAttribute(key, value)
        _keep_initial(node, volume_node)
        evidence.keep(node)
        forget_tags(node)
        node.CreateClosedSurfaceRepresentation()
    return node


def _take_in_tree(folder: str, node: slicer.vtkMRMLSegmentationNode, maps: Maps) -> str:
    """Add the tree of the mask that was just read; returns the sentence that says why there is none, otherwise empty.

    The mask was not edited since, so its signature is that of the measured mask.
    """
    sentence = provenance(node).get("decisions", {}).get(NOT_MEASURED, "")
    if sentence:
        return str(sentence)
    try:
        take_in_tree(folder, node, maps)
    except Exception as error:
        logging.exception("The tree of AirwaySeg could not be taken in.")
        return one_line(error)
    return ""


def _has_airways(node: slicer.vtkMRMLSegmentationNode) -> bool:
    """Whether the node is in the scene and has the segment of a result, as voxels."""
    segment = node.GetSegmentation().GetSegment(SEGMENT_ID) if node.GetScene() is not None else None
    return segment is not None and segment.GetRepresentation(labelmap_name()) is not None


def _new_result(volume_node: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSegmentationNode:
    """A segmentation without segments, beside the CT in the subject hierarchy."""
    name = slicer.mrmlScene.GenerateUniqueName(f"{volume_node.GetName()} airways")
    node = new_segmentation(name, volume_node)
    place_beside(node, volume_node)
    node.GetDisplayNode().SetOpacity3D(SURFACE_OPACITY)
    return node


def _unconnected(path: str, volume_node: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkSegment | None:
    """The segment of the pieces that were not joined; None without such a file or pieces."""
    return unconnected_segment(read_volume(path), volume_node) if os.path.exists(path) else None


def _keep_initial(node: slicer.vtkMRMLSegmentationNode, volume_node: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Keep a hidden copy of the network's mask and pieces, so that later corrections are known voxel by voxel."""
    initial = new_segmentation("initial", volume_node)
    for segment_id in (SEGMENT_ID, UNCONNECTED_ID):
        if node.GetSegmentation().GetSegment(segment_id) is not None:
            initial.GetSegmentation().CopySegmentFromSegmentation(node.GetSegmentation(), segment_id)
    initial.SetDisplayVisibility(False)
    add_companion(node, INITIAL, initial, "before correction")


def _read_report(path: str) -> dict:
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as error:
        raise RuntimeError(_("The segmentation wrote no readable report.json.")) from error


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
    """The report of the run that made the segmentation; empty for one from another program."""
    return json.loads(node.GetAttribute(REPORT) or "{}")


def warnings_of(node: slicer.vtkMRMLSegmentationNode) -> list[str]:
    """The warnings of the run, one sentence each."""
    return [str(text) for text in provenance(node).get("warnings", [])]


def is_result_of(node: slicer.vtkMRMLSegmentationNode | None, volume_node: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Whether this module made the segmentation from this CT, and both are under the same transform."""
    if node is None or not node.GetAttribute(REPORT) or node.GetTransformNodeID() != volume_node.GetTransformNodeID():
        return False
    try:
        return ct_of(node) is volume_node
    except RuntimeError:
        return False
