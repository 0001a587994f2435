"""Results out of Slicer: mask, centerline, table, the whole case, and a case of a training folder.

Beside each result lies a provenance file that says which model made it and how much of it a person corrected.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.correction import count_edits
from AirwaySegSlicer.freshness import is_out_of_date, saying_out_of_date
from AirwaySegSlicer.jobs import Audience, Steps, start_job
from AirwaySegSlicer.nodes import CENTERLINE, INITIAL, TABLE, companion, ijk_to_ras, write_volume
from AirwaySegSlicer.nrrdfile import write_pieces
from AirwaySegSlicer.process import TRAINING, ConsoleProcess
from AirwaySegSlicer.segmentation import provenance
from AirwaySegSlicer.segments import Array, check_airways, closed_surface, ct_of, mask_on_ct

PROVENANCE = "provenance.json"
MASK_ENDINGS = (".nrrd", ".nii.gz", ".nii")


def export_node(segmentation_node: slicer.vtkMRMLSegmentationNode, path: str) -> list[str]:
    """Write what the path's ending asks for, and its provenance; the files written.

    .nrrd, .nii and .nii.gz: the mask on the CT's grid; .stl: the surface (in LPS); .vtp: the centerline; .csv: the
    table of branches. A file of that name is replaced, when the new one is whole. Raises RuntimeError for another
    ending, and where there is nothing to write.
    """
    with _written_whole(path) as unfinished:
        if path.endswith(MASK_ENDINGS):
            ct = ct_of(segmentation_node)
            write_volume(label_volume(mask_on_ct(segmentation_node, ct), ct), unfinished, compress=True)
        elif path.endswith(".stl"):
            _write(slicer.vtkMRMLModelStorageNode(), surface_model(segmentation_node), unfinished)
        elif path.endswith(".vtp"):
            _write(slicer.vtkMRMLModelStorageNode(), _measured(segmentation_node, CENTERLINE), unfinished)
        elif path.endswith(".csv"):
            _write(slicer.vtkMRMLTableStorageNode(), _measured(segmentation_node, TABLE), unfinished)
        else:
            sentence = _("{file} ends in none of .nrrd, .nii.gz, .nii, .stl, .vtp and .csv.")
            raise RuntimeError(sentence.format(file=os.path.basename(path)))
    about = f"{re.sub(r'[.](nii[.]gz|[a-z]+)$', '', path)}.{PROVENANCE}"
    measured = path.endswith((".vtp", ".csv"))
    write_provenance(segmentation_node, about, is_out_of_date(segmentation_node) if measured else None)
    return [path, about]


@contextmanager
def _written_whole(path: str) -> Iterator[str]:
    """A path beside this one with the same ending; what the block wrote there takes the name when it ends well."""
    folder, name = os.path.split(os.path.abspath(path))
    unfinished = os.path.join(folder, f".{os.getpid()}.{name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            os.remove(unfinished)


def _measured(segmentation_node: slicer.vtkMRMLSegmentationNode, role: str) -> slicer.vtkMRMLNode:
    node = companion(segmentation_node, role)
    if node is None:
        raise RuntimeError(_("Measure {name} first.").format(name=segmentation_node.GetName()))
    return saying_out_of_date(node) if is_out_of_date(segmentation_node, role) else node


def _write(storage: slicer.vtkMRMLStorageNode, node: slicer.vtkMRMLStorableNode, path: str) -> None:
    storage.SetFileName(path)
    if not storage.WriteData(node):
        raise RuntimeError(_("{path} could not be written.").format(path=path))


def label_volume(mask: Array, ct: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLLabelMapVolumeNode:
    """A mask (Z, Y, X) as a label map on the CT's grid, in no scene."""
    node, image = slicer.vtkMRMLLabelMapVolumeNode(), vtk.vtkImageData()
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(ijk_to_ras(ct))
    slicer.util.updateVolumeFromArray(node, mask)
    return node


