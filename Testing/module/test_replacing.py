"""Tests of the panel's results: what a second run replaces, what it left out, and what stops when its node goes."""

import numpy as np
import pytest
import slicer

from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.scene import edits as correction
from AirwaySegSlicer.scene import nodes, overlays, segments


@pytest.fixture
def a_replacing_desk(a_measured_desk):
    """A panel with a measured result, which the next run is to replace."""
    assert not a_measured_desk.ui.replaceCheckBox.checked
    a_measured_desk.click("replaceCheckBox")
    return a_measured_desk


@pytest.fixture
def a_waiting_command(tmp_path, monkeypatch):
    """The next command waits until this is called."""
    go = tmp_path / "go"
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "wait")
    monkeypatch.setenv("AIRWAYSEG_GO", str(go))
    return go.touch


def start(desk) -> None:
    """Segment until the command runs."""
    desk.click("segmentButton")
    desk.host.pump(lambda: desk.ui.progressBar.value == 1)


def cut(desk) -> np.ndarray:
    """Take a slice off the airways, as Segment Editor does."""
    mask = desk.mask.astype(np.uint8)
    mask[60] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, desk.airways, "airways", desk.ct)
    return mask


def add_tumour(desk) -> np.ndarray:
    """Draw a second segment into the result, in the layer of the airways."""
    block = np.zeros(desk.mask.shape, np.uint8)
    block[70:75, 30:35, 5:9] = 1
    desk.airways.GetSegmentation().AddEmptySegment("tumour", "Tumour")
    slicer.util.updateSegmentBinaryLabelmapFromArray(block, desk.airways, "tumour", desk.ct)
    desk.airways.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert desk.airways.GetSegmentation().GetNumberOfLayers() == 1
    return block


def voxels(desk, segment: str, node=None) -> np.ndarray:
    return slicer.util.arrayFromSegmentBinaryLabelmap(node or desk.airways, segment, desk.ct)


# Replacing -----------------------------------------------------------------------------------------------------------


def test_only_the_airways_are_replaced_and_the_users_other_segments_stay(a_replacing_desk):
    block, old = add_tumour(a_replacing_desk), a_replacing_desk.airways
    old.SetName("Patient 7")
    cut(a_replacing_desk)
    assert a_replacing_desk.segment() is old and old.GetName() == "Patient 7"
    assert "was corrected by hand" in a_replacing_desk.host.messages[0][1]
    assert np.array_equal(voxels(a_replacing_desk, "tumour"), block)
    assert np.array_equal(voxels(a_replacing_desk, "airways"), a_replacing_desk.mask)
    assert correction.count_edits(old) == correction.Edits(0, 0)
    assert a_replacing_desk.ui.branchTable.rowCount == 7


def test_a_segment_that_is_drawn_while_the_run_works_stays(a_replacing_desk, a_waiting_command):
    old = a_replacing_desk.airways
    start(a_replacing_desk)
    block = add_tumour(a_replacing_desk)
    a_waiting_command()
    a_replacing_desk.wait()
    assert a_replacing_desk.airways is old
    assert np.array_equal(voxels(a_replacing_desk, "tumour"), block)
    assert np.array_equal(voxels(a_replacing_desk, "airways"), a_replacing_desk.mask)


def test_airways_that_are_corrected_while_the_run_works_are_kept_and_the_result_stands_beside_them(
    a_replacing_desk, a_waiting_command
):
    old = a_replacing_desk.airways
    start(a_replacing_desk)
    corrected = cut(a_replacing_desk)
    a_waiting_command()
    a_replacing_desk.wait()
    new = a_replacing_desk.airways
    assert new is not old and np.array_equal(voxels(a_replacing_desk, "airways", old), corrected)
    assert np.array_equal(voxels(a_replacing_desk, "airways", new), a_replacing_desk.mask)
    sentence = f"CT airways was edited meanwhile, so it was kept; the new result is {new.GetName()}."
    assert sentence in a_replacing_desk.ui.statusLabel.text and not a_replacing_desk.host.messages


def test_airways_whose_segment_is_removed_while_the_run_works_get_none_of_the_others_voxels(
    a_replacing_desk, a_waiting_command
):
    old = a_replacing_desk.airways
    start(a_replacing_desk)
    block = add_tumour(a_replacing_desk)
    old.GetSegmentation().RemoveSegment("airways")
    a_waiting_command()
    a_replacing_desk.wait()
    assert a_replacing_desk.airways is not old
    assert np.array_equal(voxels(a_replacing_desk, "tumour", old), block)


def test_a_result_that_is_removed_while_its_successor_is_made_is_said_to_be(a_replacing_desk, a_waiting_command):
    start(a_replacing_desk)
    slicer.mrmlScene.RemoveNode(a_replacing_desk.airways)
    a_waiting_command()
    a_replacing_desk.wait()
    assert "CT airways was removed meanwhile; the new result is CT airways" in a_replacing_desk.ui.statusLabel.text
    assert a_replacing_desk.ui.branchTable.rowCount == 7


