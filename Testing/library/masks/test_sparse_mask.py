"""The list of a mask's voxels: neighbours, components, shell and wall against scipy on whole arrays."""

import numpy as np
import pytest
from scipy import ndimage

from AirwaySegLib.masks.sparse_mask import Lumen

SPACING_MM = (2.0, 1.0, 1.5)


@pytest.fixture(params=[0.05, 0.3, 0.7])
def a_random_mask(request) -> np.ndarray:
    return np.random.default_rng(1).random((14, 17, 12)) < request.param


def test_components_are_scipys_the_largest_first(a_random_mask):
    lumen = Lumen.of(a_random_mask, SPACING_MM)
    theirs, count = ndimage.label(a_random_mask, np.ones((3, 3, 3)))
    of_voxel = theirs[tuple(lumen.voxels.T)]
    assert len({*zip(lumen.components.tolist(), of_voxel.tolist(), strict=True)}) == count
    sizes = np.bincount(lumen.components)
    assert len(sizes) == count and (np.diff(sizes) <= 0).all()


def test_neighbours_are_all_pairs_that_touch(a_random_mask):
    lumen = Lumen.of(a_random_mask, SPACING_MM)
    first, second = lumen.neighbours()
    apart = np.abs(lumen.voxels[:, None] - lumen.voxels[None]).max(axis=2)
    touching = {(a, b) for a, b in np.argwhere(apart == 1).tolist() if a < b}
    assert {*zip(first.tolist(), second.tolist(), strict=True)} == touching


def test_shell_is_the_background_with_a_face_on_the_mask(a_random_mask):
    lumen = Lumen.of(a_random_mask, SPACING_MM)
    padded = np.pad(a_random_mask, 1)
    shell = ndimage.binary_dilation(padded) & ~padded
    assert {*map(tuple, (lumen.shell + 1).tolist())} == {*map(tuple, np.argwhere(shell).tolist())}


def test_nearest_background_is_that_of_the_distance_transform(a_random_mask):
    lumen = Lumen.of(a_random_mask, SPACING_MM)
    distance, _ = lumen.shell_tree.query(lumen.places_mm)
    theirs = ndimage.distance_transform_edt(np.pad(a_random_mask, 1), sampling=SPACING_MM)[1:-1, 1:-1, 1:-1]
    assert distance == pytest.approx(theirs[a_random_mask])


def test_wall_of_a_plate_is_half_a_voxel_from_its_outer_centres():
    plate = np.zeros((9, 30, 30), bool)
    plate[2:7] = True
    walls = Lumen.of(plate, SPACING_MM).wall_mm.reshape(5, 30, 30)[:, 15, 15]
    assert walls.tolist() == [1.0, 3.0, 5.0, 3.0, 1.0]


def test_rows_of_finds_voxels_and_nothing_beside_the_array(a_random_mask):
    lumen = Lumen.of(a_random_mask, SPACING_MM)
    assert lumen.rows_of(lumen.voxels).tolist() == list(range(len(lumen)))
    assert (lumen.rows_of(np.argwhere(~a_random_mask)) == -1).all()
    assert (lumen.rows_of(np.array([[-1, 0, 0], [0, -1, 0], [0, 0, -1], [14, 16, 11]])) == -1).all()


def test_cavities_are_what_filling_holes_adds(a_random_mask):
    lumen = Lumen.of(a_random_mask, SPACING_MM)
    filled = ndimage.binary_fill_holes(a_random_mask)
    assert {*map(tuple, lumen.cavities().tolist())} == {*map(tuple, np.argwhere(filled & ~a_random_mask).tolist())}


def test_a_bent_cavity_is_found_and_a_tunnel_is_none():
    block = np.ones((12, 12, 12), bool)
    block[2:9, 3:5, 3:5] = block[7:9, 3:9, 3:5] = False  # an L within
    tunnel = block.copy()
    tunnel[8, 8, :5] = False  # leads out
    for mask, count in ((block, 44), (tunnel, 0)):
        cavities = Lumen.of(mask, SPACING_MM).cavities()
        assert len(cavities) == count == int((ndimage.binary_fill_holes(mask) & ~mask).sum())


def test_rows_in_a_box_are_those_of_its_voxels(a_random_mask):
    lumen = Lumen.of(a_random_mask, SPACING_MM)
    box = (slice(3, 9), slice(0, 11), slice(5, 12))
    inside = np.zeros(a_random_mask.shape, bool)
    inside[box] = a_random_mask[box]
    assert lumen.voxels[lumen.rows_in(box)].tolist() == np.argwhere(inside).tolist()


def test_added_voxels_are_listed_once_and_in_order(a_random_mask):
    lumen = Lumen.of(a_random_mask, SPACING_MM)
    more = np.argwhere(~a_random_mask)[::-7]
    whole = a_random_mask.copy()
    whole[tuple(more.T)] = True
    assert lumen.with_voxels(np.concatenate([more, more[:3]])).voxels.tolist() == np.argwhere(whole).tolist()


def test_the_list_gives_the_mask_again(a_random_mask):
    lumen = Lumen.of(a_random_mask, SPACING_MM)
    assert np.array_equal(lumen.array(), a_random_mask)
    assert np.array_equal(lumen.padded, np.pad(a_random_mask, 1))


def test_without_voxels_there_are_no_components():
    assert len(Lumen.of(np.zeros((3, 4, 5), bool), SPACING_MM).components) == 0
