"""The table that holds simulated CTs against real ones: rings show what was painted, rows say what lies within."""

import sys
from pathlib import Path

import numpy as np
import pytest

from AirwaySegLib.treebuild import parse_airways
from AirwaySegLib.volume import Volume, write_nrrd

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import realism

SPACING_MM = (0.8, 0.7, 0.7)


@pytest.fixture(scope="module")
def a_walled_tube():
    """A lumen of 3.5 mm with a wall of 2 mm, and its mask; it runs along z and leans."""
    z, y, x = (axis * mm for axis, mm in zip(np.indices((50, 60, 60)), SPACING_MM))
    away = np.hypot(y - 21, x - 15 - 0.3 * z) * np.array([1, np.sqrt(1 / 1.09)]).mean()
    hu = np.where(away < 3.5, -980, np.where(away < 5.5, 40, -850)).astype(np.float32)
    return hu, parse_airways(Volume(((away < 3.5) & (z > 4) & (z < 34)).astype(np.uint8), SPACING_MM))


def test_rings_show_lumen_wall_and_lung_at_their_distances(a_walled_tube):
    hu, parsed = a_walled_tube
    inner = np.arange(len(parsed.lines.radii_mm))[8:-8]
    which = np.zeros(len(parsed.lines.radii_mm), bool)
    which[inner] = True
    profile = np.median(realism.rings(hu, parsed, which), axis=(0, 2))
    found = {mm: profile[int(np.argmin(np.abs(realism.REACH_MM - mm)))] for mm in (-1.0, 1.0, 4.0)}
    assert found == pytest.approx({-1.0: -980, 1.0: 40, 4.0: -850}, abs=30)


def test_what_a_case_leaves_out_is_not_measured(tmp_path):
    label = np.zeros((20, 20, 20), np.uint8)
    label[1, 2, 2:5] = (1, 2, 1)
    for name, array in (("ct", np.arange(8000, dtype=np.int16).reshape(label.shape) % 900 - 1000), ("label", label)):
        write_nrrd(tmp_path / f"{name}.nrrd", array, like=Volume(array, SPACING_MM))
    name, ct, mask = realism.read_case(str(tmp_path))
    assert (name, ct.array.shape) == (tmp_path.name, label.shape)
    assert np.count_nonzero(mask.array) == 2


def test_noise_is_measured_where_the_airway_is_wide(a_walled_tube):
    hu, parsed = a_walled_tube
    noisy = hu + np.random.default_rng(0).normal(scale=30, size=hu.shape).astype(np.float32)
    lungs = hu == -850
    figures = realism.noise_figures(noisy, parsed, lungs)
    assert figures["noise SD in lung, HU"] == pytest.approx(30, rel=0.1)
    # Neighbours of white noise differ from their common mean against each other.
    assert abs(figures["correlation of neighbours in lung along x"]) < 0.1


def test_the_table_counts_how_many_simulated_values_lie_within_the_real_ones():
    simulated = [("a", {"HU": 1.0}), ("b", {"HU": 5.0}), ("c", {"HU": 9.0})]
    real = [("r", {"HU": 4.0}), ("s", {"HU": 9.0, "only here": 2.0})]
    table = realism.rows(simulated, real)
    assert table[1] == ["HU", "5 (1 to 9)", "6.5 (4 to 9)", "2/3", "1", "5", "9", "4", "9"]
    assert table[2][:4] == ["only here", "", "2 (2 to 2)", ""]
