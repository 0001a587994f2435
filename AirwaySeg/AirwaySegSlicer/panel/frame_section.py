"""What surrounds the tabs: what to do in an empty scene, the table's place below the tabs, and the one Cancel."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.sample_data import draw_sample
from AirwaySegSlicer.panel.panel import Panel, Section, errors_shown

WITH_BRANCHES = ("reviewTab", "measureTab")
"""Tabs below which the table of branches is shown."""
TABLE_FIRST = "measureTab"
"""The tab that leaves all room below its contents to the table of branches."""
SAMPLE, DICOM = "sample", "dicom"
"""Targets of the links in an empty scene."""


class FrameSection(Section):
    """Shows the table of branches below the tabs that need it, and cancels what runs."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self.ui.tabs.connect("currentChanged(int)", self.on_tab)
        self.fit_tabs()
        self.ui.cancelButton.connect("clicked(bool)", self.on_cancel)
        self.ui.emptyLabel.connect("linkActivated(QString)", self.on_link)

    def update(self) -> None:
        """Show Cancel while something runs that it would stop, and say what to do where nothing is there."""
        running = self.panel.is_busy()
        self.ui.progressBar.visible = running
        self.ui.cancelButton.visible = running
        self.ui.branchesFrame.visible = self.panel.tab() in WITH_BRANCHES
        text = what_to_do(self.panel.ct() is not None, self.panel.airways() is not None)
        self.ui.emptyLabel.text = text
        self.ui.emptyLabel.visible = bool(text) and not running

    def fit_tabs(self) -> None:
        """Give the tabs the height of the page that is shown, not that of the highest one."""
        tabs, policy = self.ui.tabs, qt.QSizePolicy
        for index in range(tabs.count):
            shown = index == tabs.currentIndex
            tabs.widget(index).setSizePolicy(policy.Preferred, policy.Preferred if shown else policy.Ignored)
            tabs.widget(index).setMinimumHeight(0 if shown else 1)  # 1: instead of what its contents need
        tabs.setSizePolicy(policy.Expanding, policy.Maximum if self.panel.tab() == TABLE_FIRST else policy.Expanding)

    def on_tab(self, index: int) -> None:
        """Another tab is shown."""
        self.fit_tabs()
        for section in self.panel.sections:
            section.tab_changed()
        self.panel.update()

    def on_cancel(self, checked: bool = False) -> None:
        """Stop what runs on the scene or on files copied from it."""
        self.panel.cancel()

    def on_link(self, target: str) -> None:
        """Simulate the sample CT, or show Slicer's DICOM module."""
        with errors_shown():
            if target == SAMPLE:
                self.ui.statusLabel.text = _("The sample CT is simulated on this computer, in about twenty seconds.")
                draw_sample()
            else:
                slicer.util.selectModule("DICOM")


def what_to_do(has_ct: bool, has_airways: bool) -> str:
    """What to do first, as HTML; empty where there are airways."""
    if has_airways:
        return ""
    if has_ct:
        return _("Press <b>Segment airways</b>, or choose above a segmentation of the airways made elsewhere.")
    text = _(
        'Load a chest CT: import it in <a href="{dicom}">DICOM</a>, or drop a file onto the window. '
        'To try the program, take the <a href="{sample}">sample CT</a>.'
    )
    return text.format(dicom=DICOM, sample=SAMPLE)
