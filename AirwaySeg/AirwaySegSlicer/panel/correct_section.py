"""The Segment Editor in the tab Review: Slicer's Segment Editor on the airways, and updates of the tree after edits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_packages
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.commands.measure import MEASURE
from AirwaySegSlicer.panel.panel import Panel, Section, errors_shown
from AirwaySegSlicer.scene.edits import EditWatch, count_edits, take_back
from AirwaySegSlicer.scene.following import follow_transform
from AirwaySegSlicer.scene.freshness import is_marked, is_out_of_date, update_marks
from AirwaySegSlicer.scene.hand_names import show_names
from AirwaySegSlicer.scene.nodes import CENTERLINE, INITIAL, ROLES, companion
from AirwaySegSlicer.scene.origin import note_erased
from AirwaySegSlicer.scene.segments import airway_segment_id, check_airways, ct_of
from AirwaySegSlicer.scene.steps import MOST_STATES
from AirwaySegSlicer.scene.surfaces import surface_kept

EDITOR_TAG = "AirwaySeg"
PAUSE_MS = 2000
"""Time from the last edit to the automatic measurement."""


class CorrectSection(Section):
    """Makes the editor when the section is first opened, so that it adds nothing to a scene without corrections.

    Results are observed all the time, since they can also be edited in other modules.
    """

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self.editor: Any = None
        self._opened = ""  # id of the segmentation whose airways the editor has selected
        self._watch = EditWatch(self.on_edit, self.on_move)
        self._new: list[slicer.vtkMRMLSegmentationNode] = []  # observed only since the last pause
        self._edited: list[slicer.vtkMRMLSegmentationNode] = []  # possibly edited since the last pause
        self._waits = False  # for another job to end before the tree is updated
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.connect("timeout()", self.on_pause)
        self._counted: slicer.vtkMRMLSegmentationNode | None = None
        scene = slicer.mrmlScene  # It also changes while another module is shown.
        events = (scene.EndImportEvent, scene.NodeRemovedEvent)
        self._scene_tags = [scene.AddObserver(event, lambda caller, event: self.watch()) for event in events]
        self.logic.steps.editor_of = self.editor_of
        self.ui.correctSection.connect("contentsCollapsed(bool)", self.on_collapsed)
        self.ui.updateButton.connect("clicked(bool)", self.on_update)
        self.ui.takeBackButton.connect("clicked(bool)", self.on_take_back)

    # The editor ------------------------------------------------------------------------------------------------------

    def on_collapsed(self, collapsed: bool) -> None:
        """Start editing when the section is opened, stop when it is closed."""
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
        """Make Slicer's editor, without the selectors that the panel has already."""
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.editor.setMaximumNumberOfUndoStates(MOST_STATES)
        self.editor.setSegmentationNodeSelectorVisible(False)
        self.editor.setSourceVolumeNodeSelectorVisible(False)
        self.editor.setSwitchToSegmentationsButtonVisible(False)
        self.ui.editorFrame.layout().addWidget(self.editor)

    def start_editing(self) -> None:
        """Set the editor's node and the chosen airways, and take the keys."""
        self.set_up_editor()
        self.editor.installKeyboardShortcuts()

    def set_up_editor(self) -> None:
        """Set the editor's node and the chosen airways."""
        # The node before the scene, so that the editor stores its own choices in the node.
        self.editor.setMRMLSegmentEditorNode(editor_node())
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.edit_chosen()

    def edit_chosen(self) -> None:
        """Edit the chosen airways on their CT; by default the editor would select the first segment."""
        airways = self.panel.airways()
        if airways is not None and reason_against(airways):
            airways = None
        if self.editor.segmentationNode() is not airways:
            self.editor.setSegmentationNode(airways)
        if airways is not None and airways.GetSegmentation().GetNumberOfSegments():
            try:
                self.editor.setSourceVolumeNode(ct_of(airways))
            except RuntimeError:
                self.editor.setSourceVolumeNode(self.panel.ct())
            if airways.GetID() != self._opened and not reason_against(airways, airway_segment_id):
                self.editor.setCurrentSegmentID(airway_segment_id(airways))
        self._opened = airways.GetID() if airways is not None else ""

    def stop_editing(self) -> None:
        """Release views and keyboard shortcuts."""
        if self.editor is not None:
            self.editor.setActiveEffect(None)
            self.editor.uninstallKeyboardShortcuts()
            self.editor.removeViewObservations()

    def is_editing(self) -> bool:
        """Whether the editor is open."""
        return self.editor is not None and self.is_open() and self.panel.parameters is not None

    def editor_of(self, airways: slicer.vtkMRMLSegmentationNode) -> Any:
        """The editor of the chosen airways, made where it is missing, so that there is one undo; None for others."""
        if self.panel.closed or airways is not self.panel.airways():
            return None
        if self.editor is None:
            self.make_editor()
        if self.editor.mrmlSegmentEditorNode() is None or self.editor.segmentationNode() is not airways:
            self.set_up_editor()
        return self.editor if self.editor.segmentationNode() is airways else None

    def is_open(self) -> bool:
        """Whether the editor's section is open in the shown tab."""
        return not self.ui.correctSection.collapsed and self.panel.tab() == "reviewTab"

    def tab_changed(self) -> None:
        """Release the views for another tab, and start editing again in this one."""
        if self.editor is not None:
            if self.is_open():
                self.start_editing()
            else:
                self.stop_editing()

    def enter(self) -> None:
        """Start editing again when the section is open."""
        if self.editor is not None and self.is_open():
            self.start_editing()

    def exit(self) -> None:
        """Release the views for the other module."""
        self.stop_editing()

    def close_scene(self) -> None:
        """Release the editor's nodes, which are removed with the scene."""
        self._timer.stop()
        self._waits = False
        self._opened, self._counted, self._new, self._edited = "", None, [], []
        self._watch.watch([])
        if self.editor is not None:
            self.editor.setSegmentationNode(None)
            self.editor.removeViewObservations()

    def close(self) -> None:
        """Remove all observers."""
        self._timer.stop()
        self._watch.watch([])
        for tag in self._scene_tags:
            slicer.mrmlScene.RemoveObserver(tag)
        self.stop_editing()

    # What follows the edits ------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Edit the chosen airways, count the corrections, and say when the tree is out of date."""
        airways, busy = self.panel.airways(), self.panel.is_busy()
        self.watch()
        if self.is_editing():
            if self.editor.mrmlSegmentEditorNode() is None:
                self.start_editing()  # after another scene was read
            self.edit_chosen()
        if airways is not self._counted:
            self.count()
        known = airways is not None and companion(airways, INITIAL) is not None
        self.ui.updateButton.enabled = airways is not None and not busy
        self.ui.takeBackButton.enabled = known
        self.ui.outOfDateFrame.visible = airways is not None and is_marked(companion(airways, CENTERLINE))
        if self._waits and not busy:
            self._waits = False
            self._timer.start()

    def watch(self) -> None:
        """Observe the chosen airways and every result; newly observed ones may have changed before."""
        if self.panel.closed or slicer.mrmlScene.IsClosing() or slicer.mrmlScene.IsImporting():
            return
        chosen, nodes = self.panel.airways(), slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        results = [node for node in nodes if any(companion(node, role) for role in ROLES)]
        for node in self._watch.watch(results if chosen is None or chosen in results else [*results, chosen]):
            self.on_move(node)
            self._new.append(node)
            self._timer.start()

    def count(self) -> None:
        """Show the number of corrected voxels, or why it is not known."""
        airways, text = self.panel.airways(), ""
        self._counted = airways
        if airways is not None and not self.ui.correctSection.collapsed:
            text = reason_against(airways) or reason_against(airways, airway_segment_id)
            if not text and companion(airways, INITIAL) is not None:
                edits = count_edits(airways)
                text = _("Corrected: {added} voxels added, {removed} removed.").format(
                    added=edits.added, removed=edits.removed
                )
        self.ui.editsLabel.text = text

    def on_move(self, airways: slicer.vtkMRMLSegmentationNode) -> None:
        """Follow the segmentation's transform, which may have changed."""
        follow_transform(airways)

    def on_edit(self, airways: slicer.vtkMRMLSegmentationNode) -> None:
        """The voxels may have changed; one edit may call this many times."""
        if airways not in self._edited:
            self._edited.append(airways)
        self._timer.start()

    def on_pause(self) -> None:
        """The user has paused: note what was erased, mark what is out of date, show names, count, measure if chosen."""
        new, edited, self._new, self._edited = self._new, self._edited, [], []
        if self.panel.closed:
            return
        with errors_shown():
            for airways in {*new, *edited}:
                if airways.GetScene() is not None:
                    note_erased(airways)
                    update_marks(airways)
                    show_names(airways)
            self.count()
        self.panel.update()
        parameters = self.panel.parameters or self.logic.getParameterNode()
        chosen = parameters.airways
        if chosen is None or chosen not in edited:
            return
        if not parameters.autoUpdate:
            if is_marked(companion(chosen, CENTERLINE)):
                self.logic.runs.load_early(MEASURE)  # for the button Update
            return
        if companion(chosen, CENTERLINE) is None or is_out_of_date(chosen):
            if self.panel.is_busy():
                self._waits = True
                self._edited.append(chosen)
            else:
                self.measure(chosen)

    def on_update(self, checked: bool = False) -> None:
        """Update tree, table and overlays."""
        self.measure(self.panel.airways())

    def measured(self) -> None:
        """Be ready for the next edit."""
        if self.panel.parameters and self.panel.parameters.autoUpdate:
            self.logic.runs.load_early(MEASURE)

    def measure(self, airways: slicer.vtkMRMLSegmentationNode) -> None:
        """Start to measure."""
        with errors_shown():
            ensure_packages(self.panel.requirements)
            self.ui.statusLabel.text = _("Measuring the tree")
            self.logic.startMeasure(airways, Listener(self.panel.on_measured, on_line=self.panel.log))
        self.panel.update()

    def on_take_back(self, checked: bool = False) -> None:
        """Restore the network's mask, as one step that can be undone."""
        with errors_shown():
            self.logic.steps.begin(self.panel.airways(), _("discard all corrections"))
            with surface_kept(self.panel.airways()):
                take_back(self.panel.airways())


def reason_against(
    airways: slicer.vtkMRMLSegmentationNode, check: Callable[[slicer.vtkMRMLSegmentationNode], object] = check_airways
) -> str:
    """The sentence with which ``check`` refuses a segmentation; empty where it accepts it."""
    try:
        check(airways)
    except RuntimeError as error:
        return str(error)
    return ""


def editor_node() -> slicer.vtkMRMLSegmentEditorNode:
    """The scene's segment editor node of this module, made when it is missing."""
    node = slicer.mrmlScene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
        node.UnRegister(None)
        node.SetSingletonTag(EDITOR_TAG)
        node = slicer.mrmlScene.AddNode(node)
    return node
