"""Certain pieces of airway that were not joined: their segment, also in replacing, undo and export; several trees."""

import json
import os

import module_scenes as scenes
import numpy as np
import pytest
import SimpleITK
import slicer
from phantoms import Tube, draw_tubes

from AirwaySegSlicer.commands import export as exporting
from AirwaySegSlicer.commands import measure as measuring
from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import branches, nodes, scans, segments
from AirwaySegSlicer.scene import edits as correction

SENTENCE = (
    "Unconnected airways: 2 pieces, 0.24 ml. "
    "The segmentation left out 84 loose fragments (8,560 voxels) and 11 proposed repairs."
)


@pytest.fixture
def a_desk_with_pieces(a_desk, monkeypatch):
    """A panel with a result beside whose airways lie two certain pieces."""
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "unconnected")
    a_desk.segment()
    assert not a_desk.host.messages
    return a_desk


def blocks(desk) -> np.ndarray:
    """The pieces' voxels, as the stand-in command writes them."""
    pieces = np.zeros(desk.mask.shape, np.uint8)
    pieces[60:65, 30:35, 5:9] = pieces[70:75, 30:35, 5:9] = 1
    return pieces


def voxels(desk, segment: str, node=None) -> np.ndarray:
    return slicer.util.arrayFromSegmentBinaryLabelmap(node or desk.airways, segment, desk.ct)


def ids(node) -> list[str]:
    return list(node.GetSegmentation().GetSegmentIDs())


def paint_over_a_piece(desk) -> np.ndarray:
    """Join the lower piece as Segment Editor does: what is painted into the airways leaves the other segment."""
    airways, pieces = desk.mask.astype(np.uint8), blocks(desk)
    airways[60:65, 30:35, 5:9], pieces[60:65, 30:35, 5:9] = 1, 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(airways, desk.airways, "airways", desk.ct)
    slicer.util.updateSegmentBinaryLabelmapFromArray(pieces, desk.airways, "unconnected", desk.ct)
    return airways


def test_pieces_are_a_second_segment_in_a_colour_of_its_own_and_not_airways(a_desk_with_pieces):
    from AirwaySegLib.tree import colours

    node = a_desk_with_pieces.airways
    assert ids(node) == ["airways", "unconnected"] and segments.airway_segment_id(node) == "airways"
    assert np.array_equal(voxels(a_desk_with_pieces, "airways"), a_desk_with_pieces.mask)
    assert np.array_equal(voxels(a_desk_with_pieces, "unconnected"), blocks(a_desk_with_pieces))
    airways, pieces = (node.GetSegmentation().GetSegment(one) for one in ids(node))
    assert pieces.GetName() == "Unconnected airways"
    assert (segments.AIRWAY_COLOR, segments.UNCONNECTED_COLOR) == (colours.AIRWAYS, colours.UNCONNECTED)
    for segment, color in ((airways, colours.AIRWAYS), (pieces, colours.UNCONNECTED)):
        assert np.allclose(np.multiply(segment.GetColor(), 255), list(bytes.fromhex(color)))
    assert a_desk_with_pieces.ui.branchTable.rowCount == 7
    assert a_desk_with_pieces.ui.summaryLabel.text.split("\n")[1] == SENTENCE


def test_without_pieces_there_is_no_second_segment(a_measured_desk):
    assert ids(a_measured_desk.airways) == ["airways"]


def test_a_saved_scene_keeps_pieces_and_sentence(a_desk_with_pieces, tmp_path):
    desk, path = a_desk_with_pieces, str(tmp_path / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    desk.host.pump()
    slicer.util.loadScene(path)
    desk.host.pump()
    assert desk.ui.summaryLabel.text.endswith(f"\n{SENTENCE}")
    node, desk.ct = desk.airways, slicer.util.getNode("CT")
    assert ids(node) == ["airways", "unconnected"] and segments.airway_segment_id(node) == "airways"
    assert np.array_equal(voxels(desk, "unconnected"), blocks(desk))
    assert np.array_equal(voxels(desk, "airways"), desk.mask)


def test_airways_are_chosen_by_code_or_name_where_the_ids_are_lost(a_desk):
    whole = np.ones_like(a_desk.mask)
    theirs = a_desk.draw("Theirs", first=whole, second=a_desk.mask)
    pieces, airways = (theirs.GetSegmentation().GetSegment(one) for one in ("first", "second"))
    pieces.SetName("Unconnected airways")
    airways.SetName("Airways")
    assert segments.airway_segment_id(theirs) == "second"
    tag = slicer.vtkSegment.GetTerminologyEntryTagName()
    for segment, code in ((pieces, segments.UNCONNECTED_TERMINOLOGY), (airways, segments.TERMINOLOGY)):
        segment.SetName("Segment")
        segment.SetTag(tag, code)
    assert segments.airway_segment_id(theirs) == "second"


def test_replacing_takes_the_new_pieces_and_removes_them_where_there_are_none(a_desk_with_pieces, monkeypatch):
    desk, node = a_desk_with_pieces, a_desk_with_pieces.airways
    desk.click("replaceCheckBox")
    node.GetSegmentation().GetSegment("unconnected").SetColor(1.0, 0.0, 0.0)
    assert desk.segment() is node and ids(node) == ["airways", "unconnected"]
    assert node.GetSegmentation().GetSegment("unconnected").GetColor() == (1.0, 0.0, 0.0)
    assert np.array_equal(voxels(desk, "unconnected"), blocks(desk))
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "")
    assert desk.segment() is node and ids(node) == ["airways"] and "\n" not in desk.ui.summaryLabel.text
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "unconnected")
    assert desk.segment() is node and np.array_equal(voxels(desk, "unconnected"), blocks(desk))
    assert np.array_equal(voxels(desk, "airways"), desk.mask) and not desk.host.messages


