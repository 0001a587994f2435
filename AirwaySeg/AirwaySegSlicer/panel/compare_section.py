"""The section Compare: a second segmentation against the airways, metrics and agreement in three colours."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_packages
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.panel.branch_table import ROW_HEIGHT
from AirwaySegSlicer.panel.panel import Panel, Section, errors_shown
from AirwaySegSlicer.scene.comparison import AGREEMENT, compared_with, comparison_rows
from AirwaySegSlicer.scene.freshness import is_marked
from AirwaySegSlicer.scene.nodes import COMPARISON, companion

MEASURE_WIDTH = 230


class CompareSection(Section):
    """Compares the chosen airways with another segmentation or label map, and removes all of it with one button."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        table = self.ui.compareTable
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.horizontalHeader().setStretchLastSection(True)
        table.setColumnWidth(0, MEASURE_WIDTH)
        self._shown: Any = None
        self.ui.compareButton.connect("clicked(bool)", self.on_compare)
        self.ui.removeComparisonButton.connect("clicked(bool)", self.on_remove)
        self.ui.otherSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.on_other)

    def other(self) -> slicer.vtkMRMLNode | None:
        """What the airways are compared with."""
        return self.ui.otherSelector.currentNode()

    def on_other(self, node: slicer.vtkMRMLNode | None) -> None:
        """Enable the button."""
        self.update()

    def update(self) -> None:
        """Show the comparison of the chosen airways, and whether it is older than their mask."""
        airways = self.panel.airways()
        if self.panel.closed:
            return
        ready = airways is not None and self.other() is not None and self.other() is not airways
        self.ui.compareButton.enabled = ready and not self.panel.is_busy()
        node = companion(airways, COMPARISON) if airways is not None else None
        self.ui.removeComparisonButton.enabled = node is not None
        self.ui.compareTable.visible = node is not None
        state = (node.GetID(), node.GetMTime(), is_marked(node)) if node is not None else ()
        if state == self._shown:
            return
        self._shown = state
        rows = comparison_rows(airways) if airways is not None else []
        self.ui.compareTable.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                cell = qt.QTableWidgetItem(text)
                if column:
                    cell.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                self.ui.compareTable.setItem(number, column, cell)
        self.ui.compareLabel.text = self.words(node)
        self.ui.compareLabel.visible = bool(self.ui.compareLabel.text)

    def words(self, node: slicer.vtkMRMLNode | None) -> str:
        """With what the airways were compared; empty without a comparison."""
        if node is None:
            return ""
        text = _("Against {name}, as ATM'22 measures.").format(name=compared_with(self.panel.airways()))
        return text + " " + _("Older than the mask: compare again.") if is_marked(node) else text

    def on_compare(self, checked: bool = False) -> None:
        """Start to compare."""
        with errors_shown():
            ensure_packages(self.panel.requirements)
            self.ui.statusLabel.text = _("Comparing")
            self.ui.progressBar.maximum = 0
            listener = Listener(self.on_compared, on_line=self.panel.log)
            self.logic.startCompare(self.panel.airways(), self.other(), listener, self.panel.ct())
        self.panel.update()

    def on_compared(self, airways: slicer.vtkMRMLSegmentationNode | None, message: str) -> None:
        """Show table and colours, or why there are none."""
        if self.panel.closed:
            return
        self.ui.statusLabel.text = _("Finished.") if airways is not None else message or _("Cancelled.")
        if airways is not None and airways is self.panel.airways() and self.panel.parameters:
            self._shown = None
            self.panel.compared()
            self.panel.parameters.overlay = AGREEMENT
        self.panel.update()
        if message:
            slicer.util.errorDisplay(message)

    def on_remove(self, checked: bool = False) -> None:
        """Remove table and colours."""
        airways = self.panel.airways()
        if airways is None:
            return
        with errors_shown():
            self.logic.removeComparison(airways)
            if self.panel.parameters.overlay == AGREEMENT:
                self.panel.parameters.overlay = ""
        self.panel.update()

    def close_scene(self) -> None:
        """Forget what is shown: a node of the next scene may have the same id."""
        self._shown = None
