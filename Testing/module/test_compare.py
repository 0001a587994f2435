"""A second segmentation against the airways: figures, agreement in three colours, and how all of it is removed."""

import numpy as np
import pytest
import slicer

from AirwaySegSlicer.commands import compare
from AirwaySegSlicer.scene import comparison, nodes, overlays
from AirwaySegSlicer.scene.branch_edits import Proposed
from AirwaySegSlicer.scene.freshness import is_marked
from AirwaySegSlicer.scene.segments import first_voxel_between, segment_voxels


def theirs_of(mask: np.ndarray) -> np.ndarray:
    """The tree without the end of a branch, and a block that is not in it."""
    other = mask.copy()
    other[:20, 50:] = False
    other[2:8, 3:9, 28:34] = True
    return other


@pytest.fixture
def a_compared_desk(a_measured_desk):
    """A panel whose result was compared with a drawn segmentation."""
    desk = a_measured_desk
    desk.other = theirs_of(desk.mask)
    desk.theirs = desk.draw("Theirs", airways=desk.other)
    desk.open("compareSection")
    desk.choose("otherSelector", desk.theirs)
    desk.click("compareButton")
    desk.wait()
    assert not desk.host.messages
    return desk


def map_on_ct(desk) -> np.ndarray:
    node = nodes.companion(desk.airways, nodes.COMPARED)
    low = first_voxel_between(nodes.ijk_to_ras(node), nodes.ijk_to_ras(desk.ct))[::-1]
    array, whole = slicer.util.arrayFromVolume(node), np.zeros(desk.mask.shape, np.uint8)
    whole[tuple(slice(start, start + count) for start, count in zip(low, array.shape, strict=True))] = array
    return whole


def test_the_table_is_that_of_the_library_and_the_map_has_three_values(a_compared_desk):
    desk, table = a_compared_desk, a_compared_desk.ui.compareTable
    from AirwaySegLib.evaluation.metrics import overlap_of

    counts = overlap_of(desk.mask, desk.other)
    rows = {table.item(row, 0).text(): table.item(row, 1).text() for row in range(table.rowCount)}
    assert (
        rows["Precision, %"] == f"{100 * counts.precision:.1f}" and rows["Dice (DSC), %"] == f"{100 * counts.dice:.1f}"
    )
    assert rows["Voxels only in the other"] == f"{counts.false_negative:,}" == "216"
    assert float(rows["Tree length detected (TLD), %"]) > 90 and int(rows["Branches of the other"]) > 3
    expected = np.where(desk.mask & desk.other, 1, np.where(desk.mask, 2, np.where(desk.other, 3, 0)))
    assert np.array_equal(map_on_ct(desk), expected)
    assert "Theirs" in desk.ui.compareLabel.text


def test_it_is_coloured_on_the_surface_and_in_the_slices_until_it_is_removed(a_compared_desk):
    desk = a_compared_desk
    assert desk.parameters.overlay == comparison.AGREEMENT
    surface = nodes.companion(desk.airways, nodes.SURFACE)
    values = slicer.util.arrayFromModelPointData(surface, comparison.AGREEMENT)
    assert set(np.unique(values)) == {0.0, 1.0, 2.0}
    bounds, points = [0.0] * 6, np.argwhere(desk.other & ~desk.mask).mean(axis=0)
    surface.GetRASBounds(bounds)
    middle = slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(desk.ct)) @ [*points[::-1], 1]
    gaps = np.linalg.norm(slicer.util.arrayFromModelPoints(surface)[values == 2] - middle[:3], axis=1)
    assert 2 < gaps.min() and gaps.max() < 6, "round the block of 6 x 6 x 6 voxels"
    desk.click("slicesCheckBox")
    assert nodes.companion(desk.airways, nodes.SLICES) is not None
    before = desk.logic.steps.undo(desk.airways)
    assert before == "There is nothing to undo."
    desk.click("removeComparisonButton")
    for role in (nodes.COMPARED, nodes.COMPARISON, nodes.SURFACE, nodes.SLICES):
        assert nodes.companion(desk.airways, role) is None
    assert desk.parameters.overlay == "" and not desk.ui.compareTable.visible and not desk.host.messages


