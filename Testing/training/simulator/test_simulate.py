"""The simulator: trees of plausible size, tubes of the right radius, cases that come out the same twice."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import cKDTree

from AirwaySegLib.chest.preprocessing import body_mask, lung_mask
from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining.simulator import simulate as simulation
from AirwaySegTraining.simulator.airway_disease import (
    GAP_MM,
    diseased,
    filled_in_airless_lung,
    secretions,
    with_gaps,
    without_some,
)
from AirwaySegTraining.simulator.bronchi import grow_bronchial_tree, open_airways
from AirwaySegTraining.simulator.growth import Branch, total_length_mm
from AirwaySegTraining.simulator.hilum import sleeve
from AirwaySegTraining.simulator.lung_density import Density, add_pneumonia, healthy
from AirwaySegTraining.simulator.noise import Grain, noise, streaks
from AirwaySegTraining.simulator.organs import oesophagus
from AirwaySegTraining.simulator.patient import draw_patient, fissures, lung_shape, wall_thickness_mm
from AirwaySegTraining.simulator.rendering import Grid, enlarge, paint_tubes
from AirwaySegTraining.simulator.scanner import PADDING_HU, Scanner, draw_scanner, moved, scan
from AirwaySegTraining.simulator.scene import apply_coverage, paint_layers, wall_mm
from AirwaySegTraining.simulator.simulate import Machine, draw_grid, simulate_case, write_case
from AirwaySegTraining.simulator.slabs import Slabs, draw_slabs, outside_circle
from AirwaySegTraining.simulator.vessels import grow_arteries, grow_veins, twigs_of

THIN = Slabs()
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


def _along_z(first, last, parent, **what):
    line = np.stack([np.linspace(first, last, 6), np.full(6, 20.0), np.full(6, 20.0)], axis=1)
    return Branch(line, np.full(6, what.pop("radius_mm", 3.0)), parent, parent + 1, **what)


def _drawn_and_labelled(airways, grid, slabs=THIN, lumps=()):
    """Air and label of a small tree in lung of -850 HU, with walls of 40 HU."""
    patient = replace(draw_patient(np.random.default_rng(0)), lumen_hu=-1000.0, lung_hu=-850.0, wall_hu=40.0)
    hu = np.full(grid.shape, -850, np.float32)
    walls = [wall_mm(patient, branch) for branch in airways]
    paint_layers(hu, [(airways, walls, 40.0), ([b for b in airways if b.plugged], 0.0, 20.0)], grid)
    air = simulation._air(airways, list(lumps), grid)
    apply_coverage(hu, air, -1000.0)
    (parts_of,) = simulation._labelled_parts(slabs.mean(hu), airways, patient, grid, slabs, QUIET, (QUIET.noise_hu,))
    return air, simulation._label(parts_of, air, grid, slabs)


@pytest.mark.parametrize("closed", [{"plugged": True}, {"narrowed": True, "radius_mm": 0.1}])
def test_open_lumen_behind_a_plug_or_a_collapsed_stretch_is_airway_and_the_stretch_is_not(a_small_grid, closed):
    airways = [_along_z(2, 12, -1), _along_z(12, 26, 0, **closed), _along_z(26, 38, 1)]
    air, label = _drawn_and_labelled(airways, a_small_grid)
    assert [int(label[z, 20, 20]) for z in (7, 33)] == [1, 1] and label[19, 20, 20] != 1
    assert air[7, 20, 20] == air[33, 20, 20] == 255 and air[19, 20, 20] < 128
    if closed.get("plugged"):
        assert label[19, 20, 20] == 2


def test_open_lumen_behind_a_long_stretch_that_shows_nothing_is_left_out_and_the_stretch_is_background(a_small_grid):
    airways = [_along_z(2, 12, -1), _along_z(12, 26, 0, radius_mm=0.2), _along_z(26, 38, 1)]
    _, label = _drawn_and_labelled(airways, a_small_grid)
    assert [int(label[z, 20, 20]) for z in (7, 19, 33)] == [1, 0, 2]


def test_mucus_on_a_wall_is_no_airway_and_the_rest_of_the_lumen_is(a_small_grid):
    lump = _along_z(14, 24, -1, radius_mm=1.2)
    lump = replace(lump, points_mm=lump.points_mm + [0, 2.5, 0])
    air, label = _drawn_and_labelled([_along_z(5, 35, -1, radius_mm=4.0)], a_small_grid, lumps=[lump])
    assert label[19, 23, 20] == 0 and air[19, 23, 20] < 64
    assert label[19, 18, 20] == 1 and label[30, 23, 20] == 1


def test_stretches_that_are_not_open_lie_within_a_branch_and_keep_its_course(a_patient_with_a_tree):
    _, tree, _ = a_patient_with_a_tree
    airways = open_airways(tree, 0.62)
    closed, untouched = [], 0
    for seed in range(20):
        after = with_gaps(airways, np.random.default_rng(seed))
        untouched += len(after) == len(airways)
        assert total_length_mm(after) == pytest.approx(total_length_mm(airways), rel=0.01)
        for branch in after[1:]:
            assert np.allclose(branch.points_mm[0], after[branch.parent].points_mm[-1], atol=1e-6)
        closed += [branch for branch in after if branch.plugged or branch.narrowed]
    lengths = np.array([total_length_mm([branch]) for branch in closed])
    assert 5 <= untouched <= 15 and len(closed) > 20
    assert lengths.min() > 0.5 * GAP_MM[0] and lengths.max() < 1.3 * GAP_MM[1]
    assert {branch.froth for branch in closed if branch.plugged} == {True, False}
    squeezed = [branch for branch in closed if branch.narrowed]
    assert squeezed and all(branch.radii_mm.min() < 0.7 * branch.radii_mm.max() for branch in squeezed)


def test_thin_bronchi_are_filled_where_lung_is_consolidated_and_nowhere_else(a_small_grid):
    lattice = a_small_grid.coarse_points(3.0)
    middle = lattice[2].mean()
    airless = (lattice[2] > middle).astype(np.float32)
    inside, outside = (np.array([[lattice[0].mean()], [lattice[1].mean()], [x]]).T for x in (middle + 8, middle - 8))
    assert a_small_grid.sample_coarse(airless, np.vstack([inside, outside])).tolist() == [1, 0]
    thin, wide = np.full(3, 0.7), np.full(3, 1.7)
    airways = [Branch(np.repeat(at, 3, axis=0), radii, -1, 0) for at in (inside, outside) for radii in (thin, wide)]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        after = filled_in_airless_lung(airways, lambda points: a_small_grid.sample_coarse(airless, points), rng)
        assert [branch.plugged for branch in after] == [True, False, False, False]


def test_a_coarse_field_is_sampled_in_the_patients_frame():
    turn = np.array([[1, 0, 0], [0, np.cos(0.1), -np.sin(0.1)], [0, np.sin(0.1), np.cos(0.1)]])
    grid = Grid((40, 50, 60), (1.0, 0.8, 0.8), (-20.0, -15.0, 4.0), turn)
    z, y, x = grid.coarse_points(3.0)
    points_mm = (np.array([[7.0, 11.0, 13.0], [30.0, 20.0, 41.0]]) + grid.first_mm) @ turn
    assert np.allclose(grid.sample_coarse(2 * z - y + 3 * x, points_mm), points_mm @ [2, -1, 3], atol=1e-3)


def test_a_tree_that_lost_branches_stays_a_tree(a_patient_with_a_tree):
    _, tree, _ = a_patient_with_a_tree
    smaller = [without_some(tree, np.random.default_rng(seed)) for seed in range(30)]
    assert 1 <= sum(len(after) < len(tree) for after in smaller) <= 12
    for after in smaller:
        assert all(0 <= branch.parent < place for place, branch in enumerate(after) if place)
        assert after[0] is not None and after[0].generation == 0


def test_secretions_lie_within_wide_lumens(a_patient_with_a_tree):
    _, tree, _ = a_patient_with_a_tree
    lumps = [lump for seed in range(20) for lump in secretions(tree, np.random.default_rng(seed))]
    middles = cKDTree(np.concatenate([branch.points_mm for branch in tree if branch.generation <= 4]))
    assert len(lumps) > 5
    assert max(middles.query(np.concatenate([lump.points_mm for lump in lumps]))[0]) < 10


def test_walls_grow_a_little_more_than_the_calibre_so_that_thin_ones_fade():
    patient = draw_patient(np.random.default_rng(0))
    thickness = [wall_thickness_mm(patient, diameter) for diameter in (1.5, 3.0, 6.0, 12.0)]
    ratios = np.divide(thickness[1:], thickness[:-1])
    assert np.all(ratios > 1.5) and np.all(ratios < 2.2)
    assert wall_thickness_mm(patient, 0.3) == 0.12 and wall_thickness_mm(patient, 40.0) == 2.5


def test_generations_three_to_five_are_as_short_as_real_ones():
    lengths = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        airways = open_airways(grow_bronchial_tree(draw_patient(rng), rng), 0.9)
        lengths += [total_length_mm([branch]) for branch in airways if 3 <= branch.generation <= 5]
    assert 9 < np.mean(lengths) < 15


def test_wide_bronchi_run_in_soft_tissue_and_thin_ones_do_not(a_patient_with_a_tree):
    _, tree, _ = a_patient_with_a_tree
    wide = [branch for branch in tree if branch.generation in (2, 3) and branch.radii_mm.min() > 3.2]
    thin = [branch for branch in tree if branch.generation > 6]
    points = [np.concatenate([b.points_mm for b in some]) for some in (wide, thin)]
    fields = [
        sleeve(tree, tuple(points_mm.T[:, None, None].astype(np.float32)), 1.0, np.random.default_rng(1))
        for points_mm in points
    ]
    assert np.mean(fields[0] > 4) > 0.9 and np.mean(fields[1] > 0) < 0.2


def test_pneumonia_fills_lung_around_central_bronchi_with_soft_tissue(a_patient_with_a_tree):
    patient, tree, _ = a_patient_with_a_tree
    grid = Grid((60, 60, 90), (4.0, 4.0, 4.0), (-180.0, -110.0, -170.0), np.eye(3))
    lattice = grid.coarse_points(4.0)
    lungs = np.full(lattice[0].shape, 20, np.float32)
    filled, calm = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        density: Density = healthy(patient, grid, lattice, rng)
        add_pneumonia(density, grid, lungs, tree, lattice, rng)
        filled.append(float(np.mean(density.hu > -150)))
        airless = density.airless > 0.99
        calm += density.grain[airless].tolist()
    assert 2 <= sum(share > 0.005 for share in filled) <= 10 and max(filled) < 0.5
    assert max(calm) < 9


def test_gas_of_the_oesophagus_comes_near_the_bronchi_and_stays_out_of_their_air(a_patient_with_a_tree):
    patient, tree, _ = a_patient_with_a_tree
    central = tree[:3]
    points = np.concatenate([branch.points_mm for branch in central])
    radii = np.concatenate([branch.radii_mm for branch in central])
    gaps = []
    for seed in range(40):
        _, pockets = oesophagus(patient, tree[0], np.random.default_rng(seed))
        for pocket in pockets:
            away, nearest = cKDTree(points).query(pocket.points_mm)
            gaps.append(float(np.min(away - radii[nearest] - pocket.radii_mm)))
    assert len(gaps) > 40 and np.mean(np.array(gaps) < 5) > 0.2 and np.mean(np.array(gaps) < -1) < 0.1


@pytest.mark.parametrize("side", [-1, 1])
def test_lung_enters_the_mediastinum_between_heart_and_spine_below_the_carina(side):
    patient = draw_patient(np.random.default_rng(3))
    x = side * np.arange(0, 60, 0.5, dtype=np.float32)

    def half_width_mm(z, y, recess):
        one = replace(patient, recess=(recess, recess), heart_mm=(1.0, 1.0, 1.0))
        return 0.5 * np.argmax(lung_shape(one, side, np.full_like(x, z), np.full_like(x, y), x) > 0)

    between = patient.back_mm - 20
    assert half_width_mm(-40, between, 0.3) < 0.45 * half_width_mm(-40, between, 1.0)
    for z, y in ((-40, 0), (40, between)):  # beside the bronchi, and above the carina
        assert half_width_mm(z, y, 0.3) == half_width_mm(z, y, 1.0) > 10


@pytest.mark.parametrize("of", ["arteries", "veins"])
def test_twigs_reach_the_outer_lung_where_the_grown_vessels_end(a_patient_with_a_tree, of):
    patient, tree, rng = a_patient_with_a_tree
    vessels = grow_arteries(patient, tree, rng) if of == "arteries" else grow_veins(patient, rng)
    twigs = twigs_of(vessels, patient, rng)
    starts = np.concatenate([branch.points_mm for branch in vessels] + [twig.points_mm[-1:] for twig in twigs])
    assert len(twigs) > 1000
    from_vessel_mm = cKDTree(starts).query([twig.points_mm[0] for twig in twigs])[0]
    assert np.mean(from_vessel_mm < 1e-6) > 0.98  # the others leave a twig that would have left the lung
    _, alike = np.unique(np.round([twig.points_mm[0] for twig in twigs], 3), axis=0, return_counts=True)
    assert alike.max() <= 2, "twigs fork, they make no stars"
    assert 0.2 < np.median([twig.radii_mm[-1] for twig in twigs]) < 0.6 and max(t.radii_mm.max() for t in twigs) < 1.5

    def depth_mm(branches):
        z, y, x = np.array([branch.points_mm[-1] for branch in branches], np.float32).T
        return np.maximum(lung_shape(patient, -1, z, y, x), lung_shape(patient, 1, z, y, x))

    assert np.sum(depth_mm(twigs) < 10) > 3 * np.sum(depth_mm(vessels) < 10)


def test_motion_doubles_contours_in_the_lower_half_and_leaves_the_upper_alone():
    picture = np.zeros((20, 16, 16), np.float32)
    picture[:, 8, 8] = 100
    out = moved(picture, (2.0, 0.0))
    assert np.array_equal(out[12:], picture[12:])
    assert out[0, 8, 8] == out[0, 10, 8] == pytest.approx(50, abs=1e-3)


def test_an_undisturbed_scan_changes_nothing():
    picture = np.random.default_rng(0).uniform(-1000, 400, (12, 12, 12)).astype(np.float32)
    assert np.allclose(scan(picture, QUIET, np.random.default_rng(1)), picture, atol=0.1)


def test_noise_has_the_spread_and_the_grain_that_are_asked_for():
    rng = np.random.default_rng(2)
    plain = noise((32, 96, 80), 40.0, Grain(0.7, 0.5), rng)
    assert plain.shape == (32, 96, 80) and plain.std() == pytest.approx(40, rel=0.02)

    def neighbours(field, axis):
        count = field.shape[axis]
        one, two = np.take(field, range(1, count), axis), np.take(field, range(count - 1), axis)
        return np.corrcoef(one.ravel(), two.ravel())[0, 1]

    assert neighbours(plain, 1) == pytest.approx(neighbours(plain, 2), abs=0.03)
    long = noise((32, 96, 80), 40.0, Grain(0.7, 0.5, longer=2.0), rng)
    assert neighbours(long, 2) > neighbours(long, 1) + 0.15
    ramped = noise((32, 96, 80), 40.0, Grain(0.7, 0.5, ramp=1.0), rng)
    assert neighbours(ramped, 2) < neighbours(plain, 2) - 0.1
    fine, coarse = (noise((32, 96, 80), 40.0, Grain(0.7, along_z), rng) for along_z in (0.3, 1.0))
    assert neighbours(fine, 0) < 0.1 and neighbours(coarse, 0) > 0.6


def test_uneven_noise_differs_from_place_to_place():
    rng = np.random.default_rng(3)
    spread = []
    for uneven in (0.0, 0.4):
        field = noise((48, 96, 96), 30.0, Grain(0.5, 0.4, uneven=uneven), rng)
        blocks = field.reshape(4, 12, 4, 24, 4, 24).std(axis=(1, 3, 5))
        spread.append(float(blocks.std() / blocks.mean()))
    assert spread[0] < 0.05 and spread[1] > 0.15


def test_streaks_run_along_their_direction_or_spread_from_a_point():
    rng = np.random.default_rng(4)
    level = streaks((3, 64, 64), 20.0, 0.0, 0.0, rng)
    assert np.abs(np.diff(level, axis=2)).max() < 1e-3 and level.std() == pytest.approx(20, rel=0.35)
    upright = streaks((3, 64, 64), 20.0, np.pi / 2, 0.0, rng)
    assert np.abs(np.diff(upright, axis=1)).mean() < 0.2 * np.abs(np.diff(upright, axis=2)).mean()
    fan = streaks((3, 64, 64), 20.0, 0.0, 1.5, rng)
    assert np.isfinite(fan).all() and fan[:, :, :8].std() > 1.3 * fan[:, :, -8:].std()


def test_padding_outside_a_round_view_stays_padding():
    picture = np.full((3, 40, 40), -850, np.float32)
    outside_circle(picture, np.random.default_rng(0))
    padded = picture == PADDING_HU
    assert padded[:, 0, 0].all() and not padded[:, 20, 20].any()
    noisy = Scanner(0.5, 0.5, 0.2, 40.0, 0.5, 0.0, 20.0, 1.0, None, padded=True)
    out = scan(picture, noisy, np.random.default_rng(1))
    assert (out[padded] == PADDING_HU).all() and out[~padded].std() > 20


def test_thick_slices_are_means_of_thin_ones_and_their_label_says_what_a_voxel_mostly_is():
    slabs = Slabs(3.0, 1.0, every=3, over=3)
    fine = np.arange(9, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    assert slabs.mean(fine)[:, 0, 0].tolist() == [1.0, 4.0, 7.0]
    assert slabs.spacing_mm((1.0, 0.7, 0.6)) == (3.0, 0.7, 0.6)
    label = np.zeros((9, 1, 3), np.uint8)
    label[3:5, 0, 0] = 1  # two thirds airway
    label[3, 0, 1] = 1  # one third
    label[3:6, 0, 2] = 2
    assert slabs.label(label)[:, 0].tolist() == [[0, 0, 0], [1, 2, 2], [0, 0, 0]]
    thin = np.zeros((4, 1, 1), np.uint8)
    assert Slabs().label(thin) is thin


def test_slices_are_two_to_five_mm_thick_and_some_overlap():
    drawn = [draw_slabs(np.random.default_rng(seed)) for seed in range(60)]
    assert {slabs.thick_mm for slabs in drawn} == {2.0, 2.5, 3.0, 5.0}
    assert all(slabs.over * slabs.fine_mm == pytest.approx(slabs.thick_mm) for slabs in drawn)
    assert all(slabs.fine_mm <= 1.25 for slabs in drawn)
    assert 0 < np.mean([slabs.every < slabs.over for slabs in drawn]) < 0.7


def test_the_spacing_of_a_known_scanner_is_not_drawn():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        grid, slabs = draw_grid(draw_patient(rng), rng, Machine(QUIET, 2.0, 0.8))
        assert slabs == Slabs(2.0, 1.0, every=2, over=2) and slabs.spacing_mm(grid.spacing_mm) == (2.0, 0.8, 0.8)


def test_a_thick_slice_gets_no_more_blur_along_z_than_a_slice_of_1_3_mm():
    drawn_mm = [draw_scanner(np.random.default_rng(3), mm).blur_z * mm for mm in (1.3, 2.5, 5.0)]
    assert drawn_mm == pytest.approx([drawn_mm[0]] * 3)
    assert draw_scanner(np.random.default_rng(3), 0.6).blur_z == draw_scanner(np.random.default_rng(3)).blur_z


def test_only_slices_of_up_to_1_3_mm_are_drawn_without_averaging():
    drawn = []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        drawn.append(draw_grid(draw_patient(rng), rng))
    assert all(slabs.over > 1 or grid.spacing_mm[0] <= 1.3 for grid, slabs in drawn)
    assert any(1.3 < slabs.thick_mm < 2 for _, slabs in drawn)


def test_scanner_offset_and_floor_are_applied():
    scanner = Scanner(0.01, 0.01, 0.0, 0.001, 0.5, 0.0, 40.0, 1.0, -1000.0)
    out = scan(np.full((8, 8, 8), -1020, np.float32), scanner, np.random.default_rng(1))
    assert np.allclose(out, -980, atol=0.1)
    low = scan(np.full((8, 8, 8), -1100, np.float32), scanner, np.random.default_rng(1))
    assert np.allclose(low, -1000, atol=0.1)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_case_with_an_airway_darker_than_its_surroundings():
    case, again = simulate_case(3), simulate_case(3)
    assert np.array_equal(case.ct, again.ct) and np.array_equal(case.label, again.label)
    assert case.ct.dtype == np.int16 and set(np.unique(case.label)) <= {0, 1, 2}
    assert np.median(case.ct[case.label == 1]) < -700 < np.median(case.ct)
    other = simulate_case(4, machine=Machine(QUIET, 2.5, 0.9))
    assert not np.array_equal(case.ct, other.ct[: len(case.ct)])
    assert case.noise_limit is None
    assert other.spacing_mm == (2.5, 0.9, 0.9) and other.description["scanner"] == QUIET.as_dict()


@pytest.mark.slow
def test_noise_hides_the_thin_parts_of_a_clean_case_and_never_the_wide_ones():
    case = simulate_case(20, clean=True)
    airway, limit = case.label == 1, case.noise_limit
    assert set(np.unique(limit)) == {0, *map(round, simulation.NOISES_HU[:-1])}
    assert not limit[case.label == 2].any() and 0.002 < (limit > 0)[airway].mean() < 0.2
    half_width = ndimage.distance_transform_edt(airway, case.spacing_mm)
    assert half_width[limit > 0].max() < 2 and half_width.max() > 5
    beside = ndimage.distance_transform_edt(~(airway & (limit > 0)), case.spacing_mm)
    assert beside[(limit > 0) & ~airway].max() < 3  # the edge of hidden lumens is left out with them


@pytest.mark.slow
def test_a_clean_case_has_walls_of_tissue_and_as_many_vessels_as_a_lung():
    case = simulate_case(20, clean=True)
    patient = case.description["patient"]
    assert 20 <= patient["wall_hu"] <= 60
    airway, spacing_mm = case.label == 1, np.array(case.spacing_mm)
    wide = ndimage.distance_transform_edt(airway, sampling=spacing_mm) > 3.0
    away = ndimage.distance_transform_edt(~airway, sampling=spacing_mm)
    shell = (ndimage.distance_transform_edt(~wide, sampling=spacing_mm) < 6) & (away > 0.5) & (away < 1.5)
    assert np.median(case.ct[shell]) == pytest.approx(patient["wall_hu"], abs=25)
    lungs = lung_mask(case.ct, body_mask(case.ct, case.spacing_mm), case.spacing_mm)
    inner = ndimage.binary_erosion(lungs, iterations=4)
    assert 0.01 < np.mean(case.ct[inner] > -200) < 0.06
    assert -950 < np.median(case.ct[inner]) < -650


def test_a_case_is_written_whole_with_its_spacing(tmp_path):
    ct = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    label = (ct > 20).astype(np.uint8)
    one = simulation.SimulatedCase(ct, label, (1.5, 0.7, 0.6), {"clean": True}, noise_limit=label * 47)
    write_case(one, tmp_path / "cases" / "one")
    image = sitk.ReadImage(str(tmp_path / "cases" / "one" / "ct.nrrd"))
    assert image.GetSpacing() == pytest.approx((0.6, 0.7, 1.5))
    assert np.array_equal(sitk.GetArrayFromImage(image), ct)
    limit = sitk.ReadImage(str(tmp_path / "cases" / "one" / "noise_limit.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(limit), label * 47) and limit.GetSpacing() == image.GetSpacing()
    write_case(replace(one, noise_limit=None), tmp_path / "cases" / "one")
    assert not (tmp_path / "cases" / "one" / "noise_limit.nrrd").exists()
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
