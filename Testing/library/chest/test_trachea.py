"""Finding the trachea by shape and position in drawn chests."""

import numpy as np
import pytest
from conftest import Chest, draw_chest

from AirwaySegLib.chest.preprocessing import body_mask
from AirwaySegLib.chest.trachea import Trachea, find_trachea, whole_sections


def trachea_of(hu: np.ndarray, chest: Chest) -> Trachea | None:
    return find_trachea(hu, body_mask(hu, chest.spacing_mm), chest.spacing_mm)


def test_the_tube_is_followed_from_the_carina_to_the_top(a_chest):
    trachea = trachea_of(a_chest.hu, a_chest)
    assert a_chest.trachea[tuple(trachea.centers_zyx.T)].all()
    assert a_chest.trachea[tuple(trachea.lumen_zyx.T)].all()
    assert abs(trachea.bottom * 2.5 - a_chest.carina_mm) <= 7.5
    assert trachea.top == len(a_chest.hu) - 1
    assert trachea.touches_top
    assert trachea.has_carina
    assert np.array_equal(trachea.centers_zyx[:, 0], np.arange(trachea.bottom, trachea.top + 1))
    assert np.median(trachea.radius_mm) == pytest.approx(9, abs=0.8)
    assert trachea.lumen_hu == pytest.approx(-950, abs=3)


@pytest.mark.parametrize("lumen_hu", [-1020, -880])
@pytest.mark.parametrize("noise_hu", [5, 60])
def test_dark_and_bright_air_and_noise_are_all_the_same(lumen_hu, noise_hu):
    chest = draw_chest(lumen_hu, noise_hu)
    trachea = trachea_of(chest.hu, chest)
    assert chest.trachea[tuple(trachea.centers_zyx.T)].all()
    assert trachea.lumen_hu == pytest.approx(lumen_hu, abs=5)


def test_a_shifted_scale_changes_nothing_but_the_lumens_value():
    chest = draw_chest(offset_hu=60)
    trachea = trachea_of(chest.hu, chest)
    assert chest.trachea[tuple(trachea.centers_zyx.T)].all()
    assert trachea.lumen_hu == pytest.approx(-890, abs=3)


@pytest.mark.parametrize("glottis_mm", [3.4, 8])
def test_the_tube_ends_below_the_larynx(glottis_mm):
    chest = draw_chest(glottis_mm=glottis_mm)
    trachea = trachea_of(chest.hu, chest)
    assert chest.trachea[tuple(trachea.centers_zyx.T)].mean() > 0.95
    end = np.flatnonzero(chest.trachea.any(axis=(1, 2)))[-1]
    assert abs(trachea.top - end) <= 3
    assert not trachea.touches_top


def test_its_sections_reach_the_wall_but_not_an_oesophagus_that_is_open_to_them(a_chest):
    hu = a_chest.hu.copy()
    hu[80:83, 58:66, 78:96] = -1000  # gas
    hu[80:83, 53:58, 87] = -1000  # and a gap in the wall
    trachea = trachea_of(hu, a_chest)
    sections = np.zeros(hu.shape, bool)
    sections[tuple(whole_sections(trachea, hu, a_chest.spacing_mm).T)] = True
    closed = np.setdiff1d(trachea.centers_zyx[:, 0], [80, 81, 82])
    assert np.array_equal(sections[closed], a_chest.trachea[closed]) and len(closed) > 40
    assert not sections[80:83].any()


def test_a_stenosis_is_not_taken_for_a_larynx():
    chest = draw_chest()
    hu = chest.hu.copy()
    y, x = np.indices(hu.shape[1:]) * np.array(chest.spacing_mm[1:])[:, None, None]
    narrowed = np.hypot(y - 75, x - 139) > 6.5  # half of the trachea's area
    hu[75:82][chest.trachea[75:82] & narrowed] = 40
    trachea = trachea_of(hu, chest)
    assert trachea.top == len(hu) - 1


def test_the_upper_half_shows_a_trachea_without_carina(a_chest):
    start = int(a_chest.carina_mm / 2.5) + 6
    trachea = trachea_of(a_chest.hu[start:], a_chest)
    assert a_chest.trachea[start:][tuple(trachea.centers_zyx.T)].all()
    assert trachea.bottom == 0
    assert not trachea.has_carina


def test_scans_without_a_trachea_have_none(a_chest):
    carina = int(a_chest.carina_mm / 2.5)
    assert trachea_of(a_chest.hu[: carina - 3], a_chest) is None  # main bronchi and lungs
    assert trachea_of(a_chest.hu[: carina // 2], a_chest) is None  # lung base and abdomen
    assert trachea_of(a_chest.hu[carina : carina + 8], a_chest) is None  # only 20 mm of it


def test_an_oesophagus_is_not_taken_where_the_trachea_is_missing(a_chest):
    hu = a_chest.hu.copy()
    hu[a_chest.trachea | a_chest.bronchi] = 40
    assert trachea_of(hu, a_chest) is None


def test_a_block_of_air_or_of_tissue_has_none():
    for value in (-1000, 40):
        hu = np.full((40, 60, 60), value, np.int16)
        assert find_trachea(hu, hu > -500, (2.5, 1.5, 1.5)) is None


def test_a_mirrored_chest_gives_the_mirrored_trachea(a_chest):
    mirrored = trachea_of(np.ascontiguousarray(a_chest.hu[:, :, ::-1]), a_chest)
    assert a_chest.trachea[:, :, ::-1][tuple(mirrored.centers_zyx.T)].all()


def test_a_fine_grid_gives_the_same_place_in_mm(a_chest):
    box = slice(30, 90), slice(25, 75), slice(40, 140)
    fine = a_chest.hu[box].repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    spacing_mm = tuple(step / 2 for step in a_chest.spacing_mm)
    coarse = find_trachea(a_chest.hu[box], np.ones_like(a_chest.hu[box], bool), a_chest.spacing_mm)
    trachea = find_trachea(fine, np.ones_like(fine, bool), spacing_mm)
    assert (a_chest.trachea | a_chest.bronchi)[box][tuple(trachea.centers_zyx.T // 2)].all()
    assert trachea.bottom // 2 == coarse.bottom
    assert np.median(trachea.radius_mm) == pytest.approx(np.median(coarse.radius_mm), abs=0.5)
