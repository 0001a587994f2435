"""Where training patches lie: every kind of place, mixtures of them, and cutting at and beyond a scan's border."""

from collections import Counter

import numpy as np
import pytest

from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining.data.sampling import (
    Centres,
    Kind,
    Mixture,
    crops,
    cut,
    draw_start,
    find_centres,
    lung_box,
)

SPACING_MM = (1.0, 0.7, 0.7)
TANG_MIXTURE = Mixture.of({Kind.HARD_SKELETON: 0.5, Kind.SMALL_AIRWAY: 0.25, Kind.RANDOM: 0.25})
OUR_MIXTURE = Mixture.of({Kind.THIN: 0.38, Kind.MIDDLE: 0.1, Kind.WIDE: 0.22, Kind.BORDER: 0.14, Kind.ANYWHERE: 0.16})


@pytest.fixture
def rng():
    """Always the same random numbers."""
    return np.random.default_rng(5)


@pytest.fixture
def three_bars():
    """Label and skeleton of straight bars along z, 1, 3 and 9 voxels wide: half-widths 1, 2 and 5 voxels."""
    label, skeleton = np.zeros((12, 30, 12), np.uint8), np.zeros((12, 30, 12), np.uint8)
    for y, half in ((3, 0), (10, 1), (20, 4)):
        label[:, y - half : y + half + 1, 6 - half : 7 + half] = 1
        skeleton[:, y, 6] = 1
    return label, skeleton


@pytest.fixture
def their_centres(three_bars):
    """The bars' places in a CT of soft tissue."""
    label, skeleton = three_bars
    return find_centres(np.full(label.shape, 40, np.int16), label, skeleton, SPACING_MM)


# Mixtures ------------------------------------------------------------------------------------------------------------


def test_kinds_are_drawn_as_often_as_their_shares_say(rng):
    drawn = Counter(TANG_MIXTURE.draw(rng) for _ in range(8000))
    assert set(drawn) == {Kind.HARD_SKELETON, Kind.SMALL_AIRWAY, Kind.RANDOM}
    assert drawn[Kind.HARD_SKELETON] / 8000 == pytest.approx(0.5, abs=0.03)
    assert drawn[Kind.SMALL_AIRWAY] / 8000 == pytest.approx(0.25, abs=0.03)


def test_the_order_of_a_recipes_table_does_not_matter():
    there, back = Mixture.of({"thin": 0.7, "random": 0.3}), Mixture.of({"random": 0.3, "thin": 0.7})
    assert there == back
    draws = [[mixture.draw(np.random.default_rng(k)) for k in range(20)] for mixture in (there, back)]
    assert draws[0] == draws[1] and len(set(draws[0])) == 2


def test_thirds_may_be_rounded():
    mixture = Mixture.of({"thin": 0.333, "wide": 0.333, "random": 0.333})
    assert [share for _, share in mixture.shares] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"hard": 1.0}, "'hard' is not a kind of patch; the kinds are hard_skeleton, small_airway, random,"),
        ({"thin": -0.5, "random": 1.5}, "The share of thin patches is -0.5, not a number from 0 to 1"),
        ({"thin": "half", "random": 0.5}, "The share of thin patches is 'half'"),
        ({"thin": float("nan")}, "The share of thin patches is nan"),
        ({"thin": 0.5, "random": 0.4}, "sum to 0.9, not to 1"),
        ({}, "sum to 0, not to 1"),
    ],
)
def test_a_bad_mixture_is_refused_with_its_culprit(table, sentence):
    with pytest.raises(AirwaySegError, match=sentence):
        Mixture.of(table)


# Places --------------------------------------------------------------------------------------------------------------


def test_small_airways_are_skeleton_voxels_nearer_than_two_voxels_to_the_background(their_centres):
    # The axis of the bar of 3 voxels is exactly 2 voxels from the background, so it is not small.
    assert set(their_centres.points[Kind.SMALL_AIRWAY][:, 1]) == {3}
    assert len(their_centres.points[Kind.SMALL_AIRWAY]) == 12


def test_thin_middle_and_wide_airways_share_the_skeleton(their_centres):
    rows = {kind: set(their_centres.points[kind][:, 1]) for kind in (Kind.THIN, Kind.MIDDLE, Kind.WIDE)}
    assert rows == {Kind.THIN: {3, 10}, Kind.MIDDLE: set(), Kind.WIDE: {20}}


def test_an_airway_that_fills_the_whole_array_is_wide():
    full = np.ones((8, 8, 8), np.uint8)
    centres = find_centres(np.full(full.shape, -950, np.int16), full, full, SPACING_MM)
    assert len(centres.points[Kind.WIDE]) == 512 and len(centres.points[Kind.SMALL_AIRWAY]) == 0


def test_drawn_small_airways_are_never_background(three_bars, their_centres, rng):
    points = np.array([their_centres.draw(Mixture.of({"small_airway": 1}), rng) for _ in range(200)])
    assert (three_bars[1][tuple(points.T)] == 1).all()
    assert len(np.unique(points, axis=0)) == 12


