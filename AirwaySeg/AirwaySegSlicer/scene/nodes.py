"""MRML nodes: volumes to and from files, the subject hierarchy, and the nodes of one result.

The nodes of a result are its segmentation and companions (centerline, table, overlays, ...), which the segmentation
references by role, so that they are found in a saved and reloaded scene, whatever their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product

import slicer
import vtk
from slicer.i18n import tr as _

ROLE = "AirwaySeg."
INITIAL, CENTERLINE, TABLE = ROLE + "initial", ROLE + "centerline", ROLE + "table"
SURFACE, SLICES, HIGHLIGHT = ROLE + "surface", ROLE + "slices", ROLE + "highlight"
PLOT_TABLE, PLOT_SERIES, PLOT_CHART = ROLE + "plotTable", ROLE + "plotSeries", ROLE + "plotChart"
SUSPECTS, REPAIRS, PROBABILITY = ROLE + "suspects", ROLE + "repairs", ROLE + "probability"
ORIGIN = ROLE + "origin"
COMPARED, COMPARISON = ROLE + "compared", ROLE + "comparison"
OF_THE_RUN = (INITIAL, REPAIRS, PROBABILITY, ORIGIN)
"""Roles of what the segmentation left, which no edit makes out of date."""
OF_THE_TREE = (
    *(CENTERLINE, TABLE, SUSPECTS, SURFACE, SLICES, HIGHLIGHT, PLOT_CHART, PLOT_SERIES, PLOT_TABLE),
    *(COMPARED, COMPARISON),
)
"""Roles of what was made from one mask: by a measurement, or by a comparison."""
REVIEWED = ROLE + "reviewed"
"""Role of the temporary model that shows what a decision or an edit would change."""
REVIEWED_CUT = ROLE + "reviewedCut"
"""Role of the temporary model of what an edit would remove where it adds something too."""
ROLES = (*OF_THE_RUN, *OF_THE_TREE, REVIEWED, REVIEWED_CUT)

PRIVATE = (INITIAL, SLICES, SUSPECTS, REPAIRS, PROBABILITY, ORIGIN, COMPARED)
"""Roles that are hidden from Slicer's selectors: they are neither airways nor a CT. They are saved with the scene."""

LEAST_VOXELS = 8
"""Minimum along each axis of a CT, as in the library."""

TREE = ROLE + "tree"
"""Attribute of this module's folders in the subject hierarchy."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and the one after the last along i, j and k."""


