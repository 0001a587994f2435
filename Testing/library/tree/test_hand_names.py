"""Names by hand: which branches they name, what of the estimate stays, and the file in which they are kept."""

import dataclasses
import json

import numpy as np
import pytest
from lungtrees import RIGHT_LUNG, RLL, RML, RUL, TRUNK, WHOLE, draw, with_side_branch
from phantoms import Tube, a_forked_tree, draw_tubes

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.build import parse_airways
from AirwaySegLib.tree.hand_names import (
    FORMAT,
    NONE,
    HandName,
    branches_of,
    names_from_json,
    names_to_json,
    points_on,
    read_names,
    with_hand_names,
)
from AirwaySegLib.tree.lobes import LOBAR_BRONCHUS
from AirwaySegLib.tree.segments import SEGMENTS

LOWER = draw(WHOLE, fan=0)


def named(name: str, drawing=LOWER, **values) -> HandName:
    return HandName(points_on(drawing.of(name)), **values)


def names_of(tree: AirwayTree) -> list[tuple[str, str]]:
    return [(branch.lobe, branch.segment) for branch in tree.branches]


def test_a_segment_by_hand_names_the_subtree_and_its_lobe_with_confidence_1_and_nothing_else():
    tree = with_hand_names(LOWER.tree, [named("basal 2", segment="RB6")])
    below = {branch.id for branch in LOWER.tree.below(LOWER.ids["basal 2"])}
    assert len(below) == 5
    for before, after in zip(LOWER.tree.branches, tree.branches, strict=True):
        if after.id in below:
            assert (after.lobe, after.segment, after.by_hand) == (RLL, "RB6", "lobe and segment")
            assert after.lobe_confidence == after.segment_confidence == 1
            estimate = (before.lobe, before.lobe_confidence, before.segment, before.segment_confidence, before.name)
            assert dataclasses.astuple(after.estimate) == estimate
        else:
            assert (after.lobe, after.lobe_confidence) == (before.lobe, before.lobe_confidence)
            assert (after.segment, after.segment_confidence) == (before.segment, before.segment_confidence)
            assert (after.by_hand, after.estimate) == ("", None)


def test_a_deeper_name_counts_for_its_own_subtree_in_whichever_order_they_were_given():
    names = [named("RLL", lobe=RML), named("basal", segment="RB9"), named("basal 3", segment="RB10")]
    for order in (names, names[::-1]):
        tree = with_hand_names(LOWER.tree, order)
        found = {name: (tree.branch(LOWER.ids[name]).lobe, tree.branch(LOWER.ids[name]).segment) for name in RIGHT_LUNG}
        assert found["RLL"] == (RML, "") and found["B6"] == (RML, "")  # RB6 is no segment of the middle lobe
        assert found["basal"] == found["B8"] == (RLL, "RB9")
        assert found["basal 3"] == found["B10"] == (RLL, "RB10")
        assert found["B1"] == (RUL, "RB1")


def test_a_branch_named_alone_leaves_its_subtree_as_it_was():
    alone = with_hand_names(LOWER.tree, [named("basal", segment="RB8", with_subtree=False)])
    assert [branch.id for branch in alone.branches if branch.by_hand] == [LOWER.ids["basal"]]
    names = [named("RLL", lobe=RML), named("basal", segment="RB8", with_subtree=False)]
    tree = with_hand_names(LOWER.tree, names)
    assert tree.branch(LOWER.ids["basal"]).segment == "RB8"
    assert {tree.branch(LOWER.ids[name]).lobe for name in ("B7", "B10")} == {RML}


def test_a_lobe_by_hand_keeps_its_estimated_segments_and_none_takes_names_away():
    tree = with_hand_names(LOWER.tree, [named("RUL", lobe=RUL), named("B6", lobe=NONE), named("B4", segment=NONE)])
    apical, superior, lateral = (tree.branch(LOWER.ids[name]) for name in ("B1", "B6", "B4"))
    assert (apical.segment, apical.by_hand, apical.lobe_confidence) == ("RB1", "lobe", 1)
    assert 0 < apical.segment_confidence < 1
    assert (superior.lobe, superior.segment, superior.by_hand) == ("", "", "lobe and segment")
    assert (lateral.lobe, lateral.segment, lateral.by_hand) == (RML, "", "segment")
    assert lateral.lobe_confidence < 1


def test_no_names_and_other_names_give_the_estimate_back():
    once = with_hand_names(LOWER.tree, [named("RUL", lobe=RML)])
    assert names_of(once) != names_of(LOWER.tree)
    again = with_hand_names(once, [])
    assert again.to_json() == LOWER.tree.to_json()
    other = [named("B6", segment="RB10")]
    assert with_hand_names(once, other).to_json() == with_hand_names(LOWER.tree, other).to_json()


