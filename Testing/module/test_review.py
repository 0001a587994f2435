"""The review: its list, decisions voxel by voxel, undo and redo, saving, and the tab with its keys and views."""

import json
import random

import numpy as np
import pytest
import slicer
import slicerhost
from lungtrees import draw, without
from module_review import item_of, suspect, voxels
from scipy import ndimage

from AirwaySegLib.tree.suspect import suspects_to_json
from AirwaySegLib.tree.suspects import find_suspects
from AirwaySegSlicer.scene import decisions, nodes, review, review_views, segments, steps, surfaces, tags, texts
from AirwaySegSlicer.scene.branch_voxels import branch_voxels, subtree
from AirwaySegSlicer.scene.changes import preview_of
from AirwaySegSlicer.scene.review_kinds import APPLIED, END, LEAK, MISSING_BRANCH, PIECE, PROPOSED, TIP


def state(desk) -> tuple:
    return voxels(desk).tobytes(), voxels(desk, "unconnected").tobytes(), tags.read_tag(desk.airways, tags.DECISIONS)


# What a run leaves ---------------------------------------------------------------------------------------------------


def test_probability_and_repairs_are_in_the_scene_and_in_no_selector(a_review):
    probability = nodes.companion(a_review.airways, nodes.PROBABILITY)
    array = slicer.util.arrayFromVolume(probability)
    assert array.size < a_review.mask.size and (array > 0).sum() == a_review.mask.sum()
    assert probability.GetHideFromEditors() and nodes.first_ct() is a_review.ct
    assert len(texts.document_of(a_review.airways, nodes.REPAIRS)["repairs"]) == 3
    whole = segments.mask_on_ct(a_review.airways, a_review.ct)
    from AirwaySegSlicer.scene.evidence import probability_on

    again = probability_on(a_review.airways, whole.shape, nodes.ijk_to_ras(a_review.ct))
    assert np.array_equal(again, np.where(a_review.mask, 240, 0))


def test_the_list_is_ordered_by_what_would_change_and_a_piece_is_asked_about_once(a_review):
    items = a_review.logic.reviewItems(a_review.airways)
    expected = [(TIP, 0), (APPLIED, 1), (PROPOSED, 2), (PROPOSED, 3), (PIECE, 5), (END, 0)]
    assert [(item.kind, item.number) for item in items] == expected
    # 23 mm of which 0.3 may be wrong, 33 mm of score 0.2, 43 mm of 0.1, 4 mm of 0.9, and six radii of 1 mm of 0.1
    assert [item.urgency for item in items[1:]] == pytest.approx([6.9, 6.6, 4.3, 3.6, 0.6])
    assert a_review.logic.reviewProgress(a_review.airways) == review.Progress(0, 6, 0, 0)


def test_a_segment_without_airways_is_listed_with_what_the_others_of_its_lobe_have(a_review):
    lacking = [s for s in find_suspects(draw(without("B6")).tree) if "RB6" in s.reason]
    document = json.loads(suspects_to_json(lacking))
    texts.put_document(a_review.airways, nodes.SUSPECTS, document, "suspects")
    item = item_of(a_review, MISSING_BRANCH)
    assert item.change_mm == lacking[0].facts["segment_mm"] > 15


# Decisions -----------------------------------------------------------------------------------------------------------


def test_an_accepted_proposal_adds_its_bridge_and_piece_and_what_it_springs_from(a_review):
    desk = a_review
    desk.logic.decide(desk.airways, item_of(desk, PROPOSED, 3), "accept")
    pieces, bridges = desk.pieces, desk.bridges
    assert np.array_equal(voxels(desk), desk.mask | bridges[2] | pieces[3] | bridges[3] | pieces[4])
    assert np.array_equal(voxels(desk, "unconnected"), pieces[5])
    assert desk.logic.reviewProgress(desk.airways) == review.Progress(1, 6, 33.0 + 43.0, 0)
    desk.logic.decide(desk.airways, item_of(desk, PROPOSED, 2), "refuse")  # and with it what hangs on it
    assert np.array_equal(voxels(desk), desk.mask)
    assert np.array_equal(voxels(desk, "unconnected"), pieces[3] | pieces[4] | pieces[5])


