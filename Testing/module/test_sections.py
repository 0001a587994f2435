"""Tests of the panel's sections Overlays, Correct, Export and Fine-tune, clicked through on stand-ins."""

import json
import os

import module_scenes as scenes
import numpy as np
import pytest
import slicer
import slicerhost

from AirwaySegSlicer.scene import edits as correction
from AirwaySegSlicer.scene import nodes, overlays

# Overlays ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def an_overlay(a_measured_desk):
    """A panel whose result is coloured by generation."""
    a_measured_desk.open("measureTab")
    a_measured_desk.choose("overlayComboBox", "generation")
    return a_measured_desk


def test_every_overlay_can_be_chosen_and_taken_away(an_overlay):
    combo = an_overlay.ui.overlayComboBox
    before = set(scenes.snapshot())
    from_ct = {"wallThickness", "wallArea", "artery"}  # the stand-in of the command measures no walls
    for row in range(1, combo.count):
        before_it, wanted = overlays.shown_overlay(an_overlay.airways), combo.itemData(row)
        an_overlay.choose("overlayComboBox", combo.itemText(row))
        assert overlays.shown_overlay(an_overlay.airways) == (before_it if wanted in from_ct else wanted)
        errors = [text for kind, text in an_overlay.host.messages if kind == "error"]
        assert ["no branch was measured" in text for text in errors] == [True] * (wanted in from_ct)
        an_overlay.host.messages.clear()
        assert len(set(scenes.snapshot())) == len(before)
    an_overlay.choose("overlayComboBox", "Nothing")
    assert not overlays.shown_overlay(an_overlay.airways)
    assert nodes.companion(an_overlay.airways, nodes.SURFACE) is None and not an_overlay.host.messages


def test_surface_slices_opacity_legend_and_centerline_follow_their_boxes(an_overlay):
    airways = an_overlay.airways
    an_overlay.click("slicesCheckBox")
    an_overlay.click("surfaceCheckBox")
    assert nodes.companion(airways, nodes.SURFACE) is None
    volume = nodes.companion(airways, nodes.SLICES)
    composite = overlays.slice_composites()[0]
    assert composite.GetForegroundVolumeID() == volume.GetID()
    an_overlay.ui.opacitySlider.value = 0.3
    assert composite.GetForegroundOpacity() == pytest.approx(0.3)
    assert slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    an_overlay.click("legendCheckBox")
    assert not slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    an_overlay.click("centerlineCheckBox")
    assert not nodes.companion(airways, nodes.CENTERLINE).GetDisplayNode().GetVisibility()


def test_an_overlay_of_an_unmeasured_segmentation_is_measured_first(a_desk):
    mine = a_desk.draw("Mine")
    a_desk.choose("airwaysSelector", mine)
    a_desk.open("measureTab")
    a_desk.choose("overlayComboBox", "lobe")
    assert a_desk.ui.cancelButton.visible
    a_desk.wait()
    assert overlays.shown_overlay(mine) == "lobe" and not a_desk.host.messages


# Correction ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def an_editor(a_measured_desk):
    """A panel with the section Correct open."""
    a_measured_desk.open("correctSection")
    return a_measured_desk


def cut(desk):
    """Cut the branches of one side off, as Segment Editor does; the mask that is left."""
    mask = desk.mask.astype(np.uint8)
    mask[:, 60:] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, desk.airways, "airways", desk.ct)
    return mask


def test_the_editor_is_made_when_its_section_opens(a_measured_desk):
    assert a_measured_desk.section("Correct").editor is None
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentEditorNode")
    a_measured_desk.open("correctSection")
    editor = a_measured_desk.section("Correct").editor
    assert editor.segmentationNode() is a_measured_desk.airways and editor.sourceVolumeNode() is a_measured_desk.ct
    assert editor.currentSegmentID() == "airways"


def test_after_an_edit_tree_and_overlay_follow_by_the_button(an_editor):
    an_editor.open("measureTab")
    an_editor.choose("overlayComboBox", "generation")
    cut(an_editor)
    an_editor.host.pump(lambda: an_editor.ui.updateButton.isVisible())
    an_editor.click("updateButton")
    an_editor.wait()
    assert an_editor.ui.branchTable.rowCount < 7 and not an_editor.host.messages
    bounds = [0.0] * 6
    nodes.companion(an_editor.airways, nodes.SURFACE).GetRASBounds(bounds)
    whole = [0.0] * 6
    nodes.companion(an_editor.airways, nodes.INITIAL).GetRASBounds(whole)
    assert bounds != pytest.approx(whole, abs=5)


def test_after_an_edit_the_tree_follows_by_itself_where_that_is_wanted(an_editor):
    an_editor.click("autoUpdateCheckBox")
    an_editor.section("Correct")._timer.setInterval(20)
    cut(an_editor)
    an_editor.host.pump(lambda: an_editor.ui.branchTable.rowCount < 7)
    assert "removed" in an_editor.ui.editsLabel.text


def test_all_corrections_can_be_taken_back(an_editor):
    cut(an_editor)
    an_editor.click("takeBackButton")
    assert correction.count_edits(an_editor.airways) == correction.Edits(0, 0)


