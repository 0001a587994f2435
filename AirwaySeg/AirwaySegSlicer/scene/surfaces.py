"""The closed surface of a segmentation, which new voxels remove, made again where it was shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import slicer

from AirwaySegSlicer.event_loop import call_later
from AirwaySegSlicer.scene.nodes import ROLE

WANTED = ROLE + "surfaceWanted"
"""Attribute of a segmentation that lost its surface with its old voxels."""


def has_surface(segmentation_node: slicer.vtkMRMLSegmentationNode) -> bool:
    """Whether its segments have closed surfaces."""
    name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    return bool(segmentation_node.GetSegmentation().ContainsRepresentation(name))


@contextmanager
def surface_kept(segmentation_node: slicer.vtkMRMLSegmentationNode) -> Iterator[None]:
    """If the block's new voxels remove the surface, make it again soon: it takes up to a second."""
    had = has_surface(segmentation_node)
    yield
    if had and not has_surface(segmentation_node):
        segmentation_node.SetAttribute(WANTED, "1")
        call_later(lambda: renew_surface(segmentation_node))


def renew_surface(segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
    """Make the surface again where it was lost."""
    if segmentation_node.GetScene() is not None and segmentation_node.GetAttribute(WANTED):
        segmentation_node.RemoveAttribute(WANTED)
        segmentation_node.CreateClosedSurfaceRepresentation()