def test_a_refused_repair_that_was_applied_leaves_the_airways_with_its_piece(a_review):
    desk = a_review
    desk.logic.decide(desk.airways, item_of(desk, APPLIED, 1), "refuse")
    assert np.array_equal(voxels(desk), desk.mask & ~desk.bridges[1] & ~desk.pieces[2])
    assert np.array_equal(
        voxels(desk, "unconnected"), desk.pieces[2] | desk.pieces[3] | desk.pieces[4] | desk.pieces[5]
    )
    assert desk.logic.reviewProgress(desk.airways).removed_mm == 23
    desk.logic.decide(desk.airways, item_of(desk, APPLIED, 1), "accept")
    assert np.array_equal(voxels(desk), desk.mask) and desk.logic.reviewProgress(desk.airways).removed_mm == 0


def test_a_piece_is_taken_as_it_is_or_removed_and_a_tip_cut_off(a_review):
    desk = a_review
    desk.logic.decide(desk.airways, item_of(desk, PIECE, 5), "accept")
    assert np.array_equal(voxels(desk), desk.mask | desk.pieces[5])
    desk.logic.decide(desk.airways, item_of(desk, PIECE, 5), "refuse")
    assert np.array_equal(voxels(desk), desk.mask) and not (voxels(desk, "unconnected") & desk.pieces[5]).any()
    desk.logic.decide(desk.airways, item_of(desk, TIP), "refuse")
    gone = desk.mask & ~voxels(desk)
    assert 50 < gone.sum() < 0.2 * desk.mask.sum() and not (voxels(desk) & ~desk.mask).any()
    assert ndimage.label(voxels(desk), np.ones((3, 3, 3)))[1] == ndimage.label(desk.mask, np.ones((3, 3, 3)))[1]


def test_a_refused_leak_is_cut_at_its_narrowest_place_and_not_with_its_whole_branch(a_review):
    desk = a_review
    document = texts.document_of(desk.airways, nodes.SUSPECTS)
    document["suspects"] = [suspect(desk, LEAK, 0, 0.9)]  # at the tip of a branch that tapers
    texts.put_document(desk.airways, nodes.SUSPECTS, document, "suspects")
    item = item_of(desk, LEAK)
    whole = branch_voxels(desk.airways, subtree(desk.airways, item.branch))
    desk.logic.decide(desk.airways, item, "refuse")
    gone = desk.mask & ~voxels(desk)
    assert 0 < gone.sum() < 0.7 * len(whole) and not (voxels(desk) & ~desk.mask).any()
    assert ndimage.label(voxels(desk), np.ones((3, 3, 3)))[1] == ndimage.label(desk.mask, np.ones((3, 3, 3)))[1]


def test_one_decision_about_several_points_is_one_step(a_review):
    desk, before = a_review, state(a_review)
    chosen = [item_of(desk, PROPOSED, 3), item_of(desk, PROPOSED, 2), item_of(desk, PIECE, 5)]
    assert desk.logic.decideAll(desk.airways, chosen, "accept") == []
    pieces, bridges = desk.pieces, desk.bridges
    assert np.array_equal(voxels(desk), desk.mask | bridges[2] | pieces[3] | bridges[3] | pieces[4] | pieces[5])
    # 33 mm of repair 2 and 43 mm of repair 3, which brings 2 with it, and the piece of 4 mm
    assert desk.logic.reviewProgress(desk.airways) == review.Progress(3, 6, 33.0 + 43.0 + 4.0, 0)
    name = steps.last_step(desk.airways)
    assert name.startswith("accept: 3 points, 2 × proposed repair, 1 × unconnected piece")
    assert name.endswith("(1 × without a bridge, no way is seen)")
    after = state(desk)
    assert desk.logic.undo(desk.airways) == f"Undone: {name}." and state(desk) == before
    assert desk.logic.redo(desk.airways) == f"Done again: {name}." and state(desk) == after


