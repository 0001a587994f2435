"""Tests of what the module needs of Slicer and its Python: versions, packages, PyTorch, dependencies, sample data."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
import slicer
import slicerhost
from module_desk import files
from source_tree import ROOT

from AirwaySegSlicer.commands import dependencies, installation, sample_data
from AirwaySegSlicer.commands import probe_child as probe
from AirwaySegSlicer.scene import nodes

OFFER = dependencies.offer_packages  # The host has none offered.

pytestmark = pytest.mark.usefixtures("slicer_host")

MODULE = ROOT / "AirwaySeg"
TESTING = ROOT / "Testing"
SOURCES = [MODULE / "AirwaySeg.py", *sorted((MODULE / "AirwaySegSlicer").rglob("*.py"))]


# An older Slicer -----------------------------------------------------------------------------------------------------


def test_an_older_slicer_shows_one_sentence_and_no_traceback(slicer_host, monkeypatch):
    slicerhost.load_module(slicer_host, "AirwaySeg")
    monkeypatch.setattr(type(slicer.app), "minorVersion", 10)
    for name in ("slicer.packaging", "SampleData"):
        monkeypatch.setitem(sys.modules, name, None)
    sample_data.register_sample_data()
    widget = slicerhost.open_module(slicer_host)
    label = widget.parent.layout().itemAt(0).widget()
    assert label.text == "AirwaySeg needs 3D Slicer 5.12 or newer; this is 3D Slicer 5.10."
    slicer.mrmlScene.Clear(0)
    slicerhost.leave(widget)
    slicerhost.enter(widget)
    slicer_host.clear()
    assert not slicer_host.messages


@pytest.mark.parametrize(("major", "minor"), [(5, 12), (5, 13), (6, 0)])
def test_a_newer_slicer_is_new_enough(major, minor):
    assert not installation.about_old_slicer(major, minor)


def test_the_catalogue_and_the_help_say_which_slicer_is_needed(slicer_host):
    words = "Needs 3D Slicer 5.12 or newer."
    assert words in slicerhost.load_module(slicer_host, "AirwaySeg").helpText
    for name in ("CMakeLists.txt", "AirwaySeg.s4ext"):
        assert words in (MODULE.parent / name).read_text("utf-8")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_python_of_an_older_slicer_can_read_the_file(path):
    """Python 3.9, of Slicer 5.8, has no `|` of types, other than in annotations that are not evaluated."""
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 9))
    if "from __future__ import annotations" in path.read_text("utf-8"):
        return
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    annotations = [node.returns for node in functions]
    annotations += [one.annotation for node in functions for one in (*node.args.args, *node.args.kwonlyargs)]
    for annotation in filter(None, annotations):
        assert not any(isinstance(part, ast.BinOp) for part in ast.walk(annotation)), ast.unparse(annotation)


# What the module stands on -------------------------------------------------------------------------------------------


def test_every_module_whose_logic_nodes_or_widgets_are_used_is_a_dependency(slicer_host):
    """Slicer unloads its modules in the reverse order of their loading, and cleans the panel up when its turn comes."""
    declared = slicerhost.load_module(slicer_host, "AirwaySeg").dependencies
    text = "".join(path.read_text("utf-8") for path in SOURCES)
    used = {name.lower() for name in re.findall(r"slicer\.modules\.(\w+)\.logic", text)}
    for mark, name in {"SegmentationNode": "segmentations", "SubjectHierarchyNode": "subjecthierarchy"}.items():
        used |= {name} if mark in text else set()
    used |= {"markups"} if "vtkMRMLMarkups" in text else set()
    used |= {"colors"} if "vtkSlicerColorLogic" in text else set()
    assert used == {name.lower() for name in declared}


BEFORE_ANNOTATIONS = """
import sys, types, slicer, slicerhost
slicerhost.start()
for part, name in (("Markups", "vtkMRMLMarkupsROINode"), ("Segmentations", "vtkMRMLSegmentationNode")):
    kind = getattr(slicer, name)
    delattr(slicer, name)
    sys.modules[f"vtkSlicer{part}ModuleMRMLPython"] = types.SimpleNamespace(**{name: kind})
