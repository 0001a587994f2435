"""Marks measures that are out of date because the airways were edited.

Every node from a measurement keeps a signature of the measured mask. So an edit is noticed in a reloaded scene too, and
an edit that is undone exactly does not count. Nodes that are out of date are marked in their name, in the title of
their legend or plot, and in exported files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.nodes import CENTERLINE, OF_THE_TREE, ROLE, companion
from AirwaySegSlicer.scene.segments import airway_segment_id, airways_box

MASK = ROLE + "mask"
"""Attribute with the signature of the mask that a node was made from; empty: not of one mask."""
MARK = ROLE + "outOfDate"
"""Attribute with the words that were appended to a node's name."""
COLUMN = "out_of_date"
"""Name of the column or field in an exported table or centerline."""
NUMBERS = 13
"""Number of words in a signature before the segment's id: the digest, and three rows of the matrix."""

Array = Any


def mask_signature(array: Array, ijk_to_ras: vtk.vtkMatrix4x4, segment_id: str) -> str:
    """The signature, one line, of a mask (Z, Y, X) in its bounding box, the grid of the box, and the segment's id."""
    import numpy as np

    digest = hashlib.sha256(repr(array.shape).encode() + np.packbits(array).tobytes()).hexdigest()
    matrix = slicer.util.arrayFromVTKMatrix(ijk_to_ras)[:3].ravel()
    return " ".join([digest, *(repr(float(number)) for number in matrix), segment_id])


def current_signature(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str = "") -> str:
    """The current signature of a segment, by default of the airways; empty where there are no voxels."""
    try:
        segment_id = segment_id or airway_segment_id(segmentation_node)
        return mask_signature(*airways_box(segmentation_node, segment_id), segment_id)
    except RuntimeError:
        return ""


def is_same(one: str, other: str) -> bool:
    """Whether two signatures are of the same voxels on the same grid; files may round the grid slightly."""
    import numpy as np

    first, second = one.split(maxsplit=NUMBERS), other.split(maxsplit=NUMBERS)
    if not first or not second or first[0] != second[0]:
        return False
    grids = [np.array(words[1:NUMBERS], float).reshape(3, 4) for words in (first, second)]
    off = np.abs(grids[0] - grids[1])
    return bool(off[:, :3].max() < 1e-5 and off[:, 3].max() < 0.01)


def sign(node: slicer.vtkMRMLNode, signature: str) -> None:
    """Note which mask a node was made from."""
    node.SetAttribute(MASK, signature)


def signature_of(node: slicer.vtkMRMLNode | None) -> str:
    """The signature of the mask that a node was made from; empty for none."""
    return (node.GetAttribute(MASK) or "") if node is not None else ""


def sign_like_tree(segmentation_node: slicer.vtkMRMLSegmentationNode, node: slicer.vtkMRMLNode) -> None:
    """Note that a node was made from the result's centerline, and mark it when that is marked."""
    centerline = companion(segmentation_node, CENTERLINE)
    sign(node, signature_of(centerline))
    _set_mark(node, is_marked(centerline))


def sign_drawn(segmentation_node: slicer.vtkMRMLSegmentationNode, nodes: list[slicer.vtkMRMLNode]) -> None:
    """Note that nodes show the measures on the current airways, and mark them where the measures do not match."""
    update_marks(segmentation_node)
    centerline = companion(segmentation_node, CENTERLINE)
    for node in nodes:
        sign(node, "" if is_marked(centerline) else signature_of(centerline))
        _set_mark(node, is_marked(centerline))


def is_out_of_date(segmentation_node: slicer.vtkMRMLSegmentationNode, role: str = CENTERLINE) -> bool:
    """Whether the result's node of this role was made from another mask than the current; False without a node."""
    node = companion(segmentation_node, role)
    if node is None:
        return False
    signature = signature_of(node)
    return not is_same(signature, current_signature(segmentation_node, _segment_of(signature)))


def _segment_of(signature: str) -> str:
    words = signature.split(maxsplit=NUMBERS)
    return words[NUMBERS] if len(words) > NUMBERS else ""


# Marks ---------------------------------------------------------------------------------------------------------------


def is_marked(node: slicer.vtkMRMLNode | None) -> bool:
    """Whether a node is marked as out of date."""
    return node is not None and bool(node.GetAttribute(MARK))


def update_marks(segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
    """Mark the result's nodes that are out of date, and unmark the others."""
    now: dict[str, str] = {}
    for role in OF_THE_TREE:
        node = companion(segmentation_node, role)
        if node is None:
            continue
        signature = signature_of(node)
        segment_id = _segment_of(signature)
        if segment_id not in now:
            now[segment_id] = current_signature(segmentation_node, segment_id) if segment_id else ""
        _set_mark(node, not is_same(signature, now[segment_id]))


def _set_mark(node: slicer.vtkMRMLNode, out_of_date: bool) -> None:
    """Append the mark to the texts of a node, or remove it."""
    if is_marked(node) == out_of_date:
        return
    words = node.GetAttribute(MARK) or _("(out of date)")
    for text, set_text in _texts(node):
        set_text(f"{text} {words}" if out_of_date else text.removesuffix(f" {words}"))
    if out_of_date:
        node.SetAttribute(MARK, words)
    else:
        node.RemoveAttribute(MARK)


def _texts(node: slicer.vtkMRMLNode) -> Iterator[tuple[str, Callable[[str], None]]]:
    yield node.GetName() or "", node.SetName
    if node.IsA("vtkMRMLPlotChartNode"):
        yield node.GetTitle() or "", node.SetTitle
    if node.IsA("vtkMRMLDisplayableNode"):
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
        if legend is not None:
            yield legend.GetTitleText() or "", legend.SetTitleText


# Files ---------------------------------------------------------------------------------------------------------------


def saying_out_of_date(node: slicer.vtkMRMLNode) -> slicer.vtkMRMLNode:
    """A copy of a table or centerline, not in a scene, with a column or field that says it is out of date."""
    note = vtk.vtkIntArray()
    note.SetName(COLUMN)
    if node.IsA("vtkMRMLTableNode"):
        content, copy = vtk.vtkTable(), slicer.vtkMRMLTableNode()
        content.DeepCopy(node.GetTable())
        for _row in range(content.GetNumberOfRows()):
            note.InsertNextValue(1)
        content.AddColumn(note)
        copy.SetUseColumnTitleAsColumnHeader(node.GetUseColumnTitleAsColumnHeader())
        copy.SetAndObserveTable(content)
    else:
        content, copy = vtk.vtkPolyData(), slicer.vtkMRMLModelNode()
        content.DeepCopy(node.GetPolyData())
        note.InsertNextValue(1)
        content.GetFieldData().AddArray(note)
        copy.SetAndObservePolyData(content)
    return copy