def check_ct(volume_node: slicer.vtkMRMLScalarVolumeNode | None) -> None:
    """Raise RuntimeError, one sentence, for anything but a single CT image."""
    if volume_node is None:
        raise RuntimeError(_("Choose a chest CT first."))
    name = volume_node.GetName()
    if volume_node.IsA("vtkMRMLMultiVolumeNode"):
        sentence = _("{name} is a multi-volume; extract the one frame that is to be segmented first.")
        raise RuntimeError(sentence.format(name=name))
    if volume_node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise RuntimeError(_("{name} is a label map, not a CT.").format(name=name))
    if any(companion(node, SLICES) is volume_node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")):
        raise RuntimeError(_("{name} is a coloured overlay, not a CT.").format(name=name))
    image = volume_node.GetImageData()
    if image is None or not all(image.GetDimensions()):
        raise RuntimeError(_("{name} holds no image.").format(name=name))
    if image.GetNumberOfScalarComponents() != 1:
        sentence = _("{name} has {count} values per voxel; a CT has one.")
        raise RuntimeError(sentence.format(name=name, count=image.GetNumberOfScalarComponents()))
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        if browser.GetSequenceNode(volume_node) is not None:
            sentence = _("{name} is a frame of a sequence and changes with it; make a copy of the one frame.")
            raise RuntimeError(sentence.format(name=name))


def check_size(name: str, counts: Sequence[int]) -> None:
    """Raise RuntimeError for too few voxels along i, j or k, as the command would later."""
    for axis, count in zip("xyz", counts, strict=True):
        if count < LEAST_VOXELS:
            sentence = _("{name} has too few voxels along {axis} to be segmented: {count}, fewer than {least}.")
            raise RuntimeError(sentence.format(name=name, axis=axis, count=count, least=LEAST_VOXELS))


def first_ct() -> slicer.vtkMRMLScalarVolumeNode | None:
    """The scene's first volume that may be a CT: no label map, not hidden, no overlay; None without one."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    overlays = [companion(node, SLICES) for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    candidates = (node for node in volumes if not node.IsA("vtkMRMLLabelMapVolumeNode") and node not in overlays)
    return next((node for node in candidates if not node.GetHideFromEditors()), None)


# Files ---------------------------------------------------------------------------------------------------------------


def write_volume(volume_node: slicer.vtkMRMLVolumeNode, path: str, compress: bool = False) -> None:
    """Write the volume, in its own coordinates and without its parent transform, in the format of the path's extension.

    A separate storage node leaves the file name and format unchanged with which the user's scene is saved.
    """
    is_nrrd = path.endswith((".nrrd", ".nhdr"))
    storage = slicer.vtkMRMLNRRDStorageNode() if is_nrrd else slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(path)
    storage.SetUseCompression(int(compress))
    if not storage.WriteData(volume_node):
        sentence = _("The volume {name} could not be written to {path}.")
        raise RuntimeError(sentence.format(name=volume_node.GetName(), path=path))


def read_volume(path: str) -> slicer.vtkMRMLScalarVolumeNode:
    """A NRRD file as a volume node that is not in a scene; raises RuntimeError when it cannot be read."""
    node, storage = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(path)
    if not storage.ReadData(node) or node.GetImageData() is None:
        raise RuntimeError(_("{path} could not be read.").format(path=path))
    return node


def ijk_to_ras(volume_node: slicer.vtkMRMLVolumeNode) -> vtk.vtkMatrix4x4:
    """The matrix from voxel indices to the volume's own space."""
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    return matrix


def transform_between(
    node: slicer.vtkMRMLTransformableNode, other: slicer.vtkMRMLTransformableNode
) -> vtk.vtkGeneralTransform | None:
    """From a node's own space to that of another by their parent transforms; None where these place both alike."""
    mine, its = node.GetParentTransformNode(), other.GetParentTransformNode()
    if mine is its:
        return None
    matrix, transform = vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
    linear = slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(mine, its, matrix)
    numbers = [matrix.GetElement(row, column) - (row == column) for row in range(4) for column in range(4)]
    if linear and max(map(abs, numbers)) < 1e-6:
        return None
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(mine, its, transform)
    return transform


def shifted(matrix: vtk.vtkMatrix4x4, ijk: list[int]) -> vtk.vtkMatrix4x4:
    """The matrix of a grid whose first voxel is voxel ``ijk`` of this one."""
    moved = vtk.vtkMatrix4x4()
    moved.DeepCopy(matrix)
    origin = matrix.MultiplyPoint([*map(float, ijk), 1.0])
    for row in range(3):
        moved.SetElement(row, 3, origin[row])
    return moved


def region_box(volume_node: slicer.vtkMRMLScalarVolumeNode, roi_node: slicer.vtkMRMLMarkupsROINode) -> Box:
    """The volume's voxels inside the region; raises RuntimeError when there are none."""
    bounds, to_ijk, transform = [0.0] * 6, vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
    roi_node.GetRASBounds(bounds)
    volume_node.GetRASToIJKMatrix(to_ijk)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, volume_node.GetParentTransformNode(), transform)
    corners = [
        to_ijk.MultiplyPoint([*transform.TransformPoint(corner), 1.0])
        for corner in product(bounds[:2], bounds[2:4], bounds[4:])
    ]
    box = []
    for axis, count in enumerate(volume_node.GetImageData().GetDimensions()):
        indices = [corner[axis] for corner in corners]
        low, high = max(0, round(min(indices))), min(count, round(max(indices)) + 1)
        if low >= high:
            sentence = _("The region {region} is outside {name}.")
            raise RuntimeError(sentence.format(region=roi_node.GetName(), name=volume_node.GetName()))
        box.append((low, high))
    along_i, along_j, along_k = box
    return along_i, along_j, along_k


def fit_region(
    roi_node: slicer.vtkMRMLMarkupsROINode, volume_node: slicer.vtkMRMLScalarVolumeNode, box: Box | None = None
) -> None:
    """Fit the region to these voxels of the volume, by default to all, along the axes of the world."""
    counts = volume_node.GetImageData().GetDimensions()
    # Not quite the edges of the outer voxels, which `region_box` would round to their neighbours.
    edges = [(low - 0.49, high - 0.51) for low, high in box or [(0, count) for count in counts]]
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(volume_node.GetParentTransformNode(), None, transform)
    to_ras = ijk_to_ras(volume_node)
    corners = [transform.TransformPoint(to_ras.MultiplyPoint([*corner, 1.0])[:3]) for corner in product(*edges)]
    lows, highs = ([limit(axis) for axis in zip(*corners, strict=True)] for limit in (min, max))
    roi_node.SetCenterWorld([(low + high) / 2 for low, high in zip(lows, highs, strict=True)])
    roi_node.SetSizeWorld([high - low for low, high in zip(lows, highs, strict=True)])


# The nodes of a result -----------------------------------------------------------------------------------------------


@contextmanager
def undone_on_failure() -> Iterator[None]:
    """If the block fails, remove every node that was added in it."""
    before = {node.GetID() for node in all_nodes()}
    try:
        yield
    except BaseException:
        for node in reversed(all_nodes()):
            if node.GetID() not in before and node.GetScene() is not None:
                slicer.mrmlScene.RemoveNode(node)
        raise


