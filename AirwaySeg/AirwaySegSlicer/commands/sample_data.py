"""The sample CT in Slicer's module Sample Data: a chest that is simulated on this computer instead of downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.child_process import TRAINING
from AirwaySegSlicer.commands.console_process import ConsoleProcess
from AirwaySegSlicer.commands.dependencies import ensure_packages
from AirwaySegSlicer.commands.installation import about_old_slicer
from AirwaySegSlicer.commands.jobs import Job, Listener, start_job
from AirwaySegSlicer.commands.probe_child import REQUIREMENTS
from AirwaySegSlicer.event_loop import call_later
from AirwaySegSlicer.scene.nodes import read_volume

CATEGORY, NAME = "AirwaySeg", "SimulatedChestCT"
SEED = "1"

ADDRESS = f"airwayseg:{NAME}"
"""Takes the place of a download's address; `drawn_address` replaces it by the address of the simulated file."""


def register_sample_data() -> None:
    """Offer the sample; called when Slicer has started. Does nothing where Slicer is too old, which the panel says."""
    if about_old_slicer(slicer.app.majorVersion, slicer.app.minorVersion):
        return
    import SampleData

    logic = SampleData.SampleDataLogic
    # The button calls the customDownloader; `SampleData.downloadSample` only uses the address.
    logic.registerUrlRewriteRule(NAME, drawn_address)
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=NAME,
        uris=ADDRESS,
        fileNames=f"{NAME}.nrrd",
        nodeNames=NAME,
        customDownloader=draw_sample,
    )


def draw_sample(source: object = None) -> ConsoleProcess:
    """Simulate the chest in a child process, in about twenty seconds, and show it when it is ready."""
    ensure_packages(REQUIREMENTS)
    slicer.util.showStatusMessage(_("Simulating a chest CT …"), 20000)
    return start_job(sample_job(show_sample), Listener(_on_finished))


def drawn_address(address: str) -> str:
    """For `ADDRESS` that of a file with the chest, simulated while Slicer waits; any other address unchanged.

    A chest in Slicer's download cache is not simulated again.
    """
    kept = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory(), f"{NAME}.nrrd")
    if address != ADDRESS or (kept.exists() and kept.stat().st_size > 0):
        return address
    ensure_packages(REQUIREMENTS)
    path = Path(slicer.app.temporaryPath, f"AirwaySeg-{NAME}.nrrd")
    ends: list[tuple[object, str]] = []
    start_job(sample_job(lambda drawn: os.replace(drawn, path)), Listener(lambda *end: ends.append(end)), blocking=True)
    if ends[0][1]:
        raise RuntimeError(ends[0][1])
    call_later(lambda: path.unlink(missing_ok=True))  # Slicer has copied it by then.
    return path.as_uri()


def _on_finished(node: slicer.vtkMRMLScalarVolumeNode | None, message: str) -> None:
    if message:
        slicer.util.errorDisplay(message)


def sample_job(take: Callable[[str], Any]) -> Job:
    """Simulate the chest, the same each time; the job's result is ``take(path)`` of its CT file."""

    def prepare(folder: str) -> list[str]:
        """The command that simulates a CT."""
        return ["simulate", "-o", folder, "--cases", "1", "--seed", SEED, "--workers", "1"]

    def collect(folder: str) -> Any:
        """Take the CT in."""
        cases = os.path.join(folder, "cases")
        return take(os.path.join(cases, os.listdir(cases)[0], "ct.nrrd"))

    return Job(prepare, collect, TRAINING)


def show_sample(path: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Put the CT of this file into the scene and the views."""
    node = read_volume(path)
    node.SetName(slicer.mrmlScene.GenerateUniqueName(NAME))
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node
