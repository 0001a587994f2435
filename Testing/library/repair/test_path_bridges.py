"""Paths across gaps of drawn airways, alone and with a painted CT."""

import numpy as np
import pytest
from counting import count_calls
from phantoms import Tube, draw_tubes
from scipy.ndimage import binary_dilation

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.masks.least_cost import cheapest_way
from AirwaySegLib.repair import path_bridges as paths
from AirwaySegLib.repair.bridge import PATH, Bridge
from AirwaySegLib.repair.decide import decide, repaired_mask
from AirwaySegLib.repair.origins import bridges_by_origin, find_origins
from AirwaySegLib.repair.path_bridges import Evidence, wall_contrast
from AirwaySegLib.repair.path_score import origin_probability
from AirwaySegLib.repair.proposal import APPLIED
from AirwaySegLib.tree.build import parse_airways
from AirwaySegLib.tree.fragment_ends import Course, points_along

SPACING_MM = (0.8, 0.7, 0.7)
SHAPE = (110, 80, 100)
LUNG_HU, WALL_HU, LUMEN_HU, VESSEL_HU = -860, -500, -980, 30

TRUNK = Tube((84.0, 25.0, 35.0), (45.0, 25.0, 35.0), 4.0, 4.0, round_ends=False)
LEFT = Tube((45.0, 25.0, 35.0), (10.0, 25.0, 15.0), 2.5, 2.0)
RIGHT = Tube((45.0, 25.0, 35.0), (10.0, 25.0, 55.0), 2.5, 2.0)


def cut(tube: Tube, first: float, last: float, radius: float = 4.0) -> np.ndarray:
    """What lies between two shares of a tube's length, as far from its axis as ``radius``."""
    start, way = np.array(tube.start_mm), np.subtract(tube.end_mm, tube.start_mm)
    ends = (tuple(start + share * way) for share in (first, last))
    return draw_tubes([Tube(*ends, radius, radius, round_ends=False)], SHAPE, SPACING_MM)


def searched(mask: np.ndarray, **evidence: np.ndarray) -> tuple[list[Bridge], object, np.ndarray]:
    axes = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    parsed = parse_airways(Volume(mask.astype(np.uint8), SPACING_MM, (0.0, 0.0, 0.0), axes))
    labels = label_components(mask)
    found = find_origins(parsed, labels, SPACING_MM, Evidence(**evidence))
    return bridges_by_origin(found), parsed, labels


def boxes_searched(monkeypatch) -> list[int]:
    """Grows with each search for a path by the number of voxels in which it is searched."""
    boxes: list[int] = []

    def counted(costs: np.ndarray, *places: object) -> np.ndarray | None:
        boxes.append(costs.size)
        return cheapest_way(costs, *places)

    monkeypatch.setattr(paths, "cheapest_way", counted)
    return boxes


def painted(airway: np.ndarray, vessels: np.ndarray | None = None) -> np.ndarray:
    """HU of airways with a wall in lung, and of vessels, with noise."""
    hu = np.full(airway.shape, LUNG_HU)
    hu[binary_dilation(airway, iterations=2)] = WALL_HU
    if vessels is not None:
        hu[vessels] = VESSEL_HU
    hu[airway] = LUMEN_HU
    return (hu + np.random.default_rng(1).normal(0, 25, hu.shape)).astype(np.int16)


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return draw_tubes([TRUNK, LEFT, RIGHT], SHAPE, SPACING_MM)


def test_points_along_a_line_end_with_it_however_its_length_is_rounded():
    along = np.array([0.0, 2.4, 4.8])  # six steps of 0.8 add up to a little more
    places = np.column_stack([along, along, along])
    points = points_along(Course(2, 7, places, np.ones(3), along, True, True))
    assert points.points_mm.tolist() == places.tolist() and points.branches.tolist() == [7, 7, 7]


def test_a_gap_in_a_straight_branch_is_bridged_along_it_on_a_mask_alone(whole):
    gap = cut(LEFT, 0.45, 0.6)
    [bridge, *_], _, labels = searched(whole & ~gap)
    assert (bridge.joins, bridge.method) == ((1, 2), PATH)
    assert bridge.score > 0.5, "it is applied"
    assert bridge.length_mm == pytest.approx(0.15 * LEFT.length_mm, abs=2.0)
    drawn = np.zeros(SHAPE, bool)
    drawn[tuple(bridge.voxels.T)] = True
    assert not (drawn & (labels > 0)).any()
    assert label_components((labels > 0) | drawn).max() == 1
    assert np.count_nonzero(drawn & whole) > 0.9 * np.count_nonzero(drawn)
    assert np.count_nonzero(drawn & gap & whole) > 0.6 * np.count_nonzero(gap & whole)


def test_several_gaps_are_bridged_one_after_the_other(whole):
    mask = whole & ~cut(RIGHT, 0.3, 0.4) & ~cut(RIGHT, 0.7, 0.8)
    bridges, parsed, labels = searched(mask, hu=painted(whole))
    proposals = decide(bridges, parsed, labels, 0.5)
    assert label_components(repaired_mask(labels, proposals)).max() == 1
    assert sum(proposal.state == APPLIED for proposal in proposals) == 2


def test_both_arms_of_a_fork_that_is_gone_find_the_trunk(whole):
    mask = whole & ~cut(TRUNK, 0.9, 1.2, 8.0) & ~cut(LEFT, -0.2, 0.15, 8.0) & ~cut(RIGHT, -0.2, 0.15, 8.0)
    bridges, parsed, labels = searched(mask, hu=painted(whole))
    assert labels.max() == 3
    assert label_components(repaired_mask(labels, decide(bridges, parsed, labels, 0.5))).max() == 1


