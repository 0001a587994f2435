"""The section Add and cut: clicks that add missed airways and cut false ones, with a preview, Enter and Escape."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_packages
from AirwaySegSlicer.commands.jobs import one_line
from AirwaySegSlicer.panel.combo_boxes import chosen_key, fill
from AirwaySegSlicer.panel.panel import Panel, Section, errors_shown
from AirwaySegSlicer.scene.branch_edits import (
    ADD,
    BETWEEN,
    BEYOND,
    MOST_POINTS,
    POINTS,
    RECONNECT,
    SUBTREE,
    Proposed,
    check_first,
)
from AirwaySegSlicer.scene.branches import Point
from AirwaySegSlicer.scene.picking import Picking
from AirwaySegSlicer.scene.review_views import hide_change, show_change
from AirwaySegSlicer.scene.steps import last_step

KEYS = {"apply": "Return", "discard": "Escape"}
"""Of the buttons; they work in the whole window while a tool waits for clicks."""


class AddCutSection(Section):
    """Waits for clicks with the chosen tool; each click makes a new preview, and nothing is changed before Apply."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self.points: list[Point] = []
        self.proposed: Proposed | None = None
        self._picking: Picking | None = None
        self._airways: slicer.vtkMRMLSegmentationNode | None = None  # that the tool works on
        tools = [
            (_("Add a missed airway"), ADD),
            (_("Delete a branch and its subtree"), SUBTREE),
            (_("Delete beyond a point"), BEYOND),
            (_("Cut a leak between two points"), BETWEEN),
            (_("Join to another parent"), RECONNECT),
        ]
        fill(self.ui.toolComboBox, tools, ADD)
        self.ui.toolComboBox.connect("currentIndexChanged(int)", self.on_tool)
        self.ui.toolButton.connect("clicked(bool)", self.on_start)
        self._shortcuts = []
        for name, key in KEYS.items():
            button, slot = getattr(self.ui, f"{name}EditButton"), getattr(self, f"on_{name}")
            button.connect("clicked(bool)", slot)
            shortcut = qt.QShortcut(slicer.util.mainWindow())
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.enabled = False
            shortcut.connect("activated()", slot)
            self._shortcuts.append(shortcut)

    @property
    def tool(self) -> str:
        """The chosen tool."""
        return str(chosen_key(self.ui.toolComboBox))

    def is_active(self) -> bool:
        """Whether the tool waits for clicks."""
        return self._airways is not None

    def update(self) -> None:
        """Stop when other airways are chosen; enable what can be done now."""
        airways, busy = self.panel.airways(), self.panel.is_busy()
        if self.is_active() and (airways is not self._airways or busy):
            self.stop()
        self.ui.toolButton.enabled = airways is not None and not busy
        self.ui.toolButton.checked = self.is_active()
        self.ui.applyEditButton.enabled = self.proposed is not None
        self.ui.discardEditButton.enabled = self.is_active()
        for shortcut in self._shortcuts:
            shortcut.enabled = self.is_active()
        if not self.is_active():
            self.ui.editLabel.text = how_to(self.tool)

    # Clicks ----------------------------------------------------------------------------------------------------------

    def on_start(self, checked: bool = False) -> None:
        """Wait for clicks, or stop waiting."""
        if self.is_active():
            self.stop()
        else:
            with errors_shown():
                ensure_packages(self.panel.requirements)
                self._airways = self.panel.airways()
                self.wait_for_click()
        self.panel.update()

    def on_tool(self, row: int) -> None:
        """Another tool starts anew."""
        self.stop()
        self.panel.update()

    def wait_for_click(self) -> None:
        """Wait for the next point."""
        self.ui.editLabel.text = how_to(self.tool)
        self._picking = Picking(self.on_picked)

    def on_picked(self, world: Point | None) -> None:
        """Add the point to those of the tool, and show what would be done; without a point stop."""
        self._picking = None
        if self.panel.closed or not self.is_active():
            return
        if world is None:
            if self.proposed is None:
                self.stop()
            self.panel.update()
            return
        with errors_shown():
            self.take(world)
        self.panel.update()

    def take(self, world: Point) -> None:
        """One more point (RAS, world); one at which nothing can be done is left out."""
        points = [*self.points, world]
        if len(points) > MOST_POINTS.get(self.tool, len(points)):
            points = [world]
        try:
            if len(points) >= POINTS[self.tool]:
                proposed = self.logic.proposeEdit(self._airways, self.tool, points)
                show_change(self._airways, proposed.add, proposed.remove)
                self.proposed = proposed
            else:
                self.forget_preview()
                check_first(self._airways, self.tool, world)
            self.points = points
            text = self.proposed.sentence if self.proposed is not None else how_to_go_on(self.tool)
        except RuntimeError as error:
            text = one_line(error)
        # Picking again writes how the tool is used; what was found is more.
        self._picking = Picking(self.on_picked)
        self.ui.editLabel.text = text

    # What follows ----------------------------------------------------------------------------------------------------

    def on_apply(self, checked: bool = False) -> None:
        """Apply what is shown as one step, and wait for the next click with the same tool."""
        airways, proposed = self._airways, self.proposed
        if airways is None or proposed is None:
            return
        with errors_shown():
            self.logic.applyEdit(airways, proposed)
            self.ui.statusLabel.text = _("{step}.").format(step=last_step(airways).capitalize())
            self.forget_preview()
            if self._picking is None:
                self.wait_for_click()
        self.panel.update()

    def on_discard(self, checked: bool = False) -> None:
        """Discard what is shown; without anything shown stop."""
        if self.points:
            self.forget_preview()
            self.ui.editLabel.text = how_to(self.tool)
        else:
            self.stop()
        self.panel.update()

    def forget_preview(self) -> None:
        """Remove preview and points."""
        self.points, self.proposed = [], None
        if self._airways is not None and self._airways.GetScene() is not None:
            hide_change(self._airways)

    def stop(self) -> None:
        """Wait no longer; what was not applied is discarded, and that is said."""
        if self.proposed is not None:
            self.ui.statusLabel.text = _("Not applied: {step}.").format(step=self.proposed.name)
        picking, self._picking = self._picking, None
        self.forget_preview()
        self._airways = None
        if picking is not None:
            picking.cancel()

    def tab_changed(self) -> None:
        """Another tab is shown."""
        if self.panel.tab() != "reviewTab":
            self.stop()

    def exit(self) -> None:
        """Another module is shown."""
        self.stop()
        for shortcut in self._shortcuts:
            shortcut.enabled = False

    def close_scene(self) -> None:
        """The scene is about to be closed."""
        self.stop()

    def close(self) -> None:
        """Remove preview, markup and keys."""
        self.stop()
        for shortcut in self._shortcuts:
            shortcut.enabled = False
            shortcut.deleteLater()
        self._shortcuts = []


def how_to(tool: str) -> str:
    """What to click for a tool."""
    return {
        ADD: _("Click a missed airway, best at its tip; more clicks prolong or steer it. Enter adds it."),
        SUBTREE: _("Click a branch: it and all that spring from it are deleted with Enter."),
        BEYOND: _("Click a point of a branch: the smaller side is deleted. A second click says which side stays."),
        BETWEEN: _("Click the airway that stays, then the leak: it is cut at its narrowest place."),
        RECONNECT: _(
            "Click the wrong joint of a branch, or an unconnected piece, then the airway to which it belongs."
        ),
    }[tool]


def how_to_go_on(tool: str) -> str:
    """What to click after the first point of a tool that needs two."""
    return {
        BETWEEN: _("First point taken; now click the leak (Escape starts anew)."),
        RECONNECT: _("First point taken; now click the airway to which it belongs (Escape starts anew)."),
    }[tool]
