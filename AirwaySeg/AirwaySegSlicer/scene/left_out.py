"""What a segmentation left out of its mask: unconnected airways, loose fragments, proposed repairs; node attributes."""

from __future__ import annotations

import json
import os

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.nodes import ROLE

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


def _number(node: slicer.vtkMRMLSegmentationNode, key: str) -> int:
    return int(node.GetAttribute(key) or 0)


def _unconnected_sentence(node: slicer.vtkMRMLSegmentationNode) -> str:
    pieces = _number(node, UNCONNECTED)
    if not pieces:
        return ""
    text = _("Unconnected airways: {count} piece, {volume} ml.")
    if pieces > 1:
        text = _("Unconnected airways: {count} pieces, {volume} ml.")
    return text.format(count=pieces, volume=f"{float(node.GetAttribute(UNCONNECTED_ML) or 0):.2f}")


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
