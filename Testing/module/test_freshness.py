"""Tests that table, overlays, centerline, plot and exports say when they were measured before the last edit."""

import csv
import json

import module_scenes as scenes
import numpy as np
import pytest
import slicer
import slicerhost

from AirwaySegSlicer.commands import measure as measuring
from AirwaySegSlicer.scene import freshness, nodes, segments

MEASURED = (nodes.CENTERLINE, nodes.TABLE, nodes.SURFACE, nodes.SLICES, nodes.HIGHLIGHT, nodes.PLOT_CHART)


@pytest.fixture
def a_shown_tree(a_measured_desk):
    """A panel with everything in the scene that comes of a measuring, and an editor that is open."""
    a_measured_desk.open("measureTab")
    a_measured_desk.choose("overlayComboBox", "generation")
    a_measured_desk.click("slicesCheckBox")
    a_measured_desk.select_branch(5)
    a_measured_desk.click("plotButton")
    a_measured_desk.open("correctSection")
    pause(a_measured_desk)
    assert not marked(a_measured_desk) and not a_measured_desk.ui.outOfDateLabel.visible
    return a_measured_desk


def pause(desk) -> None:
    """The user does nothing for as long as the panel waits after an edit."""
    section = desk.section("Correct")
    section._timer.setInterval(0)
    section._timer.start()
    desk.host.pump(lambda: not section._timer.active)


def cut(desk, airways=None) -> None:
    """Cut the branches of one side off, as one step of the editor; nobody pauses."""
    editor = desk.section("Correct").editor
    if editor is not None:
        editor.saveStateForUndo()
    mask = desk.mask.astype(np.uint8)
    mask[:, 60:] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, airways or desk.airways, "airways", desk.ct)


def marked(desk) -> set[str]:
    """The roles of what says that it is out of date."""
    found = {role: nodes.companion(desk.airways, role) for role in MEASURED}
    return {role for role, node in found.items() if node is not None and "(out of date)" in node.GetName()}


def legend_title() -> str:
    """What stands above the colours."""
    [legend] = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    return legend.GetTitleText()


def test_after_an_edit_all_that_was_measured_says_so(a_shown_tree):
    cut(a_shown_tree)
    pause(a_shown_tree)
    assert marked(a_shown_tree) == set(MEASURED)
    assert a_shown_tree.ui.outOfDateLabel.visible and "before the last edit" in a_shown_tree.ui.outOfDateLabel.text
    assert legend_title() == "Generation (out of date)"
    assert nodes.companion(a_shown_tree.airways, nodes.PLOT_CHART).GetTitle().endswith("branch 5 (out of date)")
    assert "(out of date)" not in nodes.companion(a_shown_tree.airways, nodes.INITIAL).GetName()


def test_an_update_takes_the_marks_away_but_not_from_what_it_does_not_renew(a_shown_tree):
    cut(a_shown_tree)
    pause(a_shown_tree)
    a_shown_tree.click("updateButton")
    a_shown_tree.wait()
    assert marked(a_shown_tree) == {nodes.PLOT_CHART} and not a_shown_tree.ui.outOfDateLabel.visible
    assert legend_title() == "Generation" and not a_shown_tree.host.messages
    pause(a_shown_tree)
    assert marked(a_shown_tree) == {nodes.PLOT_CHART}


def test_after_an_edit_a_process_waits_and_the_update_takes_it(a_shown_tree):
    children = a_shown_tree.host.children
    before = len(children)
    pause(a_shown_tree)
    assert len(children) == before
    cut(a_shown_tree)
    pause(a_shown_tree)
    assert "AirwaySegLib.early" in children[-1].args and len(children) == before + 1
    a_shown_tree.click("updateButton")
    a_shown_tree.wait()
    assert len(children) == before + 1 and children[-1].poll() == 0
    assert nodes.CENTERLINE not in marked(a_shown_tree)


def test_where_the_tree_follows_each_edit_a_process_waits_for_the_next_one(a_shown_tree):
    a_shown_tree.click("autoUpdateCheckBox")
    cut(a_shown_tree)
    pause(a_shown_tree)
    a_shown_tree.wait()
    child = a_shown_tree.host.children[-1]
    assert "AirwaySegLib.early" in child.args and child.poll() is None
    a_shown_tree.logic.close()
    assert child.wait() != 0


def test_undo_takes_the_marks_away_and_redo_brings_them_back(a_shown_tree):
    editor = a_shown_tree.section("Correct").editor
    cut(a_shown_tree)
    pause(a_shown_tree)
    editor.undo()
    pause(a_shown_tree)
    assert not marked(a_shown_tree) and legend_title() == "Generation"
    assert not a_shown_tree.ui.outOfDateLabel.visible
    assert a_shown_tree.ui.editsLabel.text == "Corrected: 0 voxels added, 0 removed."
    editor.redo()
    pause(a_shown_tree)
    assert marked(a_shown_tree) == set(MEASURED) and a_shown_tree.ui.outOfDateLabel.visible


