"""Tests of AirwaySegSlicer's nodes, segments and segmentation: a CT out, its airways in, on Slicer's real scene."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import module_scenes as scenes
import numpy as np
import pytest
import slicer
import vtk
from source_tree import ROOT

from AirwaySegSlicer.commands import jobs
from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import nodes, segments
from AirwaySegSlicer.scene.maps import Maps

pytestmark = pytest.mark.usefixtures("slicer_host")


@pytest.fixture
def a_result(tmp_path):
    """CT, mask and the folder that `airwayseg segment` leaves for them."""
    ct, mask = scenes.a_ct()
    return ct, mask, scenes.write_result(tmp_path / "result", ct, mask)


def finished(launch, ct, options=None):
    """Result and sentence of a segmentation, without measuring, with a stand-in for the command."""
    ends = []
    options = replace(options or segmentation.SegmentOptions(), measure=False)
    listener = jobs.Listener(lambda *end: ends.append(end))
    jobs.start_job(segmentation.segmentation_job(ct, options, Maps()), listener, launch)
    launch.end()
    return ends[0]


def dark_is_airway(arguments):
    """In the place of `airwayseg segment`: what is below -900 HU is airway."""
    ct = nodes.read_volume(arguments[1])
    scenes.write_result(arguments[3], ct, slicer.util.arrayFromVolume(ct) < -900)
    return []


@pytest.fixture
def slicers_python(tmp_path, monkeypatch):
    """An executable PythonSlicer on the PATH."""
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path), prepend=os.pathsep)


# What is refused -----------------------------------------------------------------------------------------------------


def sentence_about(node) -> str:
    with pytest.raises(RuntimeError) as caught:
        nodes.check_ct(node)
    return str(caught.value)


def test_no_volume_and_an_empty_volume_get_a_sentence():
    assert sentence_about(None) == "Choose a chest CT first."
    assert sentence_about(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "New")) == "New holds no image."


def test_a_label_map_and_colours_get_a_sentence():
    label = slicer.util.addVolumeFromArray(np.ones((3, 3, 3)), name="L", nodeClassName="vtkMRMLLabelMapVolumeNode")
    assert sentence_about(label) == "L is a label map, not a CT."
    photo = slicer.util.addVolumeFromArray(
        np.ones((3, 3, 3, 3), np.uint8), name="P", nodeClassName="vtkMRMLVectorVolumeNode"
    )
    assert sentence_about(photo) == "P has 3 values per voxel; a CT has one."


def test_the_first_volume_that_may_be_a_ct_is_proposed():
    assert nodes.first_ct() is None
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode").SetHideFromEditors(True)
    overlay = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    airways = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    airways.SetNodeReferenceID(nodes.SLICES, overlay.GetID())
    assert nodes.first_ct() is None
    ct = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    assert nodes.first_ct() is ct


def test_a_frame_of_a_sequence_gets_a_sentence():
    ct, _mask = scenes.a_ct()
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
    browser.AddSynchronizedSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(ct, sequence, False)
    assert "frame of a sequence" in sentence_about(ct)


def test_a_plain_ct_is_taken():
    nodes.check_ct(scenes.a_ct()[0])


# The way in ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "below a transform"])
def test_the_mask_lies_where_its_ct_does(tmp_path, moved):
    ct, mask = scenes.a_ct(moved=moved)
    node = segmentation.take_in(scenes.write_result(tmp_path / "r", ct, mask), ct)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, "airways", ct), mask)
    assert np.array_equal(segments.mask_on_ct(node, ct), mask)
    assert node.GetParentTransformNode() is ct.GetParentTransformNode()


def test_the_result_is_a_neighbour_of_its_ct_with_terminology_surface_and_provenance(a_result):
    ct, _mask, folder = a_result
    hierarchy = nodes.subject_hierarchy()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct), study)
    node = segmentation.take_in(folder, ct)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    initial = nodes.companion(node, nodes.INITIAL)
    place = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(initial))
    assert hierarchy.GetItemName(place) == "CT airways tree" and hierarchy.GetItemParent(place) == study
    tag = slicer.vtkSegment.GetTerminologyEntryTagName()
    terminology = vtk.reference("")
    assert node.GetSegmentation().GetSegment("airways").GetTag(tag, terminology)
    assert str(terminology).split("~")[2] == "SCT^110726009^Trachea and bronchus"
    assert node.GetSegmentation().GetConversionParameter("Smoothing factor") == "0.2"
    assert node.GetClosedSurfaceInternalRepresentation("airways").GetNumberOfPoints() > 100
    assert (node.GetAttribute("AirwaySeg.model"), node.GetAttribute("AirwaySeg.device")) == ("default", "cpu")
    assert segmentation.warnings_of(node) == ["The slices are 5 mm apart."]
    assert segmentation.is_result_of(node, ct) and not segmentation.is_result_of(None, ct)
    ct.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    assert not segmentation.is_result_of(node, ct)


def test_other_nodes_are_not_touched(a_result):
    ct, _mask, folder = a_result
    scenes.a_ct("Other")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    before = scenes.snapshot()
    segmentation.take_in(folder, ct)
    # The CT is referenced by its segmentation, the subject hierarchy has a new place.
    allowed = {ct.GetID(), nodes.subject_hierarchy().GetID()}
    after = scenes.snapshot()
    assert {node for node, time in before.items() if after[node] != time} <= allowed


def test_a_second_run_replaces_the_airways_and_what_belongs_to_them(a_result):
    ct, mask, folder = a_result
    first = segmentation.take_in(folder, ct)
    count = slicer.mrmlScene.GetNumberOfNodes()
    smaller = mask.copy()
    smaller[:40] = False
    second = segmentation.take_in(scenes.write_result(folder, ct, smaller), ct, replace=first)
    assert second is first and second.GetName() == "CT airways"
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    for node in (second, nodes.companion(second, nodes.INITIAL)):
        assert np.array_equal(segments.mask_on_ct(node, ct), smaller)
    bounds = [0.0] * 6
    segments.closed_surface(second).GetBounds(bounds)
    assert bounds[4] > ct.GetOrigin()[2] + 39 * ct.GetSpacing()[2]


def test_a_ct_with_fewer_voxels_than_the_library_takes_is_refused_before_anything_is_started():
    from AirwaySegLib.files.ct_checks import MINIMUM_VOXELS

    launch = scenes.StandIn(dark_is_airway)
    assert nodes.LEAST_VOXELS == MINIMUM_VOXELS
    thin = slicer.util.addVolumeFromArray(np.full((20, 7, 20), -1000, np.int16), name="2: Thin")
    with pytest.raises(RuntimeError, match="2: Thin has too few voxels along y to be segmented: 7, fewer than 8"):
        finished(launch, thin)
    ct, _mask = scenes.a_ct()
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Slab")
    bounds = [0.0] * 6
    ct.GetRASBounds(bounds)
    roi.SetCenterWorld(*((bounds[axis * 2] + bounds[axis * 2 + 1]) / 2 for axis in range(3)))
    roi.SetSizeWorld(500, 500, 4)
    with pytest.raises(RuntimeError, match="CT has too few voxels along z"):
        finished(launch, ct, segmentation.SegmentOptions(region=roi))
    assert not launch.commands


@pytest.mark.usefixtures("slicers_python")
def test_what_the_command_says_of_its_files_is_said_of_the_nodes():
    def fail(arguments):
        raise scenes.Failed(f"airwayseg: {arguments[1]} is no CT; look at ct.nrrd or at direct.nrrd.")

    ct, _mask = scenes.a_ct("2: Chest 1.0")
    assert finished(scenes.StandIn(fail), ct) == (
        None,
        "2: Chest 1.0 is no CT; look at 2: Chest 1.0 or at direct.nrrd.",
    )


@pytest.mark.usefixtures("slicers_python")
def test_weights_in_slicers_working_directory_are_found_by_the_command(tmp_path, monkeypatch):
    ct, _mask = scenes.a_ct()
    (tmp_path / "mine.pt").touch()
    monkeypatch.chdir(tmp_path)
    launch = scenes.StandIn(dark_is_airway)
    finished(launch, ct, segmentation.SegmentOptions(model="mine.pt"))
    [command] = launch.commands
    assert command[command.index("--weights") + 1] == str(tmp_path / "mine.pt")


def test_lines_that_begin_with_the_file_begin_with_the_node(slicer_host):
    from AirwaySegSlicer.commands import wording

    worded = wording.with_node_names({"ct.nrrd": "CT 1"})
    lines = [worded(line) for line in ("airwayseg: ct: The slices are 5 mm apart.", "ct: dark", "object: ct is kept")]
    assert lines == ["airwayseg: CT 1: The slices are 5 mm apart.", "CT 1: dark", "object: ct is kept"]


def test_a_second_run_adds_a_result_where_that_is_wanted(a_result):
    ct, _mask, folder = a_result
    first, second = segmentation.take_in(folder, ct), segmentation.take_in(folder, ct)
    assert first.GetScene() is not None and second.GetName() != first.GetName()


@pytest.mark.parametrize("broken", ["no report", "no mask", "empty mask", "other grid"])
def test_a_result_that_cannot_be_taken_in_leaves_the_scene_as_it_was(a_result, broken):
    ct, mask, folder = a_result
    first = segmentation.take_in(folder, ct)
    if broken == "no report":
        os.remove(os.path.join(folder, "report.json"))
    elif broken == "no mask":
        os.remove(os.path.join(folder, "airways.nrrd"))
    else:
        scenes.write_result(folder, ct, np.zeros_like(mask) if broken == "empty mask" else np.pad(mask, 3))
    before = scenes.snapshot()
    with pytest.raises(RuntimeError):
        segmentation.take_in(folder, ct, replace=first)
    assert scenes.snapshot() == before


def test_an_error_in_the_middle_removes_what_was_added(a_result, monkeypatch):
    ct, _mask, folder = a_result
    before = set(scenes.snapshot())

    def fail(*_arguments):
        raise ValueError("no provenance today")

    monkeypatch.setattr(segmentation, "_note_provenance", fail)
    with pytest.raises(ValueError, match="today"):
        segmentation.take_in(folder, ct)
    assert set(scenes.snapshot()) == before


def test_a_ct_that_was_removed_meanwhile_gets_a_sentence(a_result):
    ct, _mask, folder = a_result
    slicer.mrmlScene.RemoveNode(ct)
    with pytest.raises(RuntimeError, match="removed from the scene"):
        segmentation.take_in(folder, ct)


# The whole way -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("slicers_python")
def test_the_command_gets_the_ct_and_the_choices_and_no_file_is_left():
    ct, mask = scenes.a_ct()
    launch = scenes.StandIn(dark_is_airway)
    before = os.listdir(slicer.app.temporaryPath)
    node, message = finished(launch, ct, segmentation.SegmentOptions("mine", "cpu"))
    assert message == "" and np.array_equal(segments.mask_on_ct(node, ct), mask)
    [command] = launch.commands
    assert command[1:4] == ["-m", "AirwaySegLib", "segment"]
    assert command[-4:] == ["--weights", "mine", "--device", "cpu"]
    assert os.listdir(slicer.app.temporaryPath) == before


@pytest.mark.usefixtures("slicers_python")
def test_a_region_is_all_that_the_command_sees_and_the_mask_still_fits():
    ct, mask = scenes.a_ct(moved=True)
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Upper part")
    bounds = [0.0] * 6
    ct.GetRASBounds(bounds)
    roi.SetCenterWorld(*((bounds[axis * 2] + bounds[axis * 2 + 1]) / 2 for axis in range(2)), bounds[5])
    roi.SetSizeWorld(500, 500, 60)
    node, message = finished(scenes.StandIn(dark_is_airway), ct, segmentation.SegmentOptions(region=roi))
    assert message == ""
    found = segments.mask_on_ct(node, ct)
    upper = np.flatnonzero(found.any(axis=(1, 2)))[0]
    assert 0 < found.sum() < mask.sum() and np.array_equal(found[upper:], mask[upper:])


@pytest.mark.usefixtures("slicers_python")
def test_a_region_elsewhere_gets_a_sentence_before_anything_is_started():
    ct, _mask = scenes.a_ct()
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Elsewhere")
    roi.SetCenterWorld(4000, 0, 0)
    roi.SetSizeWorld(10, 10, 10)
    with pytest.raises(RuntimeError, match="is outside CT"):
        finished(scenes.StandIn(dark_is_airway), ct, segmentation.SegmentOptions(region=roi))


@pytest.mark.usefixtures("slicers_python")
def test_a_failure_is_one_sentence_without_traces():
    def fail(_arguments):
        raise scenes.Failed("airwayseg: The CT is too short.")

    ct, _mask = scenes.a_ct()
    before, files = scenes.snapshot(), os.listdir(slicer.app.temporaryPath)
    assert finished(scenes.StandIn(fail), ct) == (None, "The CT is too short.")
    assert scenes.snapshot() == before and os.listdir(slicer.app.temporaryPath) == files


def test_without_slicers_python_no_file_is_left(monkeypatch):
    monkeypatch.setenv("PATH", "")
    ct, _mask = scenes.a_ct()
    files = os.listdir(slicer.app.temporaryPath)
    with pytest.raises(RuntimeError, match="PythonSlicer"):
        finished(scenes.StandIn(dark_is_airway), ct)
    assert os.listdir(slicer.app.temporaryPath) == files


def test_the_report_survives_in_the_node(a_result):
    ct, _mask, folder = a_result
    node = segmentation.take_in(folder, ct)
    assert segmentation.provenance(node) == json.loads(json.dumps(scenes.REPORT))


@pytest.mark.usefixtures("slicers_python")
def test_one_job_at_a_time_runs_in_a_slot(slicer_host):
    launch, ends = scenes.StandIn(lambda arguments: []), []
    runs, job = jobs.Runs(launch), jobs.Job(lambda folder: ["segment"], lambda folder: "result")
    listener = jobs.Listener(lambda *end: ends.append((*end, runs.is_running("a"))))
    runs.start("a", job, listener)
    with pytest.raises(RuntimeError, match="running already"):
        runs.start("a", job, listener)
    assert runs.is_running("a") and not runs.is_running("b") and len(launch.commands) == 1
    launch.end()
    assert ends == [("result", "", False)]


LOADED_LATER = """
import sys, types, slicer
sys.modules["slicer.i18n"] = types.SimpleNamespace(tr=str)
later = [name for name in dir(slicer) if any(part in name for part in ("Segment", "Markups", "Plot", "Sequence"))]
for name in later:
    delattr(slicer, name)
