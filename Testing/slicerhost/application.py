"""slicer.app without Slicer's program: paths, settings, modules and views, around the real scene."""

import tempfile
from types import SimpleNamespace

import numpy as np
import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from slicerhost.filesystem import IOManager
from slicerhost.scene import World


class Application(QtWidgets.QApplication):
    """The one application object; what Slicer's has and this lacks is an AttributeError."""

    startupCompleted = QtCore.Signal()
    _signals = {"startupCompleted()": "startupCompleted"}

    def __init__(self, world: World) -> None:
        super().__init__(["Slicer"])
        self.setOrganizationName("NA-MIC")
        self.setApplicationName("Slicer")
        self.setApplicationVersion("5.13.0")
        self._world = world
        self._folder = tempfile.TemporaryDirectory(prefix="slicerhost-")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
        for scope in (QtCore.QSettings.UserScope, QtCore.QSettings.SystemScope):
            QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, scope, self._folder.name)
        self._settings = QtCore.QSettings()
        self._layout_manager = LayoutManager(world)
        self._module_manager = ModuleManager()
        self._io_manager = IOManager(world, self._folder.name)

    def _folder_name(self) -> str:
        return self._folder.name

    temporaryPath = QtCore.Property(str, _folder_name)
    slicerHome = QtCore.Property(str, _folder_name)
    majorVersion = QtCore.Property(int, lambda self: 5)
    minorVersion = QtCore.Property(int, lambda self: 13)
    revision = QtCore.Property(str, lambda self: "0")
    documentationBaseUrl = QtCore.Property(str, lambda self: "https://slicer.readthedocs.io/en/latest/")

    def moduleDocumentationUrl(self, name: str) -> str:
        """Address of a module's page."""
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def mrmlScene(self) -> slicer.vtkMRMLScene:
        """The scene."""
        return self._world.scene

    def applicationLogic(self) -> slicer.vtkSlicerApplicationLogic:
        """The real application logic."""
        return self._world.application_logic

    def layoutManager(self) -> "LayoutManager":
        """The views."""
        return self._layout_manager

    def moduleManager(self) -> "ModuleManager":
        """Which modules are loaded."""
        return self._module_manager

    def coreIOManager(self) -> IOManager:
        """Reads and writes nodes and scenes."""
        return self._io_manager

    ioManager = coreIOManager

    def settings(self) -> QtCore.QSettings:
        """Settings in a temporary file."""
        return self._settings

    userSettings = revisionUserSettings = settings

    def testingEnabled(self) -> bool:
        """False: questions and messages are shown (to Host.messages), as to a user."""
        return False

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        """The environment without Slicer's own additions; here there are none."""
        return QtCore.QProcessEnvironment.systemEnvironment()

    def pauseRender(self) -> int:
        """Render requests wait."""
        return self._world.application_logic.PauseRender()

    def resumeRender(self) -> int:
        """Render requests pass again."""
        return self._world.application_logic.ResumeRender()


class ModuleManager(QtCore.QObject):
    """The loaded modules by name."""

    moduleLoaded = QtCore.Signal(str)
    moduleAboutToBeUnloaded = QtCore.Signal(str)
    _signals = {
        "moduleLoaded(QString)": "moduleLoaded",
        "moduleAboutToBeUnloaded(QString)": "moduleAboutToBeUnloaded",
    }

    def __init__(self) -> None:
        super().__init__()
        self._modules = {}

    def _add(self, name: str, module: object) -> None:
        self._modules[name] = module
        setattr(slicer.modules, name.lower(), module)
        setattr(slicer.moduleNames, name, name)

    def module(self, name: str) -> object | None:
        """The module, or None."""
        return self._modules.get(name)

    def modulesNames(self) -> list[str]:
        """Names of all modules."""
        return list(self._modules)


class CoreModule:
    """slicer.modules.<name> of a module written in C++: a name and the real logic."""

    def __init__(self, name: str, logic: slicer.vtkMRMLAbstractLogic | None) -> None:
        self.name = name
        self.title = name
        self._logic = logic

    def logic(self) -> slicer.vtkMRMLAbstractLogic | None:
        """The real logic; None for a module that has none."""
        return self._logic


# Views ---------------------------------------------------------------------------------------------------------------