def test_an_edit_of_the_pieces_counts_as_an_edit_while_a_run_works(a_desk_with_pieces):
    node = a_desk_with_pieces.airways
    before = segmentation.voxels_key(node)
    fewer = blocks(a_desk_with_pieces)
    fewer[60:65] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(fewer, node, "unconnected", a_desk_with_pieces.ct)
    assert segmentation.voxels_key(node) not in ("", before)


@pytest.mark.parametrize("removed", [False, True], ids=["painted over", "removed"])
def test_discarding_corrections_restores_airways_and_pieces(a_desk_with_pieces, removed):
    desk = a_desk_with_pieces
    paint_over_a_piece(desk)
    assert correction.count_edits(desk.airways) == correction.Edits(100, 0)
    if removed:
        desk.airways.GetSegmentation().RemoveSegment("unconnected")
    correction.take_back(desk.airways)
    assert correction.count_edits(desk.airways) == correction.Edits(0, 0)
    assert np.array_equal(voxels(desk, "unconnected"), blocks(desk))
    assert np.array_equal(voxels(desk, "airways"), desk.mask)
    assert desk.airways.GetSegmentation().GetSegment("unconnected").GetName() == "Unconnected airways"


def test_exports_hold_pieces_only_where_they_were_joined_and_a_case_has_them_beside(a_desk_with_pieces, tmp_path):
    desk = a_desk_with_pieces
    mask, folder = str(tmp_path / "mask.nrrd"), str(tmp_path / "case")
    exporting.export_node(desk.airways, mask)
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(mask)), desk.mask)
    joined = paint_over_a_piece(desk)
    exporting.export_node(desk.airways, mask)
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(mask)), joined)
    assert np.array_equal(scans.mask_for(desk.airways, desk.ct), joined)  # as a training case takes it
    assert scenes.end_of(exporting.case_export_job(desk.airways, folder)) == (folder, "")
    beside = os.path.join(folder, "unconnected.nrrd")
    assert SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(beside)).sum() == 100
    desk.airways.GetSegmentation().RemoveSegment("unconnected")
    assert scenes.end_of(exporting.case_export_job(desk.airways, folder)) == (folder, "")
    assert not os.path.exists(beside)


# Several trees -------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_trees(slicer_host, tmp_path, monkeypatch):
    """A CT of lower lungs, cut at its top, and a segmentation of its two trees and of a piece that no edge cuts."""
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path), prepend=os.pathsep)
    tubes = [
        Tube((60.0, 12.0, 10.0), (20.0, 12.0, 10.0), 2.5, 2.0),
        Tube((60.0, 12.0, 30.0), (25.0, 12.0, 30.0), 1.8, 1.6),
        Tube((40.0, 12.0, 20.0), (25.0, 12.0, 20.0), 1.0, 1.0),
    ]
    mask = draw_tubes(tubes, (90, 50, 80), (0.6, 0.5, 0.5))
    ct = slicer.util.addVolumeFromArray(np.where(mask, -950, -700).astype(np.int16), np.diag([0.5, 0.5, 0.6, 1]), "Low")
    airways = segments.new_segmentation("Low airways", ct)
    airways.GetSegmentation().AddEmptySegment("airways", "Airways")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), airways, "airways", ct)
    return airways


def said_of(airways) -> str:
    maps = measuring.Maps()
    assert scenes.end_of(measuring.measuring_job(airways, maps))[1] == ""
    maps.clear()
    return branches.summary(branches.branch_rows(nodes.companion(airways, nodes.CENTERLINE)))


def test_trees_that_the_scans_edge_cuts_are_called_trees_and_what_ends_within_it_is_loose(two_trees, tmp_path):
    said = said_of(two_trees)
    assert said.startswith("2 trees: 2 branches, 0.06 m, ") and said.endswith("; 1 loose fragment")
    path = str(tmp_path / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    again = nodes.companion(slicer.util.getNode("Low airways"), nodes.CENTERLINE)
    assert branches.summary(branches.branch_rows(again)) == said


def test_of_a_result_in_a_region_the_region_is_the_scan(two_trees):
    scans.note_region(two_trees, ((0, 80), (0, 50), (0, 60)))
    assert json.loads(two_trees.GetAttribute(scans.REGION))[2] == [0, 60]
    cut = slicer.util.arrayFromSegmentBinaryLabelmap(two_trees, "airways", segments.ct_of(two_trees)).copy()
    cut[60:] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(cut, two_trees, "airways", segments.ct_of(two_trees))
    assert said_of(two_trees).startswith("3 trees: ")
    scans.note_region(two_trees, None)
    assert said_of(two_trees).endswith("; 2 loose fragments")  # in the middle of the scan nothing cuts them
