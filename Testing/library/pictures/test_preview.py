"""The preview: the tree is there, head up and the patient's left on the right, and an empty mask does no harm."""

import numpy as np
import pytest

from AirwaySegLib.pictures.preview import LOOSE, OUTLINE, depth_projection, draw_preview, interesting_slices, tree_view


@pytest.fixture
def a_chest() -> tuple[np.ndarray, np.ndarray]:
    """HU with a dark tube, upright, and a branch to the patient's left at its lower end."""
    mask = np.zeros((60, 50, 70), bool)
    mask[10:58, 22:28, 30:36] = True
    mask[10:13, 24:26, 30:65] = True
    return np.where(mask, -990, -200).astype(np.int16), mask


def test_near_voxels_are_brighter_than_far_ones():
    mask = np.zeros((1, 10, 2), bool)
    mask[0, 0, 0] = mask[0, 9, 1] = True
    near, far = depth_projection(mask, 1)[0]
    assert near == 1 and 0 < far < near


def test_the_tree_stands_upright_with_the_left_side_on_the_right(a_chest):
    view = np.asarray(tree_view(a_chest[1], 1, (1.0, 1.0, 1.0))).astype(int)
    bright = view.sum(axis=2) > 200
    lower_right = bright[bright.shape[0] * 3 // 4 :, bright.shape[1] * 2 // 3 :]
    upper_right = bright[: bright.shape[0] // 4, bright.shape[1] * 2 // 3 :]
    assert lower_right.any() and not upper_right.any()


def test_views_are_true_to_scale(a_chest):
    tall = tree_view(a_chest[1], 1, (2.0, 1.0, 1.0))
    even = tree_view(a_chest[1], 1, (1.0, 1.0, 1.0))
    assert tall.height / tall.width == pytest.approx(2 * even.height / even.width, rel=0.02)


def test_the_slices_show_the_outline(a_chest):
    picture = np.asarray(draw_preview(*a_chest, (1.0, 1.0, 1.0), "a chest"))
    assert (picture == OUTLINE).all(axis=2).sum() > 50
    assert picture.shape[1] > picture.shape[0] > 400


def test_slices_go_through_the_tree(a_chest):
    carina, lower, coronal = interesting_slices(a_chest[1])
    assert a_chest[1][carina].any() and a_chest[1][lower].any() and 22 <= coronal < 28


def test_an_empty_mask_still_gives_a_picture(a_chest):
    picture = np.asarray(draw_preview(a_chest[0], np.zeros_like(a_chest[1]), (1.0, 1.0, 1.0), "nothing"))
    assert not (picture == OUTLINE).all(axis=2).any()


def test_loose_pieces_of_a_mask_are_drawn_in_their_colour_and_count_for_the_view(a_chest):
    hu, tree = a_chest
    with_piece = tree.astype(np.uint8)
    with_piece[2:6, 2:6, 2:6] = LOOSE
    pictures = [np.asarray(draw_preview(hu, mask, (1.0, 1.0, 1.0), "")).astype(int) for mask in (tree, with_piece)]
    orange = [((picture[..., 0] > 150) & (picture[..., 2] < picture[..., 0] / 2)).sum() for picture in pictures]
    assert orange[1] > orange[0] + 20


def test_unconnected_pieces_have_a_colour_of_their_own_and_the_tree_keeps_its():
    mask = np.zeros((40, 30, 30), bool)
    pieces = mask.copy()
    mask[5:35, 14:17, 14:17] = True
    pieces[5:20, 14:17, 24:27] = True
    pixels = np.array(tree_view(mask, 1, (1.0, 1.0, 1.0), pieces)).reshape(-1, 3).astype(int)
    lit = pixels[pixels.max(axis=1) > 100]
    warm, cold = lit[:, 0] > lit[:, 2], lit[:, 2] > lit[:, 0]
    assert 0.3 * cold.sum() < warm.sum() < 0.7 * cold.sum()
    alone = np.array(tree_view(mask, 1, (1.0, 1.0, 1.0))).reshape(-1, 3).astype(int)
    assert not (alone[:, 0] > alone[:, 2] + 10).any()
