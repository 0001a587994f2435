"""Stand-ins of Slicer's widgets that follow the scene: node selectors, colour tables, segments."""

import slicer
from PySide6 import QtCore, QtWidgets

from slicerhost.ctkwidgets import ctkDoubleSpinBox, ctkSliderWidget, slots_of, stored, without_stand_in


class qMRMLWidget(QtWidgets.QWidget):
    """A widget that passes a scene to those below it."""

    mrmlSceneChanged = QtCore.Signal(object)
    _signals = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene = None

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene; None before it is set."""
        return self._scene

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Set the scene and tell those that are connected."""
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class SceneFollower:
    """Observes a scene until it is told another one, or its widget is gone."""

    def __init__(self, changed) -> None:
        self.scene, self.tags, self.changed = None, [], changed

    def follow(self, scene: slicer.vtkMRMLScene | None, events: tuple[int, ...]) -> None:
        """Call `changed` at each of the events of this scene."""
        for tag in self.tags:
            self.scene.RemoveObserver(tag)
        self.scene = scene
        self.tags = [scene.AddObserver(event, self.changed) for event in events] if scene is not None else []


@slots_of("nodeTypes", "noneEnabled", "addEnabled", "removeEnabled", "renameEnabled", "editEnabled", "noneDisplay")
@slots_of("showHidden", "showChildNodeTypes", "selectNodeUponCreation", "baseName")
class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Choose a node of the scene; without `noneEnabled` the first node is chosen as soon as there is one."""

    currentNodeChanged = QtCore.Signal(object)
    currentNodeIDChanged = QtCore.Signal(str)
    currentNodeRenamed = QtCore.Signal(str)
    nodeAddedByUser = QtCore.Signal(object)
    nodeActivated = QtCore.Signal(object)
    validityChanged = QtCore.Signal(bool)  # currentNodeChanged(bool) of Slicer
    _signals = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "validityChanged",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "currentNodeRenamed(QString)": "currentNodeRenamed",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
    }

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._box = QtWidgets.QComboBox()
        self._box.setSizeAdjustPolicy(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        layout.addWidget(self._box)
        self._nodes, self._current, self._requested = [None], None, None
        self._attributes = []
        self._follower = SceneFollower(lambda caller, event: self._update())
        self._box.activated.connect(self._on_activated)
        self.destroyed.connect(lambda gone, follower=self._follower: follower.follow(None, ()))

    def _update(self) -> None:
        """Follow the scene: list its nodes, keep the current one, choose one where there must be one."""
        scene = self._follower.scene
        if scene is None or scene.IsBatchProcessing():
            return
        found = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
        found = [node for node in found if self._lists(node)]
        self._nodes = ([None] if self.noneEnabled else []) + found
        self._box.clear()
        self._box.addItems([node.GetName() or "" if node else self.noneDisplay for node in self._nodes])
        current = self._current if self._current in found else None
        if current is None and not self.noneEnabled and found:
            current = found[0]
        self._choose(current)

    def _lists(self, node: slicer.vtkMRMLNode) -> bool:
        exact = [node.GetClassName() == kind for kind in self.nodeTypes]
        derived = [node.IsA(kind) for kind in self.nodeTypes]
        hidden = node.GetHideFromEditors() and not self.showHidden
        fits = all(
            node.GetAttribute(name) is not None and (value is None or node.GetAttribute(name) == str(value))
            for kind, name, value in self._attributes
            if node.IsA(kind)
        )
        return any(derived if self.showChildNodeTypes else exact) and not hidden and fits

    def _choose(self, node: slicer.vtkMRMLNode | None) -> None:
        if node in self._nodes:
            self._box.setCurrentIndex(self._nodes.index(node))
        else:
            self._box.setCurrentIndex(-1)
        if node is self._current:
            return
        self._current = node
        self.currentNodeChanged.emit(node)
        self.validityChanged.emit(node is not None)
        self.currentNodeIDChanged.emit(node.GetID() if node else "")

    def _on_activated(self, index: int) -> None:
        self._choose(self._nodes[index])
        self.nodeActivated.emit(self._current)

    nodeTypes = stored("QStringList", [], _update)
    noneEnabled = stored(bool, False, _update)
    showHidden, showChildNodeTypes = stored(bool, False, _update), stored(bool, True, _update)
    noneDisplay = stored(str, "None", _update)
    addEnabled, removeEnabled = stored(bool, True), stored(bool, True)
    editEnabled, renameEnabled = stored(bool, False), stored(bool, False)
    selectNodeUponCreation, baseName = stored(bool, True), stored(str, "")
    hideChildNodeTypes, interactionNodeSingletonTag = stored("QStringList", []), stored(str, "")
    currentNodeID = QtCore.Property(
        str,
        lambda self: self._current.GetID() if self._current else "",
        lambda self, value: self.setCurrentNodeID(value),
    )

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene whose nodes are listed; without one there is nothing to choose."""
        return self._follower.scene

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """List this scene's nodes from now on."""
        events = ("NodeAddedEvent", "NodeRemovedEvent", "EndBatchProcessEvent", "EndCloseEvent", "EndImportEvent")
        self._follower.follow(scene, tuple(getattr(scene, name) for name in events) if scene else ())
        self._update()
        if scene is not None and self._requested is not None:
            self.setCurrentNode(self._requested)

    def addAttribute(self, kind: str, name: str, value: object = None) -> None:
        """List only nodes of this class that have this attribute (with this value)."""
        self._attributes.append((kind, name, value))
        self._update()

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        """The chosen node."""
        return self._current

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        """Choose a node; one that is not listed chooses none."""
        if node is not None and not isinstance(node, slicer.vtkMRMLNode):
            raise TypeError(f"setCurrentNode takes a node, not {node!r}")
        if self._follower.scene is None:
            self._requested = node
            return
        self._update()
        self._choose(node if node in self._nodes else None)

    def setCurrentNodeID(self, node_id: str) -> None:
        """Choose a node by its ID."""
        self.setCurrentNode(self._follower.scene.GetNodeByID(node_id) if node_id and self._follower.scene else None)

    def setCurrentNodeIndex(self, index: int) -> None:
        """Choose by position among the listed nodes."""
        nodes = [node for node in self._nodes if node is not None]
        self._choose(nodes[index] if 0 <= index < len(nodes) else None)

    def nodeCount(self) -> int:
        """How many nodes are listed."""
        return sum(node is not None for node in self._nodes)

    def nodeFromIndex(self, index: int) -> slicer.vtkMRMLNode | None:
        """The listed node at a position."""
        nodes = [node for node in self._nodes if node is not None]
        return nodes[index] if 0 <= index < len(nodes) else None

    def addNode(self, kind: str = "") -> slicer.vtkMRMLNode:
        """What "Create new" does: a node of the (first) class, chosen."""
        kind = kind or self.nodeTypes[0]
        name = self.baseName or kind.removeprefix("vtkMRML").removesuffix("Node")
        node = self._follower.scene.AddNewNodeByClass(kind, self._follower.scene.GenerateUniqueName(name))
        self._update()
        self._choose(node)
        self.nodeAddedByUser.emit(node)
        return node


class qMRMLColorTableComboBox(qMRMLNodeComboBox):
    """Choose a colour table."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.nodeTypes = ["vtkMRMLColorNode"]
        self.showHidden = True


class qMRMLSliderWidget(ctkSliderWidget):
    """A slider of a number with a unit."""

    quantity = stored(str, "")


class qMRMLSpinBox(ctkDoubleSpinBox):
    """A spin box of a number with a unit."""

    quantity = stored(str, "")


WIDGETS = [qMRMLWidget, qMRMLNodeComboBox, qMRMLColorTableComboBox, qMRMLSliderWidget, qMRMLSpinBox]
WIDGETS += [without_stand_in(name) for name in ("qMRMLRangeWidget", "qMRMLScreenShotDialog")]


def install() -> None:
    """Make them attributes of the module slicer, as Slicer does."""
    for kind in WIDGETS:
        setattr(slicer, kind.__name__, kind)
