"""Segments of drawn trees, whose truth is known: the atlas has other directions than the drawing."""

import numpy as np
import pytest
from lungtrees import WHOLE, Drawing, Stretches, draw, turn, without

from AirwaySegLib.tree.airway_tree import LOBES, AirwayTree
from AirwaySegLib.tree.segments import LEAST_CONFIDENCE, SEGMENTS, full_name

CODES = {f"B{number}": f"RB{number}" for number in range(1, 11)}
CODES |= {f"l B{number}": f"LB{number}" for number in ("1+2", 3, 4, 5, 6, 8, 9, 10)}


def named(drawing: Drawing) -> dict[str, str]:
    """The segments of the drawn segmental bronchi by their names in the drawing."""
    return {name: drawing.of(name).segment for name in CODES if name in drawing.ids}


def test_a_whole_tree_has_its_18_segments_and_stems_have_none():
    drawing = draw(WHOLE)
    assert named(drawing) == CODES and len(SEGMENTS) == 18
    stems = ("trachea", "RMB", "RUL", "BI", "RML", "RLL", "basal", "LMB", "LUL", "upper division", "lingula", "LLL")
    assert {drawing.of(name).segment for name in stems} == {""}
    for branch in drawing.tree.branches:
        parent = drawing.tree.branch(branch.parent or 1)
        assert parent.segment in ("", branch.segment)
        assert (branch.segment == "") == (branch.segment_confidence == 0.0) and branch.segment_confidence < 1
        assert not branch.segment or SEGMENTS[branch.segment][0] == branch.lobe


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("degrees", [-20, 20])
def test_most_segments_are_right_in_turned_branches_of_a_patient_who_lies_askew(axis, degrees):
    found = [named(draw(WHOLE, wobble=0.1, seed=seed).moved(turn(axis, degrees))) for seed in range(3)]
    right = [segment == CODES[name] for one in found for name, segment in one.items()]
    assert np.mean(right) >= 0.85


def test_a_segment_that_is_missing_is_not_given_to_another():
    drawing = draw(without("B6"))
    found = named(drawing)
    assert found == {name: CODES[name] for name in found}
    assert "RB6" not in {branch.segment for branch in drawing.tree.branches}


def test_two_segments_may_share_a_stem_and_one_may_leave_in_two():
    stretches: Stretches = {
        name: ("B2", *rest) if name == "B3" else (parent, *rest) for name, (parent, *rest) in WHOLE.items()
    }
    stretches["B2"] = ("RUL", (8, 2, 4), 3.4, LOBES[0])
    stretches["B2 itself"] = ("B2", (14, 22, 12), 2.8, LOBES[0])
    stretches["B1 again"] = ("RUL", (2, 6, 24), 2.2, LOBES[0])
    ordered = {name: stretches[name] for name in ("trachea", "RMB", "RUL", "B2", *(set(stretches) - {"B2"}))}
    drawing = draw({name: ordered[name] for name in sorted(ordered, key=lambda name: depth(stretches, name))})
    assert drawing.of("B2").segment == ""
    found = [drawing.of(name).segment for name in ("B1", "B1 again", "B2 itself", "B3")]
    assert found == ["RB1", "RB1", "RB2", "RB3"]


def depth(stretches: Stretches, name: str) -> int:
    parent = stretches[name][0]
    return 1 + depth(stretches, parent) if parent else 0


def test_a_wrong_segment_is_rarer_than_a_right_one_where_the_confidence_is_high():
    drawings = [draw(WHOLE, wobble=0.3, seed=seed, fan=1) for seed in range(6)]
    pairs = [(drawing.of(name), code) for drawing in drawings for name, code in CODES.items()]
    sure = [branch.segment == code for branch, code in pairs if branch.segment_confidence >= 0.75]
    assert len(sure) > 30 and np.mean(sure) >= 0.85
    assert all(
        branch.segment_confidence >= LEAST_CONFIDENCE * branch.lobe_confidence for branch, _ in pairs if branch.segment
    )


def test_segments_survive_the_file_and_an_older_file_has_none():
    tree = draw(WHOLE, fan=0).tree
    again = AirwayTree.from_json(tree.to_json())
    assert [branch.segment for branch in again.branches] == [branch.segment for branch in tree.branches]
    older = tree.to_json().replace('"segment"', '"other"').replace('"segment_confidence"', '"another"')
    assert {branch.segment for branch in AirwayTree.from_json(older).branches} == {""}


def test_the_full_name_says_the_lobe():
    assert full_name("LB1+2") == "LB1+2 apicoposterior, left upper lobe" and full_name("") == ""