def test_comparing_draws_once_and_keeps_the_chosen_branch(a_measured_desk, monkeypatch):
    desk, drawn = a_measured_desk, []
    show = desk.logic.showOverlay
    monkeypatch.setattr(desk.logic, "showOverlay", lambda *given: drawn.append(given[1]) or show(*given))
    desk.select_branch(3)
    theirs = desk.draw("Theirs", airways=theirs_of(desk.mask))
    desk.open("compareSection")
    desk.choose("otherSelector", theirs)
    desk.ui.progressBar.maximum = 7  # as another job left it
    desk.click("compareButton")
    assert desk.ui.progressBar.maximum == 0
    desk.wait()
    assert drawn == [comparison.AGREEMENT] and desk.section("Result").table.chosen() == 3
    assert nodes.companion(desk.airways, nodes.HIGHLIGHT) is not None
    drawn.clear()
    desk.click("compareButton")
    desk.wait()
    assert drawn == [comparison.AGREEMENT] and not desk.host.messages


def test_an_edit_makes_it_older_than_the_mask_and_other_airways_have_none(a_compared_desk):
    desk = a_compared_desk
    box = np.zeros_like(desk.mask)
    box[2:5, 50:53, 30:34] = True
    shift = first_voxel_between(nodes.ijk_to_ras(desk.ct), segment_voxels(desk.airways).matrix)
    desk.logic.applyEdit(desk.airways, Proposed("add", "", add=np.argwhere(box)[:, ::-1] + shift))
    desk.host.pump(lambda: is_marked(nodes.companion(desk.airways, nodes.COMPARISON)))
    desk.host.pump(lambda: "Older than the mask" in desk.ui.compareLabel.text)
    desk.choose("airwaysSelector", desk.theirs)
    assert desk.parameters.overlay == "" and desk.ui.compareTable.rowCount == 0 and not desk.host.messages


def test_a_label_map_on_another_grid_is_a_reference_too(a_measured_desk):
    desk = a_measured_desk
    finer = slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(desk.ct)) @ np.diag([0.5, 0.5, 0.5, 1])
    finer[:3, 3] -= finer[:3, :3] @ [0.5, 0.5, 0.5]
    fine = desk.mask.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    label = slicer.util.addVolumeFromArray(
        7 * fine.astype(np.uint8), finer, "Fine", nodeClassName="vtkMRMLLabelMapVolumeNode"
    )
    rows = desk.logic.compare(desk.airways, label)
    assert float(rows["Dice (DSC), %"]) > 99
    desk.logic.showOverlay(desk.airways, comparison.AGREEMENT)
    desk.logic.removeComparison(desk.airways)
    assert overlays.shown_overlay(desk.airways) == ""


def test_what_cannot_be_compared_gets_a_sentence(a_measured_desk):
    desk = a_measured_desk
    for other, words in (
        (None, "Choose a segmentation or label map to compare with"),
        (desk.airways, "is compared with itself"),
        (desk.draw("Empty", airways=np.zeros_like(desk.mask)), "No airways of Empty lie in CT"),
    ):
        with pytest.raises(RuntimeError, match=words):
            desk.logic.compare(desk.airways, other)
    with pytest.raises(RuntimeError, match="Compare CT airways with another segmentation first"):
        desk.logic.showOverlay(desk.airways, comparison.AGREEMENT)
    with pytest.raises(RuntimeError, match=r"no readable metrics\.json"):
        compare.read_metrics("missing.json")


def test_closing_the_scene_while_it_compares_ends_it_and_leaves_nothing(a_measured_desk):
    desk = a_measured_desk
    desk.open("compareSection")
    desk.choose("otherSelector", desk.draw("Theirs", airways=theirs_of(desk.mask)))
    desk.click("compareButton")
    slicer.mrmlScene.Clear(0)
    desk.wait()
    desk.host.pump()
    assert desk.ui.compareTable.rowCount == 0 and not desk.ui.compareButton.enabled
    assert not slicer.util.getNodesByClass("vtkMRMLTableNode") and not desk.host.messages


def test_it_comes_back_with_a_saved_scene(a_compared_desk, tmp_path):
    desk, path = a_compared_desk, str(tmp_path / "case.mrb")
    rows, before = comparison.comparison_rows(desk.airways), map_on_ct(desk)
    desk.save_and_reload(path)
    assert comparison.comparison_rows(desk.airways) == rows and np.array_equal(map_on_ct(desk), before)
    assert desk.ui.compareTable.rowCount == len(rows) and not desk.host.messages
