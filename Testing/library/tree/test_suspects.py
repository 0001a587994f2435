"""Suspects of airway trees that are drawn by hand, each with one known fault."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from counting import count_calls
from phantoms import Tube, a_deep_tree, draw_tubes

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.tree.airway_tree import LEFT_MAIN, AirwayTree, Branch
from AirwaySegLib.tree.build import parse_airways
from AirwaySegLib.tree.fragment_joints import joints_of_fragments
from AirwaySegLib.tree.loose_pieces import Piece
from AirwaySegLib.tree.suspect import Suspect, suspects_from_json, suspects_to_json
from AirwaySegLib.tree.suspects import (
    LEAST_SCORE,
    MOST_OF_A_KIND,
    branch_probability,
    doubtful_tips,
    find_suspects,
    loose_fragments,
    possible_leaks,
    sudden_ends,
)

VOXEL_MM = (0.7, 0.7, 0.7)


def a_line(start: tuple, end: tuple, step_mm: float = 0.5) -> np.ndarray:
    """Points every half millimetre from start to end, (P, 3) in LPS."""
    count = max(2, round(math.dist(start, end) / step_mm) + 1)
    return np.linspace(start, end, count)


def a_branch(number: int, parent: Branch | None, points: np.ndarray, radii: np.ndarray, component: int = 1) -> Branch:
    """A branch with the volume of its tube; children are set by `a_tree`."""
    length_mm = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    return Branch(
        id=number,
        parent=None if parent is None else parent.id,
        children=(),
        component=component,
        points_mm=points,
        radii_mm=radii,
        volume_mm3=math.pi * float(np.mean(radii**2)) * float(length_mm) + 0.3,
        generation=0 if parent is None else parent.generation + 1,
    )


def a_tree(branches: list[Branch]) -> AirwayTree:
    children = {branch.id: tuple(b.id for b in branches if b.parent == branch.id) for branch in branches}
    return AirwayTree(tuple(replace(b, children=children[b.id]) for b in branches), VOXEL_MM)


def branches_of(tubes: list[Tube]) -> list[Branch]:
    """One branch a tube, parents first; a tube's parent ends where it starts, and a child starts as wide as it does."""
    branches: list[Branch] = []
    ends: dict[tuple, Branch] = {}
    for number, tube in enumerate(tubes, start=1):
        parent = ends.get(tuple(np.round(tube.start_mm, 6)))
        points = a_line(tube.start_mm[::-1], tube.end_mm[::-1])
        radii = np.linspace(tube.start_radius_mm, tube.end_radius_mm, len(points))
        if parent is not None:
            within = np.linalg.norm(points - points[0], axis=1) < parent.radii_mm[-1]
            radii[within] = np.maximum(parent.radii_mm[-1], radii[within])
        branches.append(a_branch(number, parent, points, radii))
        ends[tuple(np.round(tube.end_mm, 6))] = branches[-1]
    return branches


@pytest.fixture(scope="module")
def a_healthy_tree() -> AirwayTree:
    """255 branches in eight generations; the tips have a radius of 1.2 to 1.3 mm."""
    return a_tree(branches_of(a_deep_tree(7)))


def with_fragment(tree: AirwayTree, *lines: np.ndarray, radius_mm: float = 1.0) -> AirwayTree:
    """The tree and one loose fragment a line, all of one radius."""
    first = len(tree.branches) + 1
    components = max(branch.component for branch in tree.branches) + 1
    added = [
        a_branch(first + place, None, line, np.full(len(line), radius_mm), components + place)
        for place, line in enumerate(lines)
    ]
    return tree.with_branches([*tree.branches, *added])


def a_terminal(tree: AirwayTree) -> tuple[Branch, np.ndarray]:
    """The tip that lies lowest, beyond which there is nothing, and its direction."""
    tip = min((b for b in tree.main() if not b.children), key=lambda b: b.points_mm[-1][2])
    direction = tip.points_mm[-1] - tip.points_mm[-5]
    return tip, direction / np.linalg.norm(direction)


def across(direction: np.ndarray) -> np.ndarray:
    side = np.cross(direction, (0.0, 1.0, 0.0))
    return side / np.linalg.norm(side)