import AirwaySeg
"""


def test_the_module_file_loads_before_slicers_own_modules():
    """Slicer imports its modules' files in alphabetical order, so this one before that of any class of a module."""
    done = subprocess.run([sys.executable, "-c", BEFORE_ANNOTATIONS], capture_output=True, text=True, cwd=TESTING)
    assert done.returncode == 0, done.stderr


def test_the_panel_goes_without_a_warning(slicer_host):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        widget = slicerhost.open_module(slicer_host)
        slicer_host.clear()
    assert not [str(one.message) for one in caught if "observer" in str(one.message)]
    assert not widget.Observations


# Packages ------------------------------------------------------------------------------------------------------------


def test_a_requirement_for_another_system_or_in_a_version_that_fits_is_not_missing(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text('no-such-package>=2; sys_platform == "none"\nnumpy>=1\nscipy>=1000\n')
    assert probe.missing_packages(str(path)) == ["scipy"]


@pytest.fixture
def requirements(tmp_path, monkeypatch):
    """Requirements that are there, and an optional one that is not; PyTorch counts as installed."""
    (tmp_path / "requirements.txt").write_text("numpy>=1\n")
    (tmp_path / "requirements-optional.txt").write_text("no-such-package>=2\n")
    monkeypatch.setattr(dependencies, "_offered", set())
    monkeypatch.setattr(dependencies, "ensure_torch", lambda: None)
    monkeypatch.setattr(dependencies, "offer_packages", OFFER)
    return str(tmp_path / "requirements.txt")


def test_an_optional_package_that_is_declined_is_asked_for_once_and_stops_nothing(slicer_host, requirements):
    slicer_host.answers.append(False)
    dependencies.ensure_dependencies(requirements)
    dependencies.ensure_dependencies(requirements)
    assert len(slicer_host.messages) == 1
    slicer_host.answers.append(False)
    dependencies.ensure_dependencies(requirements, again=True)
    assert len(slicer_host.messages) == 2


def test_an_optional_package_that_cannot_be_installed_stops_nothing(slicer_host, requirements, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("slicer.packaging.pip_install", fail)
    dependencies.ensure_dependencies(requirements)


def test_openvino_is_among_what_is_installed_on_linux_and_windows():
    lines = (MODULE / "Resources/requirements-optional.txt").read_text("utf-8")
    assert re.search(r'^openvino>=\d+\.\d+; sys_platform != "darwin"$', lines, re.MULTILINE)


def test_a_cpu_without_openvino_is_told_and_a_gpu_is_not():
    torch = {"version": "2.13.0", "cudaVersion": None, "gpus": [], "mps": False}
    seen = {"python": "3.12", "missing": [], "driver": "", "freeDisk": 5e10, "torch": torch, "models": ["default"]}
    [finding] = [one for one in installation.judge(seen | {"slow": ["openvino"]}).findings if one.fix]
    assert finding.what == "Python lacks openvino, which makes the network several times faster on the CPU."
    seen["torch"] = torch | {"mps": True}
    assert not [one for one in installation.judge(seen | {"slow": ["openvino"]}).findings if one.fix]


def test_the_check_says_what_runs_the_network_and_how_long_a_usual_ct_takes():
    torch = {"version": "2.13.0", "cudaVersion": None, "gpus": [], "mps": False}
    seen = {"python": "3.12", "missing": [], "driver": "", "freeDisk": 5e10, "torch": torch, "models": ["default"]}
    network = {"device": "cpu", "library": "OpenVINO", "precision": "float32", "duration": "about 2 min"}
    found = installation.judge(seen | {"networks": {"default": network, "fast": {"duration": "about 40 s"}}})
    words = "The network runs on the CPU with OpenVINO in float32; a usual CT of 300 slices takes about 2 min."
    assert [one.what for one in found.findings if "usual CT" in one.what] == [words]
    assert found.device_line == "CPU: no GPU that PyTorch can use; a usual CT takes about 2 min"
    assert found.durations == {"default": "about 2 min", "fast": "about 40 s"}
    assert "usual" not in installation.judge(seen | {"networks": {}}).device_line


def test_the_probe_runs_a_small_window_and_tells_its_time(monkeypatch):
    from AirwaySegLib.networks import speed

    ticks = iter((1.0, 1.25))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks))
    found = probe.about_network("default")  # 2 s a window
    assert (found["device"], found["duration"]) == ("cpu", "about 80 s")
    monkeypatch.setattr("AirwaySegLib.commands.info.usual_case", lambda settings: {"duration": f"{settings.weights}!"})
    found = probe.about_networks(["mine", "fast", "default"])
    assert found == {"default": {"duration": "default!"}, "fast": {"duration": "fast!"}}
    monkeypatch.setattr("AirwaySegLib.commands.info.usual_case", lambda settings: 1 / 0)
    assert probe.about_network("default") == probe.about_networks(["default"]) == {}


