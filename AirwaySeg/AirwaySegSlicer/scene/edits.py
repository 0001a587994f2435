"""Corrections of the airways by hand: counted, found voxel by voxel, discarded, and observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.nodes import INITIAL, companion
from AirwaySegSlicer.scene.segments import (
    UNCONNECTED_ID,
    airway_segment_id,
    check_airways,
    ct_of,
    mask_on_ct,
    put_segment,
    segment_voxels,
    stored_segment,
)
from AirwaySegSlicer.scene.tags import DECISIONS, ORIGINS, write_tag

Array = Any

EDITS = ("SourceRepresentationModified", "SegmentModified", "SegmentAdded", "SegmentRemoved")
"""Events of a segmentation after which its voxels may have changed."""


@dataclass(frozen=True)
class Edits:
    """How many voxels were added to and removed from the network's mask by hand."""

    added: int
    removed: int


def initial_of(segmentation_node: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLSegmentationNode:
    """The mask before correction; RuntimeError for a segmentation that this module did not make."""
    initial = companion(segmentation_node, INITIAL)
    if initial is None:
        raise RuntimeError(
            _("The mask of {name} before correction is not known.").format(name=segmentation_node.GetName())
        )
    return initial


def count_edits(segmentation_node: slicer.vtkMRMLSegmentationNode) -> Edits:
    """Count the corrected voxels; RuntimeError when the mask before correction is not known."""
    import numpy as np

    before, after = segment_voxels(initial_of(segmentation_node)), segment_voxels(segmentation_node)
    if not (slicer.util.arrayFromVTKMatrix(before.matrix) == slicer.util.arrayFromVTKMatrix(after.matrix)).all():
        old, new, _edited = edited_voxels(segmentation_node, ct_of(segmentation_node))
        return Edits(int((new > old).sum()), int((old > new).sum()))
    both = 0
    first = np.maximum(before.low, after.low)[::-1]
    last = np.minimum(*(np.add(voxels.low[::-1], voxels.array.shape) for voxels in (before, after)))
    if (first < last).all():
        old, new = (
            voxels.array[tuple(map(slice, first - voxels.low[::-1], last - voxels.low[::-1]))]
            for voxels in (before, after)
        )
        both = int(np.count_nonzero(old & new))
    return Edits(int(np.count_nonzero(after.array) - both), int(np.count_nonzero(before.array) - both))


def edited_voxels(
    segmentation_node: slicer.vtkMRMLSegmentationNode, ct: slicer.vtkMRMLScalarVolumeNode
) -> tuple[Array, Array, Array]:
    """Mask before correction, current mask, and their difference: 0 and 1, (Z, Y, X), on the CT's grid."""
    before, after = mask_on_ct(initial_of(segmentation_node), ct), mask_on_ct(segmentation_node, ct)
    return before, after, (before != after).astype(before.dtype)


def take_back(segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
    """Discard all corrections: restore the airways and the unconnected pieces as they were before correction."""
    check_airways(segmentation_node)
    initial = initial_of(segmentation_node)
    airways = stored_segment(initial, airway_segment_id(initial))
    if airways is None:
        raise RuntimeError(_("{name} has no voxels.").format(name=initial.GetName()))
    put_segment(segmentation_node, airway_segment_id(segmentation_node), airways)
    for name in (DECISIONS, ORIGINS):
        write_tag(segmentation_node, name, "")
    # Painting over pieces takes them out of their segment.
    pieces = stored_segment(initial, UNCONNECTED_ID)
    if pieces is not None:
        put_segment(segmentation_node, UNCONNECTED_ID, pieces)


class EditWatch:
    """Calls ``on_edit(node)`` when a segmentation's voxels may have changed, ``on_move(node)`` when its transform has.

    For a painted stroke Slicer's editor invokes SourceRepresentationModified, for Undo only SegmentModified.
    """

    def __init__(
        self,
        on_edit: Callable[[slicer.vtkMRMLSegmentationNode], None],
        on_move: Callable[[slicer.vtkMRMLSegmentationNode], None],
    ) -> None:
        self._on_edit, self._on_move = on_edit, on_move
        self._tags: dict[slicer.vtkMRMLSegmentationNode, list[int]] = {}

    def watch(self, nodes: Iterable[slicer.vtkMRMLSegmentationNode]) -> list[slicer.vtkMRMLSegmentationNode]:
        """Observe these segmentations and no others; returns those that were not observed before."""
        wanted = list(nodes)
        for node in [node for node in self._tags if node not in wanted]:
            for tag in self._tags.pop(node):
                node.RemoveObserver(tag)
        new = [node for node in wanted if node not in self._tags]
        for node in new:
            edits = [getattr(slicer.vtkSegmentation, name) for name in EDITS]
            edits.append(node.SegmentationChangedEvent)
            self._tags[node] = [node.AddObserver(event, lambda caller, event: self._on_edit(caller)) for event in edits]
            moved = node.AddObserver(node.TransformModifiedEvent, lambda caller, event: self._on_move(caller))
            self._tags[node].append(moved)
        return new
