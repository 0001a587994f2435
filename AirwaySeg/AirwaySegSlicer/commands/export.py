"""Exports results: mask, surface, centerline, table, and the whole case.

A provenance file beside each result says which model made it and how many voxels were corrected by hand.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.jobs import Job, Steps
from AirwaySegSlicer.commands.nrrd_writer import write_pieces
from AirwaySegSlicer.commands.segment import UNCONNECTED, provenance
from AirwaySegSlicer.scene.edits import count_edits
from AirwaySegSlicer.scene.evidence import ORIGIN_FILE
from AirwaySegSlicer.scene.freshness import is_out_of_date, saying_out_of_date
from AirwaySegSlicer.scene.hand_names import NAMES_FILE, names_document
from AirwaySegSlicer.scene.nodes import (
    CENTERLINE,
    INITIAL,
    TABLE,
    companion,
    ijk_to_ras,
    transform_between,
    write_volume,
)
from AirwaySegSlicer.scene.origin import origins_on
from AirwaySegSlicer.scene.scans import ct_for, mask_for
from AirwaySegSlicer.scene.segments import (
    UNCONNECTED_ID,
    Array,
    closed_surface,
    mask_on_ct,
)

PROVENANCE = "provenance.json"
MASK_ENDINGS = (".nrrd", ".nii.gz", ".nii")


def export_node(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    path: str,
    chosen: slicer.vtkMRMLScalarVolumeNode | None = None,
) -> list[str]:
    """Write a file by the path's extension, and its provenance; returns the files written.

    .nrrd, .nii and .nii.gz: the mask on the CT's grid; .stl: the surface (in LPS); .vtp: the centerline; .csv: the
    table of branches. An existing file is replaced once the new one is complete. ``chosen`` is the CT of airways
    without a CT of their own. Raises RuntimeError for another extension, and where there is nothing to write.
    """
    with _written_whole(path) as unfinished:
        if path.endswith(MASK_ENDINGS):
            ct = ct_for(segmentation_node, chosen)
            write_volume(label_volume(mask_for(segmentation_node, ct), ct), unfinished, compress=True)
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
    document = provenance_document(segmentation_node)
    if measured:
        document["measured_before_last_edit"] = is_out_of_date(segmentation_node)
    write_provenance(document, about)
    return [path, about]


@contextmanager
def _written_whole(path: str) -> Iterator[str]:
    """Atomic write: a path in a temporary folder beside the target, which the file replaces if the block succeeds.

    Files that Slicer writes in addition, such as a table's schema, are removed with the temporary folder.
    """
    folder, name = os.path.split(os.path.abspath(path))
    with tempfile.TemporaryDirectory(prefix=".AirwaySeg-", dir=folder, ignore_cleanup_errors=True) as unfinished:
        yield os.path.join(unfinished, name)
        os.replace(os.path.join(unfinished, name), path)


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
    """A mask (Z, Y, X) as a label map node on the CT's grid, not in a scene."""
    node, image = slicer.vtkMRMLLabelMapVolumeNode(), vtk.vtkImageData()
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(ijk_to_ras(ct))
    slicer.util.updateVolumeFromArray(node, mask)
    return node


