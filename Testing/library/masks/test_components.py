"""Components, holes and openings on drawn masks, compared with scipy."""

import numpy as np
import pytest
from scipy import ndimage

from AirwaySegLib.masks.components import (
    bounding_box,
    component_through,
    components_of_size,
    distance_to,
    fill_holes,
    label_components,
    opening,
)


@pytest.fixture
def a_speckled_mask() -> np.ndarray:
    return np.random.default_rng(3).random((30, 28, 26)) > 0.87


def test_components_are_scipys_numbered_from_the_largest(a_speckled_mask):
    labels = label_components(a_speckled_mask)
    expected, count = ndimage.label(a_speckled_mask, np.ones((3, 3, 3)))
    assert labels.max() == count
    sizes = np.bincount(labels.ravel())[1:]
    assert list(sizes) == sorted(sizes, reverse=True)
    pairs = {(a, b) for a, b in zip(labels[a_speckled_mask], expected[a_speckled_mask], strict=True)}
    assert len(pairs) == count


def test_the_seeds_component_is_kept_and_not_the_largest():
    mask = np.zeros((20, 20, 20), bool)
    mask[1:12, 1:12, 1:12] = True
    mask[15:18, 15:18, 15:18] = True
    found = component_through(mask, np.array([[16, 16, 16], [99, 0, 0]]))
    assert found.sum() == 27 and found[16, 16, 16]


def test_seeds_that_hit_nothing_give_an_empty_mask():
    mask = np.zeros((5, 5, 5), bool)
    mask[1, 1, 1] = True
    assert not component_through(mask, np.array([[3, 3, 3]])).any()
    assert not component_through(mask, np.empty((0, 3), int)).any()


def test_small_components_go(a_speckled_mask):
    mask = np.zeros((10, 10, 10), bool)
    mask[0, 0, :4] = True
    mask[5, 5, :3] = True
    kept = components_of_size(mask, 4)
    assert kept.sum() == 4 and kept[0, 0, 0]


def test_holes_are_filled_as_scipy_does(a_speckled_mask):
    mask = ndimage.binary_dilation(a_speckled_mask, iterations=1)
    assert np.array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))
    assert fill_holes(mask).sum() > mask.sum()


def test_a_cavity_that_is_open_to_the_outside_stays_open():
    mask = np.ones((7, 7, 7), bool)
    mask[3, 3, 3:] = False
    assert np.array_equal(fill_holes(mask), mask)


def test_distances_are_scipys_in_mm(a_speckled_mask):
    spacing = (1.5, 0.7, 0.6)
    expected = ndimage.distance_transform_edt(~a_speckled_mask, sampling=spacing)
    assert np.allclose(distance_to(a_speckled_mask, spacing), expected, atol=1e-4)
    assert np.isinf(distance_to(np.zeros((3, 3, 3), bool), spacing)).all()


def test_opening_keeps_the_wide_ball_and_takes_the_thin_bar_away():
    z, y, x = np.indices((40, 40, 60))
    ball = (z - 20) ** 2 + (y - 20) ** 2 + (x - 15) ** 2 <= 100
    bar = (abs(z - 20) <= 1) & (abs(y - 20) <= 1) & (x > 15) & (x < 55)
    opened = opening(ball | bar, 4.0, (1.0, 1.0, 1.0))
    assert not opened[20, 20, 35:].any()
    assert opened[ball].mean() > 0.95


def test_boxes_of_masks():
    mask = np.zeros((9, 9, 9), bool)
    assert bounding_box(mask) is None
    mask[2:4, 5, 8] = True
    assert bounding_box(mask) == (slice(2, 4), slice(5, 6), slice(8, 9))
    assert bounding_box(mask, margin=2) == (slice(0, 6), slice(3, 8), slice(6, 9))
