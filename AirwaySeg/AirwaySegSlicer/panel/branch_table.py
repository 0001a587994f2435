"""The table of branches: constant decimals, sorted by a click on a header, filtered by lobe and by suspects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import qt
from slicer.i18n import tr as _

from AirwaySegSlicer.panel.combo_boxes import chosen_key, fill
from AirwaySegSlicer.scene.branches import BranchRow, hide_branches

ROW_HEIGHT = 22
"""In pixels, so that a dozen rows fit."""

UNKNOWN = -1.0
"""A value that is not known, so that it can be sorted; it is shown as nothing."""


@dataclass(frozen=True)
class Column:
    """A column: title with the unit, tooltip, width in pixels, value of a row (None: not known), and its format."""

    title: str
    tip: str
    width: int
    value: Callable[[BranchRow], Any]
    words: str = "{}"

    def rank(self, row: BranchRow) -> Any:
        """What the column is sorted by; unknown values come first."""
        value = self.value(row)
        return value if isinstance(value, str) else UNKNOWN if value is None else value


def shown_name(row: BranchRow) -> str:
    """The name of a great bronchus, else the lobe; or what a person gave, marked."""
    if row.by_hand in ("", "generation"):
        return row.name or row.lobe
    if "segment" in row.by_hand and row.segment:
        given = row.segment.split()[0]
    else:
        given = (row.lobe or _("no lobe")) if "lobe" in row.by_hand else _("no segment")
    return _("{name} (hand)").format(name=given)


def short_name(row: BranchRow) -> str:
    """The same in few letters: "right main", "RUL bronchus", "RUL, RB1", "RUL"; what a person gave is marked."""
    if row.by_hand not in ("", "generation"):
        return shown_name(row)
    if row.name:
        return shortened(row.name)
    return ", ".join(filter(None, (shortened(row.lobe), row.segment.partition(" ")[0])))


def shortened(name: str) -> str:
    """A name of a bronchus or lobe with the usual letters instead of the words."""
    letters = {
        "right upper lobe": _("RUL"),
        "right middle lobe": _("RML"),
        "right lower lobe": _("RLL"),
        "left upper lobe": _("LUL"),
        "left lower lobe": _("LLL"),
        "right main bronchus": _("right main"),
        "left main bronchus": _("left main"),
        "bronchus intermedius": _("intermedius"),
    }
    for words, short in letters.items():
        name = name.replace(words, short)
    return name


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def columns() -> dict[str, tuple[str, tuple[Column, ...]]]:
    """The sets of columns by their keys, each with its name; all of them fit into a panel of 400 pixels."""
    number = Column(_("No."), _("Number of the branch"), 46, lambda row: row.id)
    generation = Column(
        _("Gen."), _("Weibel generation: the trachea is 0 (an estimate)"), 38, lambda row: row.generation
    )
    name = Column(_("Name"), _("Name or lobe (an estimate, or by hand)"), 70, shown_name)
    short = Column(_("Name"), _("Name, or lobe and segment (an estimate, or by hand)"), 70, short_name)
    segment = Column(
        _("Segment"), _("Segment of the lung (an estimate, or by hand)"), 60, lambda row: row.segment.partition(" ")[0]
    )
    lumen = (
        Column(_("Length (mm)"), _("Length of the centerline in mm"), 88, lambda row: row.length_mm, "{:.1f}"),
        Column(_("Diam. (mm)"), _("Mean diameter of the lumen in mm"), 80, lambda row: row.diameter_mm, "{:.1f}"),
        Column(
            _("Prob."),
            _("Mean of the network's probability over the branch, from 0 to 1"),
            44,
            lambda row: row.probability,
            "{:.2f}",
        ),
    )
    wall = (
        Column(
            _("Outer (mm)"),
            _("Outer radius in mm: from the middle to the wall's outer edge, measured in the CT"),
            76,
            lambda row: row.outer_radius_mm,
            "{:.2f}",
        ),
        Column(_("Wall (mm)"), _("Thickness of the wall in mm"), 70, lambda row: row.wall_mm, "{:.2f}"),
        Column(
            _("WA (%)"),
            _("Wall area in percent of wall and lumen area"),
            54,
            lambda row: _percent(row.wall_area),
            "{:.0f}",
        ),
        Column(
            _("Rays (%)"),
            _("Share of the rays on which the wall borders on lung and was measured, in percent"),
            60,
            lambda row: _percent(row.usable_rays),
            "{:.0f}",
        ),
    )
    lobe = Column(_("Lobe"), _("Lobe (an estimate, or by hand)"), 120, lambda row: row.lobe)
    return {
        "lumen": (_("Lumen"), (number, generation, *lumen, short)),
        "wall": (_("Wall"), (number, *wall, segment)),
        "names": (_("Names"), (number, generation, segment, lobe, name)),
    }


class BranchTable:
    """Fills the table's widget; ``on_selection`` is called when another row is selected."""

    def __init__(self, ui: Any, on_selection: Callable[[], None]) -> None:
        self.table, self.lobes, self.suspects_only = ui.branchTable, ui.lobeComboBox, ui.suspectsCheckBox
        self._rows: list[BranchRow] = []
        self._suspects: set[int] = set()
        self._sets = columns()
        self._columns: tuple[Column, ...] = ()
        self._sorted_by, self._descending = 0, False
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        header = self.table.horizontalHeader()
        header.setStretchLastSection(True)
        header.setSortIndicatorShown(True)
        header.setSectionsClickable(True)
        header.setHighlightSections(False)  # bold titles would be cut off
        header.connect("sectionClicked(int)", self.on_header)
        self.columns = ui.columnsComboBox
        fill(self.columns, [(name, key) for key, (name, _columns) in self._sets.items()], next(iter(self._sets)))
        self.columns.connect("currentIndexChanged(int)", lambda row: self.show_columns())
        self.show_columns()
        self.table.connect("itemSelectionChanged()", on_selection)
        self.lobes.connect("currentIndexChanged(int)", lambda row: self.show())
        self.suspects_only.connect("toggled(bool)", lambda checked: self.show())

    def show_columns(self) -> None:
        """Show the chosen set of columns, sorted as before if the column is among them."""
        before = self._columns[self._sorted_by].title if self._columns else ""
        self._columns = self._sets[chosen_key(self.columns)][1]
        titles = [column.title for column in self._columns]
        if before not in titles:
            self._descending = False
        self._sorted_by = titles.index(before) if before in titles else 0
        chosen, blocked = self.chosen(), self.table.blockSignals(True)
        self.table.setColumnCount(len(self._columns))
        for number, column in enumerate(self._columns):
            header = qt.QTableWidgetItem(column.title)
            header.setToolTip(column.tip)
            self.table.setHorizontalHeaderItem(number, header)
            self.table.setColumnWidth(number, column.width)
        self.table.blockSignals(blocked)
        self.show(chosen)

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
        rank = self._columns[self._sorted_by].rank
        rows = [row for row in self._rows if lobe in ("", row.lobe) and (not suspects or row.id in suspects)]
        return sorted(rows, key=lambda row: (rank(row), row.id), reverse=self._descending)

    def show(self, chosen: int | None = None) -> None:
        """Write the rows that pass the filter; a branch that was selected stays so if it is among them."""
        chosen, table = chosen or self.chosen(), self.table
        blocked = table.blockSignals(True)
        table.clearSelection()
        rows = self.listed()
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for place, column in enumerate(self._columns):
                value = column.value(row)
                item = qt.QTableWidgetItem("" if value is None else column.words.format(value))
                item.setToolTip(
                    ", ".join(
                        filter(
                            None,
                            (
                                row.name,
                                row.segment or row.lobe,
                                row.by_hand and _("{what} by hand").format(what=row.by_hand),
                            ),
                        )
                    )
                )
                if row.by_hand:
                    font = item.font()
                    font.setBold(True)
                    item.setFont(font)
                if not isinstance(value, str):
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                table.setItem(number, place, item)
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
