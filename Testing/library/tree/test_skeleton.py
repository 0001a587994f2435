"""Thinning that keeps thin bars, in tiles and whole."""

import numpy as np
import pytest
from phantoms import Tube, a_forked_tree, draw_tubes
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.morphology import skeletonize

from AirwaySegLib.masks.sparse_mask import Lumen, voxels_of
from AirwaySegLib.tree import skeleton
from AirwaySegLib.tree.known_parts import KnownParts


def completed_skeleton(mask: np.ndarray, spacing_mm: tuple = (1.0, 1.0, 1.0)) -> np.ndarray:
    """The completed skeleton as an array."""
    lumen = Lumen.of(mask, spacing_mm)
    line = np.zeros(mask.shape, bool)
    line[tuple(lumen.voxels[skeleton.completed(skeleton.thinned(lumen), lumen)].T)] = True
    return line


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_straight_bar_keeps_a_line_from_end_to_end(width, axis):
    mask = np.zeros((width + 4, width + 4, 34), bool)
    mask[2 : 2 + width, 2 : 2 + width, 2:32] = True
    line = np.argwhere(completed_skeleton(np.moveaxis(mask, 2, axis)))
    ends = line[:, axis].min(), line[:, axis].max()
    # Thinning takes about half the width off a flat end.
    assert ends[0] <= 2 + width and ends[1] >= 31 - width
    assert ndimage.label(completed_skeleton(mask), np.ones((3, 3, 3)))[1] == 1


def test_thinning_alone_deletes_the_even_bar_that_we_keep():
    mask = np.zeros((6, 6, 34), bool)
    mask[2:4, 2:4, 2:32] = True
    assert not skeletonize(mask).any()
    assert completed_skeleton(mask).sum() >= 28


def test_an_even_bar_that_leaves_a_trachea_is_put_back_as_one_line():
    mask = draw_tubes([Tube((44, 20, 20), (5, 20, 20), 8, 8)], (50, 40, 60), (1, 1, 1))
    mask[20:22, 20:22, 26:56] = True
    line = completed_skeleton(mask)
    beyond = line[:, :, 30:]
    assert beyond[..., -6:].any()
    assert (beyond.sum(axis=(0, 1))[:24] == 1).all()
    assert ndimage.label(line, np.ones((3, 3, 3)))[1] == 1


def test_a_round_trachea_with_flat_ends_needs_no_more_than_its_axis():
    mask = draw_tubes([Tube((44, 20, 20), (5, 20, 20), 8, 8, round_ends=False)], (50, 40, 40), (1, 1, 1))
    assert np.array_equal(completed_skeleton(mask), skeletonize(mask) > 0)


def test_pieces_of_one_component_are_joined_into_one():
    mask = draw_tubes([Tube((5, 20, 5), (5, 20, 75), 3, 3)], (12, 40, 80), (1, 1, 1))
    lumen = Lumen.of(mask, (1.0, 1.0, 1.0))
    broken = skeletonize(mask) > 0
    broken[:, :, [15, 16, 30, 31, 32, 50, 60, 61]] = False
    line = np.zeros(mask.shape, bool)
    line[tuple(lumen.voxels[skeleton.completed(voxels_of(broken), lumen)].T)] = True
    assert ndimage.label(broken, np.ones((3, 3, 3)))[1] == 5
    assert ndimage.label(line, np.ones((3, 3, 3)))[1] == 1


def test_every_speck_keeps_one_voxel():
    mask = np.zeros((40, 40, 40), bool)
    for corner in np.ndindex(4, 4, 4):
        z, y, x = np.multiply(corner, 10)
        mask[z : z + 2, y : y + 2, x : x + 2] = True
    assert completed_skeleton(mask).sum() == ndimage.label(mask)[1] == 64


def test_tiles_give_the_skeleton_of_the_whole(monkeypatch):
    spacing = (1.0, 0.8, 0.8)
    mask = draw_tubes(a_forked_tree(), (200, 100, 225), spacing)
    monkeypatch.setattr(skeleton, "LARGE", 0)
    monkeypatch.setattr(skeleton, "TILE", 64)
    lumen = Lumen.of(mask, spacing)
    tiled = skeleton._thin_tiles(lumen, KnownParts())
    assert tiled is not None
    assert np.array_equal(tiled.array(), skeletonize(mask))
    assert np.array_equal(skeleton.thinned(lumen), tiled.voxels)


def test_pieces_that_do_not_touch_are_thinned_as_together():
    rng = np.random.default_rng(2)
    mask = ndimage.gaussian_filter(rng.normal(size=(60, 70, 80)), 2.5) > 0.06
    assert ndimage.label(mask, np.ones((3, 3, 3)))[1] > 5
    line = skeleton._thin_tile(np.argwhere(mask).astype(np.int32), KnownParts())
    assert np.array_equal(np.sort(np.ravel_multi_index(line.T, mask.shape)), np.flatnonzero(skeletonize(mask)))


def test_tiles_that_disagree_are_thrown_away(monkeypatch):
    spacing = (1.0, 0.8, 0.8)
    mask = draw_tubes(a_forked_tree(), (200, 100, 225), spacing)
    monkeypatch.setattr(skeleton, "LARGE", 0)
    monkeypatch.setattr(skeleton, "TILE", 16)
    monkeypatch.setattr(skeleton, "HALO", 6)
    lumen = Lumen.of(mask, spacing)
    assert skeleton._thin_tiles(lumen, KnownParts()) is None
    assert np.array_equal(skeleton.thinned(lumen), np.argwhere(skeletonize(mask)))


def test_after_a_change_only_the_piece_that_it_is_in_is_thinned_again(monkeypatch):
    spacing = (1.0, 0.8, 0.8)
    mask = draw_tubes(a_forked_tree(), (200, 100, 225), spacing) > 0
    mask[150:170, 5:8, 5:8] = True  # a second piece, in the tile of others
    monkeypatch.setattr(skeleton, "LARGE", 0)
    known = KnownParts()
    skeleton.thinned(Lumen.of(mask, spacing), known)
    mask[160, 8, 6] = True
    known = KnownParts(known.now)
    line = skeleton.thinned(Lumen.of(mask, spacing), known)
    assert known.computed["tile"] >= known.computed["piece"] >= 1
    assert known.taken["piece"] > known.computed["piece"]
    assert np.array_equal(np.sort(np.ravel_multi_index(line.T, mask.shape)), np.flatnonzero(skeletonize(mask)))


def test_only_what_no_skeleton_voxel_covers_is_bare():
    mask = draw_tubes(a_forked_tree(), (200, 100, 225), (1.0, 0.8, 0.8)) > 0
    lumen = Lumen.of(mask, (1.0, 0.8, 0.8))
    line = np.zeros(len(lumen), bool)
    line[::997] = True
    reach = skeleton.COVERED_RADII * lumen.wall_mm[line] + skeleton.COVERED_VOXELS
    away = cdist(lumen.places_mm[::5], lumen.places_mm[line])
    _, bare = skeleton._farthest_uncovered(line, lumen, np.arange(len(lumen))[::5])
    assert bare.tolist() == (5 * np.flatnonzero((away > reach).all(axis=1))).tolist()
