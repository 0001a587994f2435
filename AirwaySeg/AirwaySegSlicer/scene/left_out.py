"""What a segmentation left out of its mask: unconnected airways, loose fragments, proposed repairs; node attributes."""

from __future__ import annotations

import json
import os

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.nodes import ROLE
from AirwaySegSlicer.scene.segments import UNCONNECTED_ID, segment_voxels

FRAGMENTS, VOXELS, PROPOSED = ROLE + "fragmentsLeftOut", ROLE + "voxelsLeftOut", ROLE + "proposedRepairs"
UNCONNECTED, UNCONNECTED_VOXELS, UNCONNECTED_ML = (ROLE + f"unconnected{what}" for what in ("Pieces", "Voxels", "Ml"))
"""Attributes of a result; empty where not known. Loose fragments are all that were not joined, certain or not."""


def read_left_out(folder: str, report: dict) -> dict[str, str]:
    """The attributes, from a folder of `airwayseg segment` and its report."""
    repair = report.get("decisions", {}).get("repair") or {}
    all_, joined = repair.get("fragments"), repair.get("fragments_joined")
    unconnected = report.get("decisions", {}).get("unconnected") or {}
    fragments = None if all_ is None or joined is None else all_ - joined
    found = {
        FRAGMENTS: fragments,
        VOXELS: repair.get("voxels_left_out"),
        UNCONNECTED: unconnected.get("pieces"),
        UNCONNECTED_VOXELS: unconnected.get("voxels"),
        UNCONNECTED_ML: unconnected.get("millilitres"),
        PROPOSED: _proposed(os.path.join(folder, "repairs.json")),
    }
    return {key: "" if value is None else str(value) for key, value in found.items()}


def _proposed(path: str) -> int | None:
    """The number of repairs that are only proposed; None where there is no such file."""
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as stream:
            return [repair["state"] for repair in json.load(stream)["repairs"]].count("proposed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(_("The segmentation wrote no readable repairs.json.")) from error


def left_out_sentence(node: slicer.vtkMRMLSegmentationNode) -> str:
    """What the segmentation left out, in sentences; empty where it left out nothing, or it is not known."""
    return " ".join(filter(None, (_unconnected_sentence(node), _fragments_sentence(node))))


def noted(node: slicer.vtkMRMLSegmentationNode) -> tuple[str, ...]:
    """What was noted of the run; whoever keeps the sentence makes it anew when this has changed."""
    keys = (FRAGMENTS, VOXELS, PROPOSED, UNCONNECTED, UNCONNECTED_VOXELS, UNCONNECTED_ML)
    return tuple(node.GetAttribute(key) or "" for key in keys)


def _number(node: slicer.vtkMRMLSegmentationNode, key: str) -> int:
    return int(node.GetAttribute(key) or 0)


def unconnected_now(node: slicer.vtkMRMLSegmentationNode) -> tuple[int, float]:
    """The number of unconnected pieces and their millilitres, also after decisions and edits.

    As long as their voxels are those of the run, its own count holds; then pieces that touch are one.
    """
    import numpy as np

    pieces, millilitres = _number(node, UNCONNECTED), float(node.GetAttribute(UNCONNECTED_ML) or 0)
    if not pieces and node.GetSegmentation().GetSegment(UNCONNECTED_ID) is None:
        return 0, 0.0
    try:
        voxels = segment_voxels(node, UNCONNECTED_ID)
    except RuntimeError:
        return 0, 0.0
    count = int(np.count_nonzero(voxels.array))
    if count == _number(node, UNCONNECTED_VOXELS):
        return pieces, millilitres
    from scipy import ndimage

    matrix = slicer.util.arrayFromVTKMatrix(voxels.matrix)[:3, :3]
    found = int(ndimage.label(voxels.array, np.ones((3, 3, 3)))[1]) if count else 0
    return found, count * abs(float(np.linalg.det(matrix))) / 1000


def _unconnected_sentence(node: slicer.vtkMRMLSegmentationNode) -> str:
    pieces, millilitres = unconnected_now(node)
    if not pieces:
        return ""
    text = _("Unconnected airways: {count} piece, {volume} ml.")
    if pieces > 1:
        text = _("Unconnected airways: {count} pieces, {volume} ml.")
    return text.format(count=pieces, volume=f"{millilitres:.2f}")


def _fragments_sentence(node: slicer.vtkMRMLSegmentationNode) -> str:
    fragments = _number(node, FRAGMENTS) - _number(node, UNCONNECTED)
    voxels = _number(node, VOXELS) - _number(node, UNCONNECTED_VOXELS)
    proposed = _number(node, PROPOSED)
    parts = []
    if fragments > 0:
        text = _("{count} loose fragment") if fragments == 1 else _("{count} loose fragments")
        parts.append(text.format(count=fragments))
        if voxels > 0:
            parts[0] += _(" ({count} voxels)").format(count=f"{voxels:,}")
    if proposed:
        text = _("{count} proposed repair") if proposed == 1 else _("{count} proposed repairs")
        parts.append(text.format(count=proposed))
    return _("The segmentation left out {what}.").format(what=_(" and ").join(parts)) if parts else ""