def surface_model(segmentation_node: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLModelNode:
    """The airways' closed surface as a model in no scene."""
    model = slicer.vtkMRMLModelNode()
    model.SetAndObservePolyData(closed_surface(segmentation_node))
    return model


def write_provenance(
    segmentation_node: slicer.vtkMRMLSegmentationNode, path: str, out_of_date: bool | None = None
) -> None:
    """Write where the airways come from, and how many voxels a person corrected (null if that is not known).

    ``out_of_date``: whether what was exported was measured before the last edit; None where nothing was measured.
    """
    corrected = None
    if companion(segmentation_node, INITIAL) is not None:
        edits = count_edits(segmentation_node)
        corrected = {"added": edits.added, "removed": edits.removed}
    document = {
        "segmentation": segmentation_node.GetName(),
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "corrected_voxels": corrected,
        "measured_before_last_edit": out_of_date,
        "segmented_by": provenance(segmentation_node),
    }
    with _written_whole(path) as unfinished, open(unfinished, "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=1)


def start_case_export(
    segmentation_node: slicer.vtkMRMLSegmentationNode, folder: str, audience: Audience
) -> ConsoleProcess:
    """Write the whole case into a folder: mask, tree, tables, maps, pictures, curves, provenance.

    Files of an earlier export are replaced. The audience's result is the folder.
    """
    ct = ct_of(segmentation_node)

    def prepare(temporary: str) -> Steps:
        os.makedirs(folder, exist_ok=True)
        mask_path, ct_path = os.path.join(temporary, "airways.nrrd"), os.path.join(temporary, "ct.nrrd")
        mask = mask_on_ct(segmentation_node, ct)
        yield
        write_volume(label_volume(mask, ct), mask_path, compress=True)
        yield
        yield from write_pieces(slicer.util.arrayFromVolume(ct), ijk_to_ras(ct), ct_path)
        return ["measure", mask_path, "-o", folder, "--ct", ct_path, "--curves", "--force", "--progress", "json"]

    def collect(temporary: str) -> str:
        with _written_whole(os.path.join(folder, "airways.nrrd")) as unfinished:
            shutil.copyfile(os.path.join(temporary, "airways.nrrd"), unfinished)
        write_provenance(segmentation_node, os.path.join(folder, PROVENANCE))
        return folder

    return start_job(audience, prepare, collect)


# Training ------------------------------------------------------------------------------------------------------------


def case_name(text: str) -> str:
    """A node's name as the name of a folder: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-._") or "case"


def start_adding_case(
    segmentation_node: slicer.vtkMRMLSegmentationNode, data: str, replace: bool, audience: Audience
) -> ConsoleProcess:
    """Add CT, corrected mask and edited voxels to a training folder; the audience's result is the case's name.

    The mask before correction goes with them; of a segmentation from elsewhere it is not known, nor what was edited.
    With ``replace`` a case of that name is replaced.
    """
    check_airways(segmentation_node)
    ct = ct_of(segmentation_node)
    name = case_name(ct.GetName())

    def prepare(temporary: str) -> Steps:
        paths = {key: os.path.join(temporary, f"{key}.nrrd") for key in ("ct", "label", "initial")}
        initial = companion(segmentation_node, INITIAL)
        masks = {"label": segmentation_node} | ({"initial": initial} if initial is not None else {})
        for key, node in masks.items():
            mask = mask_on_ct(node, ct)
            yield
            yield from write_pieces(mask, ijk_to_ras(ct), paths[key])
            yield
        yield from write_pieces(slicer.util.arrayFromVolume(ct), ijk_to_ras(ct), paths["ct"])
        files = [part for key in ("ct", *masks) for part in (f"--{key}", paths[key])]
        return ["cases", "add", data, *files, "--name", name, *(["--force"] if replace else [])]

    def collect(temporary: str) -> str:
        write_provenance(segmentation_node, os.path.join(data, "cases", name, PROVENANCE))
        return name

    return start_job(audience, prepare, collect, TRAINING)
