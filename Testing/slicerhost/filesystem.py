"""Reads and writes nodes and scenes by file name, as slicer.util's load and save functions ask of Slicer."""

import os
import tempfile

import slicer
import vtk

from slicerhost.scene import World

# Longest ending first; the kind of file is Slicer's name for its reader.
KIND_OF_ENDING = {
    ".seg.nrrd": "SegmentationFile",
    ".mrk.json": "MarkupsFile",
    ".nii.gz": "VolumeFile",
    **dict.fromkeys((".nrrd", ".nhdr", ".nii", ".mha", ".mhd"), "VolumeFile"),
    **dict.fromkeys((".vtp", ".vtk", ".stl", ".ply", ".obj"), "ModelFile"),
    **dict.fromkeys((".csv", ".tsv"), "TableFile"),
    **dict.fromkeys((".mrml", ".mrb"), "SceneFile"),
    **dict.fromkeys((".h5", ".tfm"), "TransformFile"),
    ".ctbl": "ColorTableFile",
}
KIND_OF_NODE = {
    "vtkMRMLSegmentationNode": "SegmentationFile",
    "vtkMRMLVolumeNode": "VolumeFile",
    "vtkMRMLModelNode": "ModelFile",
    "vtkMRMLMarkupsNode": "MarkupsFile",
    "vtkMRMLTableNode": "TableFile",
    "vtkMRMLTransformNode": "TransformFile",
    "vtkMRMLColorTableNode": "ColorTableFile",
}
# The wheel's storage node of volumes lists none, but writes these.
VOLUME_FORMATS = ["NRRD (.nrrd)", "NRRD (.nhdr)", "MetaImage (.mha)", "NIfTI (.nii.gz)", "NIfTI (.nii)"]


class IOManager:
    """Stands for qSlicerCoreIOManager; the reading and writing is done by the real logics and storage nodes."""

    def __init__(self, world: World, temporary_folder: str) -> None:
        self._world = world
        self._temporary_folder = temporary_folder

    def fileType(self, path: str) -> str:
        """Which reader a file name asks for; NoFile for an unknown ending."""
        endings = [ending for ending in KIND_OF_ENDING if str(path).lower().endswith(ending)]
        return KIND_OF_ENDING[endings[0]] if endings else "NoFile"

    def fileWriterFileType(self, node: slicer.vtkMRMLStorableNode) -> str:
        """Which writer a node asks for."""
        kinds = [kind for name, kind in KIND_OF_NODE.items() if node.IsA(name)]
        return kinds[0] if kinds else "NoFile"

    def loadNodes(self, kind: str, properties: dict, loaded: vtk.vtkCollection, messages=None) -> bool:
        """Read properties["fileName"]; the new nodes go into `loaded`."""
        path = properties["fileName"]
        if not os.path.isfile(path):
            return False
        if kind == "SceneFile":
            return self._load_scene(path, properties)
        if kind not in LOADERS:
            return False
        node = LOADERS[kind](path, {"name": _stem(path), **properties})
        if node is not None:
            loaded.AddItem(node)
        return node is not None

    def _load_scene(self, path: str, properties: dict) -> bool:
        scene = self._world.scene
        if properties.get("clear", False):
            self._world.clear()
        if path.endswith(".mrb"):
            folder = tempfile.mkdtemp(dir=self._temporary_folder)
            return bool(self._world.application_logic.OpenSlicerDataBundle(path, folder))
        scene.SetURL(path)
        return bool(scene.Import())

    def saveNodes(self, kind: str, properties: dict, messages=None) -> bool:
        """Write a scene, or the node properties["nodeID"] by the storage node that the scene keeps for it."""
        path = properties["fileName"]
        if kind == "SceneFile":
            return self._save_scene(path)
        node = self._world.scene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None and not node.AddDefaultStorageNode(path):
            return False
        node.GetStorageNode().SetFileName(path)
        return bool(node.GetStorageNode().WriteData(node))

    def _save_scene(self, path: str) -> bool:
        scene = self._world.scene
        if path.endswith(".mrb"):
            return bool(scene.WriteToMRB(path, None, slicer.vtkMRMLMessageCollection()))
        if not path.endswith(".mrml"):
            return bool(self._world.application_logic.SaveSceneToSlicerDataBundleDirectory(path, None))
        scene.SetURL(path)
        return bool(scene.Commit())

    def fileWriterExtensions(self, node: slicer.vtkMRMLStorableNode) -> list[str]:
        """File formats of the node, such as "NRRD (.nrrd)"."""
        types = _new_storage(node).GetSupportedWriteFileTypes()
        return [types.GetValue(index) for index in range(types.GetNumberOfValues())] or VOLUME_FORMATS

    def extractKnownExtension(self, path: str, node: slicer.vtkMRMLStorableNode) -> str:
        """The longest ending of the file name that the node can be written to; empty when there is none."""
        formats = map(slicer.vtkDataFileFormatHelper.GetFileExtensionFromFormatString, self.fileWriterExtensions(node))
        return max((ending for ending in formats if path.lower().endswith(ending)), key=len, default="")

    def exportNodes(self, ids: list[str], paths: list[str], properties: dict, harden: bool, messages=None) -> bool:
        """Write nodes without touching the storage nodes that the scene is saved with."""
        done = True
        for node_id, path in zip(ids, paths, strict=True):
            node = self._world.scene.GetNodeByID(node_id)
            storage = _new_storage(node)
            storage.SetFileName(path)
            copy = self._hardened(node) if harden and node.GetParentTransformNode() else node
            done = bool(storage.WriteData(copy)) and done
        return done

    def _hardened(self, node: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLTransformableNode:
        copy = self._world.scene.CreateNodeByClass(node.GetClassName())
        copy.UnRegister(None)
        copy.CopyContent(node)
        to_world = vtk.vtkGeneralTransform()
        node.GetParentTransformNode().GetTransformToWorld(to_world)
        copy.ApplyTransform(to_world)
        return copy


def _new_storage(node: slicer.vtkMRMLStorableNode) -> slicer.vtkMRMLStorageNode:
    storage = node.CreateDefaultStorageNode()
    storage.UnRegister(None)
    return storage


def _stem(path: str) -> str:
    name = os.path.basename(path)
    endings = [ending for ending in KIND_OF_ENDING if name.lower().endswith(ending)]
    return name[: -len(endings[0])] if endings else name


def _logic(name: str) -> slicer.vtkMRMLAbstractLogic:
    return getattr(slicer.modules, name).logic()


def _load_volume(path: str, properties: dict) -> slicer.vtkMRMLVolumeNode | None:
    label = 1 if properties.get("labelmap") else 0
    node = _logic("volumes").AddArchetypeVolume(path, properties["name"], label)
    if node is not None and properties.get("show", True) and not label:
        slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def _load_markups(path: str, properties: dict) -> slicer.vtkMRMLMarkupsNode | None:
    node_id = _logic("markups").LoadMarkups(path, properties["name"])
    return slicer.mrmlScene.GetNodeByID(node_id.split(",")[0]) if node_id else None


LOADERS = {
    "VolumeFile": _load_volume,
    "MarkupsFile": _load_markups,
    "SegmentationFile": lambda path, options: _logic("segmentations").LoadSegmentationFromFile(
        path, True, options["name"]
    ),
    "ModelFile": lambda path, options: _logic("models").AddModel(path),
    "TableFile": lambda path, options: _logic("tables").AddTable(path, options["name"]),
    "TransformFile": lambda path, options: _logic("transforms").AddTransform(path, slicer.mrmlScene),
    "ColorTableFile": lambda path, options: _logic("colors").LoadColorFile(path, options["name"]),
}