def test_points_that_cannot_be_decided_are_told_and_the_others_decided(a_review):
    desk, before = a_review, state(a_review)
    document = texts.document_of(desk.airways, nodes.REPAIRS)
    document["repairs"][1]["state"] = "refused"
    texts.put_document(desk.airways, nodes.REPAIRS, document, "repairs")
    chosen = [item_of(desk, PROPOSED, 3), item_of(desk, PIECE, 5)]
    [why] = desk.logic.decideAll(desk.airways, chosen, "accept")
    assert why.startswith("Repair 3 leads nowhere") and item_of(desk, PROPOSED, 3).is_open
    assert np.array_equal(voxels(desk), desk.mask | desk.pieces[5])
    assert steps.last_step(desk.airways).startswith("accept: unconnected piece 5")
    desk.logic.undo(desk.airways)
    with pytest.raises(RuntimeError, match="Repair 3 leads nowhere"):
        desk.logic.decideAll(desk.airways, chosen[:1], "accept")
    assert state(desk) == before


def test_a_repair_that_leads_nowhere_is_shown_without_a_message_and_cannot_be_accepted(a_review):
    desk = a_review
    document = texts.document_of(desk.airways, nodes.REPAIRS)
    document["repairs"][1]["state"] = "refused"
    texts.put_document(desk.airways, nodes.REPAIRS, document, "repairs")
    item = item_of(desk, PROPOSED, 3)
    shown, adds = preview_of(desk.airways, item)
    expected = np.argwhere(desk.bridges[3] | desk.pieces[4])[:, ::-1]  # x, y, z
    assert adds and sorted(map(tuple, shown.tolist())) == sorted(map(tuple, expected.tolist()))
    with pytest.raises(RuntimeError, match="Repair 3 leads nowhere"):
        desk.logic.decide(desk.airways, item, "accept")


def test_a_repair_that_leads_nowhere_but_is_in_the_airways_is_shown_as_something_to_remove(a_review):
    desk = a_review
    document = texts.document_of(desk.airways, nodes.REPAIRS)
    document["repairs"][1]["state"] = "refused"
    texts.put_document(desk.airways, nodes.REPAIRS, document, "repairs")
    own = desk.bridges[3] | desk.pieces[4]
    with_it = (desk.mask | own).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(with_it, desk.airways, "airways", desk.ct)
    shown, adds = preview_of(desk.airways, item_of(desk, PROPOSED, 3))
    assert not adds
    assert sorted(map(tuple, shown.tolist())) == sorted(map(tuple, np.argwhere(own)[:, ::-1].tolist()))  # x, y, z


def test_what_cannot_be_decided_gets_a_sentence_and_changes_nothing(a_review):
    desk, before = a_review, state(a_review)
    with pytest.raises(RuntimeError, match="accept, refuse or later, not maybe"):
        desk.logic.decide(desk.airways, item_of(desk, PIECE, 5), "maybe")
    document = texts.document_of(desk.airways, nodes.REPAIRS)
    document["repairs"][1]["state"] = "refused"
    texts.put_document(desk.airways, nodes.REPAIRS, document, "repairs")
    with pytest.raises(RuntimeError, match="Repair 3 leads nowhere"):
        desk.logic.decide(desk.airways, item_of(desk, PROPOSED, 3), "accept")
    nodes.remove_companion(desk.airways, nodes.CENTERLINE)
    with pytest.raises(RuntimeError, match="Measure CT airways first"):
        desk.logic.decide(desk.airways, item_of(desk, TIP), "refuse")
    assert state(desk) == before and desk.logic.undo(desk.airways) == "There is nothing to undo."


@pytest.mark.parametrize("panel", [True, False], ids=["the editor's undo", "without an editor"])
def test_50_random_decisions_with_undo_and_redo_restore_voxels_and_decisions(a_review, panel):
    desk, rng = a_review, random.Random(5)
    if not panel:
        desk.logic.steps.editor_of = lambda airways: None
    past, future = [state(desk)], []
    for _step in range(50):
        action = rng.choice(["decide", "decide", "decide", "undo", "redo"])
        if action == "undo" and len(past) > 1 and len(future) < 15:
            desk.logic.undo(desk.airways)
            future.append(past.pop())
        elif action == "redo" and future:
            desk.logic.redo(desk.airways)
            past.append(future.pop())
        else:
            item = rng.choice(desk.logic.reviewItems(desk.airways))
            desk.logic.decide(desk.airways, item, rng.choice(["accept", "refuse"]))
            past.append(state(desk))
            future = []
        assert state(desk) == past[-1], action
    for _step in range(min(len(past) - 1, 15)):
        assert desk.logic.undo(desk.airways).startswith("Undone: ")
        future.append(past.pop())
        assert state(desk) == past[-1]


