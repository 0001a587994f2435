"""What a segmentation left out of its mask: loose fragments and proposed repairs; kept as attributes of the node."""

from __future__ import annotations

import json
import os

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.nodes import ROLE

FRAGMENTS, VOXELS, PROPOSED = ROLE + "fragmentsLeftOut", ROLE + "voxelsLeftOut", ROLE + "proposedRepairs"
UNCONNECTED = ROLE + "unconnectedPieces"
"""Attributes of a result; empty where not known."""


def read_left_out(folder: str, report: dict) -> dict[str, str]:
    """The attributes, from a folder of `airwayseg segment` and its report."""
    repair = report.get("decisions", {}).get("repair") or {}
    all_, joined = repair.get("fragments"), repair.get("fragments_joined")
    fragments = None if all_ is None or joined is None else all_ - joined
    found = {
        FRAGMENTS: fragments,
        VOXELS: repair.get("voxels_left_out"),
        UNCONNECTED: (report.get("decisions", {}).get("unconnected") or {}).get("pieces"),
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
    """What the segmentation left out, in a sentence; empty where it left out nothing, or it is not known."""
    fragments, voxels, proposed = (int(node.GetAttribute(key) or 0) for key in (FRAGMENTS, VOXELS, PROPOSED))
    parts = []
    if fragments:
        text = _("{count} loose fragment") if fragments == 1 else _("{count} loose fragments")
        parts.append(text.format(count=fragments))
        if voxels:
            parts[0] += _(" ({count} voxels)").format(count=f"{voxels:,}")
        if certain := int(node.GetAttribute(UNCONNECTED) or 0):
            parts[0] += _(", {count} of them airway for certain").format(count=certain)
    if proposed:
        text = _("{count} proposed repair") if proposed == 1 else _("{count} proposed repairs")
        parts.append(text.format(count=proposed))
    return _("The segmentation left out {what}.").format(what=_(" and ").join(parts)) if parts else ""
