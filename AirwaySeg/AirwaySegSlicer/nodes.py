"""Between MRML nodes and the files that the command line reads and writes."""

import slicer

# SCT 110726009: export to DICOM SEG then works by itself.
TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^123037004^Anatomical Structure"
    "~SCT^110726009^Trachea and bronchus~^^~Anatomic codes - DICOM master list~^^~^^"
)
AIRWAY_COLOR = (0.56, 0.83, 1.0)
SMOOTHING_FACTOR = "0.2"  # More, and thin airways vanish in 3D.


def write_volume(volume_node: slicer.vtkMRMLScalarVolumeNode, path: str) -> None:
    """Write the volume, in its own coordinates and without a transform above it, as an uncompressed NRRD file.

    A storage node of our own leaves the file name and format with which the user's scene is saved as they are.
    """
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(path)
    storage.UseCompressionOff()
    if not storage.WriteData(volume_node):
        raise RuntimeError(f"The volume {volume_node.GetName()} could not be written to {path}.")


def segmentation_from_mask(path: str, volume_node: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSegmentationNode:
    """Make a segmentation node with one segment from a mask file on the volume's grid.

    The volume is its reference geometry and neighbour in the subject hierarchy. Raises RuntimeError when the volume
    is no longer in the scene or the file cannot be read.
    """
    import SimpleITK

    if volume_node.GetScene() is None:
        raise RuntimeError(f"{volume_node.GetName()} was removed from the scene before its airways were ready.")
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))
    name = slicer.mrmlScene.GenerateUniqueName(f"{volume_node.GetName()} airways")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    segmentation = node.GetSegmentation()
    segmentation.SetConversionParameter("Smoothing factor", SMOOTHING_FACTOR)
    segment_id = segmentation.AddEmptySegment("airways", "Airways", AIRWAY_COLOR)
    segmentation.GetSegment(segment_id).SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), TERMINOLOGY)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment_id, volume_node)
    node.CreateClosedSurfaceRepresentation()
    _place_beside(node, volume_node)
    return node


def _place_beside(node: slicer.vtkMRMLNode, neighbour: slicer.vtkMRMLNode) -> None:
    """Move the node into the neighbour's study, folder or patient of the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(neighbour))
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), parent)
