"""What surrounds the tabs: what to do in an empty scene, the table's place below the tabs, and the one Cancel."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.sample_data import draw_sample
from AirwaySegSlicer.event_loop import call_later
from AirwaySegSlicer.panel.panel import Panel, Section, errors_shown

WITH_BRANCHES = ("reviewTab", "measureTab")
"""Tabs below which the table of branches is shown."""
TABLE_FIRST = "measureTab"
"""The tab that leaves all room below its contents to the table of branches."""
FRAME, ANY_HEIGHT = 8, 16_777_215
"""Pixels: of the frame round a page, and Qt's greatest height."""
SAMPLE, DICOM = "sample", "dicom"
"""Targets of the links in an empty scene."""


class FrameSection(Section):
    """Shows the table of branches below the tabs that need it, and cancels what runs."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self.ui.tabs.connect("currentChanged(int)", self.on_tab)
        self.ui.compareSection.connect("contentsCollapsed(bool)", lambda collapsed: call_later(self.fit_tabs))
        self.ui.cancelButton.connect("clicked(bool)", self.on_cancel)
        self.ui.emptyLabel.connect("linkActivated(QString)", self.on_link)

    def update(self) -> None:
        """Show Cancel while something runs that it would stop, and say what to do where nothing is there."""
        running = self.panel.is_busy()
        self.ui.progressBar.visible = running
        self.ui.cancelButton.visible = running
        self.ui.branchesFrame.visible = self.panel.tab() in WITH_BRANCHES
        self.fit_tabs()
        text = what_to_do(self.panel.ct() is not None, self.panel.airways() is not None)
        self.ui.emptyLabel.text = text
        self.ui.emptyLabel.visible = bool(text) and not running

    def fit_tabs(self) -> None:
        """Where the table comes first, make the tabs no higher than the page that is shown needs."""
        if self.panel.closed:
            return
        tabs = self.ui.tabs
        needed = tabs.currentWidget().sizeHint.height() + tabs.tabBar().sizeHint.height() + FRAME
        tabs.maximumHeight = needed if self.panel.tab() == TABLE_FIRST else ANY_HEIGHT

    def on_tab(self, index: int) -> None:
        """Another tab is shown."""
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