def test_undo_is_noticed_without_being_told_to_look(a_shown_tree):
    cut(a_shown_tree)
    pause(a_shown_tree)
    a_shown_tree.section("Correct").editor.undo()
    a_shown_tree.host.pump(lambda: not marked(a_shown_tree))


def test_an_overlay_drawn_after_an_edit_says_so_and_is_drawn_again_when_that_is_undone(a_shown_tree):
    before = nodes.companion(a_shown_tree.airways, nodes.SURFACE).GetPolyData().GetNumberOfPoints()
    cut(a_shown_tree)
    pause(a_shown_tree)
    a_shown_tree.choose("overlayComboBox", "lobe")
    assert legend_title() == "Lobe (estimate) (out of date)"
    assert nodes.companion(a_shown_tree.airways, nodes.SURFACE).GetPolyData().GetNumberOfPoints() < before
    a_shown_tree.section("Correct").editor.undo()
    pause(a_shown_tree)
    assert legend_title() == "Lobe (estimate)" and not marked(a_shown_tree)
    assert nodes.companion(a_shown_tree.airways, nodes.SURFACE).GetPolyData().GetNumberOfPoints() == before


def test_an_overlay_drawn_right_after_an_edit_marks_all_that_is_out_of_date_at_once(a_shown_tree):
    cut(a_shown_tree)
    a_shown_tree.choose("overlayComboBox", "lobe")
    surface = nodes.companion(a_shown_tree.airways, nodes.SURFACE)
    assert marked(a_shown_tree) == set(MEASURED) and legend_title() == "Lobe (estimate) (out of date)"
    a_shown_tree.widget.panel.update()
    assert nodes.companion(a_shown_tree.airways, nodes.SURFACE) is surface


def test_other_segments_names_and_surfaces_are_no_edits_of_the_airways(a_shown_tree):
    segmentation = a_shown_tree.airways.GetSegmentation()
    segmentation.AddEmptySegment("tumour", "tumour")
    block = np.zeros(a_shown_tree.mask.shape, np.uint8)
    block[70:75, 30:35, 5:9] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(block, a_shown_tree.airways, "tumour", a_shown_tree.ct)
    segmentation.GetSegment("airways").SetName("My airways")
    segmentation.CollapseBinaryLabelmaps(False)
    pause(a_shown_tree)
    assert not marked(a_shown_tree)


def reload(desk, tmp_path) -> None:
    """Save the scene, close it and read it again."""
    path = str(tmp_path / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    desk.host.pump()
    slicer.util.loadScene(path)
    desk.host.pump()
    pause(desk)


@pytest.mark.parametrize("edited", [False, True], ids=["not edited", "edited"])
def test_the_marks_are_those_of_before_in_a_reloaded_scene(a_shown_tree, tmp_path, edited):
    if edited:
        cut(a_shown_tree)
    reload(a_shown_tree, tmp_path)
    assert bool(marked(a_shown_tree)) == a_shown_tree.ui.outOfDateLabel.visible == edited
    assert ("(out of date)" in legend_title()) == edited and not a_shown_tree.host.messages
    assert freshness.is_out_of_date(a_shown_tree.airways) == edited


def test_the_original_mask_is_back_and_not_out_of_date_when_a_reloaded_scene_is_taken_back(a_shown_tree, tmp_path):
    cut(a_shown_tree)
    reload(a_shown_tree, tmp_path)
    a_shown_tree.click("takeBackButton")
    pause(a_shown_tree)
    assert not a_shown_tree.ui.outOfDateLabel.visible and not a_shown_tree.host.messages


def test_a_reloaded_scene_starts_no_work_and_the_next_edit_does(a_shown_tree, tmp_path):
    cut(a_shown_tree)
    pause(a_shown_tree)
    a_shown_tree.click("autoUpdateCheckBox")
    reload(a_shown_tree, tmp_path)
    assert a_shown_tree.ui.outOfDateLabel.visible and not a_shown_tree.logic.runs.is_running("airways")
    a_shown_tree.click("takeBackButton")
    mask = a_shown_tree.mask.copy()
    mask[:, :40] = False
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), a_shown_tree.airways, "airways", slicer.util.getNode("CT")
    )
    pause(a_shown_tree)
    a_shown_tree.wait()
    assert not a_shown_tree.ui.outOfDateLabel.visible and a_shown_tree.ui.branchTable.rowCount < 7