# PyTorch -------------------------------------------------------------------------------------------------------------


def a_torch_extension(monkeypatch, install):
    """PyTorch is missing, and the PyTorch extension has this function to install it."""
    logic = types.SimpleNamespace(installTorch=install)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=lambda: logic))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_the_torch_extension_is_told_which_version_is_needed(monkeypatch):
    asked = {}

    def install(askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):
        asked.update(confirmation=askConfirmation, version=torchVersionRequirement)
        return "torch"

    a_torch_extension(monkeypatch, install)
    dependencies.ensure_torch()
    assert asked == {"confirmation": True, "version": ">=2.4"}


def test_an_older_torch_extension_is_not_asked_for_what_it_does_not_know(monkeypatch):
    asked = []
    a_torch_extension(monkeypatch, lambda askConfirmation=False: asked.append(askConfirmation) or "torch")
    dependencies.ensure_torch()
    assert asked == [True]


def test_a_torch_that_is_too_old_gets_a_sentence(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.3.1+cpu")
    with pytest.raises(RuntimeError, match=r"PyTorch 2.3.1\+cpu is too old, 2.4 or newer is needed"):
        dependencies.ensure_torch()
    torch = {"version": "2.3.1+cpu", "cudaVersion": None, "gpus": [], "mps": False}
    seen = {"python": "3.12", "missing": [], "driver": "", "freeDisk": 5e10, "torch": torch, "models": ["default"]}
    [finding] = [one for one in installation.judge(seen).findings if one.fix]
    assert finding.what == "PyTorch 2.3.1+cpu is too old, 2.4 or newer is needed."


def test_the_least_torch_is_that_of_the_library():
    text = (MODULE.parent / "pyproject.toml").read_text("utf-8")
    assert f'"torch>={dependencies.LEAST_TORCH}"' in text


# The sample and a new region -----------------------------------------------------------------------------------------


def test_the_sample_can_be_had_by_a_script_too(a_desk, monkeypatch):
    from SampleData import SampleDataLogic

    logic = SampleDataLogic()
    first = logic.downloadSample("SimulatedChestCT")
    assert first.GetImageData().GetDimensions() == (3, 4, 5)
    a_desk.host.pump(lambda: not [name for name in files() if name.endswith(".nrrd")])
    monkeypatch.setenv("PATH", "")
    again = logic.downloadSample("SimulatedChestCT")
    assert np.array_equal(slicer.util.arrayFromVolume(first), slicer.util.arrayFromVolume(again))


def test_a_sample_that_cannot_be_drawn_is_an_error_with_its_sentence(a_desk, monkeypatch):
    monkeypatch.setenv("PATH", "")
    from SampleData import SampleDataLogic

    with pytest.raises(RuntimeError, match="PythonSlicer"):
        SampleDataLogic().downloadSample("SimulatedChestCT")


def test_a_new_region_lies_around_the_ct(a_desk):
    region = a_desk.ui.regionSelector.addNode()
    sizes = a_desk.ct.GetImageData().GetDimensions()
    assert nodes.region_box(a_desk.ct, region) == tuple((0, count) for count in sizes)
    bounds, around = [0.0] * 6, [0.0] * 6
    a_desk.ct.GetRASBounds(bounds)
    region.GetRASBounds(around)
    assert around == pytest.approx(bounds, abs=0.05), "within a tenth of a voxel"
    assert a_desk.parameters.region is region
