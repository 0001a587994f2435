"""What a tree lacks, on drawn trees from which known parts were taken."""

import dataclasses

import numpy as np
import pytest
from lungtrees import LEFT_LUNG, LLL, RIGHT_LUNG, RLL, RUL, WHOLE, Stretches, assemble, draw, without
from phantoms import Tube, draw_tubes

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.build import parse_airways
from AirwaySegLib.tree.missing import LungVolumes, cut_off_branches, is_stump, missing_lobes
from AirwaySegLib.tree.missing_segments import missing_segments
from AirwaySegLib.tree.naming import name_branches
from AirwaySegLib.tree.suspect import MISSING_BRANCH, MISSING_LOBE
from AirwaySegLib.tree.suspects import find_suspects


def merged(tree: AirwayTree) -> AirwayTree:
    """The tree in which a branch with one child is one with it, as a mask without the other child is parsed."""
    branches = list(tree.branches)
    while single := next((b for b in branches if len(b.children) == 1), None):
        child = next(b for b in branches if b.id == single.children[0])
        joined = dataclasses.replace(
            single,
            children=child.children,
            points_mm=np.concatenate([single.points_mm, child.points_mm[1:]]),
            radii_mm=np.concatenate([single.radii_mm, child.radii_mm[1:]]),
        )
        branches = [joined if b is single else b for b in branches if b is not child]
        branches = [dataclasses.replace(b, parent=single.id) if b.parent == child.id else b for b in branches]
    number = {b.id: row for row, b in enumerate(branches, start=1)}
    renumbered = [
        dataclasses.replace(b, id=number[b.id], parent=None if b.parent is None else number[b.parent], children=())
        for b in branches
    ]
    return name_branches(assemble(renumbered))


def lobeless(lobe: str) -> Stretches:
    return {name: stretch for name, stretch in WHOLE.items() if stretch[3] != lobe}


@pytest.mark.parametrize(("lobe", "at"), [(RUL, "RMB"), (RLL, "BI"), (LLL, "LMB")])
def test_a_lobe_taken_out_flush_is_a_suspect_where_it_came_off(lobe, at):
    whole = draw(WHOLE)
    tree = merged(draw(lobeless(lobe)).tree)
    (suspect,) = [s for s in find_suspects(tree) if s.kind == MISSING_LOBE]
    assert lobe in suspect.reason and suspect.score == 0.8
    assert np.linalg.norm(np.array(suspect.place_mm) - whole.of(at).points_mm[-1]) < 15
    assert f"No branch of the {lobe} was found." in tree.warnings


def test_a_whole_tree_lacks_nothing():
    tree = draw(WHOLE).tree
    assert missing_lobes(tree) == [] and cut_off_branches(tree) == [] and missing_segments(tree) == []
    assert not [s for s in find_suspects(tree) if s.kind in (MISSING_LOBE, MISSING_BRANCH)]


def test_a_lobe_with_little_is_said_with_its_length():
    few = without("B6", "B7", "B8", "B9", "basal", "basal 2", "basal 3", "B10")
    tree = draw(few, fan=0).tree
    (lack,) = missing_lobes(tree)
    assert lack.what == RLL and lack.facts["length_mm"] == pytest.approx(14.3, abs=0.1)
    assert lack.warning in tree.warnings and "right lower lobe" in lack.warning


@pytest.mark.parametrize(("bronchus", "segment"), [("B3", "RB3"), ("B6", "RB6"), ("l B6", "LB6")])
def test_a_segment_taken_out_flush_is_a_suspect_where_it_came_off(bronchus, segment):
    tree = merged(draw(without(bronchus)).tree)
    (suspect,) = [s for s in find_suspects(tree) if s.kind == MISSING_BRANCH and segment in s.reason]
    assert suspect.score >= 0.5 and suspect.facts["free_deg"] > 40
    lobe_mm = sum(b.length_mm for b in tree.branches if b.lobe == tree.branch(suspect.branch).lobe)
    others = {"RB3": 2, "RB6": 4, "LB6": 3}[segment]
    assert suspect.facts["segment_mm"] == pytest.approx(lobe_mm / others, rel=0.05)
    assert np.linalg.norm(np.array(suspect.place_mm) - draw(WHOLE).of(bronchus).points_mm[0]) < 15


def test_of_a_lobe_that_has_too_little_no_segment_is_said_to_be_missing():
    tree = draw(without("B6", "B7", "B8", "B9", "basal", "basal 2", "basal 3", "B10")).tree
    reasons = [s.reason for s in find_suspects(tree) if s.kind in (MISSING_LOBE, MISSING_BRANCH)]
    assert len(reasons) == 1 and RLL in reasons[0] and "segment" not in reasons[0]


def test_a_lung_with_much_less_airway_than_the_other_is_said():
    small = {name for name in LEFT_LUNG if name not in ("LMB", "LUL", "LLL")}
    rich, poor = draw(without(*small), fan=0).tree, draw(WHOLE).tree
    assert not [lack for lack in missing_lobes(poor) if lack.what == "left lung"]
    # The right lung has all its segments, the left one only stumps of two lobes
    lack = next(lack for lack in missing_lobes(rich) if lack.what == "left lung")
    assert lack.facts["length_mm"] < 0.35 * lack.facts["other_lung_mm"]


def test_a_small_lung_may_have_little_airway():
    few = without(*(name for name in LEFT_LUNG if name not in ("LMB", "LUL", "LLL")))
    tree = draw(few, fan=0).tree
    whats = {ml: [lack.what for lack in missing_lobes(tree, LungVolumes(2500, ml))] for ml in (2200.0, 150.0)}
    assert "left lung" in whats[2200.0] and "left lung" not in whats[150.0]


def test_a_cut_scan_without_carina_lacks_nothing():
    assert missing_lobes(draw(without(*RIGHT_LUNG)).tree) == []


def a_fork(cut: str) -> AirwayTree:
    """A trunk of 4 mm radius that forks in two; of the thicker child nothing, a stump of 4 mm, or all is drawn."""
    trunk = Tube((60, 60, 120), (60, 60, 70), 4.0, 4.0)
    thin = Tube((60, 60, 70), (36, 60, 25), 2.4, 2.4)
    length_mm = {"flush": 0, "stump": 14, "whole": 50}[cut]
    way = np.array([0.64, 0, -0.77])
    thick = Tube((60, 60, 70), tuple(np.array([60, 60, 70]) + length_mm * way), 3.4, 3.4)
    tubes = [trunk, thin, thick][: 2 + (length_mm > 0)]
    return parse_airways(Volume(draw_tubes(tubes, (130, 120, 120), (1, 1, 1)), (1.0, 1.0, 1.0))).tree


def test_a_side_branch_cut_off_flush_shows_by_a_step_at_a_bend():
    (lack, *_) = cut_off_branches(a_fork("flush"))
    assert np.linalg.norm(lack.point_mm - [70, 60, 60]) < 10 and lack.score >= 0.4
    assert cut_off_branches(a_fork("whole")) == []


def test_a_stump_is_a_sudden_end_however_wide_other_tips_are():
    tree = a_fork("stump")
    (stump,) = [branch for branch in tree.branches if is_stump(branch, tree.voxel_mm)]
    assert stump.length_mm < 20
    assert any(s.kind == "sudden end" and s.branch == stump.id and s.score >= 0.6 for s in find_suspects(tree))
    assert not [branch for branch in a_fork("whole").branches if is_stump(branch, tree.voxel_mm)]