def surface_model(segmentation_node: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLModelNode:
    """The airways' closed surface as a model node, not in a scene."""
    model = slicer.vtkMRMLModelNode()
    model.SetAndObservePolyData(closed_surface(segmentation_node))
    return model


def provenance_document(segmentation_node: slicer.vtkMRMLSegmentationNode) -> dict:
    """Where the airways come from, and how many voxels were corrected by hand (None if that is not known)."""
    corrected = None
    if companion(segmentation_node, INITIAL) is not None:
        edits = count_edits(segmentation_node)
        corrected = {"added": edits.added, "removed": edits.removed}
    return {
        "segmentation": segmentation_node.GetName(),
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "corrected_voxels": corrected,
        "measured_before_last_edit": None,  # The file has no measures.
        "segmented_by": provenance(segmentation_node),
    }


def write_provenance(document: dict, path: str) -> None:
    """Write a `provenance_document`; a file of that name is replaced."""
    with _written_whole(path) as unfinished, open(unfinished, "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=1)


def check_in_scene(*nodes: slicer.vtkMRMLNode) -> None:
    """Raise RuntimeError, one sentence, for a node that is to be copied and is no longer in the scene."""
    for node in nodes:
        if node.GetScene() is None:
            sentence = _("{name} was removed from the scene before it was copied; nothing was written.")
            raise RuntimeError(sentence.format(name=node.GetName()))


def case_export_job(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    folder: str,
    chosen: slicer.vtkMRMLScalarVolumeNode | None = None,
) -> Job:
    """Write the whole case into a folder: mask, origins, unconnected pieces, tree, tables, maps, pictures, names by
    hand, provenance.

    Files of an earlier export are replaced. ``chosen`` is the CT of airways without a CT of their own. Once mask and CT
    are copied the scene may be closed. The job's result is the folder.
    """
    folder = os.path.abspath(folder)  # The command has another working directory.
    ct = ct_for(segmentation_node, chosen)
    documents: list[dict] = []

    def prepare(temporary: str) -> Steps:
        """Write mask, CT and what else is exported; the command measures them."""
        os.makedirs(folder, exist_ok=True)
        mask_path, ct_path = os.path.join(temporary, "airways.nrrd"), os.path.join(temporary, "ct.nrrd")
        documents.append(provenance_document(segmentation_node))
        mask, origins = mask_for(segmentation_node, ct), origins_on(segmentation_node, ct)
        yield
        check_in_scene(segmentation_node, ct)
        voxels, matrix = slicer.util.arrayFromVolume(ct), ijk_to_ras(ct)
        if segmentation_node.GetSegmentation().GetSegment(UNCONNECTED_ID) is not None:
            pieces = label_volume(mask_on_ct(segmentation_node, ct, UNCONNECTED_ID), ct)
            write_volume(pieces, os.path.join(temporary, UNCONNECTED), compress=True)
        if origins is not None:
            write_volume(label_volume(origins, ct), os.path.join(temporary, ORIGIN_FILE), compress=True)
        write_volume(label_volume(mask, ct), mask_path, compress=True)
        names = _write_names(segmentation_node, ct, os.path.join(temporary, NAMES_FILE))
        yield
        yield from write_pieces(voxels, matrix, ct_path)
        command = ["measure", mask_path, "-o", folder, "--ct", ct_path, "--curves", "--force", "--progress", "json"]
        return [*command, *names]

    def collect(temporary: str) -> str:
        """Put what was written into the folder, each file whole."""
        for name in (UNCONNECTED, ORIGIN_FILE, NAMES_FILE):
            with suppress(FileNotFoundError):  # of an earlier export
                os.remove(os.path.join(folder, name))
        for name in ("airways.nrrd", UNCONNECTED, ORIGIN_FILE, NAMES_FILE):
            if os.path.exists(os.path.join(temporary, name)):
                with _written_whole(os.path.join(folder, name)) as unfinished:
                    shutil.copyfile(os.path.join(temporary, name), unfinished)
        write_provenance(documents[0], os.path.join(folder, PROVENANCE))
        return folder

    names = {"ct.nrrd": ct.GetName(), "airways.nrrd": segmentation_node.GetName()}
    return Job(prepare, collect, names=names)


def _write_names(
    segmentation_node: slicer.vtkMRMLSegmentationNode, ct: slicer.vtkMRMLScalarVolumeNode, path: str
) -> list[str]:
    """Write the names by hand, in the CT's own space, and return the options with which the command reads them."""
    names = names_document(segmentation_node, transform_between(segmentation_node, ct))  # As the mask is resampled.
    if not names:
        return []
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(names)
    return ["--names", path]


def case_name(text: str) -> str:
    """A node's name as the name of a folder: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-._") or "case"
