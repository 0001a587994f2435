"""Pieces and subtrees joined to a parent, on the airways of `missing_branch`."""

from dataclasses import replace

import numpy as np
import pytest
from missing_branch import DECOY, MISSING, PARENT, SHAPE, SPACING_MM, TRUNK, of, painted, voxel
from phantoms import Tube, draw_tubes
from scipy import ndimage

from AirwaySegLib.edit import reconnect as reconnected
from AirwaySegLib.edit.reconnect import bridge, reconnect
from AirwaySegLib.edit.scan import Part, Scan
from AirwaySegLib.errors import AirwaySegError

WRONG = Tube((41.0, 31.0, 48.0), (54.0, 31.0, 48.0), 1.5, 1.5)
"""A false joint from the decoy to the branch below it."""
PARENT_MM, JOINT_MM = (37.0, 31.0, 36.0), (48.0, 31.0, 48.0)
CORNERS = np.ones((3, 3, 3))


def tubes(*drawn: Tube) -> np.ndarray:
    return draw_tubes(list(drawn), SHAPE, SPACING_MM)


@pytest.fixture(scope="module")
def tree() -> np.ndarray:
    return tubes(TRUNK, DECOY, PARENT)


@pytest.fixture(scope="module")
def piece(tree) -> np.ndarray:
    """The branch without its first 7 mm."""
    found = tubes(MISSING) & ~tree
    found[:, :, : round(45 / SPACING_MM[2])] = False
    return found


@pytest.fixture(scope="module")
def hu(tree) -> np.ndarray:
    return painted(tree | tubes(MISSING))


def test_a_piece_is_joined_by_the_airway_between(tree, piece, hu):
    scan = Scan(Part(tree), SPACING_MM, SHAPE, hu)
    for parent in (voxel(PARENT_MM)[0], None):
        built = bridge(scan, np.argwhere(piece), parent)
        mask = of(built.voxels)
        assert not (mask & (tree | piece)).any()
        assert ndimage.label(tree | piece | mask)[1] == 1, "through faces"
        gap = tubes(MISSING) & ~tree & ~piece
        assert (mask & gap).sum() > 0.7 * gap.sum() and (mask & ~gap).sum() < 0.4 * gap.sum()
        assert 4 < built.length_mm < 12 and built.score > 0.7 and "closed for" in built.reason


def test_of_several_bridges_the_one_with_the_shortest_unseen_stretch_is_taken(tree, piece, hu, monkeypatch):
    """The score counts the worst stretch as much as the whole, so that a short way through lung can score more."""
    bridged = reconnected._bridged
    strict: list[float] = []

    def drawn(around, voxels, starts, stops, strictness):
        strict.append(strictness)
        found = bridged(around, voxels, starts, stops, strictness)
        return replace(found, score=0.8 - 0.1 * len(strict), unsure_mm=4.0 - len(strict))

    monkeypatch.setattr(reconnected, "_bridged", drawn)
    built = bridge(Scan(Part(tree), SPACING_MM, SHAPE, hu), np.argwhere(piece))
    assert len(strict) == 3 and built.unsure_mm == 1.0 and built.score == pytest.approx(0.5)


def test_a_wrong_joint_is_cut_and_the_branch_hangs_on_its_parent(tree, piece, hu):
    mask = tree | piece | tubes(WRONG)
    assert ndimage.label(mask, CORNERS)[1] == 1
    found = reconnect(Scan(Part(mask), SPACING_MM, SHAPE, hu), voxel(JOINT_MM)[0], voxel(PARENT_MM)[0])
    removed, added = of(found.remove), of(found.bridge.voxels)
    assert not (removed & ~tubes(WRONG)).any() and removed.any() and not (removed & added).any()
    after = (mask & ~removed) | added
    assert ndimage.label(after, CORNERS)[1] == 1
    labels, count = ndimage.label(mask & ~removed & ~added, CORNERS)
    tip, root = (labels[tuple(np.rint(voxel(point)[0]).astype(int))] for point in ((45.6, 31, 61), (70, 31, 20)))
    assert count == 2 and tip != root, "the bridge alone holds it"
    assert found.bridge.score > 0.7


def test_a_subtree_in_a_box_of_the_scan_is_reconnected_to_the_same_voxels(tree, piece, hu):
    mask = tree | piece | tubes(WRONG)
    low = np.argwhere(mask).min(axis=0)
    part = Part(mask[tuple(slice(start, None) for start in low)], tuple(int(start) for start in low))
    whole, boxed = (
        reconnect(Scan(each, SPACING_MM, SHAPE, hu), voxel(JOINT_MM)[0], voxel(PARENT_MM)[0])
        for each in (Part(mask), part)
    )
    assert np.array_equal(whole.remove, boxed.remove) and np.array_equal(whole.bridge.voxels, boxed.bridge.voxels)


def test_a_point_in_the_middle_of_a_very_wide_parent_is_near_its_wall(piece, hu):
    z, y, x = np.indices(SHAPE) * np.reshape(SPACING_MM, (3, 1, 1, 1))
    wide = np.hypot(y - 31, x - 20) < 18.5  # a trachea of 37 mm
    scan = Scan(Part(wide), SPACING_MM, SHAPE, hu)
    for x_mm in (20.0, 33.0):
        built = bridge(scan, np.argwhere(piece), voxel((40.0, 31.0, x_mm))[0])
        assert (ndimage.binary_dilation(of(built.voxels)) & wide).any()


def test_what_cannot_be_joined_is_refused_with_its_reason(tree, piece, hu):
    scan, voxels = Scan(Part(tree), SPACING_MM, SHAPE, hu), np.argwhere(piece)
    far = np.argwhere(tubes(Tube((20.0, 31.0, 70.0), (25.0, 31.0, 74.0), 1.0, 1.0)))
    for refused, words in (
        (lambda: bridge(scan, voxels, voxel((60.0, 31.0, 70.0))[0]), "new parent is not in the airways"),
        (lambda: bridge(scan, voxels, voxel((12.0, 31.0, 20.0))[0]), "No airway is seen|away; no bridge is longer"),
        (lambda: bridge(scan, far), "No airway is seen between the piece and its parent|no airways within 20 mm"),
        (lambda: bridge(replace(scan, hu=None), voxels), "neither is given"),
        (lambda: reconnect(scan, voxel((55.0, 31.0, 45.0))[0], voxel((52.5, 31.0, 58.0))[0]), "beyond the cut"),
    ):
        with pytest.raises(AirwaySegError, match=words):
            refused()
