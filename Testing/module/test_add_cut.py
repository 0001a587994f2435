"""Add and cut: edits whose unit is the branch, as one step each, by the logic and by clicks."""

import module_scenes as scenes
import numpy as np
import pytest
import slicer
from scipy import ndimage

from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import branch_edits, nodes, origin, segments, steps
from AirwaySegSlicer.scene.branch_edits import ADD, BETWEEN, BEYOND, RECONNECT, SUBTREE


def below(mask: np.ndarray) -> np.ndarray:
    """The part of the drawn tree that is taken away: the end of one of its lower branches."""
    part = mask.copy()
    part[24:] = False
    part[:, : mask.shape[1] // 2] = False
    return part


@pytest.fixture(params=[False, True], ids=["in place", "below a transform"])
def a_missed_branch(request, slicer_host, tmp_path):
    """A CT, the tree's mask, and a result that lacks the end of one branch."""
    ct, mask = scenes.a_ct(moved=request.param)
    airways = segmentation.take_in(scenes.write_result(tmp_path / "result", ct, mask & ~below(mask)), ct)
    return ct, mask, airways


def world(ct, kji) -> tuple[float, float, float]:
    """The centre of a voxel (k, j, i) in the world."""
    ras = slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(ct)) @ [*(float(index) for index in kji[::-1]), 1.0]
    point = [0.0, 0.0, 0.0]
    ct.TransformPointToWorld(ras[:3].tolist(), point)
    return point[0], point[1], point[2]


def tip_of(part: np.ndarray) -> np.ndarray:
    """The middle of the lowest but two slices of a branch that runs downwards."""
    lowest = np.nonzero(part.any(axis=(1, 2)))[0][0] + 2
    return np.rint([lowest, *np.argwhere(part[lowest]).mean(axis=0)]).astype(int)


def voxels(airways, ct) -> np.ndarray:
    return slicer.util.arrayFromSegmentBinaryLabelmap(airways, "airways", ct) > 0


def logic_of():
    from AirwaySeg import AirwaySegLogic

    return AirwaySegLogic()


def test_a_click_adds_the_missed_end_as_one_step_that_can_be_undone(a_missed_branch):
    ct, mask, airways = a_missed_branch
    before, logic, missing = voxels(airways, ct), logic_of(), below(mask)
    proposed = logic.proposeEdit(airways, ADD, [world(ct, tip_of(missing))])
    assert np.array_equal(voxels(airways, ct), before)
    assert proposed.length_mm > 5 and 0.5 < proposed.score <= 1 and "mm of airway, score" in proposed.sentence
    logic.applyEdit(airways, proposed)
    after = voxels(airways, ct)
    assert after[before].all() and after[missing].mean() > 0.6
    assert (after & ~mask).sum() < 0.2 * (after & ~before).sum()
    assert steps.last_step(airways).startswith("add ")
    assert logic.undo(airways) == f"Undone: {proposed.name}."
    assert np.array_equal(voxels(airways, ct), before)
    logic.redo(airways)
    assert np.array_equal(voxels(airways, ct), after)


