"""The section Correct: Slicer's Segment Editor on the airways, and a tree that follows the edits."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.correction import EditWatch, count_edits, take_back
from AirwaySegSlicer.dependencies import ensure_packages
from AirwaySegSlicer.jobs import Listener
from AirwaySegSlicer.nodes import INITIAL, companion
from AirwaySegSlicer.panel import Panel, Section, errors_shown
from AirwaySegSlicer.segments import airway_segment_id, ct_of

EDITOR_TAG = "AirwaySeg"
UNDO_STATES = 10
PAUSE_MS = 2000
"""From the last edit to the measuring that follows it by itself."""


class CorrectSection(Section):
    """Makes the editor when the section is first opened, so that nothing is added to a scene that is not corrected."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self.editor: Any = None
        self._watch = EditWatch(self.on_edit)
        self._watched: slicer.vtkMRMLSegmentationNode | None = None
        self._waits = False  # for other work to end before the tree is updated
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.connect("timeout()", self.on_pause)
        self.ui.correctSection.connect("contentsCollapsed(bool)", self.on_collapsed)
        self.ui.updateButton.connect("clicked(bool)", self.on_update)
        self.ui.takeBackButton.connect("clicked(bool)", self.on_take_back)

    # The editor ------------------------------------------------------------------------------------------------------

    def on_collapsed(self, collapsed: bool) -> None:
        """Open the editor with the section, and let go of the views with it."""
        if collapsed:
            self.stop_editing()
            return
        with errors_shown():
            if self.editor is None:
                self.make_editor()
            self.start_editing()
            self.count()
        self.panel.update()

    def make_editor(self) -> None:
        """Slicer's own editor, without the selectors of what the panel has chosen already."""
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.editor.setMaximumNumberOfUndoStates(UNDO_STATES)
        self.editor.setSegmentationNodeSelectorVisible(False)
        self.editor.setSourceVolumeNodeSelectorVisible(False)
        self.editor.setSwitchToSegmentationsButtonVisible(False)
        self.ui.editorFrame.layout().addWidget(self.editor)

    def start_editing(self) -> None:
        """Give the editor its node, and the chosen airways."""
        # The node comes before the scene, so that what the editor chooses by itself is kept in it.
        self.editor.setMRMLSegmentEditorNode(editor_node())
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.editor.installKeyboardShortcuts()
        self.edit_chosen()

    def edit_chosen(self) -> None:
        """Edit the chosen airways on their CT."""
        airways = self.panel.airways()
        if self.editor.segmentationNode() is not airways:
            self.editor.setSegmentationNode(airways)
        if airways is None or not airways.GetSegmentation().GetNumberOfSegments():
            return
        try:
            self.editor.setSourceVolumeNode(ct_of(airways))
        except RuntimeError:
            self.editor.setSourceVolumeNode(self.panel.ct())
        if not self.editor.currentSegmentID():
            self.editor.setCurrentSegmentID(airway_segment_id(airways))

    def stop_editing(self) -> None:
        """Let go of views and keys."""
        if self.editor is not None:
            self.editor.setActiveEffect(None)
            self.editor.uninstallKeyboardShortcuts()
            self.editor.removeViewObservations()

    def is_editing(self) -> bool:
        """Whether the editor is open."""
        return self.editor is not None and not self.ui.correctSection.collapsed and self.panel.parameters is not None

    def enter(self) -> None:
        """The editor works again when its section is open."""
        if self.editor is not None and not self.ui.correctSection.collapsed:
            self.start_editing()

    def exit(self) -> None:
        """Another module has the views now."""
        self.stop_editing()

    def close_scene(self) -> None:
        """The editor's nodes go with the scene."""
        self._timer.stop()
        self._waits = False
        self._watch_airways(None)
        if self.editor is not None:
            self.editor.setSegmentationNode(None)
            self.editor.removeViewObservations()

    def close(self) -> None:
        """Nothing is noticed any longer."""
        self._timer.stop()
        self._watch_airways(None)
        self.stop_editing()

    # What follows the edits ------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Edit, watch and count the chosen airways."""
        airways, busy = self.panel.airways(), self.panel.is_busy()
        self._watch_airways(airways)
        if self.is_editing():
            if self.editor.mrmlSegmentEditorNode() is None:
                self.start_editing()  # after another scene was read
            self.edit_chosen()
        known = airways is not None and companion(airways, INITIAL) is not None
        self.ui.updateButton.enabled = airways is not None and not busy
        self.ui.takeBackButton.enabled = known
        if self._waits and not busy:
            self._waits = False
            self._timer.start()

    def _watch_airways(self, airways: slicer.vtkMRMLSegmentationNode | None) -> None:
        if airways is not self._watched:
            self._watched = airways
            self._watch.watch(airways)
            if not self.ui.correctSection.collapsed:
                self.count()

    def count(self) -> None:
        """Say how much was corrected."""
        airways, text = self._watched, ""
        if airways is not None and companion(airways, INITIAL) is not None:
            edits = count_edits(airways)
            text = _("Corrected: {added} voxels added, {removed} removed.").format(
                added=edits.added, removed=edits.removed
            )
        self.ui.editsLabel.text = text

    def on_edit(self) -> None:
        """The voxels have changed; many such calls may come in one edit."""
        self._timer.start()

    def on_pause(self) -> None:
        """The user has paused: count, and measure if that is wanted."""
        if self.panel.closed or self._watched is None or self._watched.GetScene() is None:
            return
        with errors_shown():
            if not self.ui.correctSection.collapsed:
                self.count()
        if self.panel.parameters and self.panel.parameters.autoUpdate:
            if self.panel.is_busy():
                self._waits = True
            else:
                self.on_update()

    def on_update(self, checked: bool = False) -> None:
        """Let tree, table and overlays follow."""
        with errors_shown():
            ensure_packages(self.panel.requirements)
            self.ui.statusLabel.text = _("Measuring the tree")
            self.logic.startMeasure(self.panel.airways(), Listener(self.panel.on_measured, on_line=self.panel.log))
        self.panel.update()

    def on_take_back(self, checked: bool = False) -> None:
        """Return to the network's mask, as one step that can be undone."""
        with errors_shown():
            if self.editor is not None:
                self.editor.saveStateForUndo()
            take_back(self.panel.airways())


def editor_node() -> slicer.vtkMRMLSegmentEditorNode:
    """The scene's segment editor node of this module, made when it is missing."""
    node = slicer.mrmlScene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
        node.UnRegister(None)
        node.SetSingletonTag(EDITOR_TAG)
        node = slicer.mrmlScene.AddNode(node)
    return node