import AirwaySegSlicer.%s
"""


@pytest.mark.parametrize(
    "name",
    [
        "commands.training_cases",
        "commands.sample_data",
        "scene.overlays",
        "scene.branches",
        "scene.radius_plot",
        "scene.edits",
    ],
)
def test_the_module_loads_before_those_whose_classes_it_uses(name):
    """Slicer makes its modules in alphabetical order, AirwaySeg among the first."""
    folder = ROOT / "AirwaySeg"
    done = subprocess.run(
        [sys.executable, "-c", LOADED_LATER % name], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# Piece by piece ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_a_volume_written_in_pieces_is_the_volume(tmp_path, monkeypatch, dtype):
    from AirwaySegSlicer.commands import nrrd_writer

    monkeypatch.setattr(nrrd_writer, "PIECE", 1000)
    array = np.random.default_rng(0).integers(0, 100, (7, 20, 30)).astype(dtype)
    node = slicer.util.addVolumeFromArray(array, scenes.IJK_TO_RAS, "V")
    pauses = list(nrrd_writer.write_pieces(array[:, 2:], nodes.ijk_to_ras(node), str(tmp_path / "v.nrrd")))
    again = nodes.read_volume(str(tmp_path / "v.nrrd"))
    assert len(pauses) == 6 and slicer.util.arrayFromVolume(again).dtype == array.dtype
    assert np.array_equal(slicer.util.arrayFromVolume(again), array[:, 2:])
    matrix = slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(again))
    assert np.allclose(matrix, scenes.IJK_TO_RAS, atol=1e-12)


def a_job_in_pieces(launched, ends):
    """A job that pauses twice before its command starts; its temporary folder."""
    folders = []

    def prepare(folder):
        folders.append(folder)
        yield
        yield
        return ["segment"]

    def launch(arguments, **options):
        launched.append(arguments)
        process = scenes.Running()
        process.end([], 0)
        return process

    job, listener = jobs.Job(prepare, lambda folder: "result"), jobs.Listener(lambda *end: ends.append(end))
    return jobs.start_job(job, listener, launch), folders


@pytest.mark.usefixtures("slicers_python")
def test_work_that_pauses_starts_its_command_when_it_is_ready(slicer_host):
    launched, ends = [], []
    a_job_in_pieces(launched, ends)
    assert not launched
    slicer_host.pump(lambda: bool(ends))
    assert launched[0][3:] == ["segment"] and ends == [("result", "")]


@pytest.mark.usefixtures("slicers_python")
def test_work_that_is_cancelled_in_a_pause_starts_nothing_and_leaves_nothing(slicer_host):
    launched, ends = [], []
    run, [folder] = a_job_in_pieces(launched, ends)
    run.cancel()
    slicer_host.pump(lambda: bool(ends))
    assert ends == [(None, "")] and not launched and not os.path.exists(folder)


def test_an_error_after_a_pause_is_a_sentence(slicer_host, monkeypatch):
    monkeypatch.setenv("PATH", "")
    launched, ends = [], []
    _run, [folder] = a_job_in_pieces(launched, ends)
    slicer_host.pump(lambda: bool(ends))
    assert ends == [(None, "Slicer's Python (PythonSlicer) was not found.")] and not os.path.exists(folder)
