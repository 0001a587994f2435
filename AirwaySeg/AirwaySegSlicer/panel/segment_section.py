"""The tab Segment: region, model, device, the button that starts it all, and the log."""

from __future__ import annotations

from functools import partial

import qt
import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_dependencies
from AirwaySegSlicer.commands.installation import Installation
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.commands.segment import SegmentOptions, is_result_of, warnings_of
from AirwaySegSlicer.panel.combo_boxes import chosen_key, fill
from AirwaySegSlicer.panel.panel import PROBE, Panel, Section, errors_shown
from AirwaySegSlicer.scene.edits import count_edits
from AirwaySegSlicer.scene.lungs import fit_region_to_lungs
from AirwaySegSlicer.scene.nodes import INITIAL, companion

DEVICE_SETTING = "AirwaySeg/device"


class SegmentSection(Section):
    """Starts the segmentation."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self.installation = Installation()
        self._probed = False
        self.ui.regionSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.on_new_region)
        self.ui.placeRegionButton.connect("clicked(bool)", self.on_place_region)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self.on_model)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self.on_device)
        self.ui.segmentButton.connect("clicked(bool)", self.on_segment)

    def enter(self) -> None:
        """Check the installation once, in a child process."""
        if not self._probed:
            self._probed = True
            self.probe()

    def probe(self) -> None:
        """Find the models and devices."""
        if self.logic.runs.is_running(PROBE):
            return
        try:
            self.logic.startProbe(Listener(self.on_probed))
        except RuntimeError as error:
            self.ui.deviceLabel.text = str(error)

    def on_probed(self, installation: Installation | None, message: str) -> None:
        """Offer the models and devices that were found."""
        if self.panel.closed:
            return
        if installation is not None:
            self.installation = installation
        self.ui.deviceLabel.text = installation.device_line if installation else message
        self.panel.update()

    def update(self) -> None:
        """Enable what can be done now, and offer models and devices."""
        parameters, ready = self.panel.parameters, self.panel.ct() is not None
        self.ui.segmentButton.enabled = ready and not self.panel.is_busy()
        self.ui.placeRegionButton.enabled = ready
        if parameters:
            names = self.installation.models or ["default"]
            fill(self.ui.modelComboBox, [(self.title_of(name), name) for name in names], parameters.model)
        device = qt.QSettings().value(DEVICE_SETTING, "auto") or "auto"
        fill(self.ui.deviceComboBox, [(name, name) for name in self.installation.devices], device)

    def title_of(self, model: str) -> str:
        """A model's name, with the time that a usual CT takes with it where that is known."""
        duration = self.installation.durations.get(model)
        return _("{model} ({duration} a CT)").format(model=model, duration=duration) if duration else model

    def on_new_region(self, region: slicer.vtkMRMLMarkupsROINode) -> None:
        """Fit a new region to the lungs, for the user to make smaller; by default it would be empty."""
        if self.panel.ct() is not None:
            fit_region_to_lungs(region, self.panel.ct())

    def on_place_region(self, checked: bool = False) -> None:
        """Put the chosen region round the lungs, or a new one."""
        ct = self.panel.ct()
        with errors_shown():
            region = self.panel.parameters.region or slicer.mrmlScene.AddNewNodeByClass(
                "vtkMRMLMarkupsROINode", slicer.mrmlScene.GenerateUniqueName(_("Region"))
            )
            region.CreateDefaultDisplayNodes()
            if not fit_region_to_lungs(region, ct):
                sentence = _("No lungs were found in {name}; the region covers all of it.")
                self.ui.statusLabel.text = sentence.format(name=ct.GetName() if ct else "")
            self.panel.parameters.region = region

    def on_model(self, row: int) -> None:
        """Save the model with the scene."""
        if self.panel.parameters:
            self.panel.parameters.model = chosen_key(self.ui.modelComboBox)

    def on_device(self, row: int) -> None:
        """Save the device in Slicer's settings."""
        qt.QSettings().setValue(DEVICE_SETTING, chosen_key(self.ui.deviceComboBox))

    def on_segment(self, checked: bool = False) -> None:
        """Segment the chosen CT."""
        with errors_shown():
            options = self.options()
            if options.replace is None or self.may_replace(options.replace):
                ensure_dependencies(self.panel.requirements)
                self.begin()
                finished = partial(self.on_finished, replaces=options.replace)
                listener = Listener(finished, self.panel.show_stage, self.panel.log)
                self.logic.startSegment(self.panel.ct(), options, listener)
        self.panel.update()

    def options(self) -> SegmentOptions:
        """The choices in the panel."""
        parameters, chosen = self.panel.parameters, self.panel.airways()
        replaces = parameters.replaceResult and is_result_of(chosen, self.panel.ct())
        device = chosen_key(self.ui.deviceComboBox) or "auto"
        return SegmentOptions(parameters.model, device, parameters.region, chosen if replaces else None)

    def may_replace(self, airways: slicer.vtkMRMLSegmentationNode) -> bool:
        """Ask before corrections are lost."""
        if companion(airways, INITIAL) is None:
            return True
        edits = count_edits(airways)
        if not edits.added and not edits.removed:
            return True
        question = _("{name} was corrected by hand. Replace it and lose the corrections?")
        return slicer.util.confirmOkCancelDisplay(question.format(name=airways.GetName()))

    def begin(self) -> None:
        """Clear progress bar and log."""
        self.ui.statusLabel.text = _("Starting.")
        self.ui.progressBar.maximum = 0
        self.ui.logText.clear()

    def on_finished(
        self,
        airways: slicer.vtkMRMLSegmentationNode | None,
        message: str,
        replaces: slicer.vtkMRMLSegmentationNode | None = None,
    ) -> None:
        """Choose the result, or show the sentence that says why there is none (empty after Cancel)."""
        if self.panel.closed:
            return
        if airways is not None and airways.GetScene() is not None:
            beside = [] if replaces in (None, airways) else [why_beside(airways, replaces)]
            self.ui.statusLabel.text = " ".join([_("Finished."), *beside, *warnings_of(airways)])
            # Also when another module is shown: the result is there when the user comes back.
            (self.panel.parameters or self.logic.getParameterNode()).airways = airways
        else:
            self.ui.statusLabel.text = message or _("Cancelled.")
        self.panel.measured()
        if message:
            slicer.util.errorDisplay(message)


def why_beside(airways: slicer.vtkMRMLSegmentationNode, kept: slicer.vtkMRMLSegmentationNode) -> str:
    """Why a result was added instead of replacing the chosen one."""
    sentence = _("{kept} was edited meanwhile, so it was kept; the new result is {name}.")
    if kept.GetScene() is None:
        sentence = _("{kept} was removed meanwhile; the new result is {name}.")
    return sentence.format(kept=kept.GetName(), name=airways.GetName())