def test_decisions_voxels_and_the_list_come_back_with_a_saved_scene(a_review, tmp_path):
    desk, path = a_review, str(tmp_path / "case.mrb")
    desk.logic.decide(desk.airways, item_of(desk, PROPOSED, 2), "accept")
    desk.logic.decide(desk.airways, item_of(desk, APPLIED, 1), "refuse")
    desk.logic.decide(desk.airways, item_of(desk, PIECE, 5), "later")
    before, items = state(desk), desk.logic.reviewItems(desk.airways)
    desk.save_and_reload(path)
    assert state(desk) == before and not desk.host.messages
    again = desk.logic.reviewItems(desk.airways)
    assert [(one.kind, one.number, one.decision) for one in again] == [(a.kind, a.number, a.decision) for a in items]
    desk.logic.decide(desk.airways, item_of(desk, APPLIED, 1), "accept")
    assert np.array_equal(voxels(desk), desk.mask | desk.bridges[2] | desk.pieces[3])
    assert slicer.util.arrayFromVolume(nodes.companion(desk.airways, nodes.PROBABILITY)).max() == 240


def test_decisions_survive_a_new_measurement_and_pieces_beside_the_airways_stay_listed(a_review):
    desk = a_review
    desk.logic.decide(desk.airways, item_of(desk, PROPOSED, 2), "accept")
    desk.logic.decide(desk.airways, item_of(desk, TIP), "accept")
    desk.click("measureButton")
    desk.wait()
    items = desk.logic.reviewItems(desk.airways)
    assert item_of(desk, PROPOSED, 2).decision == "accept" and item_of(desk, PIECE, 5).is_open
    assert len(decisions.decisions_of(desk.airways)) == 2 and items
    assert desk.logic.reviewProgress(desk.airways).decided == 2
    desk.click("takeBackButton") if desk.ui.takeBackButton.isVisible() else desk.section("Correct").on_take_back()
    assert not decisions.decisions_of(desk.airways) and np.array_equal(voxels(desk), desk.mask)


def test_the_line_of_the_result_counts_the_pieces_that_are_left(a_review):
    desk, label = a_review, a_review.ui.summaryLabel
    assert "Unconnected airways: 3 pieces, 0.27 ml" in label.text
    desk.logic.decide(desk.airways, item_of(desk, PIECE, 5), "accept")
    desk.host.pump(lambda: "Unconnected airways: 2 pieces, 0.24 ml" in label.text)
    desk.logic.undo(desk.airways)
    desk.host.pump(lambda: "Unconnected airways: 3 pieces" in label.text)


# The tab -------------------------------------------------------------------------------------------------------------


def slices() -> dict:
    return {
        node.GetLayoutName(): slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")
    }


