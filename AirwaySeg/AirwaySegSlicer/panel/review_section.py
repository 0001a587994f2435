"""The tab Review: the list of points to look at, and Accept, Refuse, Later, Undo by buttons and keys."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_packages
from AirwaySegSlicer.event_loop import call_later
from AirwaySegSlicer.panel.branch_table import ROW_HEIGHT
from AirwaySegSlicer.panel.combo_boxes import chosen_key, fill
from AirwaySegSlicer.panel.panel import Panel, Section, errors_shown
from AirwaySegSlicer.scene.decisions import ACCEPT, LATER, REFUSE
from AirwaySegSlicer.scene.edits import EditWatch
from AirwaySegSlicer.scene.nodes import REPAIRS, SUSPECTS, companion
from AirwaySegSlicer.scene.review import Progress, counted_kinds
from AirwaySegSlicer.scene.review_kinds import KINDS, LEAK, PIECE, ReviewItem, kind_of
from AirwaySegSlicer.scene.review_views import ReviewViews
from AirwaySegSlicer.scene.steps import last_step
from AirwaySegSlicer.scene.tags import DECISIONS, read_tag

COLUMN_WIDTHS = (130, 96, 52, 60)
OPEN = "open"
"""Filter: every kind, without those that have a decision."""
KEYS = {"previous": "P", "next": "N", "later": "L", "accept": "A", "refuse": "R"}
"""Of the buttons; they work in the whole window while the tab is shown."""


class ReviewSection(Section):
    """Shows the points of the chosen airways one after the other, and applies what is decided."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self.items: list[ReviewItem] = []
        self._shown: tuple | None = None
        self._listed_of = ""  # id of the airways whose points are listed
        self._last, self._before = "", set[str]()  # keys of the point selected last, and of all selected ones
        self._views = ReviewViews()
        self._airways: slicer.vtkMRMLSegmentationNode | None = None  # whose views are turned
        self._watch = EditWatch(self.on_edit, lambda airways: None)
        self._waits = False
        table = self.ui.reviewTable
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.horizontalHeader().setStretchLastSection(True)
        table.horizontalHeader().setHighlightSections(False)  # bold titles would be cut off
        for column, width in enumerate(COLUMN_WIDTHS):
            table.setColumnWidth(column, width)
        table.connect("itemSelectionChanged()", self.on_selection)
        items = [(_("Open points"), OPEN), (_("All points"), ""), *((kind.title, key) for key, kind in KINDS.items())]
        fill(self.ui.reviewFilterComboBox, items, OPEN)
        self.ui.reviewFilterComboBox.connect("currentIndexChanged(int)", self.on_filter)
        self._shortcuts = [self.make_shortcut(name, key) for name, key in KEYS.items()]
        self.ui.undoButton.connect("clicked(bool)", self.on_undo)
        self.ui.redoButton.connect("clicked(bool)", self.on_redo)

    def make_shortcut(self, name: str, key: str) -> qt.QShortcut:
        """Connect a button and its key, which stands on the button."""
        button, slot = getattr(self.ui, f"{name}Button"), getattr(self, f"on_{name}")
        button.text = f"{button.text} ({key})"
        button.connect("clicked(bool)", slot)
        # The views have the keyboard while the user looks at them, so the key is the window's.
        shortcut = qt.QShortcut(slicer.util.mainWindow() or self.ui.tabs)
        shortcut.setKey(qt.QKeySequence(key))
        shortcut.enabled = False
        shortcut.connect("activated()", lambda: slot() if button.enabled else None)
        return shortcut

    # The list --------------------------------------------------------------------------------------------------------

    def is_shown(self) -> bool:
        """Whether the tab is shown in the open module."""
        return self.panel.tab() == "reviewTab" and self.panel.parameters is not None

    def update(self) -> None:
        """List the points again when they or their decisions have changed."""
        airways = self.panel.airways()
        if not slicer.mrmlScene.IsClosing() and not slicer.mrmlScene.IsImporting():
            self._watch.watch([airways] if airways is not None else [])
        if airways is not self._airways:
            self.let_go()
        for shortcut in self._shortcuts:
            shortcut.enabled = self.is_shown()
        state = self.state()
        if self.is_shown() and state != self._shown:
            self._shown = state
            self.list_points()
        self.show_buttons()

    def state(self) -> tuple:
        """What the list depends on."""
        airways = self.panel.airways()
        if airways is None:
            return ()
        nodes = [companion(airways, role) for role in (REPAIRS, SUSPECTS)]
        texts = [(node.GetID(), node.GetMTime()) if node is not None else None for node in nodes]
        return (airways.GetID(), *texts, read_tag(airways, DECISIONS), chosen_key(self.ui.reviewFilterComboBox))

    def list_points(self) -> None:
        """Write the rows that pass the filter; the point that was selected stays so if it is among them."""
        airways, wanted = self.panel.airways(), chosen_key(self.ui.reviewFilterComboBox)
        chosen = {item.key for item in self.chosen_items()}
        found = self.logic.reviewItems(airways, wanted in KINDS) if airways is not None else []
        if wanted == OPEN:
            # What was just decided stays in the list until another point is chosen, so that it can be changed.
            found = [item for item in found if item.is_open or item.key in chosen]
        self.items = [item for item in found if wanted in ("", OPEN, item.kind)]
        table = self.ui.reviewTable
        blocked = table.blockSignals(True)
        table.clearSelection()
        table.setRowCount(len(self.items))
        for row, item in enumerate(self.items):
            texts = (
                kind_of(item.kind).title,
                f"{item.change_mm:.1f}",
                f"{item.score:.2f}",
                decision_words(item.decision),
            )
            for column, text in enumerate(texts):
                cell = qt.QTableWidgetItem(text)
                if column in (1, 2):
                    cell.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                table.setItem(row, column, cell)
        same = [row for row, item in enumerate(self.items) if item.key in chosen]
        if same and airways is not None and airways.GetID() == self._listed_of:
            self.choose_rows(same)
        table.blockSignals(blocked)
        self._listed_of = airways.GetID() if airways is not None else ""
        self.show_reason()
        self.ui.reviewProgressLabel.text = words_of(self.logic.reviewProgress(airways)) if airways is not None else ""

    def choose_rows(self, rows: list[int]) -> None:
        """Select these rows, and no others."""
        table = self.ui.reviewTable
        table.clearSelection()
        for row in rows:
            for column in range(table.columnCount):
                table.item(row, column).setSelected(True)

    def chosen_items(self) -> list[ReviewItem]:
        """The selected points, in the order of the list."""
        rows = sorted({cell.row() for cell in self.ui.reviewTable.selectedItems()})
        return [self.items[row] for row in rows if row < len(self.items)]

    def chosen(self) -> ReviewItem | None:
        """The selected point; of several the one that was selected last."""
        items = self.chosen_items()
        return next((item for item in items if item.key == self._last), items[0] if items else None)

    def show_reason(self) -> None:
        """Why the point is listed and what decisions do; without a point what there is."""
        item, items = self.chosen(), self.chosen_items()
        if len(items) > 1:
            self.ui.reasonLabel.text = several_words(items)
        elif item is not None:
            self.ui.reasonLabel.text = f"{item.reason} <i>{kind_of(item.kind).does}</i>"
        elif self.panel.airways() is None:
            self.ui.reasonLabel.text = _("Choose airways to review them.")
        elif self.items:
            self.ui.reasonLabel.text = _("Press Next to look at the first point.")
        else:
            self.ui.reasonLabel.text = _("There is no point of this kind to look at.")

    def show_buttons(self) -> None:
        """Enable what can be done now."""
        item, airways, busy = self.chosen(), self.panel.airways(), self.panel.is_busy()
        self.ui.previousButton.enabled = self.ui.nextButton.enabled = bool(self.items)
        for name in ("accept", "refuse", "later"):
            getattr(self.ui, f"{name}Button").enabled = item is not None and not busy
        self.ui.undoButton.enabled = self.ui.redoButton.enabled = airways is not None and not busy

    # What the user does ----------------------------------------------------------------------------------------------

    def on_filter(self, row: int) -> None:
        """List other points."""
        self.panel.update()

    def on_selection(self) -> None:
        """Turn the views to the point that was selected last, and highlight what all selected ones would change."""
        airways, items = self.panel.airways(), self.chosen_items()
        new = [item.key for item in items if item.key not in self._before]
        self._last, self._before = (new[-1] if new else self._last), {item.key for item in items}
        item = self.chosen()
        with errors_shown():
            if airways is not None and item is not None:
                self.ensure_library(items)
                self.ui.branchTable.clearSelection()  # its highlight would look like that of the point
                self._airways = airways
                self._views.show(airways, item, [one for one in items if one is not item])
        self.show_reason()
        self.show_buttons()

    def ensure_library(self, items: list[ReviewItem]) -> None:
        """Bridges and cuts are computed by the library, which needs its packages."""
        if any(item.kind in (PIECE, LEAK) for item in items):
            ensure_packages(self.panel.requirements)

    def go(self, row: int) -> None:
        """Select a row."""
        if 0 <= row < len(self.items):
            self.ui.reviewTable.selectRow(row)
            self.ui.reviewTable.scrollToItem(self.ui.reviewTable.item(row, 0))

    def row(self) -> int:
        """The selected row, the last one of several; -1 without one."""
        items = self.chosen_items()
        return self.items.index(items[-1]) if items else -1

    def on_previous(self, checked: bool = False) -> None:
        """Go to the point above."""
        self.go(max(0, self.row() - 1))

    def on_next(self, checked: bool = False) -> None:
        """Go to the next point below without a decision, or from the last one to the first."""
        row = self.row()
        rows = [*range(row + 1, len(self.items)), *range(max(row, 0))]
        found = next((number for number in rows if self.items[number].is_open), None)
        if found is not None:
            self.go(found)
        elif not any(item.is_open for item in self.items):
            self.ui.statusLabel.text = _("Every listed point has a decision.")

    def on_accept(self, checked: bool = False) -> None:
        """Accept the point, and go on."""
        self.decide(ACCEPT)

    def on_refuse(self, checked: bool = False) -> None:
        """Refuse the point, and go on."""
        self.decide(REFUSE)

    def on_later(self, checked: bool = False) -> None:
        """Leave the point open, and go on."""
        self.decide(LATER)

    def decide(self, decision: str) -> None:
        """Apply a decision about the selected points as one step, and go to the next point."""
        airways, items = self.panel.airways(), self.chosen_items()
        if airways is None or not items:
            return
        with errors_shown():
            failed = self.logic.decideAll(airways, items, decision)
            self.panel.update()
            self.on_next()
            sentences = [_("{step}.").format(step=last_step(airways).capitalize())]
            if failed:
                sentences.append(_("{count} could not be decided: {why}").format(count=len(failed), why=failed[0]))
            if not any(item.is_open for item in self.items):
                sentences.append(_("Every listed point has a decision."))
            self.ui.statusLabel.text = " ".join(sentences)

    def on_undo(self, checked: bool = False) -> None:
        """Take the last step back."""
        with errors_shown():
            self.ui.statusLabel.text = self.logic.undo(self.panel.airways())
        self.panel.update()

    def on_redo(self, checked: bool = False) -> None:
        """Do the step again that was taken back."""
        with errors_shown():
            self.ui.statusLabel.text = self.logic.redo(self.panel.airways())
        self.panel.update()

    # What follows ----------------------------------------------------------------------------------------------------

    def on_edit(self, airways: slicer.vtkMRMLSegmentationNode) -> None:
        """Voxels or decisions have changed, also by Undo in the Segment Editor; one step may call this many times."""
        self._views.changed()
        if not self._waits:
            self._waits = True
            call_later(self.after_edit)

    def after_edit(self) -> None:
        """List the decisions as they are now."""
        self._waits = False
        if not self.panel.closed and not slicer.mrmlScene.IsClosing():
            self.panel.update()

    def measured(self) -> None:
        """The list may be another one."""
        self._views.changed()
        self._shown = None

    def let_go(self) -> None:
        """Give the views back."""
        self._views.restore(self._airways)
        self._airways = None

    def tab_changed(self) -> None:
        """Give the views back when another tab is shown."""
        if not self.is_shown():
            self.ui.reviewTable.clearSelection()
            self.let_go()

    def enter(self) -> None:
        """List what changed meanwhile."""
        self._shown = None

    def exit(self) -> None:
        """Give views and keys back when another module is shown."""
        for shortcut in self._shortcuts:
            shortcut.enabled = False
        self.ui.reviewTable.clearSelection()
        self.let_go()

    def close_scene(self) -> None:
        """Forget the points, whose nodes are removed with the scene."""
        self._watch.watch([])
        self._views.forget()
        self._airways, self._shown, self._listed_of = None, None, ""

    def close(self) -> None:
        """Remove observers and keys."""
        self._watch.watch([])
        self.let_go()
        for shortcut in self._shortcuts:
            shortcut.enabled = False
            shortcut.deleteLater()
        self._shortcuts = []


def several_words(items: list[ReviewItem]) -> str:
    """How many points of which kinds are selected, and what decisions do where they are of one kind."""
    text = _("{count} points, {mm} mm: {kinds}.").format(
        count=len(items), mm=f"{sum(item.change_mm for item in items):.1f}", kinds=counted_kinds(items)
    )
    same = len({item.kind for item in items}) == 1
    does = kind_of(items[0].kind).does if same else _("Accept and Refuse do to each what they do to it alone.")
    return f"{text} <i>{does}</i>"


def decision_words(decision: str) -> str:
    """A decision in the table; empty for none."""
    return {ACCEPT: _("accepted"), REFUSE: _("refused"), LATER: _("later")}.get(decision, "")


def words_of(progress: Progress) -> str:
    """How far the review is, and what it changed."""
    text = _("{done} of {points} decided, {added} cm gained").format(
        done=progress.decided, points=progress.points, added=f"{progress.added_mm / 10:.1f}"
    )
    if progress.removed_mm:
        text += _(", {removed} cm removed").format(removed=f"{progress.removed_mm / 10:.1f}")
    return text