def test_leaving_the_module_lets_go_of_the_views(an_editor):
    slicerhost.leave(an_editor.widget)
    slicerhost.enter(an_editor.widget)
    assert an_editor.section("Correct").editor.segmentationNode() is an_editor.airways


# Export and fine-tuning ----------------------------------------------------------------------------------------------


@pytest.fixture
def an_export(a_measured_desk, tmp_path):
    """A panel with the section Export open and a folder chosen."""
    a_measured_desk.open("exportTab")
    assert not a_measured_desk.ui.exportButton.enabled
    a_measured_desk.ui.exportFolderEdit.currentPath = str(tmp_path / "out")
    return a_measured_desk


def test_everything_can_be_exported_and_nothing_is_replaced_without_asking(an_export, tmp_path):
    combo = an_export.ui.exportComboBox
    for row in range(combo.count):
        an_export.choose("exportComboBox", combo.itemText(row))
        an_export.click("exportButton")
        an_export.wait()
    names = {"CT-airways.nrrd", "CT-airways.nii.gz", "CT-airways.stl", "CT-airways.vtp", "CT-airways.csv", "CT-airways"}
    assert names <= set(os.listdir(tmp_path / "out")) and not an_export.host.messages
    assert an_export.ui.exportLabel.text == f"Written: {tmp_path / 'out' / 'CT-airways'}"
    an_export.host.answers.append(False)
    an_export.choose("exportComboBox", ".stl")
    old = os.path.getmtime(tmp_path / "out" / "CT-airways.stl")
    an_export.click("exportButton")
    assert "Replace it?" in an_export.host.messages[-1][1]
    assert os.path.getmtime(tmp_path / "out" / "CT-airways.stl") == old


def test_airways_that_do_not_know_their_ct_are_exported_on_the_chosen_one(an_export, tmp_path):
    theirs = an_export.draw("Theirs")
    theirs.SetNodeReferenceID(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole(), None)
    an_export.choose("airwaysSelector", theirs)
    for kind in (".nrrd", "case"):
        an_export.choose("exportComboBox", kind)
        an_export.click("exportButton")
        an_export.wait()
    assert not an_export.host.messages
    for path in (tmp_path / "out/Theirs.nrrd", tmp_path / "out/Theirs/airways.nrrd"):
        assert np.array_equal(slicer.util.arrayFromVolume(nodes.read_volume(str(path))), an_export.mask)


@pytest.fixture
def a_training(a_measured_desk, tmp_path):
    """A panel with the section Fine-tune open and a folder with one case."""
    a_measured_desk.open("trainTab")
    a_measured_desk.ui.trainingFolderEdit.currentPath = str(tmp_path / "training")
    a_measured_desk.click("addCaseButton")
    a_measured_desk.wait()
    return a_measured_desk


def test_a_case_is_added_listed_and_removed(a_training):
    assert a_training.ui.casesList.count == 1 and not a_training.host.messages
    [name] = os.listdir(os.path.join(a_training.ui.trainingFolderEdit.currentPath, "cases"))
    assert a_training.ui.casesList.item(0).text() == f"{name} of patient CT (0 voxels corrected)"
    assert name.startswith("CT-") and a_training.ui.finetuneLabel.text == f"Added {name}."
    a_training.choose("casesList", 0)
    a_training.click("removeCaseButton")
    a_training.wait()
    assert a_training.ui.casesList.count == 0


def test_a_training_runs_beside_other_work_and_its_table_and_model_appear(a_training, monkeypatch):
    assert not a_training.ui.finetuneButton.enabled
    a_training.ui.newModelEdit.text = "mine"
    a_training.click("finetuneButton")
    assert a_training.ui.finetuneButton.text == "Stop fine-tuning"
    assert a_training.ui.segmentButton.enabled and a_training.ui.segmentButton.text == "Segment airways"
    a_training.wait()
    assert a_training.ui.outcomeTable.rowCount == 6
    assert a_training.ui.outcomeTable.item(0, 2).text() == "85.0"
    assert a_training.ui.finetuneLabel.text == "Better, and listed as mine: it rose by 4.0 points."


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"verdict": "not better", "better": False, "name": None}, "Not better, and not listed: why."),
        ({"verdict": "unknown", "better": False, "name": None}, "Cannot be assessed: why."),
        ({"better": False, "name": None}, "Not better, and not listed: why."),
        ({"doubt": "Labels are mirrored."}, "Better, and listed as mine: why. Labels are mirrored."),
    ],
)
def test_not_better_differs_from_cannot_be_assessed(a_training, monkeypatch, about, said):
    monkeypatch.setenv("AIRWAYSEG_OUTCOME", json.dumps(about | {"reason": "why."}))
    a_training.ui.newModelEdit.text = "mine"
    a_training.click("finetuneButton")
    a_training.wait()
    assert a_training.ui.finetuneLabel.text == said


def test_a_training_can_be_stopped(a_training, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "slow")
    a_training.ui.newModelEdit.text = "mine"
    a_training.click("finetuneButton")
    a_training.host.pump(lambda: a_training.ui.finetuneProgressBar.value == 1)
    a_training.click("finetuneButton")
    a_training.wait()
    assert a_training.ui.finetuneLabel.text.startswith("Stopped.") and not a_training.host.messages
