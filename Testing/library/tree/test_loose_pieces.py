"""Pieces of airway beside a mask's tree: numbered as its last components, and where they would join."""

import numpy as np
import pytest
from phantoms import a_forked_tree, draw_tubes

from AirwaySegLib.files.volume import Volume, part_of
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.tree.build import parse_airways
from AirwaySegLib.tree.loose_pieces import Pieces, joints_of_pieces, with_pieces
from AirwaySegLib.tree.suspect import suspects_from_json, suspects_to_json
from AirwaySegLib.tree.suspects import find_suspects

SHAPE, SPACING_MM = (200, 100, 225), (1.0, 0.8, 0.8)


@pytest.fixture(scope="module")
def a_broken_scan() -> tuple[Volume, Volume]:
    """A drawn tree without the middle of both lower lobes' branches, and the lost ends, numbered 7 and 12."""
    drawn = draw_tubes(a_forked_tree(), SHAPE, SPACING_MM)
    drawn[55:61, 20:100] = False
    labels = label_components(drawn)
    assert labels.max() == 3
    numbers = np.array([0, 0, 7, 12], np.uint16)[labels]
    corner = (slice(20, 70), slice(30, 90), slice(10, 220))
    mask = Volume(labels == 1, SPACING_MM)
    return mask, part_of(mask, corner, numbers[corner])


def test_pieces_become_components_with_their_numbers_at_their_place(a_broken_scan):
    mask, numbers = a_broken_scan
    certainty = np.zeros(13)
    certainty[[7, 12]] = 0.9, 0.95
    tree = parse_airways(mask).tree
    joined, certain = with_pieces(tree, Pieces(numbers, certainty))
    assert joined.branches[: len(tree.branches)] == tree.branches and joined.trees == (1,)
    assert {component: piece.number for component, piece in certain.items()} == {2: 7, 3: 12}
    assert [certain[2].certainty, certain[3].certainty] == [0.9, 0.95]
    joints = joints_of_pieces(joined)
    assert len(joints) == 2
    for joint in joints:
        gap = np.subtract(joint.place_mm, joint.other_place_mm)
        assert abs(gap[2]) < 12 and np.linalg.norm(gap) < 16  # six slices are missing
        assert joint.other_branch <= len(tree.branches) and not tree.branch(joint.other_branch).children


def test_a_suspect_outside_the_mask_names_a_branch_of_the_tree_and_the_piece(a_broken_scan):
    mask, numbers = a_broken_scan
    tree = parse_airways(mask).tree
    found = find_suspects(*_tips_between(with_pieces(tree, Pieces(numbers, np.full(13, 0.9)))))
    pieces = [suspect for suspect in found if suspect.kind == "unconnected piece"]
    assert found[:2] == pieces and sorted(one.facts["piece"] for one in pieces) == [7, 12]
    assert all(1 <= suspect.branch == suspect.other_branch <= len(tree.branches) for suspect in pieces)
    assert suspects_from_json(suspects_to_json(found)) == found


def _tips_between(both):
    tree, certain = both
    return tree, None, certain


def test_without_pieces_the_tree_stays_as_it_is(a_broken_scan):
    mask, numbers = a_broken_scan
    tree = parse_airways(mask).tree
    nothing = Volume(np.zeros_like(numbers.array), SPACING_MM)
    assert with_pieces(tree, Pieces(nothing, np.zeros(1))) == (tree, {})
    assert joints_of_pieces(tree) == []