def test_an_overlay_of_the_replaced_airways_is_followed_by_one_of_the_new(a_replacing_desk):
    a_replacing_desk.open("measureTab")
    a_replacing_desk.choose("overlayComboBox", "generation")
    a_replacing_desk.click("slicesCheckBox")
    old = a_replacing_desk.airways
    surface, tree = (nodes.companion(old, role) for role in (nodes.SURFACE, nodes.CENTERLINE))
    count = slicer.mrmlScene.GetNumberOfNodes()
    assert a_replacing_desk.segment() is old
    a_replacing_desk.host.pump(lambda: overlays.shown_overlay(old) == "generation")
    assert surface.GetScene() is None and tree.GetScene() is None
    volume = nodes.companion(old, nodes.SLICES)
    assert {node.GetForegroundVolumeID() for node in overlays.slice_composites()} == {volume.GetID()}
    assert slicer.mrmlScene.GetNumberOfNodes() == count and not a_replacing_desk.host.messages


def test_of_replaced_airways_neither_tree_nor_colours_stay_where_the_new_ones_are_not_measured(
    a_replacing_desk, monkeypatch, caplog
):
    a_replacing_desk.open("measureTab")
    a_replacing_desk.choose("overlayComboBox", "generation")
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "unmeasured")
    airways = a_replacing_desk.airways
    options = segmentation.SegmentOptions(replace=airways)
    assert a_replacing_desk.logic.segment(a_replacing_desk.ct, options) is airways
    assert "too many branches" in caplog.text
    assert not overlays.shown_overlay(airways) and a_replacing_desk.logic.maps.path(airways) is None
    assert nodes.companion(airways, nodes.CENTERLINE) is None and nodes.companion(airways, nodes.SURFACE) is None


# What was left out ---------------------------------------------------------------------------------------------------

LEFT_OUT = "The segmentation left out 86 loose fragments (8,760 voxels) and 11 proposed repairs."


def test_what_the_run_left_out_stands_beside_the_tree_and_is_saved_with_the_scene(a_desk, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "fragments")
    a_desk.segment()
    summary, said = a_desk.ui.summaryLabel.text.split("\n")
    assert summary.startswith("7 branches") and said == LEFT_OUT
    path = str(tmp_path / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    a_desk.host.pump()
    assert not a_desk.ui.summaryLabel.text
    slicer.util.loadScene(path)
    a_desk.host.pump()
    assert a_desk.ui.summaryLabel.text.endswith(f"\n{LEFT_OUT}")


def test_a_run_that_left_nothing_out_says_nothing_of_it_also_where_it_replaces_one_that_did(a_desk, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "fragments")
    a_desk.segment()
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "")
    a_desk.click("replaceCheckBox")
    a_desk.segment()
    assert "\n" not in a_desk.ui.summaryLabel.text and a_desk.ui.summaryLabel.text.startswith("7 branches")


# Work whose node goes ------------------------------------------------------------------------------------------------


def test_removing_the_ct_stops_its_segmentation_and_the_user_is_told(a_desk, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "slow")
    start(a_desk)
    slicer.mrmlScene.RemoveNode(a_desk.ct)
    a_desk.wait()
    sentence = "CT was removed from the scene, so the work on it was stopped."
    assert a_desk.host.messages == [("error", sentence)] and a_desk.ui.statusLabel.text == sentence


def test_removing_another_ct_stops_nothing(a_desk, a_waiting_command):
    other = slicer.util.addVolumeFromArray(np.zeros((8, 8, 8), np.int16), name="Other")
    start(a_desk)
    slicer.mrmlScene.RemoveNode(other)
    a_waiting_command()
    a_desk.wait()
    assert a_desk.ui.branchTable.rowCount == 7 and not a_desk.host.messages


def test_removing_the_airways_stops_their_measuring(a_desk):
    mine = a_desk.draw("Mine")
    a_desk.choose("airwaysSelector", mine)
    a_desk.logic.startMeasure(mine, Listener(a_desk.widget.panel.on_measured))
    slicer.mrmlScene.RemoveNode(mine)
    a_desk.wait()
    assert a_desk.host.messages == [("error", "Mine was removed from the scene, so the work on it was stopped.")]


def test_the_key_of_voxels_changes_with_them_alone(a_measured_desk):
    node = a_measured_desk.airways
    before = segmentation.voxels_key(node)
    whole = a_measured_desk.mask.astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(whole, node, "airways", a_measured_desk.ct)
    add_tumour(a_measured_desk)
    assert segmentation.voxels_key(node) == before
    cut(a_measured_desk)
    assert segmentation.voxels_key(node) != before
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.zeros_like(whole), node, "airways", a_measured_desk.ct)
    assert not segmentation.voxels_key(node)
    assert segments.airway_segment_id(node) == "airways"
