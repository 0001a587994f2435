"""Walls, lumens and arteries measured in drawn CTs, whose truth is known."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from walled_tubes import Pipe, Scanner, draw_ct

from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.build import parse_airways
from AirwaySegLib.walls.measure import THICK_SLICES_MM, measure_walls
from AirwaySegLib.walls.rays import profiles_of
from AirwaySegLib.walls.sections import ScanParts, sections_of

OBLIQUE = (1.0, 0.6, 0.4)
SMALL = Scanner(size_mm=(18.0, 21.0, 21.0))


def measured(pipes: list[Pipe], scanner: Scanner = SMALL) -> AirwayTree:
    ct, mask = draw_ct(pipes, scanner)
    return measure_walls(parse_airways(mask), ct.array)


def the_wall(pipes: list[Pipe], scanner: Scanner = SMALL):
    return max(measured(pipes, scanner).branches, key=lambda branch: branch.length_mm).wall


# Thickness -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thickness_mm", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("blur_mm", [0.5, 0.8])
def test_the_wall_of_an_oblique_tube_is_as_thick_as_drawn(thickness_mm, blur_mm):
    wall = the_wall([Pipe(2.0, thickness_mm, OBLIQUE)], replace(SMALL, blur_mm=(blur_mm,) * 3))
    assert wall.thickness_mm == pytest.approx(thickness_mm, abs=0.1)
    assert wall.inner_diameter_mm == pytest.approx(4.0, abs=0.12)
    assert wall.outer_diameter_mm == pytest.approx(wall.inner_diameter_mm + 2 * wall.thickness_mm)
    outer_mm = 4.0 + 2 * thickness_mm
    assert wall.wall_area_fraction == pytest.approx(1 - (4.0 / outer_mm) ** 2, abs=0.05)
    assert wall.usable_rays > 0.85 and wall.lumen_rays > 0.95


@pytest.mark.filterwarnings("error")
def test_a_ray_along_z_that_rounding_made_longer_than_1_is_fitted():
    ct, mask = draw_ct([Pipe(2.0, 1.0, (0.0, 1.0, 0.0))], SMALL)
    airways = parse_airways(mask)
    (one,) = sections_of(airways)
    unit = np.broadcast_to(np.array([1 + 2**-52, 0, 0]), one.across.shape)
    turned = replace(one, across=unit, over=np.cross(one.along, unit))
    rays = profiles_of(airways, ct.array, [turned], -1000.0)
    assert np.isfinite(rays.fitted((0.6, 0.6), -1000.0, 50.0).thickness_mm[rays.usable]).all()


def test_slices_thicker_than_pixels_change_nothing():
    scanner = replace(SMALL, spacing_mm=(1.25, 0.7, 0.7), blur_mm=(0.7, 0.5, 0.5))
    for direction in (OBLIQUE, (0.2, 1.0, 0.5)):
        assert the_wall([Pipe(1.5, 1.0, direction)], scanner).thickness_mm == pytest.approx(1.0, abs=0.12)


def test_the_scans_blur_is_found():
    for blur_mm in (0.5, 0.8):
        scan = measured([Pipe(2.0, 1.0, OBLIQUE)], replace(SMALL, blur_mm=(blur_mm,) * 3)).wall_scan
        drawn_mm = np.hypot(blur_mm, 0.7 / np.sqrt(12))  # a voxel averages over itself
        assert scan.blur_mm == pytest.approx((drawn_mm, drawn_mm), abs=0.1)
        assert scan.warning == ""


def test_a_flat_lumens_wall_is_measured_across_it():
    wall = the_wall([Pipe(2.5, 1.0, OBLIQUE, squeezed=2.0)])
    assert wall.thickness_mm == pytest.approx(1.0, abs=0.08)
    assert wall.inner_diameter_mm == pytest.approx(5.0, abs=0.15)  # of the circle with the ellipse's area


def test_a_vessel_at_the_wall_costs_rays_and_not_accuracy():
    alone, beside = (the_wall([Pipe(2.0, 1.0), *more]) for more in ([], [Pipe(3.0, 0, through_mm=(0, 5.8, 0))]))
    assert beside.thickness_mm == pytest.approx(1.0, abs=0.1)
    assert beside.usable_rays < alone.usable_rays - 0.1
    assert beside.lumen_rays == 1 and beside.inner_diameter_mm == pytest.approx(4.0, abs=0.1)


def test_vessels_on_two_sides_are_left_out_too():
    vessels = [Pipe(2.0, 0, through_mm=(0, side * 4.9, 0)) for side in (-1, 1)]
    wall = the_wall([Pipe(2.0, 1.0), *vessels])
    assert wall.thickness_mm == pytest.approx(1.0, abs=0.12) and wall.usable_rays < 0.85


@pytest.mark.parametrize("apart_mm", [5.0, 6.0])
def test_touching_airways_do_not_thicken_each_other(apart_mm):
    pipes = [Pipe(2.0, 1.0, through_mm=(0, shift * apart_mm, 0)) for shift in (-0.5, 0.5)]
    walls = [branch.wall for branch in measured(pipes).branches]
    assert len(walls) == 2
    for wall in walls:
        assert wall.thickness_mm == pytest.approx(1.0, abs=0.12) and wall.usable_rays < 0.95


def test_in_soft_tissue_the_lumen_is_measured_and_the_wall_is_not():
    wall = the_wall([Pipe(3.0, 1.0, OBLIQUE)], replace(SMALL, tissue_beyond_mm=-100.0))
    assert wall.thickness_mm is None and wall.wall_area_fraction is None and wall.usable_rays < 0.05
    assert wall.inner_diameter_mm == pytest.approx(6.0, abs=0.15)


def test_beside_soft_tissue_the_free_side_is_measured():
    wall = the_wall([Pipe(2.0, 1.0)], replace(SMALL, tissue_beyond_mm=2.5))
    assert wall.thickness_mm == pytest.approx(1.0, abs=0.1) and 0.4 < wall.usable_rays < 0.85


def test_noise_hardly_matters():
    wall = the_wall([Pipe(2.0, 1.0, OBLIQUE)], replace(SMALL, noise_hu=80.0))
    assert wall.thickness_mm == pytest.approx(1.0, abs=0.15)


def test_long_voxels_give_a_warning():
    scan = measured(
        [Pipe(3.0, 1.0, OBLIQUE)], Scanner((3.0, 0.7, 0.7), (1.0, 0.5, 0.5), size_mm=(30, 30, 30))
    ).wall_scan
    assert 3.0 > THICK_SLICES_MM and "3.0 mm" in scan.warning


# Tapering ------------------------------------------------------------------------------------------------------------


def test_tapering_is_the_loss_of_diameter_in_percent_for_each_mm():
    wall = the_wall([Pipe(2.5, 1.0, tapering=0.05)], replace(SMALL, size_mm=(24.0, 22.0, 22.0)))
    assert abs(wall.intra_tapering_percent_per_mm) == pytest.approx(2.0, abs=0.3)
    assert the_wall([Pipe(2.5, 1.0)]).intra_tapering_percent_per_mm == pytest.approx(0.0, abs=0.2)


# Arteries ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius_mm", [1.5, 2.5])
def test_the_artery_beside_an_airway_is_found_with_its_width(radius_mm):
    wall = _peripheral([Pipe(2.0, 0.8, OBLIQUE), Pipe(radius_mm, 0, OBLIQUE, _beside(2.8 + radius_mm + 0.1))])
    assert wall.artery_diameter_mm == pytest.approx(2 * radius_mm, abs=0.2)
    assert wall.airway_artery_ratio == pytest.approx(2.0 / radius_mm, rel=0.08)
    assert wall.artery_sections >= 0.5


def test_no_artery_is_made_up():
    assert _peripheral([Pipe(2.0, 0.8, OBLIQUE)]).artery_diameter_mm is None
    far = Pipe(2.0, 0, OBLIQUE, _beside(9.0))
    assert _peripheral([Pipe(2.0, 0.8, OBLIQUE), far]).artery_diameter_mm is None
    assert _peripheral([Pipe(2.0, 0.8, OBLIQUE)], tissue_beyond_mm=2.6).artery_diameter_mm is None
    another = Pipe(2.0, 0.8, OBLIQUE, _beside(5.6))
    assert _peripheral([Pipe(2.0, 0.8, OBLIQUE), another]).artery_diameter_mm is None


def test_a_flat_structure_beside_an_airway_is_no_artery():
    flat = Pipe(2.2, 0, OBLIQUE, _beside(2.8 + 2.4), squeezed=3.5)
    assert _peripheral([Pipe(2.0, 0.8, OBLIQUE), flat]).artery_diameter_mm is None


def _beside(away_mm: float) -> tuple[float, float, float]:
    """A point so far from the middle, across `OBLIQUE`."""
    across = np.cross(OBLIQUE, (0.0, 0.0, 1.0))
    z, y, x = away_mm * across / np.linalg.norm(across)
    return float(z), float(y), float(x)


def _peripheral(pipes: list[Pipe], **changes):
    """The wall of the first pipe, as that of a branch beyond the main bronchi."""
    ct, mask = draw_ct(pipes, replace(SMALL, size_mm=(16.0, 28.0, 28.0), **changes))
    airways = parse_airways(mask)
    branches = [replace(branch, generation=4) for branch in airways.tree.branches]
    tree = measure_walls(replace(airways, tree=airways.tree.with_branches(branches)), ct.array)
    middle = (np.array(ct.array.shape)[::-1] - 1) / 2 * np.array(ct.spacing_mm)[::-1]
    away = [np.linalg.norm(branch.points_mm - middle, axis=1).min() for branch in tree.branches]
    return tree.branches[int(np.argmin(away))].wall


def test_the_parts_of_the_ct_are_read_once_for_walls_and_arteries(monkeypatch):
    made, begin = [], ScanParts.__init__
    monkeypatch.setattr(ScanParts, "__init__", lambda self, *given: made.append(given) or begin(self, *given))
    assert _peripheral([Pipe(2.0, 1.0, OBLIQUE)]).thickness_mm is not None
    assert len(made) == 1


# The benchmark -------------------------------------------------------------------------------------------------------


def test_the_benchmarks_row_compares_with_half_maximum():
    path = Path(__file__).resolve().parents[2] / "benchmarks/wall.py"
    description = importlib.util.spec_from_file_location("wall_benchmark", path)
    wall_benchmark = importlib.util.module_from_spec(description)
    sys.modules["wall_benchmark"] = wall_benchmark  # for its dataclasses
    description.loader.exec_module(wall_benchmark)
    row = wall_benchmark.row_of(0.75, [wall_benchmark.Case(2.0, OBLIQUE, SMALL)])
    assert abs(row.mean_error_mm) < 0.1 and row.largest_error_mm < 0.1
    assert row.half_maximum_error_mm > 0.4  # the bias of the usual method at this blur
