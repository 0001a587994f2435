"""The section Result: a summary, a table of branches that is linked to the views, a radius plot."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_packages
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.panel.panel import Panel, Section, errors_shown
from AirwaySegSlicer.scene.branches import (
    BranchRow,
    Point,
    branch_rows,
    hide_branch,
    hide_branches,
    nearest_branch,
    show_branch,
    summary,
)
from AirwaySegSlicer.scene.left_out import left_out_sentence
from AirwaySegSlicer.scene.nodes import CENTERLINE, HIGHLIGHT, companion
from AirwaySegSlicer.scene.picking import Picking
from AirwaySegSlicer.scene.radius_plot import show_radius_plot

COLUMN_WIDTHS = (55, 45, 60, 70)
"""In pixels, so that a name fits into a narrow panel."""


class ResultSection(Section):
    """Shows the branches of the chosen airways."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self._shown: tuple = ()
        self._picking: Picking | None = None
        table = self.ui.branchTable
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setStretchLastSection(True)
        for column, width in enumerate(COLUMN_WIDTHS):
            table.setColumnWidth(column, width)
        table.setSortingEnabled(True)
        table.connect("itemSelectionChanged()", self.on_selection)
        self.ui.measureButton.connect("clicked(bool)", self.on_measure)
        self.ui.pickButton.connect("clicked(bool)", self.on_pick)
        self.ui.plotButton.connect("clicked(bool)", self.on_plot)

    def update(self) -> None:
        """Fill the table again when the tree has changed."""
        airways, busy = self.panel.airways(), self.panel.is_busy()
        centerline = companion(airways, CENTERLINE) if airways else None
        self.ui.measureButton.text = _("Cancel") if busy else _("Measure")
        self.ui.measureButton.enabled = busy or airways is not None
        left_out = left_out_sentence(airways) if airways else ""
        state = (left_out, *((centerline.GetID(), centerline.GetPolyData().GetMTime()) if centerline else ()))
        if state != self._shown:
            self._shown = state
            self.fill(branch_rows(centerline), left_out)
        self.ui.pickButton.enabled = centerline is not None
        self.ui.plotButton.enabled = self.chosen_branch() is not None

    def fill(self, rows: list[BranchRow], left_out: str) -> None:
        """Show these branches, none of them selected, and the sentence about what the segmentation left out."""
        self.ui.summaryLabel.text = "\n".join(filter(None, (summary(rows), left_out)))
        table = self.ui.branchTable
        blocked = table.blockSignals(True)
        table.setSortingEnabled(False)
        table.clearSelection()
        hide_branches()
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            values = (row.id, row.generation, round(row.length_mm, 1), round(row.diameter_mm, 1), row.name or row.lobe)
            for column, value in enumerate(values):
                item = qt.QTableWidgetItem()
                item.setData(qt.Qt.DisplayRole, value)
                table.setItem(number, column, item)
        table.setSortingEnabled(True)
        table.blockSignals(blocked)

    def chosen_branch(self) -> int | None:
        """The branch of the selected row."""
        items = self.ui.branchTable.selectedItems()
        return int(self.ui.branchTable.item(items[0].row(), 0).data(qt.Qt.DisplayRole)) if items else None

    def on_selection(self) -> None:
        """Centre the views on the selected branch; without one remove the highlight."""
        airways, number = self.panel.airways(), self.chosen_branch()
        with errors_shown():
            if airways is not None and number is not None:
                show_branch(airways, number)
            elif airways is not None:
                hide_branch(airways)
        self.ui.plotButton.enabled = number is not None

    def choose_branch(self, number: int) -> None:
        """Select the row of a branch."""
        table = self.ui.branchTable
        for row in range(table.rowCount):
            if int(table.item(row, 0).data(qt.Qt.DisplayRole)) == number:
                table.selectRow(row)
                table.scrollToItem(table.item(row, 0))

    def on_measure(self, checked: bool = False) -> None:
        """Measure, or cancel the running job."""
        if self.panel.is_busy():
            self.panel.cancel()
            return
        self.measure()

    def measure(self) -> None:
        """Start to measure the chosen airways."""
        with errors_shown():
            ensure_packages(self.panel.requirements)
            self.ui.progressBar.maximum = 0
            listener = Listener(self.panel.on_measured, self.panel.show_stage, self.panel.log)
            self.logic.startMeasure(self.panel.airways(), listener)
        self.panel.update()

    def measured(self) -> None:
        """Remove the highlight: its branch may have another number now."""
        airways = self.panel.airways()
        if airways is not None and companion(airways, HIGHLIGHT) is not None:
            hide_branch(airways)
        self._shown = ()

    def on_pick(self, checked: bool = False) -> None:
        """Wait for a click in a view, or stop waiting."""
        if self._picking is not None:
            self._picking.cancel()
            return
        with errors_shown():
            self._picking = Picking(self.on_picked)
        self.ui.pickButton.checked = self._picking is not None

    def on_picked(self, world: Point | None) -> None:
        """Select the branch at the point."""
        self._picking = None
        self.ui.pickButton.checked = False
        airways = self.panel.airways()
        centerline = companion(airways, CENTERLINE) if airways is not None else None
        number = nearest_branch(centerline, world) if centerline is not None and world is not None else None
        if number is not None:
            self.choose_branch(number)
        elif world is not None:
            self.ui.statusLabel.text = _("There is no branch near this point.")

    def on_plot(self, checked: bool = False) -> None:
        """Plot the radius from the carina to the chosen branch."""
        number = self.chosen_branch()
        with errors_shown():
            if number is not None:
                show_radius_plot(self.panel.airways(), number)

    def exit(self) -> None:
        """Cancel the pick when another module is shown."""
        if self._picking is not None:
            self._picking.cancel()

    def close_scene(self) -> None:
        """Cancel the pick, whose markup is removed with the scene."""
        self.exit()

    def close(self) -> None:
        """Cancel the pick, so that its markup does not stay in the scene."""
        self.exit()