def all_nodes() -> list[slicer.vtkMRMLNode]:
    """Every node of the scene, in order."""
    return [slicer.mrmlScene.GetNthNode(number) for number in range(slicer.mrmlScene.GetNumberOfNodes())]


def companion(segmentation_node: slicer.vtkMRMLSegmentationNode, role: str) -> slicer.vtkMRMLNode | None:
    """The result's node of this role, None if there is none."""
    return segmentation_node.GetNodeReference(role)


def add_companion(
    segmentation_node: slicer.vtkMRMLSegmentationNode, role: str, node: slicer.vtkMRMLNode, title: str
) -> slicer.vtkMRMLNode:
    """Add a node to the scene as the result's node of this role, instead of the earlier one, and return it.

    It gets the segmentation's name and ``title``, its transform, and goes into the result's folder.
    """
    remove_companion(segmentation_node, role)
    node.SetName(f"{segmentation_node.GetName()} {title}")
    if role in PRIVATE:
        node.SetHideFromEditors(True)
    if node.GetScene() is None:
        slicer.mrmlScene.AddNode(node)
    if node.IsA("vtkMRMLTransformableNode"):
        node.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
    segmentation_node.SetNodeReferenceID(role, node.GetID())
    hierarchy = subject_hierarchy()
    item = hierarchy.GetItemByDataNode(node)
    if item:  # Plot series and charts have none.
        hierarchy.SetItemParent(item, _folder(segmentation_node, item))
    return node


def _folder(segmentation_node: slicer.vtkMRMLSegmentationNode, item: int) -> int:
    """The folder of the result's companions beside the segmentation; made if there is none."""
    hierarchy = subject_hierarchy()
    beside = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation_node))
    for role in ROLES:
        other = companion(segmentation_node, role)
        sibling = hierarchy.GetItemByDataNode(other) if other else 0
        if sibling and sibling != item and hierarchy.GetItemParent(sibling) != beside:
            return hierarchy.GetItemParent(sibling)
    folder = hierarchy.CreateFolderItem(beside, f"{segmentation_node.GetName()} tree")
    hierarchy.SetItemAttribute(folder, TREE, "1")
    return folder


def remove_companion(segmentation_node: slicer.vtkMRMLSegmentationNode, role: str) -> None:
    """Remove the result's node of this role, if there is one, and its folder when that becomes empty."""
    node = companion(segmentation_node, role)
    segmentation_node.SetNodeReferenceID(role, None)
    if node is None:
        return
    hierarchy = subject_hierarchy()
    beside = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation_node))
    item = hierarchy.GetItemByDataNode(node)
    folder = hierarchy.GetItemParent(item) if item else beside
    remove_with_display(node)
    if folder != beside and not hierarchy.GetNumberOfItemChildren(folder):
        hierarchy.RemoveItem(folder)


def remove_with_display(node: slicer.vtkMRMLNode) -> None:
    """Remove a node from the scene with its display and storage nodes and its own colour table."""
    belongings = []
    if node.IsA("vtkMRMLDisplayableNode"):
        displays = [node.GetNthDisplayNode(number) for number in range(node.GetNumberOfDisplayNodes())]
        for display in filter(None, displays):
            colours = display.GetColorNode()
            belongings += [display] + ([colours] if colours and colours.GetAttribute(ROLE + "own") else [])
    if node.IsA("vtkMRMLStorableNode") and node.GetStorageNode():
        belongings.append(node.GetStorageNode())
    for one in [node, *belongings]:
        if one.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(one)


class Belongings:
    """The companions of a segmentation that is about to be removed: noted before, removed afterwards."""

    def __init__(self, segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
        self.nodes = [node for node in (companion(segmentation_node, role) for role in ROLES) if node is not None]

    def remove(self) -> None:
        """Remove those still in the scene, and their folder when it is empty."""
        hierarchy = subject_hierarchy()
        nodes = [node for node in self.nodes if node.GetScene() is not None]
        items = [item for item in map(hierarchy.GetItemByDataNode, nodes) if item]
        folders = {hierarchy.GetItemParent(item) for item in items}
        for node in nodes:
            remove_with_display(node)
        for folder in folders:
            if hierarchy.GetItemAttribute(folder, TREE) and not hierarchy.GetNumberOfItemChildren(folder):
                hierarchy.RemoveItem(folder)


def subject_hierarchy() -> slicer.vtkMRMLSubjectHierarchyNode:
    """The scene's subject hierarchy."""
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def place_beside(node: slicer.vtkMRMLNode, neighbour: slicer.vtkMRMLNode) -> None:
    """Move the node into the neighbour's study, folder or patient of the subject hierarchy."""
    hierarchy = subject_hierarchy()
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(neighbour))
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), parent)
