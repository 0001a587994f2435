"""The section Overlays: the measure shown as colours, in which views, legend, centerline."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_packages
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.panel.combo_boxes import chosen_key, fill
from AirwaySegSlicer.panel.panel import Panel, Section, errors_shown
from AirwaySegSlicer.scene.comparison import AGREEMENT
from AirwaySegSlicer.scene.freshness import current_signature, is_marked
from AirwaySegSlicer.scene.hand_names import shown_names
from AirwaySegSlicer.scene.nodes import CENTERLINE, COMPARED, ORIGIN, PROBABILITY, SLICES, SURFACE, companion
from AirwaySegSlicer.scene.overlay_kinds import OF_THE_SCENE, ORIGINS, OVERLAYS
from AirwaySegSlicer.scene.overlays import (
    OverlayLook,
    needs_measuring,
    set_opacity,
    show_centerline,
    shown_overlay,
    wish_for_centerline,
)


class OverlaySection(Section):
    """Shows the chosen overlay of the chosen airways; measures them first if they were not measured in this session."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self._asked: tuple = ()
        self._drawn_out_of_date = False
        self._drawn_of = ("", "")  # airways and signature of the mask whose origins were drawn after an edit
        self.ui.overlayComboBox.connect("currentIndexChanged(int)", self.on_overlay)

    def on_overlay(self, row: int) -> None:
        """Save the overlay with the scene."""
        if self.panel.parameters:
            self.panel.parameters.overlay = chosen_key(self.ui.overlayComboBox)

    def update(self) -> None:
        """Show the choices, and the chosen overlay when it has changed."""
        parameters, airways = self.panel.parameters, self.panel.airways()
        if not parameters:
            return
        roles = {"probability": PROBABILITY, ORIGINS: ORIGIN, AGREEMENT: COMPARED}
        lacks = {key for key, role in roles.items() if airways is None or companion(airways, role) is None}
        known = [overlay for overlay in OVERLAYS.values() if overlay.key not in lacks]
        items = [(overlay.title, overlay.key) for overlay in known]
        fill(self.ui.overlayComboBox, [(_("Nothing"), ""), *items], parameters.overlay)
        self.ui.overlayComboBox.enabled = airways is not None
        if airways is not None and parameters.overlay in lacks.intersection(OF_THE_SCENE):
            parameters.overlay = ""  # These airways were not compared, or no longer; or their origins are not known.
        self.ui.opacitySlider.enabled = parameters.overlayOnSlices
        if airways is None:
            return
        set_opacity(airways, parameters.overlayOpacity)
        centerline = companion(airways, CENTERLINE)
        if centerline is not None and wish_for_centerline(airways) != parameters.showCenterline:
            show_centerline(airways, parameters.showCenterline)
        if self._drawn_out_of_date and not is_marked(centerline):
            self._asked = ()  # The edit was undone after the colours were drawn on the edited airways.
        drawn = (companion(airways, role) for role in (SURFACE, SLICES))
        if shown_overlay(airways) == ORIGINS and any(is_marked(node) for node in drawn):
            # The origins are known at once; nothing has to be measured. Of one mask they are drawn once, also if that
            # fails, and of no voxels never.
            mask = current_signature(airways)
            if mask and (airways.GetID(), mask) != self._drawn_of:
                self._asked, self._drawn_of = (), (airways.GetID(), mask)
        asked = self.asked(airways)
        if asked != self._asked and not self.panel.is_busy():
            first, self._asked = not self._asked, asked
            self.show(airways, first)

    def asked(self, airways: slicer.vtkMRMLSegmentationNode) -> tuple:
        """The choices on which the overlay depends; without the opacity, which is set directly."""
        parameters = self.panel.parameters
        look = (parameters.overlayOnSurface, parameters.overlayOnSlices, parameters.overlayLegend)
        names = shown_names(airways) if parameters.overlay in ("lobe", "segment") else ""
        return (airways.GetID(), parameters.overlay, names, *(look if parameters.overlay else ()))

    def show(self, airways: slicer.vtkMRMLSegmentationNode, first: bool) -> None:
        """Show the chosen overlay, or none; with ``first`` an overlay of a reloaded scene stays as it is."""
        parameters = self.panel.parameters
        look = OverlayLook(
            parameters.overlayOnSurface,
            parameters.overlayOnSlices,
            parameters.overlayOpacity,
            parameters.overlayLegend,
        )
        with errors_shown():
            if not parameters.overlay or not needs_measuring(airways, parameters.overlay, self.logic.maps):
                self.logic.showOverlay(airways, parameters.overlay, look)
                self._drawn_out_of_date = any(is_marked(companion(airways, role)) for role in (SURFACE, SLICES))
            elif not first or shown_overlay(airways) != parameters.overlay:
                ensure_packages(self.panel.requirements)
                self.ui.statusLabel.text = _("Measuring the tree")
                self.logic.startMeasure(airways, Listener(self.on_measured, on_line=self.panel.log))
                self.panel.update()

    def on_measured(self, airways: slicer.vtkMRMLSegmentationNode | None, message: str) -> None:
        """Show the overlay that waited for the measurement."""
        if self.panel.closed:
            return
        self.ui.statusLabel.text = _("Finished.") if airways else message or _("Cancelled.")
        if airways is not None:
            self.panel.measured()
        elif self.panel.parameters:
            self.panel.parameters.overlay = ""
            self.panel.update()
        if message:
            slicer.util.errorDisplay(message)

    def measured(self) -> None:
        """Draw the overlay again: its colours are of the old tree."""
        self._asked = ()

    def compared(self) -> None:
        """Draw the overlay again: its colours are of the old comparison."""
        self._asked = ()

    def close_scene(self) -> None:
        """Forget the overlay: a node of the next scene may have the same id."""
        self._asked, self._drawn_of = (), ("", "")