def changed(tree: AirwayTree, number: int, **changes: object) -> AirwayTree:
    return tree.with_branches([replace(b, **changes) if b.id == number else b for b in tree.branches])


def cut_below(tree: AirwayTree, number: int) -> AirwayTree:
    """The tree without everything that springs from this branch."""
    gone = {branch.id for branch in tree.below(number)} - {number}
    kept = [branch for branch in tree.branches if branch.id not in gone]
    new = {branch.id: place for place, branch in enumerate(kept, start=1)}
    return a_tree([replace(b, id=new[b.id], parent=None if b.parent is None else new[b.parent]) for b in kept])


def test_a_healthy_tree_has_no_suspects(a_healthy_tree):
    assert len(a_healthy_tree.branches) == 255
    assert find_suspects(a_healthy_tree) == []


@pytest.mark.parametrize("generations", [3, 5, 8])
def test_healthy_trees_of_other_depths_have_none_but_ends_that_are_wide(generations):
    found = find_suspects(a_tree(branches_of(a_deep_tree(generations, seed=1))))
    assert {suspect.kind for suspect in found} <= ({"sudden end"} if generations == 3 else set())


# Fragments -----------------------------------------------------------------------------------------------------------


def test_a_broken_off_piece_is_found_with_its_gap_angles_and_branch(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    start = tip.points_mm[-1] + 8.0 * forward
    tree = with_fragment(a_healthy_tree, a_line(start, start + 20 * forward), radius_mm=1.0)
    (suspect,) = find_suspects(tree)
    assert (suspect.kind, suspect.branch, suspect.other_branch) == ("fragment", 256, tip.id)
    np.testing.assert_allclose(suspect.place_mm, start, atol=1e-3)
    np.testing.assert_allclose(suspect.other_place_mm, tip.points_mm[-1], atol=1e-3)
    facts = suspect.facts
    assert facts["distance_mm"] == pytest.approx(8.0 - 1.0 - tip.radii_mm[-1], abs=0.05)
    assert facts["angle_deg"] == pytest.approx(0, abs=0.1) and facts["tree_angle_deg"] == pytest.approx(0, abs=0.1)
    assert facts["at_tip"] == 1 and facts["length_mm"] == pytest.approx(22, abs=0.01)
    assert facts["radius_ratio"] == pytest.approx(1.0 / np.median(tip.own_radii_mm[-5:]), abs=0.05)
    assert suspect.score > 0.75
    assert f"{facts['distance_mm']:.1f} mm from the tip of branch {tip.id}" in suspect.reason


def test_a_piece_whose_lumen_reaches_the_trees_is_said_to_touch_it_almost(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    start = tip.points_mm[-1] + (1.0 + tip.radii_mm[-1]) * forward
    (suspect,) = loose_fragments(with_fragment(a_healthy_tree, a_line(start, start + 20 * forward), radius_mm=1.0))
    assert f"22.0 mm long almost touches the tip of branch {tip.id}" in suspect.reason


def test_a_piece_that_points_elsewhere_or_lies_far_scores_less(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    start, side = tip.points_mm[-1] + 8.0 * forward, across(forward)
    lines = {
        "aligned": a_line(start, start + 20 * forward),
        "oblique": a_line(start, start + 20 * (forward + side) / math.sqrt(2)),
        "across": a_line(start - 10 * side, start + 10 * side),
        "far": a_line(start + 40 * forward, start + 60 * forward),
        "short": a_line(start, start + 2 * forward),
    }
    found = {name: loose_fragments(with_fragment(a_healthy_tree, line))[0] for name, line in lines.items()}
    assert found["oblique"].facts["angle_deg"] == pytest.approx(45, abs=1)
    scores = {name: suspect.score for name, suspect in found.items()}
    assert scores["aligned"] > scores["oblique"] + 0.05 > scores["across"] + 0.1
    assert scores["oblique"] > 0.6 > 0.35 > scores["far"]
    assert scores["short"] < 0.5


def test_a_piece_much_wider_than_the_tip_that_it_continues_scores_less(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    start = tip.points_mm[-1] + 10.0 * forward
    usual, wide = (
        loose_fragments(with_fragment(a_healthy_tree, a_line(start, start + 20 * forward), radius_mm=radius))[0].score
        for radius in (1.0, 4.0)
    )
    assert usual > 0.75 > wide + 0.05


def test_a_side_branch_joins_the_branch_at_which_it_points():
    trunk = a_branch(1, None, a_line((0, 0, 100), (0, 0, 0)), np.full(201, 3.0))
    slanted = np.array([1, 0, -1]) / math.sqrt(2)  # it leaves at 45 degrees, as airways do
    piece = a_line(tuple(10 * slanted + (0, 0, 50)), tuple(30 * slanted + (0, 0, 50)))
    (joint,) = joints_of_fragments(with_fragment(a_tree([trunk]), piece, radius_mm=1.5))
    assert joint.other_branch == 1 and joint.facts["at_tip"] == 0
    np.testing.assert_allclose(joint.other_place_mm, (0, 0, 50), atol=4)
    assert joint.facts["angle_deg"] < 15 and joint.score > 0.6


def test_a_fork_that_lost_its_stem_joins_with_its_bend(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    bend, side = tip.points_mm[-1] + 9.0 * forward, across(forward)
    arms = [bend + 25 * (0.8 * forward + sign * 0.6 * side) for sign in (-1, 1)]
    line = np.concatenate([a_line(arms[0], bend)[:-1], a_line(bend, arms[1])])
    (suspect,) = loose_fragments(with_fragment(a_healthy_tree, line))
    assert suspect.other_branch == tip.id and suspect.score > 0.6
    np.testing.assert_allclose(suspect.place_mm, bend, atol=0.6)
    assert suspect.facts["angle_deg"] < 5


def test_ten_thousand_specks_cost_little_and_take_one_line(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    start = tip.points_mm[-1] + 6.0 * forward
    piece = a_line(start, start + 20 * forward)
    specks = np.random.default_rng(0).uniform(0, 300, (10_000, 3))
    tree = with_fragment(a_healthy_tree, piece, *specks[:, None], radius_mm=0.5)
    found, calls = count_calls(lambda: find_suspects(tree))
    assert calls < 150 * len(specks)  # to look at every pair would take ten thousand a speck
    assert [suspect.kind for suspect in found] == ["fragment", "fragment"]
    assert found[0].facts["distance_mm"] < 6 and "left_out" not in found[0].facts
    assert found[1].facts["left_out"] == 10_000 and found[1].score < 0.05
    assert found[1].facts["volume_mm3"] == pytest.approx(3000, rel=0.01)  # 0.3 mm3 each


def test_a_kind_has_a_note_for_what_does_not_fit_the_list(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    side = across(forward)
    starts = [tip.points_mm[-1] + (6 + 5 * place) * forward + 3 * place * side for place in range(MOST_OF_A_KIND + 4)]
    tree = with_fragment(a_healthy_tree, *(a_line(start, start + 20 * forward) for start in starts))
    everything = [one for one in find_suspects(tree, most=None) if "not listed" not in one.reason]
    assert len(everything) > MOST_OF_A_KIND and all(one.score >= LEAST_SCORE for one in everything)
    found = find_suspects(tree)
    assert len(found) == MOST_OF_A_KIND + 1 and found[-1].facts["left_out"] == 4
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)
    assert found[-1].facts["highest_score"] <= found[-2].score


def test_certain_pieces_stand_above_everything_else_the_longest_first(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    lobar = next(branch for branch in a_healthy_tree.branches if branch.generation == 2)
    cut = cut_below(a_healthy_tree, lobar.id)
    start, far = tip.points_mm[-1] + 8.0 * forward, tip.points_mm[-1] + 60.0 * forward
    tree = with_fragment(cut, *(a_line(one, one + mm * forward) for one, mm in ((start, 20), (start, 9), (far, 30))))
    first = 1 + len(cut.branches)
    found = find_suspects(tree, certain={3: Piece(0.96), 4: Piece(0.81)})
    assert [suspect.kind for suspect in found[:2]] == ["unconnected piece"] * 2
    assert [suspect.branch for suspect in found[:2]] == [first + 2, first + 1]
    assert [suspect.score for suspect in found[:2]] == [0.81, 0.96]
    assert "A certain piece of airway 32.0 mm long" in found[0].reason
    assert {suspect.kind for suspect in found[2:]} == {"sudden end", "fragment"}
    others = [suspect.score for suspect in found[2:]]
    assert others == sorted(others, reverse=True) and max(others) > 0.81


def test_every_unconnected_piece_is_listed_the_longest_first(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    starts = [tip.points_mm[-1] + (6 + 5 * place) * forward for place in range(MOST_OF_A_KIND + 2)]
    lines = [a_line(start, start + (10 + place) * forward) for place, start in enumerate(starts)]
    tree = with_fragment(a_healthy_tree, *lines)
    found = find_suspects(tree, certain={number: Piece(0.9) for number in range(2, MOST_OF_A_KIND + 4)})
    lengths = [suspect.facts["length_mm"] for suspect in found]
    assert len(found) == MOST_OF_A_KIND + 2 and lengths == sorted(lengths, reverse=True)
    assert {suspect.kind for suspect in found} == {"unconnected piece"}


def test_a_further_tree_is_no_suspect_and_a_fragment_beside_it_joins_it(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    start = tip.points_mm[-1] + 90 * forward
    second = a_line(start, start + 60 * forward)
    piece = a_line(second[-1] + 5 * forward, second[-1] + 25 * forward)
    tree = replace(with_fragment(a_healthy_tree, second, piece), trees=(1, 2))
    (suspect,) = [one for one in find_suspects(tree) if one.kind == "fragment"]
    assert (suspect.branch, suspect.other_branch) == (257, 256) and suspect.facts["distance_mm"] < 5


def test_a_thin_airway_that_the_scans_edge_cuts_is_no_trachea_that_ends(a_healthy_tree):
    far = np.array([0.0, 300.0, 0.0])
    tree = with_fragment(a_healthy_tree, a_line(far, far + (0, 0, 30)))
    assert not [one for one in find_suspects(replace(tree, trees=(1, 2))) if one.kind == "sudden end"]


# Sudden ends ---------------------------------------------------------------------------------------------------------


def test_a_lobar_bronchus_that_stops_is_a_sudden_end(a_healthy_tree):
    lobar = next(branch for branch in a_healthy_tree.branches if branch.generation == 3)
    (suspect,) = find_suspects(cut_below(a_healthy_tree, lobar.id))
    assert (suspect.kind, suspect.branch) == ("sudden end", lobar.id)
    np.testing.assert_allclose(suspect.place_mm, lobar.points_mm[-1], atol=1e-3)
    assert suspect.facts["generation"] == 3
    assert suspect.facts["radius_mm"] == pytest.approx(lobar.radii_mm[-1], abs=0.05) and lobar.radii_mm[-1] > 2.5
    limit = suspect.facts["usual_radius_mm"]
    assert suspect.score == pytest.approx(0.5 + 0.5 * (lobar.radii_mm[-1] / limit - 1), abs=0.03)


def test_earlier_and_wider_ends_score_more(a_healthy_tree):
    chosen = [next(b for b in a_healthy_tree.branches if b.generation == generation) for generation in (2, 3, 4, 5)]
    found = [sudden_ends(cut_below(a_healthy_tree, branch.id)) for branch in chosen]
    scores = [suspects[0].score if suspects else 0 for suspects in found]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.9 and scores[-1] < 0.7


def test_a_main_bronchus_without_children_and_a_lone_trachea_are_sudden_ends(a_healthy_tree):
    left = next(branch for branch in a_healthy_tree.branches if branch.generation == 1)
    tree = changed(cut_below(a_healthy_tree, left.id), left.id, name=LEFT_MAIN)
    assert [(s.branch, s.score) for s in sudden_ends(tree)] == [(left.id, 1.0)]
    (alone,) = sudden_ends(a_tree([a_branch(1, None, a_line((0, 0, 90), (0, 0, 0)), np.full(181, 8.0))]))
    assert alone.place_mm == (0, 0, 0)  # the lower end


def test_what_runs_out_is_no_sudden_end(a_healthy_tree):
    lobar = next(branch for branch in a_healthy_tree.branches if branch.generation == 3)
    tapered = np.linspace(lobar.radii_mm[0], 1.0, len(lobar.radii_mm))
    assert sudden_ends(changed(cut_below(a_healthy_tree, lobar.id), lobar.id, radii_mm=tapered)) == []


def test_a_bump_within_its_parents_lumen_is_no_sudden_end(a_healthy_tree):
    trachea = a_healthy_tree.branch(1)
    middle = trachea.points_mm[len(trachea.points_mm) // 2]
    bump = a_branch(256, trachea, a_line(tuple(middle), tuple(middle + (7, 0, 0))), np.full(15, 8.5))
    longer = a_branch(256, trachea, a_line(tuple(middle), tuple(middle + (14, 0, 0))), np.full(29, 8.5))
    assert sudden_ends(a_tree([*a_healthy_tree.branches, bump])) == []
    assert [s.branch for s in sudden_ends(a_tree([*a_healthy_tree.branches, longer]))] == [256]


# Leaks ---------------------------------------------------------------------------------------------------------------


def grown(branch: Branch, factor: float, first: float = 0.0, last: float = 1.0) -> np.ndarray:
    """The branch's radii, ``factor`` times as large between two fractions of its length."""
    part = branch.along_mm / branch.length_mm
    return np.where((part >= first) & (part <= last), factor, 1.0) * branch.radii_mm


@pytest.mark.parametrize(
    ("rule", "factor", "first", "last"),
    [("widening", 2.2, 0.6, 1.0), ("parent_ratio", 2.4, 0.0, 1.0), ("blob", 3.5, 0.5, 0.65)],
)
def test_a_branch_that_grows_is_a_leak_by_the_rule_that_it_breaks(a_healthy_tree, rule, factor, first, last):
    branch = next(b for b in a_healthy_tree.branches if b.generation == 5)
    tree = changed(a_healthy_tree, branch.id, radii_mm=grown(branch, factor, first, last))
    found = possible_leaks(tree)
    assert found[0].branch == branch.id and found[0].score > 0.6
    limits = {"widening": 1.3, "parent_ratio": 1.3, "blob": 2.0}
    assert found[0].facts[rule] > limits[rule]
    assert find_suspects(tree)[0].branch == branch.id and len(find_suspects(tree)) == 1


def test_a_leak_into_tissue_shows_in_the_volume_alone(a_healthy_tree):
    branch = next(b for b in a_healthy_tree.branches if b.generation == 6)
    tree = changed(a_healthy_tree, branch.id, volume_mm3=branch.volume_mm3 + 500)
    (suspect,) = find_suspects(tree)
    assert suspect.branch == branch.id and "volume" in suspect.reason
    assert suspect.facts["excess_mm3"] == pytest.approx(500, rel=0.1) and suspect.facts["swelling"] > 3


def test_a_bush_of_twigs_is_one_leak(a_healthy_tree):
    tip, forward = a_terminal(a_healthy_tree)
    stem, side = tip.points_mm[-1], across(forward)
    turns = np.linspace(0, 2 * math.pi, 12, endpoint=False)
    ends = [stem + 3 * forward + 4 * (math.cos(t) * side + math.sin(t) * np.cross(forward, side)) for t in turns]
    twigs = [a_branch(256 + k, tip, a_line(stem, end), np.full(11, 0.6)) for k, end in enumerate(ends)]
    (suspect,) = find_suspects(a_tree([*a_healthy_tree.branches, *twigs]))
    assert suspect.kind == "leak" and suspect.facts["twigs"] == 12 and suspect.branch > 255
    assert math.dist(suspect.place_mm, stem) < 6


def test_a_widening_of_a_tenth_or_a_wide_fork_is_no_leak(a_healthy_tree):
    branch = next(b for b in a_healthy_tree.branches if b.generation == 4)
    assert possible_leaks(changed(a_healthy_tree, branch.id, radii_mm=grown(branch, 1.1, 0.6, 1.0))) == []
    assert possible_leaks(changed(a_healthy_tree, branch.id, radii_mm=grown(branch, 1.5, 0.9, 1.0))) == []


def test_a_ball_around_a_fork_is_a_leak(a_healthy_tree):
    branch = next(b for b in a_healthy_tree.branches if b.generation == 5)
    fork = branch.points_mm[-1]
    around = [b for b in a_healthy_tree.branches if b.id == branch.id or b.parent == branch.id]
    tree = a_healthy_tree
    for b in around:
        depth_mm = np.linalg.norm(b.points_mm - fork, axis=1)
        ball = np.sqrt(np.maximum(5.0**2 - depth_mm**2, 0))
        tree = changed(tree, b.id, radii_mm=np.maximum(b.radii_mm, ball))
    (suspect,) = find_suspects(tree)
    assert suspect.kind == "leak" and math.dist(suspect.place_mm, fork) < 3


def test_a_wide_stump_is_a_sudden_end_unless_it_rather_leaks(a_healthy_tree):
    lobar = next(branch for branch in a_healthy_tree.branches if branch.generation == 3)
    cut = cut_below(a_healthy_tree, lobar.id)
    kinds = [
        [suspect.kind for suspect in find_suspects(changed(cut, lobar.id, radii_mm=grown(lobar, factor, 0.5, 1.0)))]
        for factor in (1.0, 1.2, 3.0)
    ]
    assert kinds == [["sudden end"], ["sudden end"], ["leak"]]


# Doubtful tips -------------------------------------------------------------------------------------------------------


def test_tips_that_the_network_doubts_are_listed_thin_ones_first(a_healthy_tree):
    tips = [branch for branch in a_healthy_tree.branches if not branch.children]
    thin, thick, sure = tips[0], tips[1], tips[2]
    tree = changed(a_healthy_tree, thick.id, radii_mm=np.full(len(thick.radii_mm), 1.4))
    tree = changed(tree, thin.id, radii_mm=np.full(len(thin.radii_mm), 0.8))
    found = doubtful_tips(tree, {thin.id: 0.6, thick.id: 0.6, sure.id: 0.95, 1: 0.1})
    assert [(s.kind, s.branch) for s in found] == [("doubtful tip", thin.id), ("doubtful tip", thick.id)]
    assert found[0].score == 1 and found[1].score == pytest.approx(0.6 + 0.4 * 0.6, abs=0.01)
    assert found[0].facts["probability"] == 0.6
    assert find_suspects(tree) == [] and find_suspects(tree, {thin.id: 0.6})[0].branch == thin.id


def test_the_probability_of_a_branch_is_the_mean_over_its_voxels(a_healthy_tree):
    tips = [branch.id for branch in a_healthy_tree.branches if not branch.children]
    branch_map, probability = np.zeros((4, 5, 6), np.uint16), np.full((4, 5, 6), 255, np.uint8)
    branch_map[1, 1, 1:5] = tips[0]
    probability[1, 1, 1:5] = (51, 102, 153, 204)
    branch_map[2, 2, 2] = tips[1]
    branch_map[3] = 1
    found = branch_probability(a_healthy_tree, branch_map, probability)
    assert found == pytest.approx({1: 1.0, tips[0]: 0.5, tips[1]: 1.0})
    assert branch_probability(a_healthy_tree, np.zeros_like(branch_map), probability) == {}
    with pytest.raises(AirwaySegError, match="grid"):
        branch_probability(a_healthy_tree, branch_map, probability[1:])


# The whole -----------------------------------------------------------------------------------------------------------


def a_faulty_tree(healthy: AirwayTree) -> AirwayTree:
    """With a lobar bronchus cut short, a blob and a loose fragment: one suspect of each kind."""
    lobar = next(branch for branch in healthy.branches if branch.generation == 3)
    tree = cut_below(healthy, lobar.id)
    branch = [b for b in tree.branches if b.generation == 5][-1]
    tree = changed(tree, branch.id, radii_mm=grown(branch, 4.0, 0.5, 0.7))
    tip, forward = a_terminal(tree)
    start = tip.points_mm[-1] + 8 * forward
    return with_fragment(tree, a_line(start, start + 20 * forward))


def test_faults_of_three_kinds_are_three_suspects(a_healthy_tree):
    found = find_suspects(a_faulty_tree(a_healthy_tree))
    assert sorted(suspect.kind for suspect in found) == ["fragment", "leak", "sudden end"]
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)


def test_a_mirrored_tree_has_mirrored_suspects(a_healthy_tree):
    tree = a_faulty_tree(a_healthy_tree)
    mirrored = tree.with_branches([replace(b, points_mm=b.points_mm * (-1, 1, 1)) for b in tree.branches])
    here, there = find_suspects(tree), find_suspects(mirrored)
    assert [(s.kind, s.branch, s.score, s.other_branch) for s in here] == [
        (s.kind, s.branch, s.score, s.other_branch) for s in there
    ]
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one.place_mm, np.multiply(other.place_mm, (-1, 1, 1)), atol=2e-3)


def test_a_larger_tree_has_the_same_ratios_and_longer_distances(a_healthy_tree):
    tree = a_faulty_tree(a_healthy_tree)
    larger = tree.with_branches(
        [
            replace(b, points_mm=1.2 * b.points_mm, radii_mm=1.2 * b.radii_mm, volume_mm3=1.2**3 * b.volume_mm3)
            for b in tree.branches
        ]
    )
    here, there = ({s.kind: s for s in find_suspects(each)} for each in (tree, larger))
    assert {kind: s.branch for kind, s in here.items()} == {kind: s.branch for kind, s in there.items()}
    for kind, name, factor in [
        ("leak", "blob", 1),
        ("leak", "swelling", 1),
        ("sudden end", "radius_mm", 1.2),
        ("fragment", "distance_mm", 1.2),
        ("fragment", "angle_deg", 1),
    ]:
        assert there[kind].facts[name] == pytest.approx(factor * here[kind].facts[name], abs=0.5, rel=0.01)


def test_a_drawn_mask_with_a_gap_has_its_fragment():
    tubes = a_deep_tree(4)
    broken = next(place for place, tube in enumerate(tubes) if place >= 7)  # of generation 3, with two children
    tube = tubes[broken]
    start, end = np.array(tube.start_mm), np.array(tube.end_mm)
    gap = (start + 0.45 * (end - start), start + 0.75 * (end - start))
    pieces = [replace(tube, end_mm=tuple(gap[0])), replace(tube, start_mm=tuple(gap[1]))]
    mask = draw_tubes([*tubes[:broken], *pieces, *tubes[broken + 1 :]], (300, 260, 300), (1.0, 1.0, 1.0))
    tree = parse_airways(Volume(mask.astype(np.uint8), (1.0, 1.0, 1.0))).tree
    fragments = loose_fragments(tree)
    assert len(fragments) == 1 and fragments[0].score > 0.6
    middle = (gap[0] + gap[1])[::-1] / 2
    half_mm = float(np.linalg.norm(gap[1] - gap[0])) / 2
    for place in (fragments[0].place_mm, fragments[0].other_place_mm):
        assert math.dist(place, middle) < half_mm + 3


def test_empty_and_tiny_trees_have_suspects_without_a_trace():
    assert find_suspects(AirwayTree((), VOXEL_MM)) == []
    speck = a_branch(1, None, np.zeros((1, 3)), np.full(1, 0.4))
    assert [s.kind for s in find_suspects(a_tree([speck]))] == ["sudden end"]
    two = with_fragment(a_tree([speck]), np.full((1, 3), 5.0))
    assert {s.kind for s in find_suspects(two)} == {"sudden end", "fragment"}


def test_suspects_survive_json(a_healthy_tree):
    found = find_suspects(a_faulty_tree(a_healthy_tree))
    assert suspects_from_json(suspects_to_json(found)) == found
    assert suspects_from_json(suspects_to_json([])) == []
    assert all(isinstance(suspect, Suspect) for suspect in found)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "ghost"},
        {"score": 1.5},
        {"score": math.nan},
        {"place_mm": [1, 2]},
        {"place_mm": [1, 2, math.inf]},
        {"facts": [1]},
        {"facts": {"distance_mm": math.nan}},
        {"branch": None},
        {"branch": "one"},
    ],
)
def test_a_list_with_nonsense_in_it_is_refused(a_healthy_tree, change):
    document = json.loads(suspects_to_json(find_suspects(a_faulty_tree(a_healthy_tree))))
    document["suspects"][0] |= change
    with pytest.raises(AirwaySegError, match="not a valid list of suspects"):
        suspects_from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format": "AirwaySeg tree 1"}', '{"suspects": []}'])
def test_other_files_are_refused(text):
    with pytest.raises(AirwaySegError):
        suspects_from_json(text)
