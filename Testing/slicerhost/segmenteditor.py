"""Stand-in of Slicer's Segment Editor: its node, selection and undo are real, its effects only remember their use."""

from collections.abc import Callable
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from slicerhost.ctkwidgets import slots_of, stored
from slicerhost.mrmlwidgets import qMRMLWidget

EFFECTS = (
    "Threshold Paint Draw Erase Level_tracing Grow_from_seeds Fill_between_slices Margin Hollow Smoothing Scissors "
    "Islands Logical_operators Mask_volume"
)
SHOWN = ("segmentationNodeSelector", "sourceVolumeNodeSelector", "switchToSegmentationsButton", "maskingSection")
SHOWN += ("specifyGeometryButton", "show3DButton", "addRemoveSegmentButtons", "unorderedEffects")


class Effect:
    """An effect of the editor: a name and parameters; applying it is only noted."""

    def __init__(self, name: str, calls: list) -> None:
        self.name, self._calls, self._parameters = name, calls, {}

    def setParameter(self, name: str, value: Any) -> None:
        """Set a parameter, as text."""
        self._parameters[name] = str(value)

    def parameter(self, name: str) -> str:
        """A parameter; empty when it was never set."""
        return self._parameters.get(name, "")

    def self(self) -> "Effect":
        """The Python side of a scripted effect."""
        return self

    def onApply(self) -> None:
        """Note that it was applied."""
        self._calls.append(("apply", self.name))


def _note(name: str) -> Callable[..., None]:
    """A method that is only remembered."""

    def method(self, *arguments):
        self._calls.append((name, *arguments))

    return method


