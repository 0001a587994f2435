"""Tests of AirwaySegSlicer.scene.edits: edited voxels are counted, told apart, taken back and noticed."""

import module_scenes as scenes
import numpy as np
import pytest
import slicer

from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import edits as correction
from AirwaySegSlicer.scene import segments


@pytest.fixture(params=[False, True], ids=["in place", "below a transform"])
def a_corrected_tree(request, slicer_host, tmp_path):
    """CT, the network's mask, and a segmentation to which 27 voxels were added and from which a slice was taken."""
    ct, mask = scenes.a_ct(moved=request.param)
    airways = segmentation.take_in(scenes.write_result(tmp_path / "result", ct, mask), ct)
    corrected = mask.copy()
    corrected[:3, :3, :3] = True
    corrected[60] = False
    edit(airways, corrected, ct)
    return ct, mask, airways, corrected


def edit(airways, mask, ct):
    """Change the voxels as Segment Editor does."""
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), airways, "airways", ct)


def test_added_and_removed_voxels_are_counted(a_corrected_tree):
    _ct, mask, airways, _corrected = a_corrected_tree
    assert correction.count_edits(airways) == correction.Edits(27, int(mask[60].sum()))


def test_edited_voxels_are_where_the_masks_differ(a_corrected_tree):
    ct, mask, airways, corrected = a_corrected_tree
    before, after, edited = correction.edited_voxels(airways, ct)
    assert np.array_equal(before, mask) and np.array_equal(after, corrected)
    assert np.array_equal(edited, mask != corrected)


def test_all_corrections_can_be_taken_back(a_corrected_tree):
    ct, mask, airways, _corrected = a_corrected_tree
    correction.take_back(airways)
    assert correction.count_edits(airways) == correction.Edits(0, 0)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(airways, "airways", ct), mask)


def test_another_segment_in_the_same_layer_survives_the_taking_back(a_corrected_tree):
    ct, mask, airways, _corrected = a_corrected_tree
    other = airways.GetSegmentation().AddEmptySegment("other")
    block = np.zeros(mask.shape, np.uint8)
    block[70:75, 30:35, 5:9] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(block, airways, other, ct)
    airways.GetSegmentation().CollapseBinaryLabelmaps(False)
    correction.take_back(airways)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(airways, other, ct), block)


def test_a_segmentation_from_elsewhere_has_no_known_corrections(slicer_host):
    ct, _mask = scenes.a_ct()
    mine = segments.new_segmentation("Mine", ct)
    with pytest.raises(RuntimeError, match="not known"):
        correction.count_edits(mine)


def test_edits_and_moves_are_noticed_until_the_segmentation_is_watched_no_longer(a_corrected_tree):
    ct, mask, airways, corrected = a_corrected_tree
    edited, moved = set(), []
    watch = correction.EditWatch(edited.add, moved.append)
    assert watch.watch([airways]) == [airways] and watch.watch([airways]) == []
    edit(airways, mask, ct)
    assert edited == {airways} and not moved
    airways.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    assert moved == [airways]
    edited.clear()
    watch.watch([])
    edit(airways, corrected, ct)
    airways.SetAndObserveTransformNodeID(None)
    assert not edited and moved == [airways]


def test_undo_and_redo_are_noticed(a_corrected_tree):
    ct, mask, airways, _corrected = a_corrected_tree
    history, edited = slicer.vtkSegmentationHistory(), []
    history.SetSegmentation(airways.GetSegmentation())
    history.SaveState()
    edit(airways, mask, ct)
    watch = correction.EditWatch(edited.append, lambda node: None)
    watch.watch([airways])
    for step in (history.RestorePreviousState, history.RestoreNextState):
        edited.clear()
        assert step() and edited
    watch.watch([])


def test_what_was_before_correction_is_no_result_itself(a_corrected_tree):
    initial = correction.initial_of(a_corrected_tree[2])
    with pytest.raises(RuntimeError, match="is the mask of CT airways before correction; choose CT airways instead"):
        correction.take_back(initial)
