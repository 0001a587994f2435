"""Trees of one patient at two times: the same branches are found again, and trees of two patients are never matched."""

import dataclasses
from itertools import combinations

import numpy as np
import pytest
from lungtrees import WHOLE, draw, grown, scanned_again, turn

from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.matching import NO_MATCH, TOLERANCE, match_trees

SEEDS = range(6)


@pytest.fixture(scope="module")
def patients() -> list[AirwayTree]:
    """Trees of several patients."""
    return [grown(seed).tree for seed in SEEDS]


@pytest.mark.parametrize(
    ("degrees", "scale", "bend_mm", "lost", "fewest"),
    [(0, 1, 0, 0, 1), (15, 1.08, 0, 0, 1), (10, 0.95, 0, 0.1, 0.95), (10, 1.05, 5, 0.3, 0.9)],
)
def test_a_tree_is_found_again_when_it_was_moved_scaled_bent_or_lacks_tips(
    patients, degrees, scale, bend_mm, lost, fewest
):
    for tree in patients:
        matrix = scale * turn(0, degrees) @ turn(2, degrees / 2)
        again, was = scanned_again(tree, matrix, bend_mm, lost)
        match = match_trees(tree, again)
        assert match.is_sound and match.covered > 0.95
        pairs = [(first, was.get(second), second) for first, second in match.pairs.tolist()]
        assert all(old in (first, None) for first, old, _ in pairs)
        longer = [(tree.branch(first), again.branch(second)) for first, old, second in pairs if old is None]
        assert len(longer) <= lost * 0.1 * len(pairs)  # a short branch went on where a tip was lost
        assert all(b.length_mm / scale - a.length_mm < TOLERANCE * b.length_mm for a, b in longer)
        inner = [b for b in again.main() if b.children and b.generation and b.id in was]
        both = [b for b in inner if tree.branch(was[b.id]).children]
        assert len(match.pairs) >= fewest * len(both)
        assert match.scale == pytest.approx(scale, abs=0.02)
        if not bend_mm:
            assert match.turn_deg == pytest.approx(np.hypot(degrees, degrees / 2), abs=0.5)


def test_trees_of_two_patients_do_not_match(patients):
    matches = [match_trees(*pair) for pair in combinations(patients, 2)]
    assert not any(match.is_sound for match in matches)
    assert max(match.covered for match in matches) < 0.5  # far from the limit
    tilted, _ = scanned_again(patients[0], turn(0, 10))
    assert not match_trees(tilted, patients[1]).is_sound


def test_a_small_tree_or_one_without_carina_does_not_match(patients):
    small = draw(WHOLE, fan=0).tree
    few = draw({name: WHOLE[name] for name in ("trachea", "RMB", "LMB", "RUL", "BI")}, fan=0).tree
    assert match_trees(small, small).is_sound and not match_trees(few, few).is_sound
    nameless = dataclasses.replace(patients[0], carina_mm=None)
    assert (
        match_trees(nameless, patients[0]) is NO_MATCH
        and match_trees(patients[0], AirwayTree((), (1, 1, 1))) is NO_MATCH
    )