def test_the_tab_walks_through_the_points_by_keys_and_says_why(a_review):
    desk, ui = a_review, a_review.ui
    assert ui.reviewTable.rowCount == 6 and ui.acceptButton.text == "Accept (A)" and not ui.acceptButton.enabled
    assert ui.reviewProgressLabel.text == "0 of 6 decided, 0.0 cm gained"
    desk.click("nextButton")
    first = desk.section("Review").chosen()
    assert first.reason in ui.reasonLabel.text and desk.ui.acceptButton.enabled
    keys = {shortcut.key.toString(): shortcut for shortcut in desk.section("Review")._shortcuts}
    assert set(keys) == {"N", "P", "A", "R", "L"} and all(shortcut.enabled for shortcut in keys.values())
    keys["A"].activated.emit()
    desk.host.pump()
    assert decisions.decisions_of(desk.airways)[0].decision == "accept"
    assert ui.statusLabel.text.startswith("Accept: ") and desk.section("Review").chosen().key != first.key
    keys["L"].activated.emit()
    keys["R"].activated.emit()
    desk.host.pump()
    assert desk.logic.reviewProgress(desk.airways).decided == 2 and "2 of 6 decided" in ui.reviewProgressLabel.text
    desk.click("undoButton")
    assert ui.statusLabel.text.startswith("Undone: refuse: ") and "1 of 6 decided" in ui.reviewProgressLabel.text
    desk.click("redoButton")
    assert ui.statusLabel.text.startswith("Done again: refuse: ") and "2 of 6 decided" in ui.reviewProgressLabel.text
    desk.section("Correct").editor.undo()  # by Slicer's own button
    desk.host.pump(lambda: "1 of 6 decided" in ui.reviewProgressLabel.text)
    desk.open("measureTab")
    assert not any(shortcut.enabled for shortcut in keys.values())
    assert not desk.host.messages


def test_several_rows_are_decided_by_one_key(a_review):
    desk, ui, before = a_review, a_review.ui, state(a_review)
    section = desk.section("Review")
    keys = {shortcut.key.toString(): shortcut for shortcut in section._shortcuts}
    desk.choose("reviewFilterComboBox", PROPOSED)
    ui.reviewTable.selectAll()
    desk.host.pump()
    assert "2 points, 76.0 mm: 2 × proposed repair." in ui.reasonLabel.text
    assert "Accept joins it to the tree" in ui.reasonLabel.text
    bounds, wanted = [0.0] * 6, np.argwhere(desk.bridges[2] | desk.pieces[3] | desk.bridges[3] | desk.pieces[4])
    nodes.companion(desk.airways, nodes.REVIEWED).GetRASBounds(bounds)
    corners = np.array([[*low, 1] for low in (wanted.min(axis=0)[::-1], wanted.max(axis=0)[::-1])])
    ends = corners @ slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(desk.ct)).T
    assert np.allclose(sorted(bounds[::2]), sorted(ends[:, :3].min(axis=0)), atol=1.0)
    keys["R"].activated.emit()
    desk.host.pump()
    assert ui.statusLabel.text == "Refuse: 2 points, 2 × proposed repair. Every listed point has a decision."
    assert "2 of 6 decided" in ui.reviewProgressLabel.text and len(section.chosen_items()) == 2
    keys["A"].activated.emit()
    desk.host.pump()
    assert {item.decision for item in section.items} == {"accept"} and len(section.chosen_items()) == 2
    desk.click("undoButton")
    desk.click("undoButton")
    assert state(desk) == before and "0 of 6 decided" in ui.reviewProgressLabel.text
    desk.choose("reviewFilterComboBox", "open")
    section.choose_rows([0, 2])
    keys["L"].activated.emit()
    desk.host.pump()
    assert [item.decision for item in section.items] == ["later", "", "later", "", "", ""]
    assert section.chosen() == section.items[3] and not desk.host.messages


def test_a_point_is_centred_across_and_along_and_highlighted_until_the_tab_is_left(a_review, tmp_path):
    desk, before = a_review, slices()
    desk.choose("reviewFilterComboBox", PROPOSED)
    desk.click("nextButton")
    item = desk.section("Review").chosen()
    world = [0.0, 0.0, 0.0]
    desk.airways.TransformPointToWorld(item.point, world)
    across, along = (review_views.slice_node(name) for name in (review_views.ACROSS, review_views.ALONG))
    for node in (across, along):
        to_slice = np.linalg.inv(slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()))
        assert np.allclose((to_slice @ [*world, 1])[:3], 0, atol=0.01)
        assert node.GetFieldOfView()[0] == pytest.approx(review_views.FIELD_MM)
    normals = [slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 2] for node in (across, along)]
    assert abs(np.dot(*normals)) < 1e-6
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
        assert np.allclose(camera.GetFocalPoint(), world) and camera.GetPosition() != camera.GetFocalPoint()
    shown = nodes.companion(desk.airways, nodes.REVIEWED)
    assert shown.GetHideFromEditors() and not shown.GetSaveWithScene()
    bounds, wanted = [0.0] * 6, np.argwhere(desk.bridges[2] | desk.pieces[3])
    shown.GetRASBounds(bounds)
    corners = np.array([[*low, 1] for low in (wanted.min(axis=0)[::-1], wanted.max(axis=0)[::-1])])
    ends = corners @ slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(desk.ct)).T
    assert np.allclose(sorted(bounds[::2]), sorted(ends[:, :3].min(axis=0)), atol=1.0)
    assert shown.GetDisplayNode().GetColor() == pytest.approx(review_views.ADDED)
    desk.open("exportTab")
    assert nodes.companion(desk.airways, nodes.REVIEWED) is None
    assert all(np.allclose(matrix[:3, :3], before[name][:3, :3]) for name, matrix in slices().items())


