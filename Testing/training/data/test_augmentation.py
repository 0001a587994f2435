"""Turned and mirrored patches: geometry that is known, thin labels that stay thin, voxels left out that stay so."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import affine_transform

from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining.data.augmentation import (
    Augmentation,
    Placement,
    channels,
    draw_placement,
    image_patch,
    label_patch,
    map_patches,
)
from AirwaySegTraining.data.sampling import cut

SHAPE = (40, 50, 60)
SPACING_MM = (1.2, 0.7, 0.7)
QUARTER_TURN = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
NEVER_MIRRORED = Augmentation(mirrored=(0.0, 0.0, 0.0))


@pytest.fixture
def rng():
    """Always the same random numbers."""
    return np.random.default_rng(11)


@pytest.fixture
def a_scan(rng):
    """Random HU."""
    return rng.integers(-1000, 300, SHAPE).astype(np.int16)


def random_point(rng):
    return rng.integers(0, SHAPE)


def place_of(placement):
    """The patch's voxel at which the chosen point is seen."""
    last = placement.side - 1
    return tuple(last - at if flip else at for at, flip in zip(placement.pivot, placement.mirrored))


# Geometry ------------------------------------------------------------------------------------------------------------


def test_without_a_turn_the_patch_is_the_scans_cube(a_scan, rng):
    still = Augmentation(degrees=0, mirrored=(0.0, 0.0, 0.0))
    placement = draw_placement(np.array([5, 30, 55]), SHAPE, 24, SPACING_MM, still, rng)
    start = np.array([5, 30, 55]) - placement.pivot
    expected = a_scan[tuple(slice(first, first + 24) for first in start)]
    assert np.array_equal(image_patch(a_scan, placement), expected)
    turned_by_nothing = replace(placement, matrix=np.eye(3))
    assert np.array_equal(image_patch(a_scan, turned_by_nothing), expected)
    assert np.array_equal(map_patches({"hu": a_scan}, turned_by_nothing)["hu"], expected)


def test_a_quarter_turn_turns_every_slice(a_scan):
    placement = Placement((20, 25, 30), (7, 7, 7), 15, QUARTER_TURN)
    cube = cut(a_scan, (13, 18, 23), 15)
    expected = np.rot90(cube, axes=(2, 1))  # row y of the patch is column x of the scan
    assert np.abs(image_patch(a_scan, placement) - expected).max() < 0.05
    assert np.array_equal(map_patches({"hu": a_scan}, placement)["hu"], expected)


def test_a_turned_patch_is_what_scipy_interpolates(a_scan, rng):
    large = np.pad(a_scan, 30, mode="symmetric")
    for _ in range(4):
        placement = draw_placement(random_point(rng), SHAPE, 24, SPACING_MM, NEVER_MIRRORED, rng)
        offset = np.array(placement.point) + 30 - placement.matrix @ placement.pivot
        oracle = affine_transform(large, placement.matrix, offset, (24,) * 3, np.float32, order=1)
        assert np.abs(image_patch(a_scan, placement) - oracle).max() < 0.05


def test_the_chosen_point_is_in_every_patch(a_scan, rng):
    for _ in range(60):
        point = random_point(rng)
        placement = draw_placement(point, SHAPE, 16, SPACING_MM, Augmentation(), rng)
        assert image_patch(a_scan, placement)[place_of(placement)] == pytest.approx(a_scan[tuple(point)], abs=0.1)
        assert map_patches({"hu": a_scan}, placement)["hu"][place_of(placement)] == a_scan[tuple(point)]


def test_lengths_in_mm_stay_what_they_are(rng):
    z, y, x = (np.arange(n) * mm for n, mm in zip(SHAPE, SPACING_MM))
    for heights in (z[:, None, None], y[:, None], x):
        ramp = np.broadcast_to(heights, SHAPE).astype(np.float32)
        middle = np.array([20, 25, 30])
        patch = image_patch(ramp, draw_placement(middle, SHAPE, 12, SPACING_MM, NEVER_MIRRORED, rng))
        steps = [np.diff(patch, axis=k) / SPACING_MM[k] for k in range(3)]
        gradient = [step.mean() for step in steps]
        assert np.linalg.norm(gradient) == pytest.approx(1, abs=1e-4), "rise in mm per mm"
        assert max(step.std() for step in steps) < 1e-4 and 0 < np.sort(np.abs(gradient))[1] < 0.5


