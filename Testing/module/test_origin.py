"""The origin of every voxel: after decisions, clicks, painting, undo, redo and reloading; overlay and exports."""

import os
import random

import module_scenes as scenes
import numpy as np
import pytest
import SimpleITK
import slicer
from module_review import item_of, voxels

from AirwaySegLib.masks import origin as library
from AirwaySegSlicer.commands import export as exporting
from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.commands import training_cases
from AirwaySegSlicer.scene import nodes, origin, overlays, tags
from AirwaySegSlicer.scene.branch_edits import Proposed, apply
from AirwaySegSlicer.scene.branches import branch_rows
from AirwaySegSlicer.scene.hand_names import show_names
from AirwaySegSlicer.scene.review_kinds import APPLIED, PIECE, PROPOSED, TIP
from AirwaySegSlicer.scene.segments import first_voxel_between, segment_voxels
from AirwaySegSlicer.scene.steps import Steps

NETWORK, REPAIR, CLICK, HAND = origin.NETWORK, origin.REPAIR, origin.CLICK, origin.HAND


def origins(airways, ct) -> np.ndarray:
    return origin.origins_on(airways, ct)


def on_airways(airways, ct, mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask (Z, Y, X) on the CT's grid as i, j, k on the airways' grid."""
    shift = first_voxel_between(nodes.ijk_to_ras(ct), segment_voxels(airways).matrix)
    return np.argwhere(mask)[:, ::-1] + shift


def paint(airways, ct, mask: np.ndarray) -> None:
    """What the Segment Editor leaves."""
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), airways, "airways", ct)


@pytest.fixture(params=[False, True], ids=["in place", "below a transform"])
def a_result(request, slicer_host, tmp_path):
    """CT, mask and a result with a repair's bridge in it."""
    ct, mask = scenes.a_ct(moved=request.param)
    scenes.write_reviewed(tmp_path / "result", ct, mask)
    return ct, mask, segmentation.take_in(str(tmp_path / "result"), ct)


def test_the_numbers_are_those_of_the_library():
    names = ("NETWORK", "OPEN_LUMEN", "REPAIR", "CLICK", "HAND")
    assert [getattr(origin, name) for name in names] == [getattr(library, name) for name in names] == [1, 2, 3, 4, 5]


def test_the_map_of_the_run_is_kept_and_painting_is_by_hand(a_result):
    ct, mask, airways = a_result
    bridge = scenes.reviewed_bridges(mask)[1]
    expected = np.where(bridge, REPAIR, mask * NETWORK)
    assert np.array_equal(origins(airways, ct), expected)
    assert nodes.companion(airways, nodes.ORIGIN).GetHideFromEditors() and nodes.first_ct() is ct
    painted = mask.copy()
    painted[2:5, 3:6, 30:34], painted[:20] = True, False
    paint(airways, ct, painted)
    expected = np.where(painted, np.where(mask, expected, HAND), 0)
    assert np.array_equal(origins(airways, ct), expected)


def test_a_click_and_a_cut_are_noted_with_undo_and_redo(a_result):
    ct, mask, airways = a_result
    steps, before = Steps(), origins(airways, ct)
    new, gone = np.zeros_like(mask), mask.copy()
    new[2:5, 3:6, 30:34] = True
    gone[20:] = False
    add, remove = (on_airways(airways, ct, part) for part in (new, gone))
    apply(airways, Proposed("add", "", add=add), steps)
    clicked = origins(airways, ct)
    assert np.array_equal(clicked, before + CLICK * new)
    apply(airways, Proposed("cut", "", remove=remove), steps)
    cut = origins(airways, ct)
    assert np.array_equal(cut, np.where(gone, 0, clicked))
    steps.undo(airways)
    assert np.array_equal(origins(airways, ct), clicked)
    steps.redo(airways)
    assert np.array_equal(origins(airways, ct), cut)
    steps.begin(airways, "paint")  # as the Segment Editor does before a stroke
    paint(airways, ct, mask | new)  # what was cut is painted again
    assert np.array_equal(origins(airways, ct), np.where(gone, HAND, clicked))
    for _step in range(3):
        steps.undo(airways)
    assert np.array_equal(origins(airways, ct), before)


def test_decisions_give_bridges_to_the_repair_and_pieces_to_the_network(a_review):
    desk, before = a_review, origins(a_review.airways, a_review.ct)
    pieces, bridges = desk.pieces, desk.bridges
    desk.logic.decide(desk.airways, item_of(desk, PROPOSED, 2), "accept")
    new = np.where(bridges[2], REPAIR, NETWORK) * (bridges[2] | pieces[3])
    assert np.array_equal(origins(desk.airways, desk.ct), before + new)
    desk.logic.decide(desk.airways, item_of(desk, APPLIED, 1), "refuse")
    gone = bridges[1] | pieces[2]
    assert np.array_equal(origins(desk.airways, desk.ct), np.where(gone & desk.mask, 0, before) + new)
    desk.logic.decide(desk.airways, item_of(desk, APPLIED, 1), "accept")
    assert np.array_equal(origins(desk.airways, desk.ct), before + new), "as the run had noted it"
    desk.section("Correct").on_take_back()
    assert np.array_equal(origins(desk.airways, desk.ct), before)


def test_what_was_erased_and_painted_again_is_by_hand_and_undo_brings_back_what_it_was(a_result):
    ct, mask, airways = a_result
    steps, before, erased = Steps(), origins(airways, ct), mask.copy()
    erased[20:40] = False
    steps.begin(airways, "erase")  # as the Segment Editor does before a stroke
    paint(airways, ct, erased)
    steps.begin(airways, "paint")
    paint(airways, ct, mask)
    assert np.array_equal(origins(airways, ct), np.where(mask & ~erased, HAND, before))
    steps.undo(airways)
    assert np.array_equal(origins(airways, ct), np.where(erased, before, 0))
    steps.undo(airways)
    assert np.array_equal(origins(airways, ct), before)
    steps.redo(airways)
    steps.redo(airways)
    assert np.array_equal(origins(airways, ct), np.where(mask & ~erased, HAND, before))


def test_the_pause_after_an_edit_notes_what_was_erased(a_review):
    desk, before = a_review, origins(a_review.airways, a_review.ct)
    erased = desk.mask.copy()
    erased[20:40] = False
    paint(desk.airways, desk.ct, erased)
    desk.section("Correct").on_pause()
    paint(desk.airways, desk.ct, desk.mask)
    assert np.array_equal(origins(desk.airways, desk.ct), np.where(desk.mask & ~erased, HAND, before))
    desk.section("Correct").on_take_back()
    assert np.array_equal(origins(desk.airways, desk.ct), before)
    paint(desk.airways, desk.ct, np.zeros_like(desk.mask))
    desk.section("Correct").on_pause()
    desk.section("Correct").on_take_back()
    assert np.array_equal(origins(desk.airways, desk.ct), before)


@pytest.mark.parametrize("panel", [True, False], ids=["the editor's undo", "without an editor"])
def test_50_random_actions_with_undo_and_redo_restore_voxels_decisions_origins_and_names(a_review, panel):
    desk, rng, random_voxels = a_review, random.Random(11), np.random.default_rng(11)
    if not panel:
        desk.logic.steps.editor_of = lambda airways: None

    def tree() -> slicer.vtkMRMLModelNode:
        show_names(desk.airways)  # as when the user pauses
        return nodes.companion(desk.airways, nodes.CENTERLINE)

    def state() -> tuple:
        pieces = voxels(desk, "unconnected").tobytes()
        shown = [(row.id, row.lobe, row.segment, row.by_hand) for row in branch_rows(tree())]
        names = tags.read_tag(desk.airways, tags.NAMES)
        return (
            origins(desk.airways, desk.ct).tobytes(),
            pieces,
            tags.read_tag(desk.airways, tags.DECISIONS),
            names,
            shown,
        )

    def act(action: str) -> None:
        box = np.zeros_like(desk.mask)
        corner = random_voxels.integers(0, np.array(box.shape) - 6)
        box[tuple(slice(low, low + 6) for low in corner)] = True
        now = voxels(desk)
        if action == "decide":
            kinds = (PROPOSED, APPLIED, PIECE, TIP)
            item = rng.choice([one for one in desk.logic.reviewItems(desk.airways) if one.kind in kinds])
            desk.logic.decide(desk.airways, item, rng.choice(["accept", "refuse"]))
        elif action == "paint":
            desk.logic.steps.begin(desk.airways, "paint")  # as the Segment Editor does before a stroke
            paint(desk.airways, desk.ct, now | box if rng.random() < 0.5 else now & ~box)
        elif action == "name":
            number = rng.choice(branch_rows(tree())).id
            desk.logic.nameBranch(desk.airways, number, segment=rng.choice(["RB6", "LB3", "none"]))
        elif action == "join":  # a bridge of clicks, a piece of the network, and a joint that is cut
            add, remove = (on_airways(desk.airways, desk.ct, box & part) for part in (~now, now))
            codes = np.where(np.arange(len(add)) % 3 > 0, CLICK, NETWORK).astype(np.uint8)
            desk.logic.applyEdit(desk.airways, Proposed(action, "", add=add, remove=remove, origins=codes))
        else:
            part = on_airways(desk.airways, desk.ct, box & (now if action == "cut" else ~now))
            desk.logic.applyEdit(desk.airways, Proposed(action, "", **{"remove" if action == "cut" else "add": part}))

    past, future = [state()], []
    for _step in range(50):
        action = rng.choice(["decide", "add", "cut", "join", "paint", "name", "undo", "redo", "undo"])
        if action == "undo" and len(past) > 1 and len(future) < 15:
            desk.logic.undo(desk.airways)
            future.append(past.pop())
        elif action == "redo" and future:
            desk.logic.redo(desk.airways)
            past.append(future.pop())
        elif action not in ("undo", "redo"):
            act(action)
            origin.note_erased(desk.airways)  # as when the user pauses
            past, future = [*past, state()], []
        assert state() == past[-1], action
        assert np.array_equal(origins(desk.airways, desk.ct) > 0, voxels(desk))
    assert {NETWORK, REPAIR, CLICK, HAND} <= set(np.unique(origins(desk.airways, desk.ct)).tolist())


def test_origins_come_back_with_a_saved_scene_and_a_moved_one(a_result, tmp_path):
    ct, mask, airways = a_result
    new = np.zeros_like(mask)
    new[2:5, 3:6, 30:34] = True
    apply(airways, Proposed("add", "", add=on_airways(airways, ct, new)), Steps())
    before, path = origins(airways, ct), str(tmp_path / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    ct, airways = slicer.util.getNode("CT"), slicer.util.getNode("CT airways")
    assert np.array_equal(origins(airways, ct), before) and (before == CLICK).any()


def test_decisions_joins_erased_voxels_and_names_come_back_together_with_a_saved_scene(a_review, tmp_path):
    desk, rows = a_review, branch_rows(nodes.companion(a_review.airways, nodes.CENTERLINE))
    desk.logic.decide(desk.airways, item_of(desk, PROPOSED, 2), "accept")
    new, joint = np.zeros_like(desk.mask), np.zeros_like(desk.mask)
    new[2:5, 3:6, 30:34], joint[20:24] = True, desk.mask[20:24]
    add, remove = (on_airways(desk.airways, desk.ct, part) for part in (new, joint))
    codes = np.where(np.arange(len(add)) % 2, CLICK, NETWORK).astype(np.uint8)
    desk.logic.applyEdit(desk.airways, Proposed("join", "", add=add, remove=remove, origins=codes))
    desk.logic.nameBranch(desk.airways, rows[-1].id, segment="RB6")
    erased = voxels(desk)
    erased[30:34] = False
    paint(desk.airways, desk.ct, erased)  # and the scene is saved at once

    def state() -> tuple:
        kept = [tags.read_tag(desk.airways, name) for name in (tags.DECISIONS, tags.NAMES)]
        shown = [
            (row.id, row.segment, row.by_hand) for row in branch_rows(nodes.companion(desk.airways, nodes.CENTERLINE))
        ]
        return origins(desk.airways, desk.ct).tobytes(), voxels(desk, "unconnected").tobytes(), kept, shown

    before = state()
    desk.save_and_reload(str(tmp_path / "case.mrb"))
    assert state() == before and not desk.host.messages
    desk.section("Correct").on_pause()
    painted = erased.copy()
    painted[30:34] = desk.mask[30:34]
    paint(desk.airways, desk.ct, painted)
    assert (origins(desk.airways, desk.ct)[30:34][desk.mask[30:34]] == HAND).all()


def test_the_overlay_colours_by_origin_without_a_measurement_and_follows_edits(a_desk, tmp_path):
    desk = a_desk
    desk.parameters.airways = segmentation.take_in(
        scenes.write_result(tmp_path / "result", desk.ct, desk.mask), desk.ct
    )
    desk.open("measureTab")
    desk.choose("overlayComboBox", overlays.ORIGINS)
    desk.click("slicesCheckBox")

    def shown() -> np.ndarray:
        return slicer.util.arrayFromModelPointData(nodes.companion(desk.airways, nodes.SURFACE), overlays.ORIGINS)

    assert nodes.companion(desk.airways, nodes.CENTERLINE) is None and set(np.unique(shown())) == {0.0}
    new = np.zeros_like(desk.mask)
    new[2:12, 3:13, 28:38] = True
    desk.logic.applyEdit(desk.airways, Proposed("add", "", add=on_airways(desk.airways, desk.ct, new)))
    desk.host.pump(lambda: CLICK - 1 in shown())
    volume = slicer.util.arrayFromVolume(nodes.companion(desk.airways, nodes.SLICES))
    assert (volume == CLICK - 1).sum() == new.sum() and not desk.host.messages
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(nodes.companion(desk.airways, nodes.SURFACE))
    assert legend.GetTitleText() == "Origin"
    names = nodes.companion(desk.airways, nodes.SURFACE).GetDisplayNode().GetColorNode()
    assert [names.GetColorName(row) for row in range(5)] == ["network", "open lumen", "repair", "click", "by hand"]
    mine = desk.draw("Mine")
    with pytest.raises(RuntimeError, match="origin of the voxels of Mine is not known: another program"):
        desk.logic.showOverlay(mine, overlays.ORIGINS)
    desk.choose("overlayComboBox", "")
    desk.choose("airwaysSelector", mine)
    assert desk.ui.overlayComboBox.findData(overlays.ORIGINS) < 0


def test_the_overlay_is_left_without_a_message_where_there_is_nothing_to_colour(a_desk, tmp_path):
    desk = a_desk
    desk.parameters.airways = segmentation.take_in(
        scenes.write_result(tmp_path / "result", desk.ct, desk.mask), desk.ct
    )
    desk.choose("overlayComboBox", overlays.ORIGINS)
    paint(desk.airways, desk.ct, np.zeros_like(desk.mask))
    desk.section("Correct").on_pause()
    for _time in range(3):
        desk.widget.panel.update()
    assert not desk.host.messages
    paint(desk.airways, desk.ct, desk.mask)
    desk.section("Correct").on_pause()
    assert overlays.shown_overlay(desk.airways) == overlays.ORIGINS and not desk.host.messages
    mine, old = desk.draw("Mine"), desk.airways
    desk.choose("airwaysSelector", mine)
    assert desk.parameters.overlay == "" and not desk.host.messages
    nodes.remove_companion(old, nodes.ORIGIN)  # as of an older version
    with pytest.raises(RuntimeError, match="is not known: segment it again with this version"):
        desk.logic.showOverlay(old, overlays.ORIGINS)


def test_the_case_that_is_exported_has_the_origins(a_result, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path), prepend=os.pathsep)
    ct, mask, airways = a_result
    painted = mask.copy()
    painted[2:5, 3:6, 30:34] = True
    paint(airways, ct, painted)
    folder = tmp_path / "case"
    assert scenes.end_of(exporting.case_export_job(airways, str(folder))) == (str(folder), "")
    written, airway = (SimpleITK.ReadImage(str(folder / f"{name}.nrrd")) for name in ("origin", "airways"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(written), origins(airways, ct))
    assert written.GetOrigin() == airway.GetOrigin() and written.GetDirection() == airway.GetDirection()
    nodes.remove_companion(airways, nodes.ORIGIN)
    scenes.end_of(exporting.case_export_job(airways, str(folder)))
    assert not (folder / "origin.nrrd").exists(), "of an earlier export"


def test_a_training_case_has_the_origins(a_result, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path), prepend=os.pathsep)
    ct, mask, airways = a_result
    painted = mask.copy()
    painted[2:5, 3:6, 30:34] = True
    paint(airways, ct, painted)
    case = training_cases.new_case(airways, str(tmp_path / "training"))
    case = training_cases.NewCase(case.data, case.ct, case.name, case.patient, trusted=True)
    assert scenes.end_of(training_cases.adding_job(airways, case)) == (case.name, "")
    written = SimpleITK.ReadImage(str(tmp_path / "training" / "cases" / case.name / "origin.nrrd"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(written), origins(airways, ct))