def test_the_list_can_be_filtered_and_shows_decisions(a_review):
    desk, table = a_review, a_review.ui.reviewTable
    desk.logic.decide(desk.airways, item_of(desk, PROPOSED, 2), "accept")
    desk.host.pump(lambda: table.rowCount == 5)
    desk.choose("reviewFilterComboBox", "")
    assert table.rowCount == 6 and {table.item(row, 3).text() for row in range(6)} == {"", "accepted"}
    desk.choose("reviewFilterComboBox", PROPOSED)
    assert table.rowCount == 2


def test_the_surface_in_3d_follows_decisions_undo_redo_and_discarding(a_review):
    desk = a_review

    def points() -> int:
        desk.host.pump(lambda: surfaces.has_surface(desk.airways))
        return segments.closed_surface(desk.airways).GetNumberOfPoints()

    before = points()
    desk.logic.decide(desk.airways, item_of(desk, PROPOSED, 2), "accept")
    after = points()
    assert after > before
    desk.logic.undo(desk.airways)
    assert points() == before
    desk.logic.redo(desk.airways)
    assert points() == after
    desk.section("Correct").on_take_back()
    assert points() == before
    assert desk.logic.undo(desk.airways) == "Undone: discard all corrections."
    assert points() == after and decisions.decisions_of(desk.airways)


def test_closing_the_scene_in_the_middle_of_a_review_leaves_nothing_behind(a_review):
    desk = a_review
    desk.click("nextButton")
    desk.click("acceptButton")
    slicer.mrmlScene.Clear(0)
    desk.host.pump()
    assert desk.ui.reviewTable.rowCount == 0 and not desk.host.messages
    assert desk.ui.reviewProgressLabel.text == "" and not desk.ui.acceptButton.enabled
    desk.click("nextButton") if desk.ui.nextButton.enabled else None
    slicerhost.leave(desk.widget)
    slicerhost.enter(desk.widget)
    assert not desk.host.messages


def test_a_segmentation_from_elsewhere_has_no_points(a_desk):
    mine = a_desk.draw("Mine")
    a_desk.choose("airwaysSelector", mine)
    a_desk.open("reviewTab")
    assert a_desk.ui.reviewTable.rowCount == 0 and "no point" in a_desk.ui.reasonLabel.text
    assert not a_desk.host.messages


def test_the_probability_is_a_column_and_an_overlay_of_what_the_network_has_seen(a_review):
    desk, table = a_review, a_review.ui.branchTable
    assert {table.item(row, 4).text() for row in range(table.rowCount)} == {"0.94"}
    desk.choose("overlayComboBox", "probability")
    surface = nodes.companion(desk.airways, nodes.SURFACE)
    values = slicer.util.arrayFromModelPointData(surface, "probability")
    assert np.median(values) == pytest.approx(240 / 255) and not desk.host.messages
    mine = desk.draw("Mine")
    desk.choose("overlayComboBox", "")
    desk.choose("airwaysSelector", mine)
    desk.click("measureButton")
    desk.wait()
    assert desk.ui.overlayComboBox.findData("probability") < 0 and not desk.host.messages
    with pytest.raises(RuntimeError, match="probability of Mine is not known"):
        desk.logic.showOverlay(mine, "probability")
    assert {table.item(row, 4).text() for row in range(table.rowCount)} == {""}