@slots_of(*(f"{name}Visible" for name in SHOWN), "undoEnabled", "maximumNumberOfUndoStates", "readOnly")
@slots_of("autoShowSourceVolumeNode", "effectColumnCount", "jumpToSelectedSegmentEnabled", "defaultTerminologyEntry")
class qMRMLSegmentEditorWidget(qMRMLWidget):
    """The editor; `calls` lists (method, argument) of what was done with it."""

    segmentationNodeChanged = QtCore.Signal(object)
    sourceVolumeNodeChanged = QtCore.Signal(object)
    currentSegmentIDChanged = QtCore.Signal(str)
    _signals = {
        "segmentationNodeChanged(vtkMRMLSegmentationNode*)": "segmentationNodeChanged",
        "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)": "sourceVolumeNodeChanged",
        "currentSegmentIDChanged(QString)": "currentSegmentIDChanged",
    }
    undoEnabled, readOnly = stored(bool, True), stored(bool, False)
    maximumNumberOfUndoStates = stored(int, 10)
    autoShowSourceVolumeNode, jumpToSelectedSegmentEnabled = stored(bool, True), stored(bool, False)
    effectColumnCount, defaultTerminologyEntry = stored(int, 2), stored(str, "")
    segmentationNodeSelectorVisible, sourceVolumeNodeSelectorVisible = stored(bool, True), stored(bool, True)
    switchToSegmentationsButtonVisible, maskingSectionVisible = stored(bool, True), stored(bool, True)
    specifyGeometryButtonVisible, show3DButtonVisible = stored(bool, False), stored(bool, True)
    addRemoveSegmentButtonsVisible, unorderedEffectsVisible = stored(bool, True), stored(bool, True)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._calls, self._node, self._effect, self._followed = [], None, None, None
        self._effects = {name.replace("_", " "): None for name in EFFECTS.split()}
        self._effects = {name: Effect(name, self._calls) for name in self._effects}
        self._history = slicer.vtkSegmentationHistory()
        layout = QtWidgets.QGridLayout(self)
        for number, name in enumerate(self._effects):
            button = QtWidgets.QToolButton()
            button.setText(name)
            button.setToolTip(name)
            button.clicked.connect(lambda checked=False, name=name: self.setActiveEffectByName(name))
            button.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
            layout.addWidget(button, number // 3, number % 3)

    calls = property(lambda self: self._calls)

    def mrmlSegmentEditorNode(self) -> slicer.vtkMRMLSegmentEditorNode | None:
        """The node that keeps what is chosen; None when it has left the scene."""
        return self._node if self._node is not None and self._node.GetScene() is not None else None

    def setMRMLSegmentEditorNode(self, node: slicer.vtkMRMLSegmentEditorNode | None) -> None:
        """Keep what is chosen in this node; it belongs into the scene."""
        if node is not None and (not node.IsA("vtkMRMLSegmentEditorNode") or node.GetScene() is None):
            raise ValueError("the editor wants a segment editor node of the scene")
        self._node = node
        self._calls.append(("setMRMLSegmentEditorNode", node))
        self._follow()

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Follow what the node of this scene keeps."""
        super().setMRMLScene(scene)
        self._follow()

    def _follow(self) -> None:
        """As Slicer does with a segmentation that it has not had: its first segment and its volume are selected.

        Whatever segment the node remembered is forgotten with that.
        """
        kept, segmentation = self.mrmlSegmentEditorNode(), self.segmentationNode()
        if kept is None or self.mrmlScene() is None or segmentation is self._followed:
            return
        self._followed = segmentation
        content = segmentation.GetSegmentation() if segmentation is not None else None
        self._history.SetSegmentation(content)
        if segmentation is not None:
            kept.SetAndObserveSourceVolumeNode(
                segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
            )
            if content.GetNumberOfSegments():
                kept.SetSelectedSegmentID(content.GetNthSegmentID(0))
                self.currentSegmentIDChanged.emit(kept.GetSelectedSegmentID())
        self.segmentationNodeChanged.emit(segmentation)

    def _kept(self) -> slicer.vtkMRMLSegmentEditorNode:
        node = self.mrmlSegmentEditorNode()
        if node is None or self.mrmlScene() is None:
            raise RuntimeError("the editor has no segment editor node or no scene yet")
        return node

    def segmentationNode(self) -> slicer.vtkMRMLSegmentationNode | None:
        """The edited segmentation."""
        node = self.mrmlSegmentEditorNode()
        return node.GetSegmentationNode() if node is not None else None

    def setSegmentationNode(self, segmentation: slicer.vtkMRMLSegmentationNode | None) -> None:
        """Edit a segmentation; its first segment is selected. The one that is edited already stays as it is."""
        if segmentation is None and self.mrmlSegmentEditorNode() is None:
            return
        self._calls.append(("setSegmentationNode", segmentation))
        if segmentation is self.segmentationNode():
            return
        self._kept().SetAndObserveSegmentationNode(segmentation)
        self._follow()
        self.setActiveEffect(None)

    def sourceVolumeNode(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The volume that the effects look at."""
        node = self.mrmlSegmentEditorNode()
        return node.GetSourceVolumeNode() if node is not None else None

    def setSourceVolumeNode(self, volume: slicer.vtkMRMLScalarVolumeNode | None) -> None:
        """Let the effects look at a volume."""
        self._kept().SetAndObserveSourceVolumeNode(volume)
        self._calls.append(("setSourceVolumeNode", volume))
        self.sourceVolumeNodeChanged.emit(volume)

    def currentSegmentID(self) -> str:
        """The selected segment; empty for none."""
        node = self.mrmlSegmentEditorNode()
        return (node.GetSelectedSegmentID() or "") if node is not None else ""

    def setCurrentSegmentID(self, segment_id: str) -> None:
        """Select a segment of the edited segmentation."""
        segmentation = self.segmentationNode()
        if segment_id and (segmentation is None or segmentation.GetSegmentation().GetSegment(segment_id) is None):
            raise ValueError(f"the edited segmentation has no segment {segment_id}")
        self._kept().SetSelectedSegmentID(segment_id)
        self.currentSegmentIDChanged.emit(segment_id)

    def availableEffectNames(self) -> list[str]:
        """Names of the effects."""
        return list(self._effects)

    def effectByName(self, name: str) -> Effect | None:
        """An effect; None for an unknown name."""
        return self._effects.get(name)

    def activeEffect(self) -> Effect | None:
        """The effect that has the mouse."""
        return self._effect

    def setActiveEffect(self, effect: Effect | None) -> None:
        """Give an effect the mouse; None takes it away."""
        if effect is not None and effect not in self._effects.values():
            raise TypeError(f"{effect!r} is no effect of the editor")
        self._effect = effect
        self._calls.append(("setActiveEffect", effect.name if effect else None))

    def setActiveEffectByName(self, name: str) -> None:
        """Give an effect the mouse; an unknown name takes it away."""
        self.setActiveEffect(self._effects.get(name))

    def saveStateForUndo(self) -> None:
        """Remember the segmentation as it is, in Slicer's own history."""
        if self.segmentationNode() is not None:
            self._history.SetMaximumNumberOfStates(self.maximumNumberOfUndoStates)
            self._history.SaveState()
        self._calls.append(("saveStateForUndo", None))

    def undo(self) -> None:
        """Back to the remembered state."""
        self._restore(self._history.RestorePreviousState)

    def redo(self) -> None:
        """Forward again."""
        self._restore(self._history.RestoreNextState)

    def _restore(self, restore: Callable[[], bool]) -> None:
        """As Slicer's logic: what observes the segmentation node hears of it when all is done."""
        segmentation = self.segmentationNode()
        before = segmentation.StartModify()
        restore()
        segmentation.InvokeCustomModifiedEvent(segmentation.DisplayModifiedEvent)
        segmentation.EndModify(before)

    installKeyboardShortcuts, uninstallKeyboardShortcuts = map(
        _note, ("installKeyboardShortcuts", "uninstallKeyboardShortcuts")
    )
    setupViewObservations, removeViewObservations = map(_note, ("setupViewObservations", "removeViewObservations"))
    updateWidgetFromMRML, updateEffectList = map(_note, ("updateWidgetFromMRML", "updateEffectList"))
    setEffectNameOrder, rotateSliceViewsToSegmentation = map(
        _note, ("setEffectNameOrder", "rotateSliceViewsToSegmentation")
    )
