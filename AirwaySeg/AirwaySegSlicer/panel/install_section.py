"""The section Check installation: findings, and a fix for each problem."""

from __future__ import annotations

from html import escape

from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_dependencies
from AirwaySegSlicer.commands.installation import Finding, Installation
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.panel.panel import PROBE, Panel, Section, errors_shown
from AirwaySegSlicer.panel.segment_section import SegmentSection


class InstallSection(Section):
    """Checks the installation in a child process."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self.ui.checkButton.connect("clicked(bool)", self.on_check)
        self.ui.installButton.connect("clicked(bool)", self.on_install)

    def update(self) -> None:
        """Only one check at a time."""
        self.ui.checkButton.enabled = not self.logic.runs.is_running(PROBE)

    def on_check(self, checked: bool = False) -> None:
        """Check the installation."""
        with errors_shown():
            self.ui.findingsLabel.text = _("Checking …")
            self.logic.startProbe(Listener(self.on_checked))
        self.update()

    def on_checked(self, installation: Installation | None, message: str) -> None:
        """Show the findings, and offer the models and devices."""
        if self.panel.closed:
            return
        self.ui.findingsLabel.text = as_html(installation.findings) if installation else message
        for section in self.panel.sections:
            if isinstance(section, SegmentSection):
                section.on_probed(installation, message)
        self.update()

    def on_install(self, checked: bool = False) -> None:
        """Install what is missing, after asking, and check again."""
        with errors_shown():
            ensure_dependencies(self.panel.requirements, again=True)
            self.on_check()


def as_html(findings: list[Finding]) -> str:
    """A line for each finding; problems are bold."""
    lines = []
    for finding in findings:
        if finding.fix:
            lines.append(f"<b>&#10007; {escape(finding.what)}</b> {escape(finding.fix)}")
        else:
            lines.append(f"&#10003; {escape(finding.what)}")
    return "<br>".join(lines)
