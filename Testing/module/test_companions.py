"""Tests of what belongs to a result: not offered as airways or CT, moved with it, gone with what it stands for."""

import numpy as np
import pytest
import slicer
import slicerhost

from AirwaySegSlicer.commands import training_cases
from AirwaySegSlicer.scene import edits as correction
from AirwaySegSlicer.scene import nodes, segments


def offered(selector) -> list[str]:
    """Names of the nodes that a selector offers."""
    return [selector.nodeFromIndex(index).GetName() for index in range(selector.nodeCount())]


@pytest.fixture
def an_overlay(a_measured_desk):
    """A panel whose result is coloured by generation on the surface and over the slices."""
    a_measured_desk.open("measureTab")
    a_measured_desk.choose("overlayComboBox", "generation")
    a_measured_desk.click("slicesCheckBox")
    return a_measured_desk


# What can be chosen --------------------------------------------------------------------------------------------------


def test_neither_the_mask_before_correction_nor_the_overlay_is_offered(an_overlay, tmp_path):
    for _scene in ("made here", "reloaded"):
        assert offered(an_overlay.ui.airwaysSelector) == ["CT airways"]
        assert offered(an_overlay.ui.inputSelector) == ["CT"]
        path = str(tmp_path / "case.mrb")
        assert slicer.util.saveScene(path)
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(path)
        an_overlay.host.pump()
    assert correction.count_edits(an_overlay.airways) == correction.Edits(0, 0)
    assert nodes.companion(an_overlay.airways, nodes.SLICES).GetImageData() is not None


def test_the_mask_before_correction_is_refused_as_airways_by_everything(an_overlay):
    an_overlay.open("correctSection")
    initial = nodes.companion(an_overlay.airways, nodes.INITIAL)
    sentence = f"{initial.GetName()} is the mask of CT airways before correction; choose CT airways instead."
    an_overlay.parameters.airways = initial  # as a script may
    an_overlay.host.pump()
    assert an_overlay.ui.editsLabel.text == sentence
    assert an_overlay.section("Correct").editor.segmentationNode() is None
    an_overlay.host.conversation.clear()
    an_overlay.click("measureButton")
    assert an_overlay.host.messages == [("error", sentence)]
    for refused in (
        lambda: an_overlay.logic.showOverlay(initial, "lobe"),
        lambda: training_cases.new_case(initial, ""),
    ):
        with pytest.raises(RuntimeError, match="before correction"):
            refused()


def test_the_overlay_is_refused_as_ct(an_overlay):
    volume = nodes.companion(an_overlay.airways, nodes.SLICES)
    with pytest.raises(RuntimeError, match="CT airways overlay is a coloured overlay, not a CT"):
        an_overlay.logic.segment(volume)


# Which segment -------------------------------------------------------------------------------------------------------


def test_the_editor_opens_a_foreign_segmentation_at_its_airways(a_desk):
    theirs = a_desk.draw("Theirs", lung=np.ones_like(a_desk.mask), airways_of_theirs=a_desk.mask)
    other = a_desk.draw("Other", heart=np.ones_like(a_desk.mask), bronchi=a_desk.mask)
    a_desk.choose("airwaysSelector", theirs)
    a_desk.open("correctSection")
    editor = a_desk.section("Correct").editor
    assert editor.currentSegmentID() == "airways_of_theirs"
    a_desk.choose("airwaysSelector", other)
    assert editor.currentSegmentID() == "bronchi"
    editor.setCurrentSegmentID("heart")  # as the user likes
    a_desk.click("replaceCheckBox")  # Every choice updates the panel.
    assert editor.currentSegmentID() == "heart"
    a_desk.choose("airwaysSelector", theirs)
    a_desk.open("correctSection")
    assert editor.currentSegmentID() == "airways_of_theirs"


