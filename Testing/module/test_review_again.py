"""Decisions that are taken again or changed: a leak that was cut stays cut once, a bridge goes with its piece."""

import json

import module_scenes as scenes
import numpy as np
import pytest
import slicer
from module_review import item_of, suspect, voxels
from scipy import ndimage

from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import changes, decisions, nodes, origin, review, texts
from AirwaySegSlicer.scene.changes import no_voxels, preview_of
from AirwaySegSlicer.scene.proposals import Repairs
from AirwaySegSlicer.scene.review_kinds import LEAK, PIECE
from AirwaySegSlicer.scene.steps import Steps, last_step
from AirwaySegSlicer.scene.voxel_changes import change


@pytest.fixture
def a_leak(a_review):
    """A review with one leak, at the tip of a branch that tapers."""
    document = texts.document_of(a_review.airways, nodes.SUSPECTS)
    document["suspects"] = [suspect(a_review, LEAK, 0, 0.9)]
    texts.put_document(a_review.airways, nodes.SUSPECTS, document, "suspects")
    return a_review


@pytest.mark.parametrize("between", [None, "accept"], ids=["at once", "after Accept"])
def test_a_leak_that_is_refused_twice_is_cut_once(a_leak, between):
    desk = a_leak
    desk.logic.decide(desk.airways, item_of(desk, LEAK), "refuse")
    after, progress = voxels(desk), desk.logic.reviewProgress(desk.airways)
    assert after.sum() < desk.mask.sum()
    if between:
        desk.logic.decide(desk.airways, item_of(desk, LEAK), between)
    assert len(preview_of(desk.airways, item_of(desk, LEAK))[0]) == 0
    desk.logic.decide(desk.airways, item_of(desk, LEAK), "refuse")
    assert np.array_equal(voxels(desk), after)
    assert desk.logic.reviewProgress(desk.airways) == progress


def test_only_the_length_that_a_cut_removes_is_counted(a_leak):
    desk, item = a_leak, item_of(a_leak, LEAK)
    desk.logic.decide(desk.airways, item, "refuse")
    # The stem stays, with its part of the branch.
    assert 0 < desk.logic.reviewProgress(desk.airways).removed_mm < 0.9 * item.change_mm


def test_a_leak_that_takes_its_whole_branch_and_a_piece_without_a_bridge_say_so(a_leak, monkeypatch):
    desk = a_leak
    piece = review.ReviewItem(PIECE, (0.0, 0.0, 0.0), 0.9, 10.0, "", number=5)
    desk.logic.decide(desk.airways, piece, "accept")
    assert last_step(desk.airways) == "accept: unconnected piece 5 (without a bridge, no way is seen)"
    monkeypatch.setattr(changes, "_leak", lambda airways, item: None)
    desk.logic.decide(desk.airways, item_of(desk, LEAK), "refuse")
    assert last_step(desk.airways) == "refuse: possible leak (with its whole branch, it cannot be cut)"


@pytest.fixture
def a_gap(slicer_host, tmp_path):
    """A result whose tree ends before a gap, beyond which a piece lies: (airways, CT, tree, piece)."""
    ct, mask = scenes.a_ct()
    piece, gap = mask.copy(), mask.copy()
    piece[19:] = gap[24:] = gap[:19] = False
    piece[:, :50] = gap[:, :50] = False
    tree = mask & ~piece & ~gap
    scenes.write_reviewed(tmp_path / "result", ct, tree)
    document = json.loads((tmp_path / "result" / "repairs.json").read_text())
    document["fragments"].append({"number": 9, "joined": False, "voxel_runs": scenes.runs_of(piece)})
    (tmp_path / "result" / "repairs.json").write_text(json.dumps(document))
    airways = segmentation.take_in(str(tmp_path / "result"), ct)
    change(airways, np.argwhere(piece)[:, ::-1], no_voxels(), "unconnected")
    return airways, ct, tree, piece


def test_an_accepted_piece_gets_its_bridge_where_a_way_is_seen(a_gap):
    airways, ct, tree, piece = a_gap
    item, steps = review.ReviewItem(PIECE, (0.0, 0.0, 0.0), 0.9, 10.0, "", number=9), Steps()
    review.decide(airways, item, "accept", steps)
    after = slicer.util.arrayFromSegmentBinaryLabelmap(airways, "airways", ct) > 0
    gap = scenes.a_ct()[1] & ~tree & ~piece
    assert after[tree | piece].all() and after[gap].mean() > 0.6
    found = origin.origins_on(airways, ct)
    bridge = after & ~tree & ~piece
    assert (found[bridge] == origin.REPAIR).all() and (found[piece] == origin.NETWORK).all()
    assert ndimage.label(after, np.ones((3, 3, 3)))[1] == ndimage.label(tree, np.ones((3, 3, 3)))[1]
    assert review.progress_of(airways).added_mm > 12
    assert steps.undo(airways) == "Undone: accept: unconnected piece 9."
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(airways, "airways", ct) > 0, tree)


def test_refusing_an_accepted_piece_takes_its_bridge_out_again(a_gap):
    airways, ct, tree, piece = a_gap
    item = review.ReviewItem(PIECE, (0.0, 0.0, 0.0), 0.9, 10.0, "", number=9)
    steps = Steps()

    def mask():
        return slicer.util.arrayFromSegmentBinaryLabelmap(airways, "airways", ct) > 0

    for _time in range(2):  # Accept twice: the bridge is still known.
        review.decide(airways, item, "accept", steps)
    assert mask().sum() > (tree | piece).sum()
    review.decide(airways, item, "refuse", steps)
    assert np.array_equal(mask(), tree)
    assert not (origin.origins_on(airways, ct)[~tree] > 0).any()
    assert review.progress_of(airways) == review.Progress(1, review.progress_of(airways).points, 0.0, 0.0)
    steps.undo(airways)
    review.decide(airways, item, "refuse", steps)
    assert np.array_equal(mask(), tree)


def test_runs_of_voxels_are_read_as_they_were_written(a_gap):
    airways, _ct, _tree, piece = a_gap
    repairs, wanted = Repairs(airways), np.argwhere(piece)[:, ::-1]
    again = repairs.voxels_of(repairs.runs_of(wanted))
    assert set(map(tuple, again.tolist())) == set(map(tuple, wanted.tolist()))
    assert repairs.runs_of(wanted[:0]) == ()


def test_decisions_of_an_older_scene_have_no_bridge(a_gap):
    airways = a_gap[0]
    plain = [{"family": "piece", "point": [1.0, 2.0, 3.0], "decision": "accept", "gained_mm": 4.0}]
    decisions.write_tag(airways, decisions.DECISIONS, json.dumps(plain))
    assert decisions.decisions_of(airways) == [decisions.Decision("piece", (1.0, 2.0, 3.0), "accept", 4.0)]
