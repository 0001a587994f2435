"""Shared by the sections of the panel: widgets, logic, choices, progress, and error messages."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.jobs import one_line

AIRWAYS, FILES, TRAINING, PROBE = "airways", "files", "training", "probe"
"""Slots of `jobs.Runs`.

Jobs on the scene; jobs on files that were copied from it, which continue when it is closed; fine-tuning; the check of
the installation.
"""

TABS = ("segmentTab", "reviewTab", "measureTab", "exportTab", "trainTab")
"""Names of the tabs' pages, in their order."""

MOST_ROUNDS = 3
"""Maximum number of passes in one update; a limit in case two sections keep changing each other's choices."""


class Section:
    """A section of the panel. Every method may be called at any time; by default they do nothing."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.ui = panel.ui
        self.logic = panel.logic

    def update(self) -> None:
        """Show the choices and the state of the jobs."""

    def measured(self) -> None:
        """The chosen airways were measured again."""

    def compared(self) -> None:
        """The chosen airways were compared again, and are about to be coloured by it."""

    def enter(self) -> None:
        """The module is shown."""

    def exit(self) -> None:
        """Another module is shown."""

    def tab_changed(self) -> None:
        """Another tab is shown."""

    def close_scene(self) -> None:
        """The scene is about to be closed."""

    def close(self) -> None:
        """The panel is closed."""


class Panel:
    """The panel's widgets by name, the logic, and the scene's parameter node (None while no scene is open)."""

    def __init__(self, ui: Any, logic: Any, requirements: str) -> None:
        self.ui = ui
        self.logic = logic
        self.requirements = requirements
        self.parameters: Any = None
        self.sections: list[Section] = []
        self.closed = False
        self._updating = self._again = False

    def airways(self) -> slicer.vtkMRMLSegmentationNode | None:
        """The chosen segmentation."""
        return self.parameters.airways if self.parameters else None

    def ct(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The chosen CT."""
        return self.parameters.inputVolume if self.parameters else None

    def tab(self) -> str:
        """The name of the shown tab, such as "reviewTab"."""
        return TABS[self.ui.tabs.currentIndex]

    def log(self, line: str) -> None:
        """Add a line of a command's output to the log."""
        if not self.closed:
            self.ui.logText.appendPlainText(line)

    def show_stage(self, stage: str, done: int, total: int) -> None:
        """Show the progress of the job on the scene."""
        self.show_progress(AIRWAYS, (self.ui.progressBar, self.ui.statusLabel), stage_name(stage), done, total)

    def show_progress(self, slot: str, shown: tuple[Any, Any], words: str, done: int, total: int) -> None:
        """Move a progress bar, and show stage and time left in its label; ``shown`` is (bar, label)."""
        if self.closed:
            return
        bar, label = shown
        bar.maximum = total
        bar.value = done
        label.text = f"{words}{time_left(self.logic.runs.seconds_left(slot))}"

    def is_busy(self) -> bool:
        """Whether a job runs on the scene or on files copied from it."""
        return any(self.logic.runs.is_running(slot) for slot in (AIRWAYS, FILES))

    def cancel(self) -> None:
        """Cancel the jobs that make the panel busy."""
        for slot in (AIRWAYS, FILES):
            self.logic.runs.cancel(slot)

    def update(self) -> None:
        """Update every section, and again if one of them has changed a choice."""
        if self._updating or self.closed:
            self._again = True
            return
        self._updating = True
        try:
            for _round in range(MOST_ROUNDS):
                self._again = False
                for section in self.sections:
                    section.update()
                if not self._again:
                    break
        finally:
            self._updating = False

    def measured(self) -> None:
        """Let every section show the new tree."""
        for section in self.sections:
            section.measured()
        self.update()

    def compared(self) -> None:
        """Let every section forget an earlier comparison; the tree is the same."""
        for section in self.sections:
            section.compared()

    def on_measured(self, airways: slicer.vtkMRMLSegmentationNode | None, message: str) -> None:
        """Show the new tree, or the sentence that says why there is none (empty after Cancel)."""
        if self.closed:
            return
        self.ui.statusLabel.text = _("Finished.") if airways else message or _("Cancelled.")
        self.measured()
        if message:
            slicer.util.errorDisplay(message)

    def enter(self) -> None:
        """The module is shown."""
        for section in self.sections:
            section.enter()

    def exit(self) -> None:
        """Another module is shown."""
        for section in self.sections:
            section.exit()

    def close_scene(self) -> None:
        """The scene is about to be closed."""
        for section in self.sections:
            section.close_scene()

    def close(self) -> None:
        """The panel is closed; jobs that end later are ignored."""
        self.closed = True
        for section in self.sections:
            section.close()


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an error of the block as one sentence; the details go to Slicer's log."""
    try:
        yield
    except Exception as error:
        logging.exception("AirwaySeg")
        slicer.util.errorDisplay(one_line(error))


def stage_name(stage: str) -> str:
    """The name of a stage of the command in the panel."""
    names = {
        "read": _("Reading the CT"),
        "prepare": _("Finding body, lungs and trachea"),
        "infer": _("Running the network"),
        "select": _("Selecting the airways"),
        "write": _("Writing the result"),
        "repair": _("Reconnecting fragments"),
        "measure": _("Measuring the tree"),
    }
    return names.get(stage, stage)


def time_left(seconds: float | None) -> str:
    """The estimated time left, to be appended to a stage's name; an ellipsis without one."""
    if seconds is None:
        return "…"
    if seconds < 90:
        return _(", about {seconds} s left").format(seconds=max(1, round(seconds)))
    return _(", about {minutes} min left").format(minutes=round(seconds / 60))
