"""Steps that can be undone, each with a name: decisions, added and cut branches.

The Segment Editor's own undo keeps them where the panel has an editor for the segmentation; otherwise, as in scripts, a
history of the same kind. The name of the last step is a tag of the airways' segment, so that undo and redo restore it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.origin import note_erased
from AirwaySegSlicer.scene.surfaces import surface_kept
from AirwaySegSlicer.scene.tags import STEP, read_tag, write_tag

MOST_STATES = 20
"""Each holds the voxels of what it changes, some 20 MB of a deep tree's airways."""


class Steps:
    """Begins, undoes and redoes steps on segmentations.

    ``editor_of(airways)`` is the open Segment Editor (`qMRMLSegmentEditorWidget`) that edits them; None where there is
    none.
    """

    def __init__(self) -> None:
        self.editor_of: Callable[[slicer.vtkMRMLSegmentationNode], Any] = lambda airways: None
        self._histories: dict[str, Any] = {}

    def begin(self, airways: slicer.vtkMRMLSegmentationNode, name: str) -> None:
        """Keep the present state for undo; what is changed until the next `begin` is the step of this name."""
        note_erased(airways)
        editor = self.editor_of(airways)
        if editor is not None:
            editor.saveStateForUndo()
        else:
            self._history(airways).SaveState()
        number = int(read_tag(airways, STEP).partition(" ")[0] or 0) + 1
        write_tag(airways, STEP, f"{number} {name}")

    def rename(self, airways: slicer.vtkMRMLSegmentationNode, name: str) -> None:
        """Give the present step another name."""
        write_tag(airways, STEP, f"{read_tag(airways, STEP).partition(' ')[0]} {name}")

    def undo(self, airways: slicer.vtkMRMLSegmentationNode) -> str:
        """Take the last step back; returns a sentence with its name."""
        before = read_tag(airways, STEP)
        done = self._restore(airways, "undo", "RestorePreviousState")
        name = before.partition(" ")[2] if read_tag(airways, STEP) != before else _("an edit")
        return _("Undone: {step}.").format(step=name) if done else _("There is nothing to undo.")

    def redo(self, airways: slicer.vtkMRMLSegmentationNode) -> str:
        """Do the step again that was taken back; returns a sentence with its name."""
        before = read_tag(airways, STEP)
        done = self._restore(airways, "redo", "RestoreNextState")
        after = read_tag(airways, STEP)
        name = after.partition(" ")[2] if after != before else _("an edit")
        return _("Done again: {step}.").format(step=name) if done else _("There is nothing to redo.")

    def forget(self, airways: slicer.vtkMRMLSegmentationNode) -> None:
        """The segmentation is removed."""
        self._histories.pop(airways.GetID(), None)

    def clear(self) -> None:
        """The scene is closed."""
        self._histories.clear()

    def _history(self, airways: slicer.vtkMRMLSegmentationNode) -> Any:
        history = self._histories.get(airways.GetID())
        if history is None:
            history = self._histories[airways.GetID()] = slicer.vtkSegmentationHistory()
            history.SetMaximumNumberOfStates(MOST_STATES)
            history.SetSegmentation(airways.GetSegmentation())
        return history

    def _restore(self, airways: slicer.vtkMRMLSegmentationNode, slot: str, method: str) -> bool:
        """Whether anything was restored."""
        heard: list[bool] = []
        event = slicer.vtkSegmentation.SegmentModified
        tag = airways.GetSegmentation().AddObserver(event, lambda caller, event: heard.append(True))
        editor, history = self.editor_of(airways), None
        try:
            with surface_kept(airways):
                if editor is not None:
                    getattr(editor, slot)()
                elif getattr(history := self._history(airways), f"Is{method}Available")():
                    getattr(history, method)()
        finally:
            airways.GetSegmentation().RemoveObserver(tag)
        return bool(heard)


def last_step(airways: slicer.vtkMRMLSegmentationNode) -> str:
    """The name of the last step that was not undone; empty where there is none."""
    return read_tag(airways, STEP).partition(" ")[2]
