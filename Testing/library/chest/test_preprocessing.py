"""Body, lungs, box, region, calibration and resampling on drawn chests."""

import numpy as np
import pytest
from conftest import draw_chest

from AirwaySegLib.chest.preprocessing import (
    body_mask,
    calibrate,
    crop_box,
    lung_mask,
    normalise,
    resample,
    search_region,
    target_spacing,
)
from AirwaySegLib.chest.trachea import find_trachea


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two masks."""
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


@pytest.fixture(scope="module")
def a_survey(a_chest):
    """Body, lungs and trachea of the drawn chest."""
    body = body_mask(a_chest.hu, a_chest.spacing_mm)
    lungs = lung_mask(a_chest.hu, body, a_chest.spacing_mm)
    return body, lungs, find_trachea(a_chest.hu, body, a_chest.spacing_mm)


def test_the_body_holds_lungs_and_airways_but_neither_table_nor_air(a_chest, a_survey):
    body = a_survey[0]
    assert overlap(body, a_chest.body) > 0.96
    assert body[a_chest.lungs | a_chest.trachea].all()
    assert not body[:, -8:].any()
    assert not body[:, 0].any()


@pytest.mark.parametrize("offset_hu", [-30, 45])
def test_the_body_does_not_depend_on_a_shifted_scale_or_on_noise(offset_hu):
    chest = draw_chest(offset_hu=offset_hu, noise_hu=70)
    assert overlap(body_mask(chest.hu, chest.spacing_mm), chest.body) > 0.96


def test_a_field_of_view_that_cuts_the_lungs_loses_none_of_them(a_chest):
    cut = np.s_[:, :, 28:-30]
    body = body_mask(a_chest.hu[cut], a_chest.spacing_mm)
    assert a_chest.lungs[cut][:, :, [0, -1]].any(axis=(0, 1)).all()  # both sides really are cut
    assert body[a_chest.lungs[cut]].mean() > 0.99
    lungs = lung_mask(a_chest.hu[cut], body, a_chest.spacing_mm)
    assert lungs[a_chest.lungs[cut]].mean() > 0.93


def test_a_thin_chest_wall_closes_the_lung_off(a_chest):
    hu = a_chest.hu.copy()
    y, x = np.indices(hu.shape[1:]) * np.array(a_chest.spacing_mm[1:])[:, None, None] - np.array([[[80]], [[143]]])
    hu[40:45, (np.abs(x) > 116) & (np.abs(y) < 20)] = -1000  # the wall beside the lungs is six millimetres thick
    hu[:, (np.hypot(x / 125, y / 70) > 1) & (np.abs(x) < 140) & (y > -20)] = -880  # mattress and blanket
    body = body_mask(hu, a_chest.spacing_mm)
    assert body[40:45][a_chest.lungs[40:45]].mean() > 0.99


def test_padding_around_a_round_field_of_view_is_outside(a_chest):
    z, y, x = np.indices(a_chest.hu.shape, sparse=True)
    padding = np.broadcast_to((y - 55) ** 2 * 2.2 + (x - 90) ** 2 > 62**2, a_chest.hu.shape)
    hu = np.where(padding, np.int16(-1024), a_chest.hu)
    assert (padding & a_chest.lungs).any()
    body = body_mask(hu, a_chest.spacing_mm)
    assert body[a_chest.lungs & ~padding].mean() > 0.98
    assert body[padding].mean() < 0.05


def test_the_lungs_are_found_without_stomach_gas(a_chest, a_survey):
    lungs = a_survey[1]
    assert overlap(lungs, a_chest.lungs) > 0.9
    assert not lungs[:4, 35:45, 115:128].any()  # the drawn stomach's gas


def test_no_lungs_in_an_abdomen_or_in_a_block(a_chest):
    hu = a_chest.hu[:4]
    assert not lung_mask(hu, body_mask(hu, a_chest.spacing_mm), a_chest.spacing_mm).any()
    water = np.zeros((20, 40, 40), np.int16)
    assert body_mask(water, (2, 2, 2)).all()
    assert not lung_mask(water, water == 0, (2, 2, 2)).any()
    assert not body_mask(water - 1000, (2, 2, 2)).any()


def test_the_box_holds_lungs_and_trachea_and_not_much_more(a_chest, a_survey):
    body, lungs, trachea = a_survey
    box, warning = crop_box(body, lungs, trachea, a_chest.spacing_mm)
    assert warning is None
    airways = a_chest.lungs | a_chest.trachea | a_chest.bronchi
    assert airways[box].sum() == airways.sum()
    low = [line.min() for line in np.nonzero(a_chest.lungs)]
    assert [part.start for part in box] == pytest.approx([max(low[0] - 4, 0), low[1] - 6.5, low[2] - 6.5], abs=2.5)


def test_the_box_ends_above_the_trachea_not_at_the_top_of_a_long_neck(a_chest, a_survey):
    body, lungs, trachea = a_survey
    neck = ((0, 60), (0, 0), (0, 0))
    body, lungs = np.pad(body, neck, mode="edge"), np.pad(lungs, neck)
    box, _ = crop_box(body, lungs, trachea, a_chest.spacing_mm)
    assert box[0].stop == trachea.top + 12 + 1  # 30 mm
    whole, _ = crop_box(body, lungs, None, a_chest.spacing_mm)
    assert whole[0].stop == len(body)


def test_without_lungs_the_body_is_the_box_with_a_warning(a_chest, a_survey):
    body = a_survey[0]
    nothing = np.zeros_like(body)
    box, warning = crop_box(body, nothing, None, a_chest.spacing_mm)
    assert "No lungs were found" in warning
    assert body[box].sum() == body.sum()
    assert np.array_equal(search_region(body, nothing, None, a_chest.spacing_mm), body)
    box, _ = crop_box(nothing, nothing, None, a_chest.spacing_mm)
    assert nothing[box].shape == nothing.shape


def test_the_region_holds_all_airways_and_little_outside_the_chest(a_chest, a_survey):
    body, lungs, trachea = a_survey
    region = search_region(body, lungs, trachea, a_chest.spacing_mm)
    assert region[a_chest.lungs | a_chest.trachea | a_chest.bronchi].mean() > 0.999
    assert not region[~body].any()
    assert region[-1].sum() < 0.25 * body[-1].sum()  # a column in the neck
    without = search_region(body, lungs, None, a_chest.spacing_mm)
    assert without[a_chest.trachea].mean() > 0.95


@pytest.mark.parametrize(("lumen_hu", "offset_hu"), [(-1000, 0), (-955, 0), (-1025, 15), (-900, -30), (-840, -80)])
def test_calibration_brings_the_tracheas_air_into_the_usual_range(lumen_hu, offset_hu):
    chest = draw_chest(lumen_hu, noise_hu=30)
    trachea = find_trachea(chest.hu, chest.body, chest.spacing_mm)
    assert calibrate(chest.hu, trachea) == pytest.approx(offset_hu, abs=3)


def test_without_a_trachea_nothing_is_calibrated(a_chest):
    assert calibrate(a_chest.hu, None) == 0


def test_air_cut_off_at_minus_1000_is_not_shifted():
    chest = draw_chest(-1000, noise_hu=30)
    clipped = np.maximum(chest.hu, -1000)
    trachea = find_trachea(clipped, chest.body, chest.spacing_mm)
    assert calibrate(clipped, trachea) == pytest.approx(0, abs=1)


def test_the_window_maps_to_zero_and_one():
    hu = np.array([-1024, -1000, -200, 600, 3000], np.int16).reshape(1, 1, 5)
    result = normalise(hu, (-1000, 600))
    assert result.dtype == np.float32
    assert result.ravel() == pytest.approx([0, 0, 0.5, 1, 1])
    assert hu[0, 0, 0] == -1024


def test_a_spacing_within_the_models_limits_is_kept():
    assert target_spacing((1.0, 0.7, 0.7), (0.5, 0.5, 0.5), (1.25, 0.9, 0.9)) is None
    assert target_spacing((1.251, 0.7, 0.7), (0.5, 0.5, 0.5), (1.25, 0.9, 0.9)) is None
    assert target_spacing((2.5, 0.7, 0.4), (0.5, 0.5, 0.5), (1.25, 0.9, 0.9)) == (1.25, 0.7, 0.5)


def test_resampling_keeps_the_place_in_mm():
    z, y, x = np.meshgrid(np.arange(12), np.arange(20), np.arange(30), indexing="ij")
    # a plane in mm, measured from the corner of the first voxel
    plane = (2.0 * (z + 0.5) + 0.8 * (y + 0.5) - 0.5 * (x + 0.5)).astype(np.float32)
    fine = resample(plane, (2.0, 0.8, 0.5), (1.0, 0.4, 0.5), order=1)
    assert fine.shape == (24, 40, 30)
    assert fine[11, 21, 7] == pytest.approx(1.0 * 11.5 + 0.4 * 21.5 - 0.5 * 7.5, abs=1e-4)
    back = resample(fine, (1.0, 0.4, 0.5), (2.0, 0.8, 0.5), order=1, shape=plane.shape)
    assert back.shape == plane.shape
    assert np.abs(back - plane)[1:-1, 1:-1, 1:-1].max() < 1e-4


def test_resampling_keeps_the_type_and_the_edge():
    mask = np.zeros((10, 11, 13), np.uint8)
    mask[-3:] = 1
    there = resample(mask, (2.5, 1, 1), (1.1, 1, 1), order=0)
    assert there.dtype == np.uint8
    assert there.shape == (23, 11, 13)  # 25 mm / 1.1 mm
    assert there[-1].all()
    assert np.array_equal(resample(there, (1.1, 1, 1), (2.5, 1, 1), order=0, shape=mask.shape), mask)
    assert np.array_equal(resample(mask, (2.5, 1, 1), (2.5, 1, 1), order=1), mask)
