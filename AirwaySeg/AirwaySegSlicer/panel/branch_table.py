"""The table of branches: constant decimals, sorted by a click on a header, filtered by lobe and by suspects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from AirwaySegSlicer.panel.combo_boxes import chosen_key, fill
from AirwaySegSlicer.scene.branches import BranchRow, hide_branches

ROW_HEIGHT = 22
"""In pixels, so that a dozen rows fit."""

UNKNOWN = -1.0
"""A probability that is not known, so that it can be sorted; it is shown as nothing."""

COLUMNS: tuple[tuple[int, Callable[[BranchRow], Any], str], ...] = (
    (58, lambda row: row.id, "{}"),
    (38, lambda row: row.generation, "{}"),
    (88, lambda row: row.length_mm, "{:.1f}"),
    (80, lambda row: row.diameter_mm, "{:.1f}"),
    (44, lambda row: UNKNOWN if row.probability is None else row.probability, "{:.2f}"),
    (70, lambda row: shown_name(row), "{}"),
)
"""Width in pixels, so that a name fits into a narrow panel; value; format."""


def shown_name(row: BranchRow) -> str:
    """The name of a great bronchus, else the lobe; or what a person gave, marked."""
    if not row.by_hand:
        return row.name or row.lobe
    given = row.segment.split()[0] if "segment" in row.by_hand and row.segment else row.lobe or _("no lobe")
    return _("{name} (hand)").format(name=given)


class BranchTable:
    """Fills the table's widget; ``on_selection`` is called when another row is selected."""

    def __init__(self, ui: Any, on_selection: Callable[[], None]) -> None:
        self.table, self.lobes, self.suspects_only = ui.branchTable, ui.lobeComboBox, ui.suspectsCheckBox
        self._rows: list[BranchRow] = []
        self._suspects: set[int] = set()
        self._sorted_by, self._descending = 0, False
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        header = self.table.horizontalHeader()
        header.setStretchLastSection(True)
        header.setSortIndicatorShown(True)
        header.setSectionsClickable(True)
        header.connect("sectionClicked(int)", self.on_header)
        for column, (width, _value, _format) in enumerate(COLUMNS):
            self.table.setColumnWidth(column, width)
        self.table.connect("itemSelectionChanged()", on_selection)
        self.lobes.connect("currentIndexChanged(int)", lambda row: self.show())
        self.suspects_only.connect("toggled(bool)", lambda checked: self.show())

    def fill(self, rows: list[BranchRow], suspects: set[int]) -> None:
        """Show these branches, none of them selected; ``suspects`` are the ids of those that the review doubts."""
        self._rows, self._suspects = rows, suspects
        lobes = sorted({row.lobe for row in rows if row.lobe})
        chosen = chosen_key(self.lobes)
        items = [(_("All lobes"), ""), *((lobe, lobe) for lobe in lobes)]
        fill(self.lobes, items, chosen if chosen in lobes else "")
        self.lobes.enabled = bool(lobes)
        self.suspects_only.enabled = bool(suspects)
        blocked = self.table.blockSignals(True)
        self.table.clearSelection()  # In another tree the branch has another number.
        self.table.blockSignals(blocked)
        self.show()

    def listed(self) -> list[BranchRow]:
        """The rows that pass the filter, in their order."""
        lobe, suspects = chosen_key(self.lobes), self.suspects_only.checked and self._suspects
        value = COLUMNS[self._sorted_by][1]
        rows = [row for row in self._rows if lobe in ("", row.lobe) and (not suspects or row.id in suspects)]
        return sorted(rows, key=lambda row: (value(row), row.id), reverse=self._descending)

    def show(self) -> None:
        """Write the rows that pass the filter; a branch that was selected stays so if it is among them."""
        chosen, table = self.chosen(), self.table
        blocked = table.blockSignals(True)
        table.clearSelection()
        rows = self.listed()
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, (_width, value, words) in enumerate(COLUMNS):
                item = qt.QTableWidgetItem("" if value(row) == UNKNOWN else words.format(value(row)))
                item.setToolTip(
                    ", ".join(filter(None, (row.name, row.segment or row.lobe, row.by_hand and _("by hand"))))
                )
                if row.by_hand:
                    font = item.font()
                    font.setBold(True)
                    item.setFont(font)
                if not isinstance(value(row), str):
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                table.setItem(number, column, item)
        order = qt.Qt.DescendingOrder if self._descending else qt.Qt.AscendingOrder
        table.horizontalHeader().setSortIndicator(self._sorted_by, order)
        table.blockSignals(blocked)
        if chosen is None or not self.choose(chosen):
            hide_branches()

    def on_header(self, column: int) -> None:
        """Sort by this column; by the same one again in the other direction."""
        self._descending = column == self._sorted_by and not self._descending
        self._sorted_by = column
        self.show()

    def chosen(self) -> int | None:
        """The branch of the selected row."""
        items = self.table.selectedItems()
        return int(self.table.item(items[0].row(), 0).text()) if items else None

    def chosen_row(self) -> BranchRow | None:
        """What is known of the branch of the selected row."""
        number = self.chosen()
        return next((row for row in self._rows if row.id == number), None)

    def choose(self, number: int) -> bool:
        """Select the row of a branch; whether the filter lists it."""
        for row in range(self.table.rowCount):
            if int(self.table.item(row, 0).text()) == number:
                self.table.selectRow(row)
                self.table.scrollToItem(self.table.item(row, 0))
                return True
        return False

    def choose_listing_all(self, number: int) -> bool:
        """Select the row of a branch; the filter is taken away where it hides it."""
        if self.choose(number):
            return True
        fill(self.lobes, [(self.lobes.itemText(row), self.lobes.itemData(row)) for row in range(self.lobes.count)], "")
        self.suspects_only.checked = False
        self.show()
        return self.choose(number)
