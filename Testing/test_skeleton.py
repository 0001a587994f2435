"""Thinning that keeps thin bars, in tiles and whole, and the mended upper end of a trachea."""

import numpy as np
import pytest
from phantoms import Tube, a_forked_tree, draw_tubes
from scipy import ndimage
from skimage.morphology import skeletonize

from AirwaySegLib import skeleton
from AirwaySegLib.lumen import Lumen
from AirwaySegLib.skeleton import complete, solid_top, thin


def completed(mask: np.ndarray, spacing_mm: tuple = (1.0, 1.0, 1.0)) -> np.ndarray:
    """The completed skeleton as an array."""
    lumen = Lumen.of(mask, spacing_mm)
    line = np.zeros(mask.shape, bool)
    line[tuple(lumen.voxels[complete(thin(mask, lumen), lumen)].T)] = True
    return line


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_straight_bar_keeps_a_line_from_end_to_end(width, axis):
    mask = np.zeros((width + 4, width + 4, 34), bool)
    mask[2 : 2 + width, 2 : 2 + width, 2:32] = True
    line = np.argwhere(completed(np.moveaxis(mask, 2, axis)))
    ends = line[:, axis].min(), line[:, axis].max()
    # Thinning takes about half the width off a flat end.
    assert ends[0] <= 2 + width and ends[1] >= 31 - width
    assert ndimage.label(completed(mask), np.ones((3, 3, 3)))[1] == 1


def test_thinning_alone_deletes_the_even_bar_that_we_keep():
    mask = np.zeros((6, 6, 34), bool)
    mask[2:4, 2:4, 2:32] = True
    assert not skeletonize(mask).any()
    assert completed(mask).sum() >= 28


def test_an_even_bar_that_leaves_a_trachea_is_put_back_as_one_line():
    mask = draw_tubes([Tube((44, 20, 20), (5, 20, 20), 8, 8)], (50, 40, 60), (1, 1, 1))
    mask[20:22, 20:22, 26:56] = True
    line = completed(mask)
    beyond = line[:, :, 30:]
    assert beyond[..., -6:].any()
    assert (beyond.sum(axis=(0, 1))[:24] == 1).all()
    assert ndimage.label(line, np.ones((3, 3, 3)))[1] == 1


def test_a_round_trachea_with_flat_ends_needs_no_more_than_its_axis():
    mask = draw_tubes([Tube((44, 20, 20), (5, 20, 20), 8, 8, round_ends=False)], (50, 40, 40), (1, 1, 1))
    assert np.array_equal(completed(mask), skeletonize(mask) > 0)


def test_every_speck_keeps_one_voxel():
    mask = np.zeros((40, 40, 40), bool)
    for corner in np.ndindex(4, 4, 4):
        z, y, x = np.multiply(corner, 10)
        mask[z : z + 2, y : y + 2, x : x + 2] = True
    assert completed(mask).sum() == ndimage.label(mask)[1] == 64


def test_tiles_give_the_skeleton_of_the_whole(monkeypatch):
    spacing = (1.0, 0.8, 0.8)
    mask = draw_tubes(a_forked_tree(), (200, 100, 225), spacing)
    monkeypatch.setattr(skeleton, "LARGE", 0)
    monkeypatch.setattr(skeleton, "TILE", 64)
    lumen = Lumen.of(mask, spacing)
    tiled = skeleton._thin_tiles(mask, lumen)
    assert tiled is not None
    assert np.array_equal(tiled, skeletonize(mask))
    assert np.array_equal(thin(mask, lumen), tiled)


def test_tiles_that_disagree_are_thrown_away(monkeypatch):
    spacing = (1.0, 0.8, 0.8)
    mask = draw_tubes(a_forked_tree(), (200, 100, 225), spacing)
    monkeypatch.setattr(skeleton, "LARGE", 0)
    monkeypatch.setattr(skeleton, "TILE", 16)
    monkeypatch.setattr(skeleton, "HALO", 6)
    lumen = Lumen.of(mask, spacing)
    assert skeleton._thin_tiles(mask, lumen) is None
    assert np.array_equal(thin(mask, lumen), skeletonize(mask))


def a_trachea() -> np.ndarray:
    """A tube of 8 mm radius along z, (80, 40, 40) voxels of 1 mm."""
    return draw_tubes([Tube((90, 20, 20), (-10, 20, 20), 8, 8)], (80, 40, 40), (1, 1, 1))


def test_a_crescent_and_a_hollow_at_the_top_become_solid():
    whole = a_trachea()
    ragged = whole.copy()
    ragged[60:, 17:24, 17:24] = False  # hollow
    ragged[70:, 20:, 18:23] = False  # and open to the back
    mended = solid_top(ragged, (1.0, 1.0, 1.0))
    assert (mended >= ragged).all()
    assert (whole & ~mended).sum() < 0.02 * whole[60:].sum()


def test_a_clean_tree_is_left_as_it_is():
    mask = draw_tubes(a_forked_tree(), (200, 80, 180), (1, 1, 1))
    assert (solid_top(mask, (1.0, 1.0, 1.0)) ^ mask).sum() <= 0.001 * mask.sum()


def test_two_thin_prongs_at_the_top_are_not_glued():
    prongs = [Tube((70, 20, 14), (20, 20, 20), 2, 2), Tube((70, 20, 26), (20, 20, 20), 2, 2)]
    mask = draw_tubes([*prongs, Tube((20, 20, 20), (2, 20, 20), 2.5, 2.5)], (80, 40, 40), (1, 1, 1))
    assert np.array_equal(solid_top(mask, (1.0, 1.0, 1.0)), mask)
