"""JSON documents of a result in text nodes, which are saved with the scene and read again with it."""

from __future__ import annotations

import json
from typing import Any

import slicer
import vtk

from AirwaySegSlicer.scene.nodes import ROLE, add_companion, companion

MOVED = ROLE + "moved"
"""Attribute of a text node: the transforms that were hardened since it was made, as the 16 numbers of one matrix."""


def put_document(
    segmentation_node: slicer.vtkMRMLSegmentationNode, role: str, document: dict[str, Any], title: str
) -> slicer.vtkMRMLTextNode:
    """Keep a document as the result's text node of this role, instead of an earlier one."""
    node = slicer.vtkMRMLTextNode()
    node.SetText(json.dumps(document))
    add_companion(segmentation_node, role, node, title)
    return node


def document_of(segmentation_node: slicer.vtkMRMLSegmentationNode, role: str) -> dict[str, Any]:
    """The document of this role; empty where there is none."""
    node = companion(segmentation_node, role)
    return json.loads(node.GetText() or "{}") if node is not None else {}


def note_hardened(node: slicer.vtkMRMLTextNode, to_world: vtk.vtkMatrix4x4) -> None:
    """The result was moved for good by this matrix, and the document's points were not."""
    moved = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Multiply4x4(to_world, moved_by(node), moved)
    node.SetAttribute(MOVED, " ".join(repr(moved.GetElement(row, col)) for row in range(4) for col in range(4)))


def moved_by(node: slicer.vtkMRMLTextNode) -> vtk.vtkMatrix4x4:
    """The matrix by which the result was moved for good since the document was made."""
    matrix = vtk.vtkMatrix4x4()
    if node.GetAttribute(MOVED):
        matrix.DeepCopy([float(number) for number in node.GetAttribute(MOVED).split()])
    return matrix


def own_ras(node: slicer.vtkMRMLTextNode, lps: tuple[float, float, float]) -> tuple[float, float, float]:
    """A document's point (LPS, mm) in the result's own space (RAS, mm), without the transform above it."""
    x, y, z = lps
    right, front, up = moved_by(node).MultiplyPoint([-x, -y, z, 1.0])[:3]
    return right, front, up
