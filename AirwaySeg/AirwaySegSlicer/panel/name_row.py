"""Below the table of branches: the chosen branch gets a lobe, segment or generation by hand, or is estimated again."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_packages
from AirwaySegSlicer.panel.branch_table import BranchTable
from AirwaySegSlicer.panel.combo_boxes import chosen_key, fill
from AirwaySegSlicer.panel.panel import Panel, errors_shown
from AirwaySegSlicer.scene.branches import BranchRow
from AirwaySegSlicer.scene.hand_names import lost_names
from AirwaySegSlicer.scene.overlay_kinds import SEGMENT_NAMES
from AirwaySegSlicer.scene.steps import last_step

LOBE, SEGMENT = "lobe ", "segment "
"""Beginnings of the keys of the choices; the library's word follows."""
GENERATION = "generation"
"""Key of the choice whose number is in the box beside it."""


class NameRow:
    """The row's widgets; ``changed(number)`` is called when a branch was named or is estimated again."""

    def __init__(self, panel: Panel, table: BranchTable, changed: Callable[[int], None]) -> None:
        self.panel, self.ui, self.logic, self.table, self.changed = panel, panel.ui, panel.logic, table, changed
        fill(self.ui.nameComboBox, choices(), "")
        self.ui.nameComboBox.connect("currentIndexChanged(int)", lambda row: self.update())
        self._asked: tuple = ()  # the branch and choice for which the generation was proposed
        self.ui.nameButton.connect("clicked(bool)", self.on_name)
        self.ui.estimateButton.connect("clicked(bool)", self.on_estimate)
        self.ui.forgetNamesButton.connect("clicked(bool)", self.on_forget)

    def update(self) -> None:
        """Enable what can be done with the chosen branch."""
        row = self.table.chosen_row()
        self.ui.nameComboBox.enabled = self.ui.nameSubtreeCheckBox.enabled = row is not None
        self.ui.nameButton.enabled = row is not None and chosen_key(self.ui.nameComboBox) != ""
        self.show_generation(row)
        self.ui.estimateButton.enabled = row is not None and row.by_hand != ""
        airways = self.panel.airways()
        self.ui.forgetNamesButton.visible = airways is not None and lost_names(airways) != ""

    def show_generation(self, row: BranchRow | None) -> None:
        """The box for a generation in the place of *Subtree*; it proposes that of a branch that is newly chosen."""
        box, asked = self.ui.generationSpinBox, (row.id if row else 0, chosen_key(self.ui.nameComboBox))
        box.visible = asked[1] == GENERATION
        self.ui.nameSubtreeCheckBox.visible = asked[1] != GENERATION
        box.enabled = row is not None
        if row is not None and asked != self._asked:
            box.value = row.generation
        self._asked = asked

    def on_name(self, checked: bool = False) -> None:
        """Give the chosen branch the chosen name."""
        if chosen_key(self.ui.nameComboBox) == GENERATION:
            generation = int(self.ui.generationSpinBox.value)
            self._do(lambda number: self.logic.giveGeneration(self.panel.airways(), number, generation))
            return
        kind, _space, word = chosen_key(self.ui.nameComboBox).partition(" ")
        lobe, segment = ("", word) if kind == SEGMENT.strip() else (word, "")
        subtree = self.ui.nameSubtreeCheckBox.checked
        self._do(lambda number: self.logic.nameBranch(self.panel.airways(), number, lobe, segment, subtree))

    def on_estimate(self, checked: bool = False) -> None:
        """Estimate the chosen branch again."""
        self._do(lambda number: self.logic.estimateAgain(self.panel.airways(), number))

    def on_forget(self, checked: bool = False) -> None:
        """Forget the names that have lost their branch."""
        airways = self.panel.airways()
        if airways is None:
            return
        with errors_shown():
            ensure_packages(self.panel.requirements)
            self.logic.forgetLostNames(airways)
            self.ui.statusLabel.text = _("{step}.").format(step=last_step(airways).capitalize())
        self.panel.update()

    def _do(self, action: Callable[[int], None]) -> None:
        number, airways = self.table.chosen(), self.panel.airways()
        if number is None or airways is None:
            return
        with errors_shown():
            ensure_packages(self.panel.requirements)
            action(number)
            step = last_step(airways)
            self.ui.statusLabel.text = f"{step[:1].upper()}{step[1:]}."
            self.changed(number)


def choices() -> list[tuple[str, str]]:
    """The (text, key) items: the generation, each lobe with its segments, no lobe, no segment."""
    items = [(_("Name by hand"), ""), (_("generation"), GENERATION)]
    lobes = list(dict.fromkeys(name.partition(", ")[2] for name in SEGMENT_NAMES))
    for lobe in lobes:
        items.append((lobe, f"{LOBE}{lobe}"))
        segments = [name.partition(", ")[0] for name in SEGMENT_NAMES if name.endswith(lobe)]
        items += [(segment, f"{SEGMENT}{segment.split()[0]}") for segment in segments]
    return [*items, (_("no lobe"), f"{LOBE}none"), (_("no segment"), f"{SEGMENT}none")]
