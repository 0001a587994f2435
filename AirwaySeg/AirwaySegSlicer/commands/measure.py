"""Measures a segmentation: writes its mask, runs `airwayseg measure`, and reads centerline and table into the scene.

The values of the overlays stay in a file (`Maps`) until an overlay is shown.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.jobs import Job, Steps, result_folder
from AirwaySegSlicer.commands.nrrd_writer import write_pieces
from AirwaySegSlicer.scene.evidence import probability_on
from AirwaySegSlicer.scene.freshness import current_signature, mask_signature, sign, update_marks
from AirwaySegSlicer.scene.hand_names import NAMES_FILE, names_document, show_names
from AirwaySegSlicer.scene.maps import Maps
from AirwaySegSlicer.scene.nodes import (
    CENTERLINE,
    ROLE,
    TABLE,
    add_companion,
    check_ct,
    ijk_to_ras,
    shifted,
    undone_on_failure,
)
from AirwaySegSlicer.scene.scans import Scan, scan_of
from AirwaySegSlicer.scene.segments import (
    Array,
    airway_segment_id,
    airways_box,
    check_airways,
    ct_of,
    first_voxel_between,
    part_of,
)
from AirwaySegSlicer.scene.suspects import keep_suspects, read_suspects

MARGIN_VOXELS = 3
"""More than the distance at which the command takes airways for cut by the edge."""
ALIGNED = 32
"""The part that is written begins and ends a multiple of so many voxels from the scan's edges. So most edits leave it
where it is, and the command finds the unchanged airways where they were."""
CT_MARGIN_MM = 16.0
"""More than the length of the rays beyond the lumen along which the command looks for walls and arteries."""

GAS_HU, TISSUE_HU = -500, 0
"""A volume whose part around the airways does not reach from here to there is no CT."""

MEASURE = "measure"
"""The library's command."""

CENTERLINE_FILE, TABLE_FILE = "centerline.vtp", "branches.csv"
WHOLE_NUMBERS = {"id", "parent", "component", "generation", "strahler", "points"}
WORDS = {"name", "lobe", "segment", "by_hand"}


def measuring_job(segmentation_node: slicer.vtkMRMLSegmentationNode, maps: Maps) -> Job:
    """Measure the airways of the segmentation; the job's result is the segmentation.

    Only their bounding box is written, which keeps the command fast, with a margin inside the scan: the command takes
    what the edge of the file cuts for cut by that of the scan. The same part of the CT is written for the walls where
    the CT is known and has the airways' grid. Raises RuntimeError when there are no airways.
    """
    check_airways(segmentation_node)
    measured: list[str] = []

    def prepare(folder: str) -> Steps:
        """Write mask, CT, probability and names around the airways."""
        path, segment_id = os.path.join(folder, "mask.nrrd"), airway_segment_id(segmentation_node)
        array, matrix = airways_box(segmentation_node, segment_id)
        measured.append(mask_signature(array, matrix, segment_id))
        array, matrix = with_margin(array, matrix, scan_of(segmentation_node))
        yield from write_pieces(array, matrix, path)
        command = [MEASURE, path, "-o", result_folder(folder), "--voxels", "--progress", "json"]
        part = ct_part(segmentation_node, matrix, array.shape)
        if part is not None:
            yield
            yield from write_pieces(part, matrix, os.path.join(folder, "ct.nrrd"))
            command += ["--ct", os.path.join(folder, "ct.nrrd")]
        if maps.parts(segmentation_node):
            command += ["--known", maps.parts(segmentation_node)]
        probability = probability_on(segmentation_node, array.shape, matrix)
        names = names_document(segmentation_node)
        if names:
            command += ["--names", os.path.join(folder, NAMES_FILE)]
            with open(command[-1], "w", encoding="utf-8") as stream:
                stream.write(names)
        if probability is not None:
            yield from write_pieces(probability, matrix, os.path.join(folder, "probability.nrrd"))
            command += ["--probability", os.path.join(folder, "probability.nrrd")]
        return command

    def collect(folder: str) -> slicer.vtkMRMLSegmentationNode:
        """Take the tree into the scene."""
        take_in_tree(result_folder(folder), segmentation_node, maps, measured[0])
        return segmentation_node

    return Job(prepare, collect, names={"mask.nrrd": segmentation_node.GetName()}, early=MEASURE)


