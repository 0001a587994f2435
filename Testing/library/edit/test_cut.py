"""Cuts of drawn airways: beyond a point, and between two sides of a leak."""

import numpy as np
import pytest
from forked_branch import BRANCH, CHILD, SHAPE, SPACING_MM, TRUNK
from phantoms import Tube, draw_tubes

from AirwaySegLib.edit.cut import between, beyond
from AirwaySegLib.edit.scan import Part, Scan
from AirwaySegLib.errors import AirwaySegError

LEAK = Tube((20.0, 20.0, 32.0), (20.0, 20.0, 40.0), 7.0, 7.0)
NECK = Tube((20.0, 20.0, 20.0), (20.0, 20.0, 32.0), 1.4, 1.4)


def a_scan(*tubes: Tube) -> Scan:
    return Scan(Part(draw_tubes(list(tubes), SHAPE, SPACING_MM)), SPACING_MM, SHAPE)


def voxel(*point_mm: float) -> np.ndarray:
    return np.divide(point_mm, SPACING_MM)


def removed(scan: Scan, voxels: np.ndarray) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(voxels.T)] = True
    assert not (mask & ~scan.airways.array).any()
    return mask


def test_all_beyond_a_point_of_a_branch_goes_and_the_rest_stays():
    scan = a_scan(TRUNK, BRANCH, CHILD)
    gone = removed(scan, beyond(scan, voxel(50.0, 20.0, 38.0)).voxels)
    x_mm = np.nonzero(gone)[2] * 0.7
    assert x_mm.min() > 35.5
    kept = np.nonzero(scan.airways.array & ~gone)[2] * 0.7
    assert kept.max() < 39.5
    assert gone[tuple(np.rint(voxel(64.0, 20.0, 59.0)).astype(int))]


def test_the_side_to_keep_can_be_said():
    scan = a_scan(TRUNK, BRANCH, CHILD)
    gone = removed(scan, beyond(scan, voxel(50.0, 20.0, 30.0), keep=voxel(50.0, 20.0, 55.0)).voxels)
    assert gone[tuple(np.rint(voxel(70.0, 20.0, 20.0)).astype(int))]
    assert not gone[tuple(np.rint(voxel(50.0, 20.0, 55.0)).astype(int))]


def test_a_point_to_keep_that_is_far_from_the_airways_is_named():
    scan = a_scan(TRUNK, BRANCH, CHILD)
    with pytest.raises(AirwaySegError, match=r"The point to keep lies \d+ mm from the airways"):
        beyond(scan, voxel(50.0, 20.0, 38.0), keep=voxel(0.0, 0.0, 0.0))


def test_the_cross_section_is_the_narrowest_through_the_point():
    scan = a_scan(TRUNK, BRANCH)
    cut = beyond(scan, voxel(50.0, 20.0, 40.0))
    area = np.pi * 1.8**2 / 0.7**2  # voxels of one layer across the branch
    assert cut.section < 3.5 * area


def test_a_leak_is_cut_at_its_neck_and_the_tree_stays():
    scan = a_scan(TRUNK, BRANCH, NECK, LEAK)
    cut = between(scan, voxel(20.0, 20.0, 20.0), voxel(20.0, 20.0, 38.0))
    gone = removed(scan, cut.voxels)
    leak = draw_tubes([LEAK], SHAPE, SPACING_MM) & ~draw_tubes([TRUNK, NECK], SHAPE, SPACING_MM)
    assert gone[leak].mean() > 0.97
    assert not (gone & draw_tubes([TRUNK, BRANCH], SHAPE, SPACING_MM)).any()
    assert cut.section < 30


def test_a_wide_branch_is_cut_from_its_parent_at_its_mouth():
    """It has more voxels across than there are around the click at the edge of its end."""
    false = Tube((20.0, 20.0, 20.0), (20.0, 20.0, 45.0), 3.5, 3.5, round_ends=False)
    scan = a_scan(TRUNK, BRANCH, false)
    gone = removed(scan, between(scan, voxel(20.0, 20.0, 20.0), voxel(22.4, 21.4, 44.8)).voxels)
    added = draw_tubes([false], SHAPE, SPACING_MM) & ~draw_tubes([TRUNK], SHAPE, SPACING_MM)
    assert gone[added].mean() > 0.6
    assert not (gone & draw_tubes([BRANCH], SHAPE, SPACING_MM)).any()


def test_an_array_that_covers_only_the_airways_gives_the_same():
    whole = a_scan(TRUNK, BRANCH, CHILD)
    z, y, x = (slice(int(used.min()), int(used.max()) + 1) for used in np.nonzero(whole.airways.array))
    part = Scan(Part(whole.airways.array[z, y, x], (z.start, y.start, x.start)), SPACING_MM, SHAPE)
    point = voxel(50.0, 20.0, 38.0)
    assert np.array_equal(beyond(whole, point).flat(SHAPE), beyond(part, point).flat(SHAPE))
    sides = voxel(50.0, 20.0, 30.0), voxel(50.0, 20.0, 56.0)
    assert np.array_equal(between(whole, *sides).flat(SHAPE), between(part, *sides).flat(SHAPE))


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (lambda scan: beyond(scan, voxel(50.0, 36.0, 60.0)), "from the airways"),
        (lambda scan: between(scan, voxel(50.0, 20.0, 40.0), voxel(50.0, 20.0, 40.5)), "too close"),
        (lambda scan: between(scan, voxel(50.0, 20.0, 40.0), voxel(10.0, 20.0, 70.0)), "not connected"),
        (lambda scan: beyond(scan, voxel(50.0, 20.0, 38.0), voxel(10.0, 20.0, 70.0)), "point to keep is not connected"),
        (lambda scan: beyond(Scan(Part(np.zeros(SHAPE, bool)), SPACING_MM, SHAPE), voxel(1, 1, 1)), "empty"),
    ],
)
def test_what_cannot_be_cut_is_said(cut, words):
    scan = a_scan(TRUNK, BRANCH, Tube((10.0, 20.0, 66.0), (10.0, 20.0, 74.0), 2.0, 2.0))
    with pytest.raises(AirwaySegError, match=words):
        cut(scan)


def test_a_loop_is_not_parted_by_one_cut():
    way_round = Tube((75.0, 20.0, 20.0), (50.0, 20.0, 60.0), 2.0, 2.0)
    with pytest.raises(AirwaySegError, match="another way"):
        beyond(a_scan(TRUNK, BRANCH, way_round), voxel(50.0, 20.0, 40.0))
