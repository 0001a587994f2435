"""Simulated breaks of a drawn tree: that they sever, what a repair would have to put back, and the false pieces."""

import numpy as np
import pytest
from phantoms import Tube, a_deep_tree, a_forked_tree, draw_tubes
from scipy.ndimage import binary_dilation

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.tree.build import ParsedAirways, parse_airways
from AirwaySegTraining.connection import breaks
from AirwaySegTraining.connection.breaks import BreakSettings, Broken, break_tree, peripheral
from AirwaySegTraining.connection.distractors import LEAST_VOXELS, add_distractors

SPACING_MM = (1.1, 1.0, 0.9)
SHAPE = (273, 260, 334)
AROUND = np.ones((3, 3, 3), bool)


@pytest.fixture(scope="module")
def a_tree() -> ParsedAirways:
    """A tree that forks five times, and a loose piece that the tree does not hold."""
    mask = draw_tubes([*a_deep_tree(5, seed=3), Tube((40, 20, 20), (60, 20, 20), 3, 3)], SHAPE, SPACING_MM)
    return parse_airways(Volume(mask.astype(np.uint8), SPACING_MM))


def broken_by(a_tree: ParsedAirways, seed: int = 0, **settings) -> Broken:
    mask = a_tree.grid.array != 0
    return break_tree(a_tree, mask, SPACING_MM, np.random.default_rng(seed), BreakSettings(**settings))


def only(kind: str) -> tuple:
    return ((kind, 1.0),)


def the_tree_alone(a_tree: ParsedAirways) -> np.ndarray:
    return label_components(a_tree.grid.array != 0) == 1


@pytest.mark.parametrize("kind", [breaks.MIDDLE, breaks.SEVERAL, breaks.FORK, breaks.THINNED, breaks.WIDE, "all"])
def test_every_break_severs_and_every_loose_piece_has_one(a_tree, kind):
    settings = {} if kind == "all" else {"kinds": only(kind)}
    broken = broken_by(a_tree, seed=1, **settings)
    labels = label_components(broken.mask & ~broken.distractors)
    pieces = [labels[one.beyond] for one in broken.breaks]
    assert len(pieces) >= 3 and sorted(pieces) == list(range(2, labels.max() + 1))
    sizes = np.bincount(labels.ravel())
    assert [one.voxels_behind for one in broken.breaks] == sizes[pieces].tolist() and min(sizes) > 50
    assert all(labels[one.before] not in (0, piece) for one, piece in zip(broken.breaks, pieces))


def test_the_parts_make_up_the_tree_and_nothing_else(a_tree):
    broken = broken_by(a_tree)
    assert not (broken.mask & broken.removed).any() and broken.removed.any()
    np.testing.assert_array_equal((broken.mask & ~broken.distractors) | broken.removed, the_tree_alone(a_tree))


def test_a_gap_is_as_long_as_its_share_of_the_branch():
    tubes = a_forked_tree()
    mask = draw_tubes(tubes, (200, 80, 180), (1.0, 1.0, 1.0))
    parsed = parse_airways(Volume(mask.astype(np.uint8), (1.0, 1.0, 1.0)))
    order = breaks.LEAST_GENERATION
    breaks.LEAST_GENERATION = 2  # this tree has no third generation
    try:
        settings = BreakSettings(share=1.0, lengths=(0.2, 0.2), kinds=only(breaks.MIDDLE), distractors=0)
        found = break_tree(parsed, mask, (1.0, 1.0, 1.0), np.random.default_rng(0), settings)
    finally:
        breaks.LEAST_GENERATION = order
    assert len(found.breaks) == 4
    for one in found.breaks:
        length_mm = parsed.tree.branch(one.branch).length_mm
        assert one.gap_mm == pytest.approx(0.2 * length_mm, abs=2.5)
        assert one.gap_mm == pytest.approx(np.linalg.norm(np.subtract(one.before, one.beyond)), abs=1e-6)


def test_half_of_the_peripheral_branches_is_tried_and_the_others_are_whole(a_tree):
    broken = broken_by(a_tree, kinds=only(breaks.MIDDLE))
    outer = {branch.id for branch in peripheral(a_tree.tree)}
    hurt = {one.branch for one in broken.breaks}
    assert hurt <= outer and 0.25 * len(outer) < len(hurt) <= 0.5 * len(outer) + 1
    numbers = np.zeros(SHAPE, np.uint16)
    numbers[a_tree.box] = a_tree.in_box(a_tree.branch_of_voxel())
    # Slivers of a neighbour that only the gap's voxels held are the only other ones.
    outside = ~np.isin(numbers[broken.removed], list(outer))
    assert outside.mean() < 0.05


