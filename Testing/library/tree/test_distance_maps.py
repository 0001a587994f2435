"""Distance maps of drawn trees against exact distances."""

import numpy as np
import pytest
from phantoms import Tube, a_forked_tree, draw_tubes
from scipy.ndimage import distance_transform_edt

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.tree.build import ParsedAirways, parse_airways
from AirwaySegLib.tree.distance_maps import UNREACHED, from_carina, to_centerline, to_wall

SHAPE, SPACING_MM = (200, 100, 225), (1.0, 0.8, 0.8)


@pytest.fixture(scope="module")
def a_fork() -> ParsedAirways:
    speck = Tube((20, 70, 20), (20, 70, 20), 2.0, 2.0)
    return parse_airways(Volume(draw_tubes([*a_forked_tree(), speck], SHAPE, SPACING_MM), SPACING_MM))


def at(airways: ParsedAirways, values: np.ndarray, place_mm: tuple[float, float, float]) -> float:
    """The value of the voxel nearest to a place (z, y, x)."""
    apart = np.linalg.norm(airways.lumen.places_mm + _corner(airways) - place_mm, axis=1)
    return float(values[apart.argmin()])


def _corner(airways: ParsedAirways) -> np.ndarray:
    return np.array([part.start for part in airways.box]) * SPACING_MM


def test_distance_to_the_centerline_is_that_to_the_axis_of_a_tube(a_fork):
    distances = to_centerline(a_fork)
    places = a_fork.lumen.places_mm + _corner(a_fork)
    in_trachea = (places[:, 0] > 130) & (places[:, 0] < 190) & (np.abs(places[:, 2] - 90) < 9)
    expected = np.hypot(places[in_trachea, 1] - 40, places[in_trachea, 2] - 90)
    assert np.abs(distances[in_trachea] - expected).max() < 0.7
    assert distances.min() < 0.3


def test_distance_to_the_wall_is_scipys_less_about_half_a_voxel(a_fork):
    padded = np.pad(a_fork.grid.array, 1)
    theirs = distance_transform_edt(padded, sampling=SPACING_MM)[1:-1, 1:-1, 1:-1][a_fork.grid.array]
    ours = np.zeros(SHAPE)
    ours[a_fork.box] = a_fork.in_box(to_wall(a_fork))
    less = theirs - ours[a_fork.grid.array]
    assert less.min() >= 0.4 - 1e-5 and less.max() <= 0.76


def test_distance_from_the_carina_grows_both_ways_along_the_tree(a_fork):
    distances = from_carina(a_fork)
    carina = a_fork.tree.carina_mm[::-1]
    assert at(a_fork, distances, carina) < 2
    assert at(a_fork, distances, (180.0, 40.0, 90.0)) == pytest.approx(180 - carina[0], abs=2)
    # to the end of the right lower lobe's tube, along both tubes
    tubes = a_forked_tree()
    drawn_mm = tubes[1].length_mm + tubes[3].length_mm
    assert at(a_fork, distances, tubes[3].end_mm) == pytest.approx(drawn_mm + carina[0] - 110, abs=6)
    middle = np.add(tubes[3].start_mm, tubes[3].end_mm) / 2
    assert at(a_fork, distances, tuple(middle)) < at(a_fork, distances, tubes[3].end_mm) - 20


def test_no_way_leads_to_a_fragment(a_fork):
    assert at(a_fork, from_carina(a_fork), (20.0, 70.0, 20.0)) == UNREACHED
    of_tree = a_fork.lumen.components == 0
    assert (from_carina(a_fork)[of_tree] >= 0).all()


def test_doubled_spacing_doubles_all_three(a_fork):
    grid = Volume(a_fork.grid.array, tuple(2 * mm for mm in SPACING_MM))
    doubled = parse_airways(grid)
    for distances in (to_centerline, to_wall):
        assert distances(doubled) == pytest.approx(2 * distances(a_fork), abs=1e-4)
    ours, theirs = from_carina(a_fork), from_carina(doubled)
    assert theirs[ours >= 0] == pytest.approx(2 * ours[ours >= 0], abs=1e-4)
