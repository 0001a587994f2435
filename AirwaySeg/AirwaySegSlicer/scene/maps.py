"""The voxels of measured results, kept in files until the session ends; the overlays show them.

Beside them is what the next measurement can take over for the parts of the airways that have not changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile

import slicer

VOXELS, PARTS = "voxels.npz", "parts.npz"
BRANCHES = "branches.nrrd"
TO_CENTERLINE, TO_WALL, FROM_CARINA = "distance-centerline.nrrd", "distance-wall.nrrd", "distance-carina.nrrd"
PROBABILITY = "probability"
"""Names of the arrays in the file of voxels; the last one is there where the probability is known."""


class Maps:
    """The files of voxels of this session, by segmentation node."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def keep(self, segmentation_node: slicer.vtkMRMLSegmentationNode, folder: str) -> None:
        """Move voxels and known parts out of a measured folder, instead of earlier ones of this segmentation."""
        mine = tempfile.mkdtemp(prefix="AirwaySeg-maps-", dir=slicer.app.temporaryPath)
        for name in (VOXELS, PARTS):
            if os.path.exists(os.path.join(folder, name)):
                shutil.move(os.path.join(folder, name), os.path.join(mine, name))
        self._folders[segmentation_node.GetID()], old = mine, self._folders.get(segmentation_node.GetID(), "")
        gone = [node_id for node_id in self._folders if slicer.mrmlScene.GetNodeByID(node_id) is None]
        for folder in [old, *map(self._folders.pop, gone)]:
            shutil.rmtree(folder, ignore_errors=True)

    def path(self, segmentation_node: slicer.vtkMRMLSegmentationNode) -> str | None:
        """The file of its voxels; None when the segmentation was not measured in this session."""
        folder = self._folders.get(segmentation_node.GetID())
        return os.path.join(folder, VOXELS) if folder else None

    def parts(self, segmentation_node: slicer.vtkMRMLSegmentationNode) -> str:
        """The file of what the last measurement knows of parts of the airways; empty where there is none."""
        path = os.path.join(self._folders.get(segmentation_node.GetID(), ""), PARTS)
        return path if os.path.exists(path) else ""

    def forget(self, segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
        """Remove the files of one segmentation."""
        shutil.rmtree(self._folders.pop(segmentation_node.GetID(), ""), ignore_errors=True)

    def clear(self) -> None:
        """Remove all files."""
        while self._folders:
            shutil.rmtree(self._folders.popitem()[1], ignore_errors=True)
