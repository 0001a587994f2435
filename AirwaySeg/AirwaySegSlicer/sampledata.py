"""The sample CT in Slicer's module Sample Data: a simulated chest, drawn on this computer instead of downloaded."""

from __future__ import annotations

import os

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.jobs import Audience, start_job
from AirwaySegSlicer.nodes import read_volume
from AirwaySegSlicer.process import TRAINING, ConsoleProcess

CATEGORY, NAME = "AirwaySeg", "SimulatedChestCT"
SEED = "1"


def register_sample_data() -> None:
    """Offer the sample; called when Slicer has started."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=NAME,
        uris="",
        fileNames=f"{NAME}.nrrd",
        nodeNames=NAME,
        customDownloader=draw_sample,
    )


def draw_sample(source: object = None) -> ConsoleProcess:
    """Draw the chest beside Slicer, in about twenty seconds, and show it when it is ready."""
    from AirwaySegSlicer.dependencies import ensure_packages

    ensure_packages(os.path.join(os.path.dirname(os.path.dirname(__file__)), "Resources", "requirements.txt"))
    slicer.util.showStatusMessage(_("Drawing a simulated chest CT …"), 20000)
    return start_sample(Audience(_on_finished, launch=slicer.util.launchConsoleProcess))


def _on_finished(node: slicer.vtkMRMLScalarVolumeNode | None, message: str) -> None:
    if message:
        slicer.util.errorDisplay(message)


def start_sample(audience: Audience) -> ConsoleProcess:
    """Start to draw the chest; the audience's result is its volume node. The same chest each time."""

    def prepare(folder: str) -> list[str]:
        return ["simulate", "-o", folder, "--cases", "1", "--seed", SEED, "--workers", "1"]

    def collect(folder: str) -> slicer.vtkMRMLScalarVolumeNode:
        cases = os.path.join(folder, "cases")
        node = read_volume(os.path.join(cases, os.listdir(cases)[0], "ct.nrrd"))
        node.SetName(slicer.mrmlScene.GenerateUniqueName(NAME))
        slicer.mrmlScene.AddNode(node)
        node.CreateDefaultDisplayNodes()
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        return node

    return start_job(audience, prepare, collect, TRAINING)