def test_angles_are_uniform_up_to_the_limit(rng):
    cubes = (1.0, 1.0, 1.0)
    turns = [draw_placement(np.zeros(3, int), SHAPE, 16, cubes, NEVER_MIRRORED, rng).matrix for _ in range(400)]
    angles = np.degrees([np.arctan2(turn[2, 1], turn[1, 1]) for turn in turns])
    # Two small turns after one about z change its angle by up to sin(15) squared.
    assert 14 < np.abs(angles).max() < 20 and angles.mean() == pytest.approx(0, abs=1)
    assert np.abs(angles).mean() == pytest.approx(7.5, abs=1)
    assert np.allclose([turn @ turn.T for turn in turns], np.eye(3)) and np.allclose(np.linalg.det(turns), 1)


def test_zoomed_patches_show_lengths_larger_or_smaller_by_factors_within_the_limits(rng):
    zoomed = Augmentation(degrees=0, mirrored=(0.0, 0.0, 0.0), zoom=(0.7, 1.4))
    middle = np.array([20, 30, 30])
    ramp = np.broadcast_to(np.arange(SHAPE[2], dtype=np.int16) * 10, SHAPE)
    steps = []
    for _ in range(200):
        patch = image_patch(ramp, draw_placement(middle, SHAPE, 12, SPACING_MM, zoomed, rng))
        steps.append(float(np.median(np.diff(patch[5, 5])) / 10))
    factors = 1 / np.array(steps)
    assert 0.699 < factors.min() < 0.75 and 1.3 < factors.max() < 1.401
    assert np.mean(factors < 1) == pytest.approx(np.log(0.7) / (np.log(0.7) - np.log(1.4)), abs=0.12)


def test_turned_patches_have_no_empty_corners_even_at_the_scans_border(rng):
    tissue = np.full(SHAPE, 40, np.int16)
    for corner in np.array(np.meshgrid((0, 39), (0, 49), (0, 59))).reshape(3, -1).T:
        placement = draw_placement(corner, SHAPE, 32, SPACING_MM, Augmentation(), rng)
        assert np.abs(image_patch(tissue, placement) - 40).max() < 1e-3


def test_a_margin_shows_more_around_the_same_patch(a_scan, rng):
    placement = draw_placement(np.array([20, 25, 30]), SHAPE, 12, SPACING_MM, Augmentation(), rng)
    wide = image_patch(a_scan, placement.enlarged(3))
    assert wide.shape == (18, 18, 18)
    assert np.abs(wide[3:-3, 3:-3, 3:-3] - image_patch(a_scan, placement)).max() < 0.05


def test_mirroring_mirrors_image_label_and_maps_alike(a_scan, rng):
    label = (a_scan > 0).astype(np.uint8)
    plain = draw_placement(np.array([20, 25, 30]), SHAPE, 16, SPACING_MM, NEVER_MIRRORED, rng)
    mirrored = replace(plain, mirrored=(True, False, True))
    for patch in (
        lambda at: image_patch(a_scan, at),
        lambda at: label_patch(label, at, 0.8),
        lambda at: map_patches({"hu": a_scan}, at)["hu"],
    ):
        assert np.array_equal(patch(mirrored), patch(plain)[::-1, :, ::-1])


def test_axes_are_mirrored_as_often_as_asked(rng):
    augmentation = Augmentation(mirrored=(0.0, 1.0, 0.5))
    drawn = [draw_placement(np.zeros(3, int), SHAPE, 16, SPACING_MM, augmentation, rng).mirrored for _ in range(400)]
    assert np.mean(drawn, axis=0) == pytest.approx([0, 1, 0.5], abs=0.08)


def test_the_same_seed_gives_the_same_patch(a_scan):
    patches = [
        image_patch(a_scan, draw_placement(np.array([9, 9, 9]), SHAPE, 16, SPACING_MM, Augmentation(), rng))
        for rng in map(np.random.default_rng, (3, 3, 4))
    ]
    assert np.array_equal(patches[0], patches[1]) and not np.array_equal(patches[0], patches[2])


# Labels --------------------------------------------------------------------------------------------------------------


def along_x(values, matrix_x, threshold):
    """Labels 0 to 8 of a row of labels read at steps of ``matrix_x`` voxels."""
    label = np.broadcast_to(np.array(values, np.uint8), (9, 9, len(values)))
    patch = label_patch(label, Placement((4, 4, 0), (4, 4, 0), 9, np.diag([1, 1, matrix_x])), threshold)
    assert (patch == patch[4, 4]).all()
    return patch[4, 4].tolist()