def with_margin(array: Array, matrix: vtk.vtkMatrix4x4, scan: Scan | None) -> tuple[Array, vtk.vtkMatrix4x4]:
    """The mask (Z, Y, X) with background around it, as far as the scan reaches, and its matrix.

    The margin is at least `MARGIN_VOXELS` and `CT_MARGIN_MM`, up to a multiple of `ALIGNED` from the scan's edges.
    Without a scan, or where the mask lies on another grid, it stays as it is.
    """
    import numpy as np

    first = scan.first_voxel(matrix) if scan is not None else None
    if scan is None or first is None:
        return array, matrix
    pads = []
    for axis, (low, count, (start, stop)) in enumerate(zip(first, array.shape[::-1], scan.box, strict=True)):
        voxel_mm = float(np.linalg.norm([matrix.GetElement(row, axis) for row in range(3)]))
        margin = max(MARGIN_VOXELS, int(np.ceil(CT_MARGIN_MM / voxel_mm)))
        before, after = low - start, stop - low - count
        pads.append(tuple(gap - max(gap - margin, 0) // ALIGNED * ALIGNED if gap > 0 else 0 for gap in (before, after)))
    return np.pad(array, pads[::-1]), shifted(matrix, [-before for before, _after in pads])


def ct_part(
    segmentation_node: slicer.vtkMRMLSegmentationNode, matrix: vtk.vtkMatrix4x4, shape: tuple[int, int, int]
) -> Array | None:
    """The part (Z, Y, X) of the airways' CT on a grid of its own voxels; None without such a CT."""
    try:
        ct = ct_of(segmentation_node)
        check_ct(ct)
    except RuntimeError:
        return None
    first = first_voxel_between(matrix, ijk_to_ras(ct))
    if first is None:
        return None
    i, j, k = ((low, low + count) for low, count in zip(first, shape[::-1], strict=True))
    size = ct.GetImageData().GetDimensions()
    if any(low < 0 or high > count for (low, high), count in zip((i, j, k), size, strict=True)):
        return None
    part = part_of(slicer.util.arrayFromVolume(ct), (i, j, k))
    return part if part.min() < GAS_HU and part.max() > TISSUE_HU else None


def take_in_tree(
    folder: str, segmentation_node: slicer.vtkMRMLSegmentationNode, maps: Maps, measured: str = ""
) -> None:
    """Read centerline, table and suspects of a measured folder into the scene, instead of earlier ones.

    ``measured`` is the signature of the measured mask; by default that of the current airways.
    """
    if segmentation_node.GetScene() is None:
        sentence = _("{name} was removed from the scene before its tree was ready.")
        raise RuntimeError(sentence.format(name=segmentation_node.GetName()))
    model = read_model(os.path.join(folder, CENTERLINE_FILE))
    rows = read_rows(os.path.join(folder, TABLE_FILE))
    suspects = read_suspects(folder)
    visible = centerline_is_visible(segmentation_node)
    for node in (model, rows):
        sign(node, measured or current_signature(segmentation_node))
    with undone_on_failure():
        slicer.mrmlScene.AddNode(model)
        slicer.mrmlScene.AddNode(rows)
        model.CreateDefaultDisplayNodes()
        maps.keep(segmentation_node, folder)
    add_companion(segmentation_node, CENTERLINE, model, "centerline")
    add_companion(segmentation_node, TABLE, rows, "branches")
    display = model.GetDisplayNode()
    display.SetColor(1.0, 0.85, 0.25)
    display.SetLineWidth(2)
    display.SetLighting(False)
    display.SetScalarVisibility(False)
    display.SetVisibility(visible)
    keep_suspects(segmentation_node, suspects)
    show_names(segmentation_node)
    update_marks(segmentation_node)


def centerline_is_visible(segmentation_node: slicer.vtkMRMLSegmentationNode) -> bool:
    """Whether the centerline is shown, or would be if it existed."""
    node = segmentation_node.GetNodeReference(CENTERLINE)
    return segmentation_node.GetAttribute(ROLE + "showCenterline") != "0" and (
        node is None or node.GetDisplayNode() is None or bool(node.GetDisplayNode().GetVisibility())
    )


def read_model(path: str) -> slicer.vtkMRMLModelNode:
    """A model file as a node that is not in a scene, in RAS."""
    node, storage = slicer.vtkMRMLModelNode(), slicer.vtkMRMLModelStorageNode()
    storage.SetFileName(path)
    if not storage.ReadData(node) or node.GetPolyData() is None:
        raise RuntimeError(_("{file} could not be read.").format(file=os.path.basename(path)))
    return node


def read_rows(path: str) -> slicer.vtkMRMLTableNode:
    """The table of branches as a node that is not in a scene, with columns of integers, floats and strings.

    A root's missing parent is 0, its missing angle NaN.
    """
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows, names = list(reader), list(reader.fieldnames or ())
    table = vtk.vtkTable()
    convert: Callable[[str], object]
    for name in names:
        if name in WORDS:
            column, convert = vtk.vtkStringArray(), str
        elif name in WHOLE_NUMBERS:
            column, convert = vtk.vtkIntArray(), lambda text: int(text or 0)
        else:
            column, convert = vtk.vtkDoubleArray(), lambda text: float(text or "nan")
        column.SetName(name)
        for row in rows:
            column.InsertNextValue(convert(row[name]))
        table.AddColumn(column)
    node = slicer.vtkMRMLTableNode()
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetAndObserveTable(table)
    return node
