"""The tree of the chosen airways: summary, table of branches that is linked to the views, measuring, radius plot."""

from __future__ import annotations

from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_packages
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.panel.branch_table import BranchTable
from AirwaySegSlicer.panel.name_row import NameRow
from AirwaySegSlicer.panel.panel import Panel, Section, errors_shown
from AirwaySegSlicer.scene.branches import (
    BranchRow,
    Point,
    branch_rows,
    hide_branch,
    nearest_branch,
    show_branch,
    summary,
)
from AirwaySegSlicer.scene.hand_names import lost_sentence
from AirwaySegSlicer.scene.left_out import left_out_sentence, noted
from AirwaySegSlicer.scene.nodes import CENTERLINE, HIGHLIGHT, PLOT_CHART, companion
from AirwaySegSlicer.scene.picking import Picking
from AirwaySegSlicer.scene.radius_plot import hide_radius_plot, show_radius_plot
from AirwaySegSlicer.scene.segments import UNCONNECTED_ID, labelmap_name
from AirwaySegSlicer.scene.suspects import suspect_branches


class ResultSection(Section):
    """Shows the branches of the chosen airways."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self._shown: tuple | None = None
        self._rows: list[BranchRow] = []
        self._counted: tuple[tuple, str] = ((), "")
        self._picking: Picking | None = None
        self.table = BranchTable(self.ui, self.on_selection)
        self.names = NameRow(panel, self.table, self.on_named)
        self.ui.measureButton.connect("clicked(bool)", self.on_measure)
        self.ui.pickButton.connect("clicked(bool)", self.on_pick)
        self.ui.plotButton.connect("clicked(bool)", self.on_plot)

    def update(self) -> None:
        """Fill the table again when the tree has changed."""
        airways = self.panel.airways()
        centerline = companion(airways, CENTERLINE) if airways else None
        self.ui.measureButton.enabled = airways is not None and not self.panel.is_busy()
        state = (centerline.GetID(), centerline.GetPolyData().GetMTime()) if centerline else ()
        if state != self._shown:
            self._shown, self._rows = state, branch_rows(centerline)
            self.table.fill(self._rows, suspect_branches(airways) if self._rows else set())
        self.ui.summaryLabel.text = "\n".join(filter(None, (summary(self._rows), self.left_out(), self.lost())))
        self.ui.summaryLabel.visible = bool(self.ui.summaryLabel.text)
        self.ui.pickButton.enabled = centerline is not None
        self.show_plot_button()

    def left_out(self) -> str:
        """What the airways lack; the unconnected pieces are counted again only when their voxels have changed."""
        airways = self.panel.airways()
        if airways is None:
            return ""
        segment = airways.GetSegmentation().GetSegment(UNCONNECTED_ID)
        image = segment.GetRepresentation(labelmap_name()) if segment is not None else None
        key = (airways.GetID(), noted(airways), image.GetMTime() if image is not None else None)
        if key != self._counted[0]:
            self._counted = (key, left_out_sentence(airways))
        return self._counted[1]

    def lost(self) -> str:
        """Which names by hand have lost their branch; empty for none."""
        airways = self.panel.airways()
        return lost_sentence(airways) if airways is not None else ""

    def show_plot_button(self) -> None:
        """Whether a press plots, or closes the plot."""
        airways = self.panel.airways()
        plotted = airways is not None and companion(airways, PLOT_CHART) is not None
        self.ui.plotButton.text = _("Close plot") if plotted else _("Radius plot")
        self.ui.plotButton.checked = plotted
        self.ui.plotButton.enabled = plotted or self.table.chosen() is not None
        self.names.update()

    def on_selection(self) -> None:
        """Centre the views on the selected branch; without one remove the highlight. An open plot follows."""
        airways, number = self.panel.airways(), self.table.chosen()
        with errors_shown():
            if airways is not None and number is not None:
                show_branch(airways, number)
                if companion(airways, PLOT_CHART) is not None:
                    show_radius_plot(airways, number)
            elif airways is not None:
                hide_branch(airways)
        self.show_plot_button()

    def on_named(self, number: int) -> None:
        """Show the new names, and keep the branch selected."""
        self.panel.update()
        self.table.choose_listing_all(number)

    def on_measure(self, checked: bool = False) -> None:
        """Measure the chosen airways."""
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
        self._shown = None

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
            self.table.choose_listing_all(number)
        elif world is not None:
            self.ui.statusLabel.text = _("There is no branch near this point.")

    def on_plot(self, checked: bool = False) -> None:
        """Plot the radius from the carina to the chosen branch, or close the plot."""
        airways, number = self.panel.airways(), self.table.chosen()
        with errors_shown():
            if airways is not None and companion(airways, PLOT_CHART) is not None:
                hide_radius_plot(airways)
            elif number is not None:
                show_radius_plot(airways, number)
        self.show_plot_button()

    def exit(self) -> None:
        """Cancel the pick when another module is shown."""
        if self._picking is not None:
            self._picking.cancel()

    def close_scene(self) -> None:
        """Cancel the pick, whose markup is removed with the scene, and forget the count."""
        self._counted = ((), "")
        self.exit()

    def close(self) -> None:
        """Cancel the pick, so that its markup does not stay in the scene."""
        self.exit()
