"""Keeps the nodes of a result under the transform of its segmentation, also when it is hardened."""

from __future__ import annotations

import slicer
import vtk

from AirwaySegSlicer.scene.hand_names import move_names
from AirwaySegSlicer.scene.nodes import INITIAL, ROLES, companion
from AirwaySegSlicer.scene.segments import segment_voxels
from AirwaySegSlicer.scene.texts import note_hardened


def follow_transform(segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
    """Put every node of the result under the segmentation's transform, or harden it where that was hardened."""
    transform_id = segmentation_node.GetTransformNodeID()
    nodes = [node for node in (companion(segmentation_node, role) for role in ROLES) if node is not None]
    moved = [
        node for node in nodes if node.IsA("vtkMRMLTransformableNode") and node.GetTransformNodeID() != transform_id
    ]
    if moved and _was_hardened(segmentation_node):
        to_world = vtk.vtkMatrix4x4()
        moved[0].GetParentTransformNode().GetMatrixTransformToWorld(to_world)
        for node in nodes:
            if node.IsA("vtkMRMLTextNode"):
                note_hardened(node, to_world)
        for node in moved:
            node.HardenTransform()
        move_names(segmentation_node, to_world)
    for node in moved:
        node.SetAndObserveTransformNodeID(transform_id)


def _was_hardened(segmentation_node: slicer.vtkMRMLSegmentationNode) -> bool:
    """Whether the segmentation's grid is that of the mask before correction with the transform applied."""
    import numpy as np

    initial = companion(segmentation_node, INITIAL)
    above = initial.GetParentTransformNode() if initial is not None else None
    if above is None or segmentation_node.GetParentTransformNode() is not None or not above.IsLinear():
        return False
    to_world = vtk.vtkMatrix4x4()
    above.GetMatrixTransformToWorld(to_world)
    try:
        now, before = (segment_voxels(node).matrix for node in (segmentation_node, initial))
    except RuntimeError:
        return False
    now, before, to_world = map(slicer.util.arrayFromVTKMatrix, (now, before, to_world))
    return bool(np.allclose(now, to_world @ before, atol=1e-6) and not np.allclose(now, before, atol=1e-6))
