"""Pi10: the line through the branches' walls, and when there is none."""

import numpy as np
import pytest

from AirwaySegLib.walls.pi10 import pi10_of

DIAMETERS_MM = np.array([1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0])


def thickness_on_a_line(diameters_mm, slope: float, intercept_mm: float):
    """The thickness whose wall area has the root ``intercept_mm`` + ``slope`` times the inner perimeter."""
    area = (intercept_mm + slope * np.pi * diameters_mm) ** 2
    return (np.sqrt(diameters_mm**2 + 4 * area / np.pi) - diameters_mm) / 2


def test_pi10_is_the_lines_value_at_ten_millimetres():
    pi10 = pi10_of(DIAMETERS_MM, thickness_on_a_line(DIAMETERS_MM, 0.3, 0.4))
    assert (pi10.value_mm, pi10.slope, pi10.intercept_mm) == pytest.approx((3.4, 0.3, 0.4))
    assert (pi10.branches, pi10.outliers) == (9, 0) and pi10.r == pytest.approx(1)
    assert (pi10.least_perimeter_mm, pi10.most_perimeter_mm) == pytest.approx((1.5 * np.pi, 8 * np.pi))


def test_walls_as_thick_as_a_vessel_do_not_move_the_line():
    thickness = thickness_on_a_line(DIAMETERS_MM, 0.3, 0.4) + np.tile([0.02, -0.02, 0.0], 3)
    clean = pi10_of(DIAMETERS_MM, thickness)
    spoilt = pi10_of(np.append(DIAMETERS_MM, [2.0, 2.2]), np.append(thickness, [1.6, 1.7]))
    assert spoilt.value_mm == pytest.approx(clean.value_mm, abs=0.05)
    assert (spoilt.branches, spoilt.outliers) == (9, 2)


@pytest.mark.parametrize(
    "diameters_mm",
    [DIAMETERS_MM[:7], np.linspace(3.0, 3.6, 12), np.linspace(4.0, 9.0, 12), np.full(12, 3.2), np.empty(0)],
    ids=["seven branches", "no spread", "all above 10 mm", "equal branches", "none"],
)
def test_without_enough_different_branches_around_ten_millimetres_there_is_none(diameters_mm):
    assert pi10_of(diameters_mm, thickness_on_a_line(diameters_mm, 0.3, 0.4)) is None