def test_all_beyond_a_point_is_cut_and_comes_back(a_missed_branch):
    ct, mask, airways = a_missed_branch
    before, logic = voxels(airways, ct), logic_of()
    column = before.copy()
    column[:26] = column[32:] = False
    column[:, : mask.shape[1] // 2] = False
    logic.cut(airways, [world(ct, np.rint(np.argwhere(column).mean(axis=0)).astype(int))])
    after = voxels(airways, ct)
    assert not (after & ~before).any() and 0 < (before & ~after).sum() < 0.2 * before.sum()
    assert np.nonzero(before & ~after)[1].min() >= mask.shape[1] // 2
    logic.undo(airways)
    assert np.array_equal(voxels(airways, ct), before)


def test_a_point_where_nothing_can_be_done_is_said_and_nothing_changes(a_missed_branch):
    ct, mask, airways = a_missed_branch
    before, logic = voxels(airways, ct), logic_of()
    inside = np.argwhere(before)[before.sum() // 2]
    for tool, points, words in (
        (ADD, [world(ct, inside)], "already"),
        (ADD, [world(ct, (-40, 5, 5))], "outside the scan"),
        (BEYOND, [world(ct, (80, 95, 2))], "mm from the airways"),
        (BETWEEN, [world(ct, inside), world(ct, inside)], "too close"),
        (BETWEEN, [world(ct, inside)], "Click 2 points"),
        (SUBTREE, [world(ct, inside)], "Measure"),
    ):
        with pytest.raises(RuntimeError, match=words):
            branch_edits.propose(airways, tool, points)
    slicer.mrmlScene.RemoveNode(ct)
    with pytest.raises(RuntimeError, match="not in the scene"):
        branch_edits.propose(airways, ADD, [(0.0, 0.0, 0.0)])
    assert logic.undo(airways) == "There is nothing to undo."


# The panel -----------------------------------------------------------------------------------------------------------


def click_at(desk, point) -> None:
    """Press in a view, as the placed markup tells it, and wait until it is taken."""
    section = desk.section("AddCut")
    pick = section._picking
    pick.node.AddControlPointWorld(list(point))
    desk.host.pump(lambda: section._picking is not pick)


def branch_middle(desk, last: int = -1) -> tuple[int, tuple[float, float, float]]:
    """A branch of the measured tree, and the point in its middle."""
    from AirwaySegSlicer.scene.branches import branch_points, branch_rows

    centerline = nodes.companion(desk.airways, nodes.CENTERLINE)
    number = branch_rows(centerline)[last].id
    points, _indices = branch_points(centerline, number)
    middle = [0.0, 0.0, 0.0]
    centerline.TransformPointToWorld(points[len(points) // 2].tolist(), middle)
    return number, (middle[0], middle[1], middle[2])


def test_a_branch_is_shown_and_deleted_by_click_and_apply(a_measured_desk):
    desk = a_measured_desk
    before = voxels(desk.airways, desk.ct)
    desk.open("addCutSection")
    desk.choose("toolComboBox", "Delete a branch and its subtree")
    desk.click("toolButton")
    number, middle = branch_middle(desk)
    click_at(desk, middle)
    assert f"Branch {number} and its subtree" in desk.ui.editLabel.text
    shown = nodes.companion(desk.airways, nodes.REVIEWED)
    assert shown.GetPolyData().GetNumberOfPoints() > 20 and np.array_equal(voxels(desk.airways, desk.ct), before)
    desk.click("applyEditButton")
    after = voxels(desk.airways, desk.ct)
    assert 0 < (before & ~after).sum() < 0.3 * before.sum() and not (after & ~before).any()
    assert "Delete branch" in desk.ui.statusLabel.text
    assert nodes.companion(desk.airways, nodes.REVIEWED) is None
    desk.click("undoButton")
    assert np.array_equal(voxels(desk.airways, desk.ct), before)
    assert not desk.host.messages


def test_escape_discards_and_leaving_the_tab_stops(a_measured_desk):
    desk = a_measured_desk
    before = voxels(desk.airways, desk.ct)
    desk.open("addCutSection")
    desk.choose("toolComboBox", "Delete beyond a point")
    desk.click("toolButton")
    click_at(desk, branch_middle(desk)[1])
    assert desk.ui.applyEditButton.enabled
    desk.click("discardEditButton")
    section = desk.section("AddCut")
    assert section.is_active() and not desk.ui.applyEditButton.enabled
    assert nodes.companion(desk.airways, nodes.REVIEWED) is None
    click_at(desk, branch_middle(desk)[1])
    marker = section._picking.node
    desk.open("exportTab")
    assert not section.is_active() and marker.GetScene() is None
    assert nodes.companion(desk.airways, nodes.REVIEWED) is None
    assert np.array_equal(voxels(desk.airways, desk.ct), before) and not desk.host.messages


def test_a_click_where_nothing_can_be_done_says_so_and_waits_on(a_measured_desk):
    desk = a_measured_desk
    desk.open("addCutSection")
    desk.click("toolButton")
    click_at(desk, world(desk.ct, np.argwhere(desk.mask)[100]))
    assert "already" in desk.ui.editLabel.text
    assert desk.section("AddCut").is_active() and not desk.ui.applyEditButton.enabled
    assert not desk.host.messages


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("Cut a leak between two points", "First point taken; now click the leak"),
        ("Join to another parent", "First point taken; now click the airway to which it belongs"),
    ],
)
def test_the_first_of_two_clicks_is_answered_and_one_beside_the_airways_is_not_taken(a_measured_desk, tool, words):
    desk = a_measured_desk
    desk.open("addCutSection")
    desk.choose("toolComboBox", tool)
    desk.click("toolButton")
    click_at(desk, world(desk.ct, (400, 400, 400)))
    assert "There is no airway near this point" in desk.ui.editLabel.text
    assert not desk.section("AddCut").points
    click_at(desk, branch_middle(desk)[1])
    assert words in desk.ui.editLabel.text and len(desk.section("AddCut").points) == 1
    assert not desk.host.messages


def test_closing_the_scene_says_what_was_not_applied(a_measured_desk):
    desk = a_measured_desk
    desk.open("addCutSection")
    desk.choose("toolComboBox", "Delete beyond a point")
    desk.click("toolButton")
    click_at(desk, branch_middle(desk)[1])
    slicer.mrmlScene.Clear()
    assert "Not applied: delete beyond a point." in desk.ui.statusLabel.text
    assert not desk.section("AddCut").is_active()


# Another parent ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["in place", "below a transform"])
def a_broken_branch(request, slicer_host, tmp_path):
    """A CT, the tree's mask, the end of one branch that a gap parts from it, and the result; the CT shows the gap."""
    ct, mask = scenes.a_ct(moved=request.param)
    piece, gap = below(mask), below(mask)
    piece[19:] = gap[:19] = False
    folder = scenes.write_result(tmp_path / "result", ct, mask & ~piece & ~gap)
    airways = segmentation.take_in(folder, ct)
    return ct, mask, piece, gap, airways


def unconnected(airways, ct, piece: np.ndarray) -> None:
    """Make a piece the segment of unconnected airways."""
    from AirwaySegSlicer.scene.voxel_changes import change

    change(airways, np.argwhere(piece)[:, ::-1], np.empty((0, 3), int), segments.UNCONNECTED_ID)


def test_an_unconnected_piece_is_joined_to_the_airway_that_is_clicked(a_broken_branch):
    ct, mask, piece, gap, airways = a_broken_branch
    unconnected(airways, ct, piece)
    before, logic = voxels(airways, ct), logic_of()
    end = mask & ~piece & ~gap
    end[:24] = end[27:] = False
    end[:, : mask.shape[1] // 2] = False
    points = [world(ct, tip_of(piece)), world(ct, np.rint(np.argwhere(end).mean(axis=0)).astype(int))]
    proposed = logic.reconnect(airways, *points)
    after = voxels(airways, ct)
    assert after[before].all() and after[piece].all() and after[gap].mean() > 0.6
    assert (after & ~mask).sum() < 0.4 * (after & ~before & ~piece).sum() + 5
    assert ndimage.label(after, np.ones((3, 3, 3)))[1] == 1 and proposed.score > 0.5
    assert airways.GetSegmentation().GetSegment(segments.UNCONNECTED_ID) is None
    found = origin.origins_on(airways, ct)
    assert (found[piece] == origin.NETWORK).all() and (found[after & ~before & ~piece] == origin.CLICK).all()
    assert logic.undo(airways).startswith("Undone: join a piece by ")
    assert np.array_equal(voxels(airways, ct), before)
    assert airways.GetSegmentation().GetSegment(segments.UNCONNECTED_ID) is not None


def test_a_wrong_joint_is_cut_and_joined_anew_as_one_step(a_broken_branch):
    ct, mask, piece, gap, airways = a_broken_branch
    tree, logic, half = mask & ~piece & ~gap, logic_of(), mask.shape[1] // 2
    others = np.argwhere(tree[:34, :half]).astype(int)  # the branch on the other side
    start = np.argwhere(piece)[np.argwhere(piece)[:, 0] >= 16].mean(axis=0)
    end = others[np.linalg.norm(others - start, axis=1).argmin()]
    wrong = np.zeros_like(mask)
    for part in np.linspace(0, 1, 60):
        wrong[tuple(np.rint(start + part * (end - start)).astype(int))] = True
    wrong = ndimage.binary_dilation(wrong, np.ones((3, 3, 3))) & ~tree & ~piece & ~gap
    slicer.util.updateSegmentBinaryLabelmapFromArray((tree | piece | wrong).astype(np.uint8), airways, "airways", ct)
    before = voxels(airways, ct)
    top = tree.copy()
    top[:24] = top[27:] = top[:, :half] = False
    joint, parent = np.rint(start + 0.2 * (end - start)).astype(int), np.rint(np.argwhere(top).mean(axis=0)).astype(int)
    with pytest.raises(RuntimeError, match="new parent is not in the airways"):
        logic.reconnect(airways, world(ct, joint), world(ct, (80, 95, 2)))
    proposed = logic.proposeEdit(airways, RECONNECT, [world(ct, joint), world(ct, parent)])
    assert np.array_equal(voxels(airways, ct), before) and "The joint would be cut" in proposed.sentence
    logic.applyEdit(airways, proposed)
    after = voxels(airways, ct)
    assert not (before & ~after & ~wrong).any() and after[gap].mean() > 0.6
    assert ndimage.label(after, np.ones((3, 3, 3)))[1] == 1
    assert ndimage.label(after & before, np.ones((3, 3, 3)))[1] == 2, "the bridge alone holds it"
    logic.undo(airways)
    assert np.array_equal(voxels(airways, ct), before)