class LayoutManager(QtCore.QObject):
    """The views of the real layout logic; what would be drawn is not, but nodes and logics are Slicer's."""

    layoutChanged = QtCore.Signal(int)
    _signals = {"layoutChanged(int)": "layoutChanged"}

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def _views(self, node_class: str) -> list[slicer.vtkMRMLAbstractViewNode]:
        shown = self._world.layout_logic.GetViewNodes()
        nodes = [shown.GetItemAsObject(index) for index in range(shown.GetNumberOfItems())]
        return [node for node in nodes if node.IsA(node_class)]

    def _layout(self) -> int:
        return self._world.layout_logic.GetLayoutNode().GetViewArrangement()

    def setLayout(self, layout: int) -> None:
        """Show the views of a layout, such as vtkMRMLLayoutNode.SlicerLayoutFourUpView."""
        self._world.layout_logic.GetLayoutNode().SetViewArrangement(layout)
        self._world.add_view_logics()
        self.layoutChanged.emit(layout)

    layout = QtCore.Property(int, _layout, setLayout)

    threeDViewCount = QtCore.Property(int, lambda self: len(self._views("vtkMRMLViewNode")))
    plotViewCount = QtCore.Property(int, lambda self: len(self._views("vtkMRMLPlotViewNode")))
    tableViewCount = QtCore.Property(int, lambda self: len(self._views("vtkMRMLTableViewNode")))

    def layoutLogic(self) -> slicer.vtkMRMLLayoutLogic:
        """The real layout logic."""
        return self._world.layout_logic

    def mrmlSliceLogics(self) -> vtk.vtkCollection:
        """The real slice logics."""
        return self._world.slice_logics

    def sliceViewNames(self) -> tuple[str, ...]:
        """Names of the slice views on screen."""
        return tuple(node.GetLayoutName() for node in self._views("vtkMRMLSliceNode"))

    def sliceWidget(self, name: str) -> "SliceWidget | None":
        """The slice view, on screen or not; None for an unknown name."""
        logic = self._world.application_logic.GetSliceLogicByLayoutName(name)
        return None if logic is None else SliceWidget(logic)

    def threeDWidget(self, index: int) -> "ThreeDWidget | None":
        """The 3D view of this number; None when there are fewer."""
        nodes = self._views("vtkMRMLViewNode")
        return ThreeDWidget(nodes[index]) if 0 <= index < len(nodes) else None

    def plotWidget(self, index: int) -> "PlotWidget | None":
        """The plot view of this number; None when there are fewer."""
        nodes = self._views("vtkMRMLPlotViewNode")
        return PlotWidget(nodes[index]) if 0 <= index < len(nodes) else None

    def resetSliceViews(self) -> None:
        """Fit every slice view to what it shows."""
        self._world.application_logic.FitSliceToAll(True)

    def resetThreeDViews(self) -> None:
        """Centre every 3D view."""
        for index in range(self.threeDViewCount):
            self.threeDWidget(index).threeDView().resetFocalPoint()


class SliceWidget:
    """A slice view: its node and real logic."""

    def __init__(self, logic: slicer.vtkMRMLSliceLogic) -> None:
        self._logic = logic

    def sliceLogic(self) -> slicer.vtkMRMLSliceLogic:
        """The real logic."""
        return self._logic

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        """Its slice node."""
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> slicer.vtkMRMLSliceCompositeNode:
        """Which volumes it shows."""
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        """Fit the view to the background volume."""
        self._logic.FitSliceToBackground()


class PlotWidget:
    """A plot view: its node."""

    def __init__(self, node: slicer.vtkMRMLPlotViewNode) -> None:
        self._node = node

    def mrmlPlotViewNode(self) -> slicer.vtkMRMLPlotViewNode:
        """Its node, which names the chart."""
        return self._node

    def plotView(self) -> object:
        """The view itself; fitting to the content has nothing to do here."""
        return SimpleNamespace(fitToContent=lambda: None)


class ThreeDWidget:
    """A 3D view: its node and camera."""

    def __init__(self, node: slicer.vtkMRMLViewNode) -> None:
        self._node = node

    def mrmlViewNode(self) -> slicer.vtkMRMLViewNode:
        """Its node."""
        return self._node

    def threeDView(self) -> "ThreeDView":
        """The view itself."""
        return ThreeDView(self._node)


class ThreeDView:
    """What modules ask of a 3D view without drawing it."""

    def __init__(self, node: slicer.vtkMRMLViewNode) -> None:
        self._node = node

    def mrmlViewNode(self) -> slicer.vtkMRMLViewNode:
        """Its node."""
        return self._node

    def cameraNode(self) -> slicer.vtkMRMLCameraNode:
        """The camera of this view."""
        return slicer.modules.cameras.logic().GetViewActiveCameraNode(self._node)

    def resetFocalPoint(self) -> None:
        """Look at the middle of every visible model and segmentation; nothing happens where there is none."""
        middle = middle_of_scene()
        if middle is not None:
            self.cameraNode().SetFocalPoint(*middle)

    def forceRender(self) -> None:
        """Nothing is drawn here; `slicerhost.pictures` draws."""


def middle_of_scene() -> list[float] | None:
    """Centre (RAS, mm) of the box around what is visible in 3D; None where nothing is."""
    lows, highs = [], []
    for kind in ("vtkMRMLModelNode", "vtkMRMLSegmentationNode"):
        for node in slicer.util.getNodesByClass(kind):
            bounds = [0.0] * 6
            node.GetRASBounds(bounds)
            if node.GetDisplayVisibility() and bounds[0] <= bounds[1] and not node.GetHideFromEditors():
                lows.append(bounds[0::2])
                highs.append(bounds[1::2])
    if not lows:
        return None
    middle = (np.min(lows, axis=0) + np.max(highs, axis=0)) / 2
    return middle.tolist()