def test_the_editor_of_a_reloaded_scene_is_at_the_airways(a_desk, tmp_path):
    theirs = a_desk.draw("Theirs", lung=np.ones_like(a_desk.mask), bronchi=a_desk.mask)
    a_desk.choose("airwaysSelector", theirs)
    a_desk.open("correctSection")
    path = str(tmp_path / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    a_desk.host.pump()
    slicer.util.loadScene(path)
    a_desk.host.pump()
    editor = a_desk.section("Correct").editor
    assert editor.segmentationNode().GetName() == "Theirs" and editor.currentSegmentID() == "bronchi"


def test_where_several_segments_may_be_the_airways_the_panel_says_so_and_goes_on(a_desk):
    plain = a_desk.draw("Plain", first=np.ones_like(a_desk.mask), second=a_desk.mask)
    a_desk.open("correctSection")
    a_desk.choose("airwaysSelector", plain)
    sentence = "Plain has 2 segments; show only the one with the airways, or call it Airways."
    assert a_desk.ui.editsLabel.text == sentence and not a_desk.host.messages
    assert a_desk.ui.measureButton.enabled and a_desk.ui.updateButton.enabled
    assert a_desk.section("Correct").editor.segmentationNode() is plain


def test_the_lumen_is_taken_and_not_the_wall(a_desk):
    whole = np.ones_like(a_desk.mask)
    theirs = a_desk.draw("Theirs", lung_airways_wall=whole, lung_airways=a_desk.mask, lung_vessels=whole)
    assert segments.airway_segment_id(theirs) == "lung_airways"
    for title in ("lung_airways", "lung_airways_wall"):
        theirs.GetSegmentation().GetSegment(title).SetName("Airways")
    assert segments.airway_segment_id(theirs) == "lung_airways"


def test_the_code_counts_more_than_the_name(a_desk):
    whole = np.ones_like(a_desk.mask)
    theirs = a_desk.draw("Theirs", lung=whole, tree=a_desk.mask, bronchiectasis=whole)
    tag = slicer.vtkSegment.GetTerminologyEntryTagName()
    theirs.GetSegmentation().GetSegment("tree").SetTag(tag, segments.TERMINOLOGY)
    assert segments.airway_segment_id(theirs) == "tree"


# Where it is ---------------------------------------------------------------------------------------------------------


def a_transform() -> slicer.vtkMRMLLinearTransformNode:
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
    turned = np.array([[0, -1, 0, 5], [1, 0, 0, -7], [0, 0, 1, 9], [0, 0, 0, 1.0]])
    slicer.util.updateTransformMatrixFromArray(transform, turned)
    return transform


def belongings(desk) -> list:
    """What lies in space of what belongs to the chosen airways."""
    found = [nodes.companion(desk.airways, role) for role in nodes.ROLES]
    return [node for node in found if node is not None and node.IsA("vtkMRMLTransformableNode")]


def bounds(node) -> list[float]:
    edges = [0.0] * 6
    node.GetRASBounds(edges)
    return edges


def test_all_that_belongs_to_the_airways_follows_their_transform(an_overlay):
    an_overlay.select_branch(5)
    transform = a_transform()
    assert len(belongings(an_overlay)) == 6
    an_overlay.airways.SetAndObserveTransformNodeID(transform.GetID())
    assert {node.GetTransformNodeID() for node in belongings(an_overlay)} == {transform.GetID()}
    assert correction.count_edits(an_overlay.airways) == correction.Edits(0, 0)
    an_overlay.airways.SetAndObserveTransformNodeID(None)
    assert {node.GetTransformNodeID() for node in belongings(an_overlay)} == {None}


def test_it_follows_in_another_module_too(an_overlay):
    airways = an_overlay.airways
    slicerhost.leave(an_overlay.widget)
    transform = a_transform()
    airways.SetAndObserveTransformNodeID(transform.GetID())
    assert nodes.companion(airways, nodes.CENTERLINE).GetTransformNodeID() == transform.GetID()


def test_a_hardened_transform_is_hardened_in_all_and_no_correction_of_the_user(an_overlay):
    an_overlay.airways.SetAndObserveTransformNodeID(a_transform().GetID())
    before = [bounds(node) for node in belongings(an_overlay)]
    an_overlay.airways.HardenTransform()
    for node, edges in zip(belongings(an_overlay), before, strict=True):
        assert node.GetTransformNodeID() is None and bounds(node) == pytest.approx(edges, abs=1.5)
    assert correction.count_edits(an_overlay.airways) == correction.Edits(0, 0)


# What is shown -------------------------------------------------------------------------------------------------------


def test_a_centerline_that_was_hidden_elsewhere_stays_hidden_until_the_box_is_used(a_measured_desk):
    a_measured_desk.open("measureTab")

    def display():
        return nodes.companion(a_measured_desk.airways, nodes.CENTERLINE).GetDisplayNode()

    display().SetVisibility(False)  # as the eye in the module Data does
    a_measured_desk.click("measureButton")
    a_measured_desk.wait()
    a_measured_desk.choose("overlayComboBox", "lobe")
    assert not display().GetVisibility()
    a_measured_desk.click("centerlineCheckBox")
    a_measured_desk.click("centerlineCheckBox")
    assert display().GetVisibility()


def test_the_box_hides_the_centerline_of_airways_that_are_measured_later(a_desk):
    a_desk.open("measureTab")
    a_desk.click("centerlineCheckBox")
    a_desk.segment()
    assert not nodes.companion(a_desk.airways, nodes.CENTERLINE).GetDisplayNode().GetVisibility()


def highlights() -> list:
    """The highlights in the scene."""
    results = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in (nodes.companion(result, nodes.HIGHLIGHT) for result in results) if node is not None]


def test_the_highlight_goes_when_other_airways_are_chosen(a_measured_desk):
    mine = a_measured_desk.draw("Mine")
    a_measured_desk.select_branch(5)
    assert highlights()
    a_measured_desk.choose("airwaysSelector", mine)
    assert not highlights()


def test_the_highlight_of_a_saved_scene_is_gone_as_no_row_is_chosen_in_it(a_measured_desk, tmp_path):
    a_measured_desk.select_branch(5)
    path = str(tmp_path / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    a_measured_desk.host.pump()
    assert a_measured_desk.ui.branchTable.rowCount == 7
    assert a_measured_desk.section("Result").table.chosen() is None and not highlights()


def test_the_highlight_goes_when_the_tree_is_measured_in_another_module(a_measured_desk):
    airways = a_measured_desk.airways
    a_measured_desk.select_branch(5)
    slicerhost.leave(a_measured_desk.widget)
    a_measured_desk.logic.measure(airways)
    slicerhost.enter(a_measured_desk.widget)
    assert a_measured_desk.section("Result").table.chosen() is None and not highlights()


@pytest.mark.parametrize("persistent", [0, 1])
def test_picking_leaves_the_mouse_mode_as_persistent_as_it_was(a_measured_desk, persistent):
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    interaction.SetPlaceModePersistence(persistent)
    a_measured_desk.click("pickButton")
    assert interaction.GetPlaceModePersistence() == 0
    a_measured_desk.click("pickButton")
    assert interaction.GetPlaceModePersistence() == persistent
    interaction.SetPlaceModePersistence(0)