def test_an_edit_while_it_is_measured_leaves_the_tree_out_of_date(a_shown_tree):
    a_shown_tree.click("measureButton")
    cut(a_shown_tree)
    a_shown_tree.wait()
    assert nodes.CENTERLINE in marked(a_shown_tree) and a_shown_tree.ui.outOfDateLabel.visible


# In another module ---------------------------------------------------------------------------------------------------


def test_an_edit_in_another_module_is_marked_there_and_shown_on_return(a_measured_desk):
    airways = a_measured_desk.airways
    slicerhost.leave(a_measured_desk.widget)
    cut(a_measured_desk, airways)
    pause(a_measured_desk)
    assert freshness.is_marked(nodes.companion(airways, nodes.CENTERLINE))
    slicerhost.enter(a_measured_desk.widget)
    assert a_measured_desk.ui.outOfDateLabel.visible


def test_the_tree_follows_an_edit_in_another_module_where_that_is_wanted(a_measured_desk):
    a_measured_desk.open("correctSection")
    a_measured_desk.click("autoUpdateCheckBox")
    airways = a_measured_desk.airways
    slicerhost.leave(a_measured_desk.widget)
    cut(a_measured_desk, airways)
    pause(a_measured_desk)
    a_measured_desk.wait()
    assert nodes.companion(airways, nodes.TABLE).GetTable().GetNumberOfRows() < 7
    slicerhost.enter(a_measured_desk.widget)
    assert a_measured_desk.ui.branchTable.rowCount < 7 and not a_measured_desk.ui.outOfDateLabel.visible


def test_an_edit_of_airways_that_are_not_chosen_is_marked_too(a_measured_desk):
    first = a_measured_desk.airways
    a_measured_desk.choose("airwaysSelector", a_measured_desk.draw("Mine"))
    cut(a_measured_desk, first)
    pause(a_measured_desk)
    assert freshness.is_marked(nodes.companion(first, nodes.CENTERLINE))
    assert not a_measured_desk.ui.outOfDateLabel.visible
    a_measured_desk.choose("airwaysSelector", first)
    assert a_measured_desk.ui.outOfDateLabel.visible


def test_a_closed_panel_watches_nothing(a_measured_desk):
    airways, section = a_measured_desk.airways, a_measured_desk.section("Correct")
    a_measured_desk.host.panels.pop().close()
    section._timer.stop()
    cut(a_measured_desk, airways)
    slicer.mrmlScene.RemoveNode(a_measured_desk.ct)
    assert not section._timer.active


# Files ---------------------------------------------------------------------------------------------------------------


def test_an_exported_table_and_centerline_say_that_they_are_out_of_date(a_measured_desk, tmp_path):
    logic, airways = a_measured_desk.logic, a_measured_desk.airways
    for edited in (False, True):
        if edited:
            cut(a_measured_desk)
        table, about = logic.export(airways, str(tmp_path / "tree.csv"))
        with open(table, newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert {row.get("out_of_date") for row in rows} == ({"1"} if edited else {None})
        assert json.load(open(about))["measured_before_last_edit"] is edited
        lines, _about = logic.export(airways, str(tmp_path / "tree.vtp"))
        model = measuring.read_model(lines)
        assert (model.GetPolyData().GetFieldData().GetArray("out_of_date") is not None) == edited
        _mask, about = logic.export(airways, str(tmp_path / "tree.nrrd"))
        assert json.load(open(about))["measured_before_last_edit"] is None
    assert nodes.companion(airways, nodes.TABLE).GetTable().GetColumnByName("out_of_date") is None


# Signatures ----------------------------------------------------------------------------------------------------------


def test_a_signature_is_of_voxels_and_place(slicer_host):
    ct, mask = scenes.a_ct()
    matrix = nodes.ijk_to_ras(ct)
    one = freshness.mask_signature(mask, matrix, "my airways")
    assert freshness.is_same(one, freshness.mask_signature(mask.copy(), nodes.shifted(matrix, [0, 0, 0]), "other"))
    changed = mask.copy()
    changed[0, 0, 0] ^= True
    assert not freshness.is_same(one, freshness.mask_signature(changed, matrix, "my airways"))
    assert not freshness.is_same(one, freshness.mask_signature(mask, nodes.shifted(matrix, [1, 0, 0]), "my airways"))
    assert not freshness.is_same(one, freshness.mask_signature(mask.reshape(-1, 4, 50), matrix, "my airways"))
    assert not freshness.is_same("", "")


def test_without_a_signature_nothing_is_known_to_be_up_to_date(a_measured_desk):
    nodes.companion(a_measured_desk.airways, nodes.CENTERLINE).RemoveAttribute(freshness.MASK)
    assert freshness.is_out_of_date(a_measured_desk.airways)
    assert not freshness.is_out_of_date(segments.new_segmentation("Mine", a_measured_desk.ct))
