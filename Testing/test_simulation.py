"""The simulator: trees of plausible size, tubes of the right radius, cases that come out the same twice."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining import simulate as simulation
from AirwaySegTraining.degrade import Scanner, scan
from AirwaySegTraining.patient import draw_patient, grow_arteries, grow_bronchial_tree, open_airways
from AirwaySegTraining.rendering import Grid, enlarge, paint_tubes
from AirwaySegTraining.simulate import is_visible, simulate_case, write_case
from AirwaySegTraining.trees import Branch, total_length_mm

QUIET = Scanner(0.01, 0.01, 0.0, 0.001, 0.5, 0.0, 0.0, 1.0, None)


@pytest.fixture(scope="module")
def a_patient_with_a_tree():
    rng = np.random.default_rng(5)
    patient = draw_patient(rng)
    return patient, grow_bronchial_tree(patient, rng), rng


@pytest.fixture
def a_small_grid() -> Grid:
    return Grid((40, 40, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3))


def _straight_tube(radius_mm: float) -> Branch:
    line = np.stack([np.linspace(5, 35, 16), np.full(16, 20.0), np.full(16, 20.0)], axis=1)
    return Branch(line, np.full(16, radius_mm), -1, 0)


def test_a_painted_tube_has_the_volume_of_a_capsule(a_small_grid):
    coverage = np.zeros(a_small_grid.shape, np.uint8)
    paint_tubes(coverage, [_straight_tube(6.0)], a_small_grid)
    expected = np.pi * 36 * 30 + 4 / 3 * np.pi * 216
    assert coverage.sum(dtype=float) / 255 == pytest.approx(expected, rel=0.02)


def test_a_tube_below_a_voxel_keeps_its_area_in_the_mean(a_small_grid):
    coverage = np.zeros(a_small_grid.shape, np.uint8)
    paint_tubes(coverage, [_straight_tube(0.3)], a_small_grid)
    per_slice = coverage[20].sum(dtype=float) / 255
    # Its area is 0.28 of a voxel's; the tube of half a voxel that stands for it shows 0.36 of it.
    assert 0.2 < per_slice < 0.5


def test_enlarging_a_linear_field_is_exact():
    coarse = np.linspace(0, 1, 5, dtype=np.float32)[:, None, None] * np.ones((5, 4, 3), np.float32)
    fine = enlarge(coarse, (17, 9, 8), slice(None))
    assert np.allclose(fine, np.linspace(0, 1, 17)[:, None, None], atol=1e-6)
    assert np.array_equal(enlarge(coarse, (17, 9, 8), slice(3, 6)), fine[3:6])


def test_trees_are_as_long_and_as_deep_as_real_ones(a_patient_with_a_tree):
    _, tree, _ = a_patient_with_a_tree
    airways = open_airways(tree, 0.9)
    assert 2.0 < total_length_mm(airways) / 1000 < 5.5
    assert 8 <= max(branch.generation for branch in airways) <= 23
    assert all(branch.radii_mm.mean() >= 0.9 for branch in airways)


def test_children_begin_where_their_parent_ends_and_are_thinner(a_patient_with_a_tree):
    _, tree, _ = a_patient_with_a_tree
    thinner = []
    for branch in tree[1:]:
        parent = tree[branch.parent]
        assert np.allclose(branch.points_mm[0], parent.points_mm[-1], atol=1e-6)
        thinner.append(branch.radii_mm.mean() < parent.radii_mm.mean())
    assert np.mean(thinner) > 0.95


def test_an_artery_ends_beside_its_airway_and_off_its_lumen(a_patient_with_a_tree):
    patient, tree, rng = a_patient_with_a_tree
    arteries = grow_arteries(patient, tree, rng)
    assert len(arteries) == sum(branch.generation > 0 for branch in tree)
    airways = [branch for branch in tree if branch.generation > 0]
    gaps = [
        np.linalg.norm(artery.points_mm[-1] - airway.points_mm[-1]) - artery.radii_mm[-1] - airway.radii_mm[-1]
        for artery, airway in zip(arteries, airways, strict=True)
    ]
    assert min(gaps) > 0


def test_an_undisturbed_scan_changes_nothing():
    picture = np.random.default_rng(0).uniform(-1000, 400, (12, 12, 12)).astype(np.float32)
    assert np.allclose(scan(picture, QUIET, np.random.default_rng(1)), picture, atol=0.1)


def test_scanner_offset_and_floor_are_applied():
    scanner = Scanner(0.01, 0.01, 0.0, 0.001, 0.5, 0.0, 40.0, 1.0, -1000.0)
    out = scan(np.full((8, 8, 8), -1020, np.float32), scanner, np.random.default_rng(1))
    assert np.allclose(out, -980, atol=0.1)
    low = scan(np.full((8, 8, 8), -1100, np.float32), scanner, np.random.default_rng(1))
    assert np.allclose(low, -1000, atol=0.1)


def test_wide_airways_are_visible_and_thin_or_noisy_ones_are_not():
    spacing = (1.0, 0.7, 0.7)
    noisy = Scanner(0.5, 0.5, 0.0, 80.0, 0.5, 0.0, 0.0, 1.0, None)
    assert is_visible(4.0, 150, spacing, noisy)
    assert not is_visible(1.0, 150, spacing, QUIET)
    assert is_visible(1.8, 120, spacing, QUIET)
    assert not is_visible(1.8, 120, spacing, noisy)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_case_with_an_airway_darker_than_its_surroundings():
    case, again = simulate_case(3), simulate_case(3)
    assert np.array_equal(case.ct, again.ct) and np.array_equal(case.label, again.label)
    assert case.ct.dtype == np.int16 and set(np.unique(case.label)) <= {0, 1, 2}
    assert np.median(case.ct[case.label == 1]) < -700 < np.median(case.ct)
    assert not np.array_equal(case.ct, simulate_case(4).ct[: len(case.ct)])


def test_a_case_is_written_whole_with_its_spacing(tmp_path):
    ct = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    label = (ct > 20).astype(np.uint8)
    write_case(simulation.SimulatedCase(ct, label, (1.5, 0.7, 0.6), {"clean": True}), tmp_path / "cases" / "one")
    image = sitk.ReadImage(str(tmp_path / "cases" / "one" / "ct.nrrd"))
    assert image.GetSpacing() == pytest.approx((0.6, 0.7, 1.5))
    assert np.array_equal(sitk.GetArrayFromImage(image), ct)
    assert json.loads((tmp_path / "cases" / "one" / "case.json").read_text()) == {"clean": True}
    assert [path.name for path in (tmp_path / "cases").iterdir()] == ["one"]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(simulation, "write_nrrd", full_disk)
    case = simulation.SimulatedCase(np.zeros((2, 2, 2), np.int16), np.zeros((2, 2, 2), np.uint8), (1, 1, 1), {})
    with pytest.raises(AirwaySegError, match="No space left"):
        write_case(case, tmp_path / "cases" / "one")
    assert list((tmp_path / "cases").iterdir()) == []