def test_airway_is_what_has_the_threshold_of_it():
    row = [0, 0, 1, 1, 0, 0]  # at quarter steps airway has 0 0 0 0 0, .25 .5 .75 1 of the voxels 4 to 8
    assert along_x(row, 0.25, 0.8) == [0] * 8 + [1]
    assert along_x(row, 0.25, 0.75) == [0] * 7 + [1] * 2
    assert along_x(row, 0.25, 0.3) == [0] * 6 + [1] * 3
    assert along_x(row, 0.5, 0.9) == [0, 0, 0, 0, 1, 1, 1, 0, 0]


def test_airway_goes_on_in_voxels_left_out_without_background_between():
    for threshold in (0.5, 0.8, 0.9, 1.0):
        assert 0 not in along_x([1, 1, 2, 2, 2, 2], 0.3, threshold)
        assert 0 not in along_x([1, 1, 2, 2, 2, 2], 0.16, threshold)  # voxel 7 is 0.88 airway, 0.12 left out
    assert along_x([1, 1, 2, 2, 2, 2], 0.25, 0.8) == [1, 1, 1, 1, 1, 2, 2, 2, 2]
    assert along_x([0, 0, 2, 0, 0, 0], 0.25, 0.8) == [0] * 5 + [2] * 4
    assert along_x([0, 0, 0, 0, 0, 0], 0.25, 1.0) == [0] * 9


def test_a_threshold_of_a_half_keeps_a_tubes_volume_and_higher_ones_make_it_thinner(rng):
    _, y, x = np.indices(SHAPE)
    tube = (np.hypot(y - 25.3, x - 30.2) <= 3).astype(np.uint8)
    volumes = {threshold: [] for threshold in (0.5, 0.8, 0.9)}
    for _ in range(6):
        placement = draw_placement(np.array([20, 25, 30]), SHAPE, 24, (1, 1, 1), NEVER_MIRRORED, rng)
        for threshold, found in volumes.items():
            found.append(label_patch(tube, placement, threshold).sum())
    half, first_stage, second_stage = (np.mean(volumes[threshold]) for threshold in (0.5, 0.8, 0.9))
    assert half == pytest.approx(24 * tube[0].sum(), rel=0.06)
    assert 0.6 < second_stage / half < 0.95 * first_stage / half < 0.9


def test_a_thin_line_left_out_stays_one_line(rng):
    label = np.zeros(SHAPE, np.uint8)
    label[20, 25] = 2
    for _ in range(5):
        placement = draw_placement(np.array([20, 25, 30]), SHAPE, 20, SPACING_MM, NEVER_MIRRORED, rng)
        patch = label_patch(label, placement, 0.9)
        assert set(np.unique(patch)) == {0, 2} and (patch == 2).any(axis=(0, 1)).all()
        nearest = map_patches({"label": label}, placement)["label"]
        assert (patch[nearest == 2] == 2).mean() > 0.95 and patch.sum() < 4 * nearest.sum()


def test_maps_keep_their_types_and_get_no_new_values(rng):
    branch = np.zeros(SHAPE, np.uint16)
    branch[10:30, 20:30] = 700
    branch[10:30, 30:35] = 3
    maps = {"branch": branch, "distance": (branch == 3).astype(np.float16) / 2}
    placement = draw_placement(np.array([20, 29, 30]), SHAPE, 24, SPACING_MM, Augmentation(), rng)
    patches = map_patches(maps, placement)
    assert {name: patch.dtype for name, patch in patches.items()} == {"branch": np.uint16, "distance": np.float16}
    assert set(np.unique(patches["branch"])) == {0, 3, 700}
    assert np.array_equal(patches["branch"] == 3, patches["distance"] == 0.5)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"degrees": 90}, "cannot be rotated by 90 degrees"),
        ({"threshold": 0.0}, "label threshold after rotation is 0.0"),
        ({"mirrored": (0.5, 0.5, 2)}, "probabilities of mirroring"),
        ({"zoom": (1.4, 0.7)}, "cannot be zoomed"),
    ],
)
def test_an_impossible_augmentation_is_refused(values, sentence):
    with pytest.raises(AirwaySegError, match=sentence):
        Augmentation(**values)


# Channels ------------------------------------------------------------------------------------------------------------


def test_channels_show_the_windows_of_the_papers():
    hu = np.array([-2000, -1000, -625, -250, 125, 600], np.float32)
    first, paper, program = channels(hu, ((-1000.0, 600.0), (-625.0, 125.0), (-1000.0, 500.0)))
    assert first == pytest.approx([0, 0, 375 / 1600, 750 / 1600, 1125 / 1600, 1])
    assert paper == pytest.approx([0, 0, 0, 0.5, 1, 1])
    assert program == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1])
    assert channels(np.zeros((4, 4, 4)), [(-1000.0, 600.0)]).shape == (1, 4, 4, 4)