def test_several_breaks_lie_on_one_branch(a_tree):
    broken = broken_by(a_tree, kinds=only(breaks.SEVERAL))
    numbers = [one.branch for one in broken.breaks]
    twice = [number for number in set(numbers) if numbers.count(number) == 2]
    assert len(twice) >= 3 and len(numbers) > 1.5 * len(set(numbers))


def test_at_a_fork_both_children_come_loose(a_tree):
    broken = broken_by(a_tree, kinds=only(breaks.FORK), share=1.0)
    hurt = {one.branch for one in broken.breaks}
    mothers = [one for one in peripheral(a_tree.tree) if one.children and set(one.children) <= hurt]
    assert mothers
    for mother in mothers:
        assert mother.strahler == 2


def test_thinned_ends_are_thinner_than_plain_ones(a_tree):
    plain, thinned = (broken_by(a_tree, seed=2, kinds=only(kind)) for kind in (breaks.MIDDLE, breaks.THINNED))
    per_break = [broken.removed.sum() / len(broken.breaks) for broken in (plain, thinned)]
    assert per_break[1] > 1.1 * per_break[0]


def test_most_wide_gaps_are_wider_than_six_millimetres(a_tree):
    broken = broken_by(a_tree, kinds=only(breaks.WIDE), share=1.0)
    gaps = [one.gap_mm for one in broken.breaks]
    assert min(gaps) > 4 and np.median(gaps) > 6


def test_no_distractor_touches_the_tree_or_another_and_none_is_smaller_than_the_repair_uses(a_tree):
    broken = broken_by(a_tree, seed=4)
    labels = label_components(broken.distractors)
    assert labels.max() == BreakSettings().distractors and np.bincount(labels.ravel()).min() >= LEAST_VOXELS
    assert not (binary_dilation(broken.distractors, AROUND) & (a_tree.grid.array != 0)).any()
    assert broken.mask[broken.distractors].all()


def test_distractors_keep_off_what_the_label_leaves_out(a_tree):
    mask = the_tree_alone(a_tree)
    left_out = np.zeros(SHAPE, bool)
    left_out[:, :, 167:] = True
    rng = np.random.default_rng(0)
    settings = BreakSettings(distractors=10)
    broken = break_tree(a_tree, mask, SPACING_MM, rng, settings, left_out=left_out)
    assert broken.distractors.any() and not broken.distractors[:, :, 166:].any()


def test_with_a_ct_some_distractors_are_pieces_of_what_is_dense_there(a_tree):
    mask = the_tree_alone(a_tree)
    hu = np.full(SHAPE, -850, np.int16)
    rows, columns = (np.arange(count) % 8 < 3 for count in SHAPE[1:])
    hu[:, rows[:, None] & columns] = 40  # square bars along z, which no drawn tube or ellipsoid resembles
    hu[binary_dilation(mask, AROUND, iterations=2)] = -850
    lines = a_tree.lines
    places = lines.places_mm + np.array([part.start for part in a_tree.box]) * SPACING_MM
    distractors = add_distractors(mask, SPACING_MM, places, lines.radii_mm, 20, np.random.default_rng(0), hu)
    labels = label_components(distractors)
    dense = [bool((hu[labels == number] > -300).all()) for number in range(1, labels.max() + 1)]
    assert 3 <= sum(dense) < len(dense)


def test_the_same_seed_breaks_the_same_and_another_one_does_not(a_tree):
    one, again, other = broken_by(a_tree, seed=7), broken_by(a_tree, seed=7), broken_by(a_tree, seed=8)
    assert one.breaks == again.breaks and one.breaks != other.breaks
    np.testing.assert_array_equal(one.mask, again.mask)


def test_a_tree_without_peripheral_branches_stays_whole():
    mask = draw_tubes([Tube((10, 20, 20), (80, 20, 20), 6, 6)], (90, 40, 40), (1.0, 1.0, 1.0))
    parsed = parse_airways(Volume(mask.astype(np.uint8), (1.0, 1.0, 1.0)))
    broken = break_tree(parsed, mask, (1.0, 1.0, 1.0), np.random.default_rng(0), BreakSettings(distractors=0))
    assert broken.breaks == [] and not broken.removed.any()
    np.testing.assert_array_equal(broken.mask, mask)
