"""Words kept with the airways' segment, so that Slicer's undo and redo restore them together with its voxels.

`vtkSegmentationHistory` copies a segment's tags with its representations, and .seg.nrrd files hold them.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

import slicer
import vtk

from AirwaySegSlicer.scene.nodes import ROLE
from AirwaySegSlicer.scene.segments import airway_segment_id

DECISIONS, STEP, ORIGINS, NAMES = ROLE + "decisions", ROLE + "step", ROLE + "origins", ROLE + "names"


def read_tag(segmentation_node: slicer.vtkMRMLSegmentationNode, name: str) -> str:
    """A tag of the airways' segment; empty where there is none."""
    segment, value = _segment(segmentation_node), vtk.reference("")
    return unquote(str(value)) if segment is not None and segment.GetTag(name, value) else ""


def write_tag(segmentation_node: slicer.vtkMRMLSegmentationNode, name: str, text: str) -> None:
    """Set a tag of the airways' segment; an empty text removes it."""
    segment = _segment(segmentation_node)
    if segment is None:
        return
    if text:
        segment.SetTag(name, quote(text, safe=" ,:;{}[]()\"'."))  # Files separate tags by a bar.
    else:
        segment.RemoveTag(name)


def forget_tags(segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
    """Remove decisions, step, origins of edits and names by hand: the airways are those of a run again."""
    for name in (DECISIONS, STEP, ORIGINS, NAMES):
        write_tag(segmentation_node, name, "")


def _segment(segmentation_node: slicer.vtkMRMLSegmentationNode) -> slicer.vtkSegment | None:
    try:
        return segmentation_node.GetSegmentation().GetSegment(airway_segment_id(segmentation_node))
    except RuntimeError:
        return None
