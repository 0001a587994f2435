"""Lumen radii along a line against tubes of known radius, to a fraction of a voxel."""

import numpy as np
import pytest
from phantoms import Tube, draw_tubes

from AirwaySegLib.masks.sparse_mask import Lumen
from AirwaySegLib.tree.centerline import tangents
from AirwaySegLib.tree.cross_sections import section_radii


def radii(mask: np.ndarray, spacing_mm: tuple, points: np.ndarray) -> np.ndarray:
    """The radii along one line."""
    lumen = Lumen.of(mask, spacing_mm)
    return section_radii(mask, lumen, points, tangents(points), np.zeros(len(points), int))


def radii_of_tubes(radius_mm: float, spacing_mm: tuple, ratio: float = 1.0) -> np.ndarray:
    """Mean measured radius of tubes in twelve random directions; ``ratio`` > 1 flattens them."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(12):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        centre = np.array([20.0, 20.0, 20.0]) + rng.uniform(-0.5, 0.5, 3)
        tube = Tube(tuple(centre - 14 * direction), tuple(centre + 14 * direction), radius_mm, radius_mm, False)
        mask = draw_tubes([tube], tuple(int(np.ceil(40 / mm)) for mm in spacing_mm), spacing_mm)
        if ratio > 1:
            grid = np.stack(np.meshgrid(*[np.arange(n) for n in mask.shape], indexing="ij"), -1) * spacing_mm - centre
            across = np.cross(direction, [0.0, 0.0, 1.0])
            across /= np.linalg.norm(across)
            over = np.cross(direction, across)
            inside = (grid @ across / (radius_mm * np.sqrt(ratio))) ** 2 + (
                grid @ over * np.sqrt(ratio) / radius_mm
            ) ** 2 <= 1
            mask = inside & (np.abs(grid @ direction) <= 14)
        points = centre + np.linspace(-6, 6, 25)[:, None] * direction
        found.append(radii(mask, spacing_mm, points).mean())
    return np.array(found)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.25, 0.7, 0.7)])
@pytest.mark.parametrize("radius_mm", [0.8, 1.0, 1.7, 3.0, 7.0])
def test_the_radius_of_a_round_tube_is_right_to_a_twentieth_of_a_voxel(radius_mm, spacing_mm):
    error = radii_of_tubes(radius_mm, spacing_mm) - radius_mm
    assert abs(error.mean()) < 0.05 * max(spacing_mm)
    assert np.abs(error).max() < 0.15 * max(spacing_mm)


def test_a_flattened_tube_has_the_radius_of_the_circle_with_its_area():
    error = radii_of_tubes(5.0, (1.0, 1.0, 1.0), ratio=1.8) - 5.0
    assert np.abs(error).max() < 0.15


def test_the_radius_is_right_up_to_a_flat_end():
    mask = draw_tubes([Tube((34, 20, 20), (5, 20, 20), 7, 7, round_ends=False)], (40, 40, 40), (1, 1, 1))
    points = np.column_stack([np.linspace(6, 33, 28), np.full(28, 20.0), np.full(28, 20.0)])
    assert np.abs(radii(mask, (1.0, 1.0, 1.0), points) - 7).max() < 0.2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_tube_along_an_axis_is_measured_as_well_as_an_oblique_one(axis):
    errors = []
    for radius in (1.5, 2.5, 4.0, 8.0):
        for shift in (0.0, 0.25, 0.5):
            start, end = np.full(3, 20.0 + shift), np.full(3, 20.0 + shift)
            start[axis], end[axis] = -9, 50
            mask = draw_tubes([Tube(tuple(start), tuple(end), radius, radius)], (40, 40, 40), (1, 1, 1))
            points = np.linspace(start, end, 60)[20:40]
            errors.append(radii(mask, (1.0, 1.0, 1.0), points).mean() - np.sqrt(mask.sum() / 40 / np.pi))
    assert abs(np.mean(errors)) < 0.04 and np.abs(errors).max() < 0.15


def test_a_line_beside_the_axis_measures_the_same_lumen():
    mask = draw_tubes([Tube((50, 20, 20), (-10, 20, 20), 5, 5)], (40, 40, 40), (1, 1, 1))
    points = np.column_stack([np.linspace(10, 30, 9), np.full(9, 21.0), np.full(9, 20.5)])
    assert np.abs(radii(mask, (1.0, 1.0, 1.0), points) - 5).max() < 0.25


@pytest.mark.parametrize("radius_mm", [2.13, 4.0])
def test_the_radius_is_the_same_where_the_lumen_touches_the_border_of_the_array(radius_mm):
    tube = Tube((50, 20, 20), (-10, 20, 20), radius_mm, radius_mm)
    mask = draw_tubes([tube], (40, 40, 40), (1, 1, 1))
    points = np.column_stack([np.arange(10.0, 31), np.full(21, 20.0), np.full(21, 20.0)])
    low, high = np.argwhere(mask).min(axis=0), np.argwhere(mask).max(axis=0) + 1
    tight = np.ascontiguousarray(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    whole = radii(mask, (1.0, 1.0, 1.0), points)
    assert radii(tight, (1.0, 1.0, 1.0), points - low) == pytest.approx(whole, abs=1e-6)
    assert whole.mean() == pytest.approx(radius_mm, abs=0.1)


def test_a_single_voxel_has_the_radius_of_a_ball_of_its_volume():
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2, 2] = True
    assert radii(mask, (2.0, 1.0, 1.0), np.array([[4.0, 2.0, 2.0]])) == pytest.approx([(0.75 * 2.0 / np.pi) ** (1 / 3)])