def test_a_bronchus_that_is_given_to_another_lobe_is_no_longer_called_by_its_own():
    upper, main = LOWER.of("RUL"), LOWER.of("RMB")
    assert upper.name == LOBAR_BRONCHUS[RUL]
    tree = with_hand_names(LOWER.tree, [named("RUL", lobe=RML), named("RMB", lobe=RML, with_subtree=False)])
    assert (tree.branch(upper.id).name, tree.branch(main.id).name) == ("", main.name)
    assert with_hand_names(tree, [named("RUL", lobe=RUL)]).branch(upper.id).name == upper.name


def test_generations_below_one_by_hand_count_on_from_it_and_names_stay():
    names = [named("basal", generation=7), named("B9", generation=4), named("RLL", segment="RB6")]
    tree = with_hand_names(LOWER.tree, names)
    basal, below = LOWER.ids["basal"], {branch.id for branch in LOWER.tree.below(LOWER.ids["basal"])}
    tail = {branch.id for branch in LOWER.tree.below(LOWER.ids["B9"])}
    shift, deeper = 7 - LOWER.of("basal").generation, 4 - LOWER.of("B9").generation
    assert tree.branch(basal).generation == 7 and tail < below and shift != deeper
    for before, after in zip(LOWER.tree.branches, tree.branches, strict=True):
        moved = deeper if after.id in tail else shift if after.id in below else 0
        assert after.generation == before.generation + moved
        assert after.counted_generation == (before.generation if after.id in below else None)
        assert ("generation" in after.given) == (after.id in below)
    assert tree.branch(basal).segment == "RB6" and tree.branch(basal).by_hand == "lobe and segment"
    assert with_hand_names(tree, []).to_json() == LOWER.tree.to_json()
    again = AirwayTree.from_json(tree.to_json())
    assert [(each.generation, each.counted_generation) for each in again.branches] == [
        (each.generation, each.counted_generation) for each in tree.branches
    ]


def test_a_new_branch_divides_one_whose_generation_is_by_hand_and_the_further_half_counts_on():
    names = [named("B9", generation=6)]
    other = draw(with_side_branch("new", on="B9", at=0.5, way=(4, 12, -4), radius_mm=1.5), fan=0)
    tree = with_hand_names(other.tree, names)
    assert [tree.branch(other.ids[name]).generation for name in ("B9 above", "B9", "new")] == [6, 7, 7]


def test_of_two_names_on_a_branch_the_last_one_counts():
    tree = with_hand_names(LOWER.tree, [named("B6", segment="RB10"), named("B6", segment="RB9")])
    assert tree.branch(LOWER.ids["B6"]).segment == "RB9"


@pytest.mark.parametrize("at", [0.3, 0.7])
def test_names_follow_a_branch_that_a_new_one_divides_and_whose_number_has_changed(at):
    names = [named("B9", segment="RB8"), named("basal 3", segment="RB10", with_subtree=False)]
    other = draw(with_side_branch("new", on="B9", at=at, way=(4, 12, -4), radius_mm=1.5), fan=0)
    assert other.ids["B10"] != LOWER.ids["B10"]
    tree = with_hand_names(other.tree, names)
    by_hand = {name: tree.branch(number).segment for name, number in other.ids.items() if tree.branch(number).by_hand}
    assert by_hand == {"B9 above": "RB8", "B9": "RB8", "new": "RB8", "basal 3": "RB10"}


def test_the_name_of_a_branch_that_was_cut_off_does_not_go_to_its_parent():
    with_stub = draw(with_side_branch("stub", on="B9", at=0.5, way=(0, 8, 0), radius_mm=1.2), fan=0)
    names = [named("stub", with_stub, segment="RB6"), named("B6", with_stub, segment="RB10")]
    assert branches_of(with_stub.tree, names[:1]) == [{with_stub.ids["stub"]}]
    tree = with_hand_names(LOWER.tree, names)
    assert {branch.segment for branch in tree.branches if branch.by_hand} == {"RB10"}
    assert tree.warnings[-1].startswith("One name by hand lies near no branch: RB6 at (")


def test_names_survive_measuring_an_edited_mask():
    spacing_mm, shape = (1.25, 1.25, 1.25), (160, 64, 144)
    drawn = draw_tubes(a_forked_tree(), shape, spacing_mm)
    before = parse_airways(Volume(drawn.astype(np.uint8), spacing_mm)).tree
    lower = max((branch for branch in before.branches if not branch.children), key=lambda branch: branch.length_mm)
    edited = drawn | draw_tubes([Tube((60.0, 47.5, 140.0), (50.0, 20.0, 160.0), 2.5, 2.5)], shape, spacing_mm)
    edited |= draw_tubes([Tube((60.0, 47.5, 40.0), (50.0, 20.0, 20.0), 2.5, 2.5)], shape, spacing_mm)
    edited[-8:] = False  # a shorter trachea
    after = parse_airways(Volume(edited.astype(np.uint8), spacing_mm)).tree
    tree = with_hand_names(after, [HandName(points_on(lower), segment="LB6")])
    assert (len(before.branches), len(tree.branches)) == (7, 11)
    found = [branch for branch in tree.branches if branch.segment == "LB6"]
    side = np.sign(lower.points_mm[-1][0] - before.branches[0].points_mm[0][0])
    assert len(found) == 3  # both halves, and what was added between them
    assert all(side * (branch.points_mm[-1][0] - before.branches[0].points_mm[0][0]) > 30 for branch in found)