def test_hard_places_are_the_missed_voxels_each_equally_often(three_bars, their_centres, rng):
    missed = np.zeros_like(three_bars[1])
    missed[2:6, 10, 6] = 1
    centres = their_centres.with_missed(missed)
    drawn = Counter(tuple(centres.draw(Mixture.of({"hard_skeleton": 1}), rng).tolist()) for _ in range(2000))
    assert set(drawn) == {(z, 10, 6) for z in range(2, 6)}
    assert min(drawn.values()) > 400
    assert Kind.HARD_SKELETON not in their_centres.points, "the points of another stage must stay as they are"


def test_a_kind_without_voxels_falls_back_to_random_in_the_box(rng):
    box = (slice(2, 4), slice(10, 20), slice(5, 6))
    centres = Centres((30, 30, 30), box, {}).with_missed(np.zeros((30, 30, 30), np.uint8))
    for kind in set(Kind) - {Kind.ANYWHERE}:
        points = np.array([centres.draw(Mixture.of({kind: 1}), rng) for _ in range(200)])
        assert points.min(axis=0).tolist() == [2, 10, 5] and points.max(axis=0).tolist() == [3, 19, 5]


def test_a_scan_without_airway_still_gives_places_of_every_mixture(rng):
    nothing = np.zeros((20, 20, 20), np.uint8)
    centres = find_centres(np.full(nothing.shape, -100, np.int16), nothing, nothing, SPACING_MM)
    points = np.array([centres.draw(OUR_MIXTURE, rng) for _ in range(300)])
    assert points.min() == 0 and points.max() == 19


def test_anywhere_is_the_whole_scan_and_random_the_box(rng):
    centres = Centres((40, 40, 40), (slice(30, 40),) * 3, {})
    anywhere = np.array([centres.draw(Mixture.of({"anywhere": 1}), rng) for _ in range(1000)])
    assert anywhere.mean() == pytest.approx(19.5, abs=1) and anywhere.min() == 0 and anywhere.max() == 39
    assert centres.draw(Mixture.of({"random": 1}), rng).min() >= 30


def test_the_border_is_where_air_meets_tissue(three_bars):
    ct = np.full((40, 40, 40), 40, np.int16)
    ct[:, :20] = -1000
    nothing = np.zeros(ct.shape, np.uint8)
    border = find_centres(ct, nothing, nothing, SPACING_MM).points[Kind.BORDER]
    assert len(border) == 34 and (border[:, 1] == 16).all()  # a third of 10 x 10 coarse voxels, the last of air


def test_the_lung_box_holds_lungs_and_the_trachea_above_but_not_the_body(a_chest):
    label = (a_chest.trachea | a_chest.bronchi).astype(np.uint8)
    box = lung_box(a_chest.hu, label, a_chest.spacing_mm)
    inside = np.zeros(label.shape, bool)
    inside[box] = True
    assert inside[label == 1].all() and inside[a_chest.lungs].mean() > 0.99
    assert box[2].start > 10 and box[2].stop < 170 and inside[a_chest.body].mean() < 0.85


# Cutting -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 40, 40), (40, 9, 17)])
def test_a_drawn_cube_always_contains_its_point_and_stays_in_the_scan_if_it_fits(shape, rng):
    corners = np.array(np.meshgrid(*[(0, n // 2, n - 1) for n in shape])).reshape(3, -1).T
    for point in np.repeat(corners, 20, axis=0):
        start = draw_start(point, shape, 16, rng)
        assert (start <= point).all() and (point < start + 16).all()
        for first, count in zip(start, shape):
            assert 0 <= first <= count - 16 if count >= 16 else first == 0


def test_the_point_lies_anywhere_in_the_middle_two_thirds_of_the_cube(rng):
    within = 50 - np.array([draw_start(np.full(3, 50), (100, 100, 100), 24, rng) for _ in range(500)])
    assert within.min() == 12 - 8 and within.max() == 12 + 8
    assert within.mean(axis=0) == pytest.approx([12, 12, 12], abs=1)


def test_beyond_the_border_the_mirror_image_goes_on():
    line = np.array([1, 2, 3], np.int16)[:, None, None]
    assert cut(line, (-3, 0, 0), (9, 1, 1)).ravel().tolist() == [3, 2, 1, 1, 2, 3, 3, 2, 1]
    assert cut(line, (-8, 0, 0), (3, 1, 1)).ravel().tolist() == [2, 1, 1]
    assert cut(line, (1, -2, 0), (2, 4, 1))[:, :, 0].tolist() == [[2] * 4, [3] * 4]


def test_beyond_the_border_is_the_fill_if_one_is_given():
    array = np.ones((4, 4, 4), np.int16)
    patch = cut(array, np.array([-2, 0, 3]), 4, -1000)
    assert (patch[:2] == -1000).all() and (patch[2:, :, 0] == 1).all() and (patch[:, :, 1:] == -1000).all()
    assert (cut(array, (9, 9, 9), 2, 7) == 7).all()


def test_a_cut_is_a_copy():
    array = np.zeros((4, 4, 4))
    cut(array, (1, 1, 1), 2)[:] = 5
    assert not array.any()


def test_arrays_are_cut_at_the_same_place_with_their_own_types():
    number = np.arange(1000).reshape(10, 10, 10)
    cubes = crops({"as is": number, "doubled": (2 * number).astype(np.float32)}, (-2, 3, 8), 5)
    assert cubes["as is"][2, 0, 0] == 38 and cubes["as is"].shape == (5, 5, 5)
    assert np.array_equal(cubes["doubled"], 2 * cubes["as is"]) and cubes["doubled"].dtype == np.float32
