"""The simulator: trees of plausible size, tubes of the right radius, cases that come out the same twice."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial import cKDTree

from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining.simulator import simulate as simulation
from AirwaySegTraining.simulator.bronchi import diseased, grow_bronchial_tree, open_airways
from AirwaySegTraining.simulator.growth import Branch, total_length_mm
from AirwaySegTraining.simulator.patient import draw_patient, fissures, grow_arteries, lung_shape, peripheral_vessels
from AirwaySegTraining.simulator.rendering import Grid, enlarge, paint_tubes
from AirwaySegTraining.simulator.scanner import Scanner, moved, scan
from AirwaySegTraining.simulator.simulate import is_visible, simulate_case, write_case

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


def test_every_lobe_has_a_bronchus_that_serves_it(a_patient_with_a_tree):
    patient, tree, _ = a_patient_with_a_tree
    ends = np.array([branch.points_mm[-1] for branch in tree if branch.generation > 6])
    oblique, horizontal = fissures(patient, ends[:, 0], ends[:, 1])
    right = ends[:, 2] < 0
    middle = right & (oblique > 0) & (horizontal < 0)
    lobes = {
        "right upper": right & (oblique > 0) & ~middle,
        "middle": middle,
        "right lower": right & (oblique <= 0),
        "left upper": ~right & (oblique > 0),
        "left lower": ~right & (oblique <= 0),
    }
    assert {name: bool(inside.sum() > 5) for name, inside in lobes.items()} == dict.fromkeys(lobes, True)
    # Trachea, two main bronchi, and below them three bronchi on the right (one the stem of two lobes), two on the left.
    assert [branch.generation for branch in tree[:3]] == [0, 1, 1]
    assert sorted(branch.parent for branch in tree if branch.generation == 2) == [1, 1, 2, 2]


def test_disease_widens_airways_behind_a_bronchus_and_plugs_thin_ones(a_patient_with_a_tree):
    _, tree, _ = a_patient_with_a_tree
    airways = open_airways(tree, 0.62)
    seen = {"wider": 0, "plugged": 0, "healthy": 0}
    for seed in range(40):
        after = diseased(airways, np.random.default_rng(seed))
        ratio = np.array([new.radii_mm.mean() / old.radii_mm.mean() for new, old in zip(after, airways, strict=True)])
        below = [place for place, branch in enumerate(airways) if branch.generation > 0]
        assert all(ratio[place] > ratio[airways[place].parent] - 1e-9 for place in below)
        assert ratio.min() >= 1 - 1e-9 and ratio.max() <= 1.8 + 1e-9
        plugged = [branch for branch in after if branch.plugged]
        assert all(branch.generation > 3 for branch in plugged)
        seen["wider"] += ratio.max() > 1.2
        seen["plugged"] += bool(plugged)
        seen["healthy"] += not plugged and ratio.max() < 1.01
    assert 2 <= seen["wider"] <= 16 and 3 <= seen["plugged"] <= 19 and seen["healthy"] >= 14


def test_what_mucus_fills_and_what_lies_behind_it_is_left_out_and_only_the_plug_is_not_air(a_small_grid):
    def along_z(first, last, parent, plugged=False):
        line = np.stack([np.linspace(first, last, 6), np.full(6, 20.0), np.full(6, 20.0)], axis=1)
        return Branch(line, np.full(6, 3.0), parent, parent + 1, plugged=plugged)

    airways = [along_z(2, 12, -1), along_z(14, 24, 0, plugged=True), along_z(28, 38, 1)]
    patient = replace(draw_patient(np.random.default_rng(0)), lumen_hu=-1000.0, lung_hu=-850.0, wall_hu=0.0)
    air, label = simulation._label(airways, patient, a_small_grid, QUIET)
    assert [int(label[z, 20, 20]) for z in (7, 19, 33)] == [1, 2, 2]
    assert [bool(air[z, 20, 20]) for z in (7, 19, 33)] == [True, False, True]


def test_twigs_reach_the_outer_lung_where_the_arteries_end(a_patient_with_a_tree):
    patient, tree, rng = a_patient_with_a_tree
    arteries = grow_arteries(patient, tree, rng)
    twigs, veins = peripheral_vessels(patient, arteries, rng)
    ends = cKDTree([artery.points_mm[-1] for artery in arteries])
    assert len(twigs) > 300 and len(veins) > 50
    assert max(ends.query([twig.points_mm[0] for twig in twigs])[0]) < 1e-6

    def depth_mm(branches):
        z, y, x = np.array([branch.points_mm[-1] for branch in branches], np.float32).T
        return np.maximum(lung_shape(patient, -1, z, y, x), lung_shape(patient, 1, z, y, x))

    assert np.mean(depth_mm(twigs) < 10) > 1.5 * np.mean(depth_mm(arteries) < 10)


def test_motion_doubles_contours_in_the_lower_half_and_leaves_the_upper_alone():
    picture = np.zeros((20, 16, 16), np.float32)
    picture[:, 8, 8] = 100
    out = moved(picture, (2.0, 0.0))
    assert np.array_equal(out[12:], picture[12:])
    assert out[0, 8, 8] == out[0, 10, 8] == pytest.approx(50, abs=1e-3)


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