def test_points_that_no_branch_is_near_are_told_in_one_sentence():
    far = [HandName(((300.0, 0.0, 0.0),), segment="RB6"), HandName(((0.0, 300.0, 0.0),), lobe=RUL)]
    tree = with_hand_names(LOWER.tree, [*far, named("B6", segment="RB10")])
    said = [warning for warning in tree.warnings if "by hand" in warning]
    assert said == [
        "2 names by hand lie near no branch: RB6 at (300.0, 0.0, 0.0), right upper lobe at (0.0, 300.0, 0.0)."
    ]
    assert tree.branch(LOWER.ids["B6"]).segment == "RB10"
    assert with_hand_names(tree.with_branches([]), far).branches == ()


def test_a_lobe_that_was_named_is_no_longer_missing():
    drawing = draw(
        {**TRUNK, **{name: row for name, row in WHOLE.items() if name not in ("trachea", "RML", "B4", "B5")}}
    )
    missing = "No branch of the right middle lobe was found"
    assert any(missing in warning for warning in drawing.tree.warnings)
    tree = with_hand_names(drawing.tree, [named("B8", drawing, lobe=RML)])
    assert not any(missing in warning for warning in tree.warnings)
    assert any(missing in warning for warning in with_hand_names(tree, []).warnings)


def test_names_survive_the_file_and_the_tree_its_own(tmp_path):
    names = [named("B6", segment="RB10"), named("RUL", lobe=RML, with_subtree=False), named("B1", segment=NONE)]
    names.append(named("B2", generation=5))
    (tmp_path / "names.json").write_text(names_to_json(names), encoding="utf-8")
    assert read_names(tmp_path / "names.json") == names
    tree = with_hand_names(LOWER.tree, names)
    again = AirwayTree.from_json(tree.to_json())
    assert [(branch.by_hand, branch.estimate) for branch in again.branches] == [
        (branch.by_hand, branch.estimate) for branch in tree.branches
    ]
    assert json.loads(tree.to_json())["branches"][LOWER.ids["B6"] - 1]["by_hand"] == "lobe and segment"


def test_one_point_and_one_name_are_enough_in_a_file():
    text = json.dumps({"format": FORMAT, "names": [{"points_mm": [[1, 2, 3]], "segment": "RB1"}]})
    assert names_from_json(text) == [HandName(((1.0, 2.0, 3.0),), segment="RB1")]


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"points_mm": [[1, 2, 3]]}, "no lobe, no segment and no generation"),
        ({"points_mm": [[1, 2, 3]], "generation": -1}, "The generation -1 is not from 0 to 40"),
        ({"points_mm": [[1, 2, 3]], "generation": 2.5}, "generation is 2.5, not a whole number"),
        ({"points_mm": [[1, 2, 3]], "generation": True}, "generation is True, not a whole number"),
        ({"points_mm": [[1, 2, 3]], "lobe": "upper"}, "'upper' is no lobe"),
        ({"points_mm": [[1, 2, 3]], "segment": "RB11"}, "'RB11' is no segment"),
        ({"points_mm": [[1, 2, 3]], "segment": "RB6", "lobe": RUL}, "RB6 is a segment of the right lower lobe"),
        ({"points_mm": [], "segment": "RB6"}, "'RB6' has no points"),
        ({"points_mm": [[1e308, 0, 0]], "segment": "RB6"}, "'RB6' has no points, or points that are not numbers"),
        ({"points_mm": [[1, 2]], "segment": "RB6"}, "not a valid list of names"),
        ({"points_mm": [[1, 2, 3]], "segment": "RB6", "with_subtree": "no"}, "with_subtree is 'no'"),
        ({"segment": "RB6"}, "points_mm"),
        ([], "not a valid list of names"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_culprit(tmp_path, values, culprit):
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"format": FORMAT, "names": [values]}))
    with pytest.raises(AirwaySegError) as error:
        read_names(path)
    assert str(path) in str(error.value) and culprit in str(error.value)


def test_the_points_of_a_name_lie_on_its_branch_alone_and_every_segment_has_its_lobe():
    for branch in LOWER.tree.branches:
        assert branches_of(LOWER.tree, [HandName(points_on(branch), lobe=RUL)]) == [{branch.id}]
    for segment, (lobe, _, _) in SEGMENTS.items():
        tree = with_hand_names(LOWER.tree, [named("B6", segment=segment)])
        assert names_of(tree)[LOWER.ids["B6"] - 1] == (lobe, segment)
