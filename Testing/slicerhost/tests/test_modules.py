"""Tests of slicerhost.driving and pythonfiles: a module runs as in Slicer, on stand-ins or on Slicer's own files."""

import importlib.util
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicerhost

# The command as the panel sees it: progress, a mask of every voxel above 100, a report.
COMMAND = f"""#!{sys.executable}
import json, os, sys, time
import SimpleITK
arguments = sys.argv[3:]
if arguments[0] != "segment":
    sys.exit("airwayseg: no such command here.")
folder = arguments[arguments.index("-o") + 1]
print(json.dumps(dict(stage="infer", done=1, total=2)), flush=True)
ct = SimpleITK.ReadImage(arguments[1])
if SimpleITK.GetArrayFromImage(ct).max() < 100:
    sys.exit("airwayseg: There is no airway in it.")
os.mkdir(folder)
SimpleITK.WriteImage(SimpleITK.Cast(ct > 100, SimpleITK.sitkUInt8), os.path.join(folder, "airways.nrrd"))
with open(os.path.join(folder, "report.json"), "w") as file:
    json.dump(dict(model=dict(name="stand-in"), warnings=[]), file)
"""


@pytest.fixture
def a_python_slicer(tmp_path, monkeypatch):
    """A PythonSlicer on the PATH that stands for the command."""
    path = tmp_path / "PythonSlicer"
    path.write_text(COMMAND)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return path


def a_volume(brightest: int = 120) -> slicer.vtkMRMLScalarVolumeNode:
    """A volume of 8 x 9 x 10 voxels (z, y, x) with the numbers from 0 to below `brightest`."""
    voxels = np.minimum(np.arange(720), brightest - 1).astype(np.int16).reshape(8, 9, 10)
    return slicer.util.addVolumeFromArray(voxels, None, "CT")


def test_every_stand_in_of_slicers_files_has_the_real_ones_names():
    """Against Slicer's own files, where SLICER_PYTHON names their folder."""
    folder = os.environ.get("SLICER_PYTHON")
    if not folder:
        pytest.skip("SLICER_PYTHON names no folder with Slicer's Python files")
    slicerhost.start()
    from slicerhost.pythonfiles import STAND_INS

    for name in STAND_INS:
        found = importlib.util.find_spec(f"slicer.{name}")
        assert Path(found.origin).parent == Path(folder) / "slicer"


MODULE = """
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule, ScriptedLoadableModuleTest, ScriptedLoadableModuleWidget
)

heard = []

class Echo(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "Echo"
        slicer.app.connect("startupCompleted()", lambda: heard.append("started"))

class EchoWidget(ScriptedLoadableModuleWidget):
    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        heard.append(self.resourcePath("UI/Echo.ui"))
    def enter(self):
        heard.append(self.parent.isEntered)
    def exit(self):
        heard.append(self.parent.isEntered)
    def cleanup(self):
        heard.append("cleaned")

class EchoTest(ScriptedLoadableModuleTest):
    def test_nothing(self):
        heard.append("tested")
"""


def test_a_module_is_loaded_opened_left_and_tested_as_by_slicer(slicer_host, tmp_path, monkeypatch):
    (tmp_path / "Echo.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    widget = slicerhost.open_module(slicer_host, "Echo")
    heard = sys.modules["Echo"].heard
    assert heard == ["started", str(tmp_path / "Resources/UI/Echo.ui"), True]
    assert slicer.modules.echo.title == "Echo" and slicer.modules.EchoWidget is widget
    heard.clear()
    slicerhost.leave(widget)
    slicerhost.enter(widget)
    slicer_host.clear()
    slicer.selfTests["Echo"]()
    assert heard == [False, True, False, "cleaned", "tested"]


@pytest.mark.usefixtures("a_python_slicer")
def test_the_module_opens_and_segments(slicer_host):
    volume = a_volume()
    widget = slicerhost.open_module(slicer_host)
    assert widget.ui.inputSelector.currentNode() is volume
    slicerhost.click(widget.ui.segmentButton)
    slicer_host.pump(lambda: widget._parameterNode.airways)
    node = widget._parameterNode.airways
    segment_id = node.GetSegmentation().GetNthSegmentID(0)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume)
    assert np.array_equal(mask != 0, slicer.util.arrayFromVolume(volume) > 100)


@pytest.mark.usefixtures("a_python_slicer")
def test_a_failure_is_shown_once_and_leaves_the_scene_as_it_was(slicer_host):
    a_volume(brightest=90)
    widget = slicerhost.open_module(slicer_host)
    slicerhost.click(widget.ui.segmentButton)
    slicer_host.pump(lambda: slicer_host.messages)
    assert slicer_host.messages == [("error", "There is no airway in it.")]
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