def test_a_gap_farther_than_the_reach_is_not_bridged(whole):
    bridges, _, labels = searched(whole & ~cut(LEFT, 0.2, 0.75))
    assert labels.max() == 2 and bridges == []


def test_the_ct_leads_the_path_around_a_bend(whole):
    bend = [
        Tube((10.0, 25.0, 55.0), (10.0, 33.0, 55.0), 1.6, 1.6),
        Tube((10.0, 33.0, 55.0), (10.0, 33.0, 63.0), 1.6, 1.6),
    ]
    airway = whole | draw_tubes(bend, SHAPE, SPACING_MM)
    far = draw_tubes([Tube((10.0, 33.0, 61.0), (10.0, 33.0, 67.0), 1.6, 1.6)], SHAPE, SPACING_MM)
    airway |= far
    alone, led = (
        max(airway[tuple(bridge.voxels.T)].mean() for bridge in searched(whole | far, **evidence)[0])
        for evidence in ({}, {"hu": painted(airway)})
    )
    assert led > 0.55 and led > 1.5 * alone


def test_a_vessel_that_points_at_a_tip_is_not_joined_where_a_ct_shows_it(whole):
    vessel = draw_tubes([Tube((4.0, 25.0, 11.6), (0.0, 25.0, 9.3), 1.8, 1.8)], SHAPE, SPACING_MM)
    vessel |= draw_tubes([Tube((40.0, 40.0, 5.0), (20.0, 40.0, 5.0), 1.5, 1.5)], SHAPE, SPACING_MM)
    bridges, parsed, labels = searched(whole | vessel, hu=painted(whole, vessel))
    assert labels.max() == 3
    assert not any(proposal.state == APPLIED for proposal in decide(bridges, parsed, labels, 0.5))


def test_a_probable_gap_scores_more_than_an_improbable_one(whole):
    mask = whole & ~cut(LEFT, 0.45, 0.7)
    likely, unlikely = (
        searched(mask, probability=np.where(whole, value, 0).astype(np.uint8))[0][0].score for value in (90, 0)
    )
    assert unlikely < likely


def test_a_path_joins_the_speck_it_runs_through(whole):
    mask = whole & ~cut(LEFT, 0.4, 0.65)
    middle = np.rint((np.array(LEFT.start_mm) + 0.525 * np.subtract(LEFT.end_mm, LEFT.start_mm)) / SPACING_MM).astype(
        int
    )
    mask[tuple(middle)] = True
    bridges, _, labels = searched(mask)
    assert labels.max() == 3 and bridges[0].joins == (1, 2, 3)
    drawn = labels > 0
    drawn[tuple(bridges[0].voxels.T)] = True
    assert label_components(drawn).max() == 1


@pytest.mark.parametrize("fragments", [0, 1])
def test_without_a_fragment_that_counts_there_is_no_bridge(whole, fragments):
    mask = whole.copy()
    mask[5, 40, 40] = fragments
    assert searched(mask)[0] == []


def test_two_thousand_specks_cost_no_search_each(whole, monkeypatch):
    mask = whole.copy()
    mask[2:110:5, 42:80:5, 2:100:4] = True
    mask[2:110:5, 42:80:5, 3:100:4] = True
    mask[3:110:5, 42:80:5, 3:100:4] = True
    boxes = boxes_searched(monkeypatch)
    (bridges, parsed, labels), calls = count_calls(lambda: searched(mask))
    assert labels.max() > 2000 and calls < 600 * labels.max()
    assert not boxes and len(decide(bridges, parsed, labels, 0.5)) == len(bridges)


def test_a_hundred_fragments_are_searched_in_their_own_boxes(whole, monkeypatch):
    mask = whole.copy()
    rng = np.random.default_rng(0)
    tubes = []
    for z in np.arange(6.0, 82.0, 8.0):
        for x in np.arange(6.0, 66.0, 6.0):
            way = rng.normal(size=3)
            start = np.array([z, 46.0, x])
            tubes.append(Tube(tuple(start), tuple(start + 4 * way / np.linalg.norm(way)), 1.0, 1.0))
    mask |= draw_tubes(tubes, SHAPE, SPACING_MM)
    boxes = boxes_searched(monkeypatch)
    _, _, labels = searched(mask, hu=painted(mask))
    assert labels.max() > 80 and 0 < len(boxes) < 10 * labels.max()
    assert max(boxes) < mask.size / 50


def test_the_contrast_tells_an_airway_from_a_vessel_and_from_lung(whole):
    mask = np.zeros(SHAPE, bool)
    mask[20:30, 60:63, 60:63] = mask[20:30, 60:63, 30:33] = mask[20:30, 60:63, 80:83] = True
    labels = label_components(mask)
    airway, vessel, lung = (int(labels[25, 61, x]) for x in (61, 31, 81))
    hu = painted(labels == airway, labels == vessel)
    contrast = {number: wall - lumen for number, (lumen, wall) in wall_contrast(hu, labels, [1, 2, 3]).items()}
    assert contrast[airway] > 300 and contrast[vessel] < -300 and abs(contrast[lung]) < 40


def test_an_origin_is_the_more_probable_the_fewer_others_there_are():
    one, two, three = origin_probability(np.array([1.0, 1.0, -1.0]), np.array([7, 9, 9]))
    assert one == pytest.approx(np.e / (1 + np.e))
    assert two == pytest.approx(np.e / (1 + np.e + 1 / np.e)) and three == pytest.approx(two * np.exp(-2))
    assert origin_probability(np.array([800.0, -800.0]), np.array([2, 2])).tolist() == [1.0, 0.0]
