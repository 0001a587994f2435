"""The real part of the host: one MRML scene with Slicer's own logics, views and subject hierarchy, without a window."""

import os
import tempfile

import slicer
import vtk

# Attribute of slicer.modules -> its logic class; each is Slicer's own.
MODULE_LOGICS = {
    "Annotations": "vtkSlicerAnnotationModuleLogic",
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "Colors": "vtkSlicerColorLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}
# Nodes of these classes get an item in the subject hierarchy when they are added, unless they are hidden.
SHOWN_IN_HIERARCHY = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLModelNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLTransformNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLSequenceNode",
    "vtkMRMLSequenceBrowserNode",
)


class World:
    """A scene and what Slicer's core puts around it: the modules' logics, colours, layout and views."""

    def __init__(self) -> None:
        self.scene = slicer.mrmlScene = slicer.vtkMRMLScene()
        self._cache = tempfile.TemporaryDirectory(prefix="slicerhost-cache-")
        self._cache_manager = slicer.vtkCacheManager()
        self._cache_manager.SetRemoteCacheDirectory(self._cache.name)
        self.scene.SetCacheManager(self._cache_manager)
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetTemporaryPath(tempfile.gettempdir())
        self.application_logic.SetMRMLScene(self.scene)
        # The wheel lacks the terminologies' and some colour files, and says so in ten lines.
        vtk.vtkObject.GlobalWarningDisplayOff()
        self.module_logics = {name: self._make_logic(name, kind) for name, kind in MODULE_LOGICS.items()}
        self.application_logic.SetColorLogic(self.module_logics["Colors"])
        self.module_logics["Colors"].AddDefaultColorNodes()
        vtk.vtkObject.GlobalWarningDisplayOn()
        self._add_generic_colors()
        self.layout_logic = slicer.vtkMRMLLayoutLogic()
        self.layout_logic.SetMRMLScene(self.scene)
        self.slice_logics = vtk.vtkCollection()
        self.view_logics = vtk.vtkCollection()
        self.application_logic.SetSliceLogics(self.slice_logics)
        self.application_logic.SetViewLogics(self.view_logics)
        self.show_views()
        self.hierarchy_observer = HierarchyObserver(self.scene)

    def _make_logic(self, name: str, kind: str) -> slicer.vtkMRMLAbstractLogic:
        logic = getattr(slicer, kind)()
        logic.SetMRMLApplicationLogic(self.application_logic)
        logic.SetMRMLScene(self.scene)
        self.application_logic.SetModuleLogic(name, logic)
        return logic

    def _add_generic_colors(self) -> None:
        """The colour table that label maps have by default comes from a file that the wheel lacks; its ID is enough."""
        colors = slicer.vtkMRMLColorTableNode()
        colors.SetTypeToRandom()
        colors.SetName("GenericColors")
        colors.SetSingletonTag("FileGenericColors.txt")
        colors.SaveWithSceneOff()
        self.scene.AddNode(colors)

    def show_views(self) -> None:
        """Slicer's first layout: three slice views and a 3D view."""
        layout = slicer.vtkMRMLLayoutNode
        self.layout_logic.GetLayoutNode().SetViewArrangement(layout.SlicerLayoutFourUpView)
        self.add_view_logics()

    def add_view_logics(self) -> None:
        """A logic for each slice and 3D view that has none yet, and a camera for each 3D view."""
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if self.application_logic.GetSliceLogic(node) is None:
                self._add_slice_logic(node)
        for node in slicer.util.getNodesByClass("vtkMRMLViewNode"):
            if self.application_logic.GetViewLogic(node) is None:
                logic = slicer.vtkMRMLViewLogic()
                logic.SetMRMLScene(self.scene)
                logic.AddViewNode(node.GetLayoutName())
                self.view_logics.AddItem(logic)
            if self.module_logics["Cameras"].GetViewActiveCameraNode(node) is None:
                camera = self.scene.AddNewNodeByClass("vtkMRMLCameraNode", "Default Scene Camera")
                camera.SetLayoutName(node.GetLayoutName())

    def _add_slice_logic(self, node: slicer.vtkMRMLSliceNode) -> None:
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self.application_logic)
        logic.SetMRMLScene(self.scene)
        logic.SetSliceNode(node)
        self.slice_logics.AddItem(logic)

    def clear(self) -> None:
        """Close the scene as the user does, and forget how it was edited; views and colours stay."""
        self.scene.Clear(0)
        for name in os.listdir(self._cache.name):
            os.remove(os.path.join(self._cache.name, name))
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentEditorNode"):
            self.scene.RemoveNode(node)
        self.show_views()


class HierarchyObserver:
    """Makes and removes subject-hierarchy items as the plugins of Slicer's window do."""

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self.scene = scene
        self.hierarchy()
        for event, method in (
            (scene.NodeAddedEvent, self.on_added),
            (scene.NodeAboutToBeRemovedEvent, self.on_removed),
        ):
            # VTK passes the node only to functions that say so.
            method = vtk_object_method(method)
            scene.AddObserver(event, method)
        scene.AddObserver(scene.EndImportEvent, lambda caller, event: self.add_missing())

    def hierarchy(self) -> slicer.vtkMRMLSubjectHierarchyNode:
        """The scene's subject hierarchy; made when it is missing."""
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def on_added(self, node: slicer.vtkMRMLNode) -> None:
        """An item for each node that Slicer shows in its Data module; a scene being read brings its own."""
        if not self.scene.IsImporting() and not self.scene.IsClosing():
            self.add(node)

    def add(self, node: slicer.vtkMRMLNode) -> None:
        """The node's item at the top level, if the node is one that is shown and has none yet."""
        if node.GetHideFromEditors() or not any(node.IsA(name) for name in SHOWN_IN_HIERARCHY):
            return
        hierarchy = self.hierarchy()
        if not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    def on_removed(self, node: slicer.vtkMRMLNode) -> None:
        """The item goes with its node."""
        if self.scene.IsClosing() or node.IsA("vtkMRMLSubjectHierarchyNode"):
            return
        hierarchy = self.hierarchy()
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, False)

    def add_missing(self) -> None:
        """After a scene was read: items for the nodes that it brought without."""
        for index in range(self.scene.GetNumberOfNodes()):
            self.add(self.scene.GetNthNode(index))


def vtk_object_method(method):
    """A function for AddObserver that hands the event's node to `method`."""

    def called(caller, event, node):
        method(node)

    called.CallDataType = vtk.VTK_OBJECT
    return called
