"""The suspects of a measured result: points to look at, kept with the tree that they belong to."""

from __future__ import annotations

import json
import os
from typing import Any

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.freshness import sign_like_tree
from AirwaySegSlicer.scene.nodes import SUSPECTS
from AirwaySegSlicer.scene.texts import document_of, put_document

SUSPECTS_FILE = "suspects.json"
LEFT_OUT = "left_out"
"""Fact of a note that only counts suspects that are not listed."""


def read_suspects(folder: str) -> dict[str, Any]:
    """The document of a measured folder; RuntimeError where it cannot be read."""
    try:
        with open(os.path.join(folder, SUSPECTS_FILE), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as error:
        raise RuntimeError(_("{file} could not be read.").format(file=SUSPECTS_FILE)) from error


def keep_suspects(segmentation_node: slicer.vtkMRMLSegmentationNode, document: dict[str, Any]) -> None:
    """Keep the suspects of the result's tree, instead of earlier ones.

    A measurement looks at the airways alone, so unconnected pieces beside them stay from before.
    """
    if not any("piece" in suspect["facts"] for suspect in document["suspects"]):
        earlier = [suspect for suspect in suspects_of(segmentation_node) if "piece" in suspect["facts"]]
        document = document | {"suspects": [*document["suspects"], *earlier]}
    sign_like_tree(segmentation_node, put_document(segmentation_node, SUSPECTS, document, "suspects"))


def suspects_of(segmentation_node: slicer.vtkMRMLSegmentationNode) -> list[dict[str, Any]]:
    """The suspects as the library writes them, without notes about what is not listed."""
    listed = document_of(segmentation_node, SUSPECTS).get("suspects", [])
    return [suspect for suspect in listed if LEFT_OUT not in suspect["facts"]]


def suspect_branches(segmentation_node: slicer.vtkMRMLSegmentationNode) -> set[int]:
    """The ids of the branches that are suspect themselves; of a piece outside the mask the branch is not."""
    return {int(suspect["branch"]) for suspect in suspects_of(segmentation_node) if "piece" not in suspect["facts"]}
