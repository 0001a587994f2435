"""The blurred disc against one that is blurred on a grid, and the fit against profiles of that grid."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from AirwaySegLib.walls.blurred_tube import Rays, Tubes, disc, fit_tubes

STEP_MM = 0.02
R_MM = np.arange(0, 251, 10) * STEP_MM


def profile(outer_mm: float, blur_mm: float) -> np.ndarray:
    """Values from the middle of a blurred disc outwards, at `R_MM`."""
    axis = np.arange(-300, 301) * STEP_MM
    drawn = (np.hypot(axis[:, None], axis) < outer_mm).astype(float)
    return gaussian_filter(drawn, blur_mm / STEP_MM)[300, 300:][(R_MM / STEP_MM).round().astype(int)]


@pytest.mark.parametrize(("radius_mm", "blur_mm"), [(0.6, 0.6), (1.2, 0.6), (3.0, 0.5)])
def test_a_disc_is_as_bright_as_one_blurred_on_a_grid(radius_mm, blur_mm):
    values, slopes = disc(R_MM[None], np.array([radius_mm]), np.array([blur_mm]))
    assert values[0] == pytest.approx(profile(radius_mm, blur_mm), abs=0.012)
    change = (profile(radius_mm + 0.1, blur_mm) - profile(radius_mm - 0.1, blur_mm)) / 0.2
    assert slopes[0] == pytest.approx(change, abs=0.03 / blur_mm)


@pytest.mark.parametrize("thickness_mm", [0.4, 1.0, 2.0])
def test_the_fit_finds_the_tube_behind_a_profile(thickness_mm):
    inner_mm, blur_mm = 1.5, 0.6
    air, wall, lung = -1000.0, 40.0, -850.0
    tube, lumen = profile(inner_mm + thickness_mm, blur_mm), profile(inner_mm, blur_mm)
    hu = lung + (wall - lung) * tube - (wall - air) * lumen
    rays = Rays(R_MM[None], hu[None], np.ones((1, len(R_MM)), bool), np.array([blur_mm]))
    start = Tubes(np.array([1.1]), np.array([1.2]), np.empty(0), np.array([-800.0]), np.empty(0))
    found = fit_tubes(rays, start, air, wall)
    assert found.inner_mm[0] == pytest.approx(inner_mm, abs=0.03)
    assert found.thickness_mm[0] == pytest.approx(thickness_mm, abs=0.04)
    assert found.lung_hu[0] == pytest.approx(lung, abs=20) and found.error_hu[0] < 8
