"""The nearest point of each voxel is the one that a search tree finds, also where most searches are known."""

import numpy as np
import pytest
from phantoms import a_forked_tree, draw_tubes
from scipy.spatial import cKDTree

from AirwaySegLib.masks.sparse_mask import Lumen
from AirwaySegLib.tree.known_nearest import BLOCK, UNSURE, KnownSearch
from AirwaySegLib.tree.known_parts import KnownParts

SPACING_MM = (1.0, 0.9, 0.9)


@pytest.fixture(scope="module")
def fork() -> np.ndarray:
    return draw_tubes(a_forked_tree(), (200, 88, 200), SPACING_MM) > 0


def shell_of(mask: np.ndarray, known: KnownParts) -> tuple[np.ndarray, np.ndarray]:
    """Which voxel of the shell is nearest to each of the mask's: our search, and the tree's own."""
    lumen = Lumen.of(mask, SPACING_MM)
    ours = KnownSearch(lumen, known).nearest(lumen.shell_tree, "shell")
    return ours, lumen.shell_tree.query(lumen.places_mm)[1]


def test_it_is_the_trees_own_answer_after_any_edit(fork):
    known, mask, rng = KnownParts(), fork.copy(), np.random.default_rng(0)
    assert np.array_equal(*shell_of(mask, known))
    blocks = known.computed["shell"]
    for number in range(4):
        z, y, x = rng.choice(np.argwhere(mask))
        mask[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 5] = number % 2
        known = KnownParts(known.now)
        assert np.array_equal(*shell_of(mask, known))
        assert known.taken["shell"] > blocks / 3


def test_of_several_nearest_points_none_is_kept():
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 4, 3:6] = True  # above, below and beside it the background is equally near
    known = KnownParts()
    assert np.array_equal(*shell_of(mask, known))
    (kept,) = known.now.values()
    assert (kept[0] == UNSURE).all()


def test_points_farther_away_than_a_block_are_asked_for_again():
    lumen = Lumen((100, 4, 4), (1.0, 1.0, 1.0), np.array([[1, 1, 1], [2, 1, 1]], np.int32))
    far = np.array([[1.0 + 2.2 * BLOCK, 1.0, 1.0]])
    known = KnownParts()
    for points in (np.concatenate([far + [20, 0, 0], far]), np.concatenate([far, far + [20, 0, 0]])):
        tree = cKDTree(points)
        search = KnownSearch(lumen, known)
        assert np.array_equal(search.nearest(tree, "far"), tree.query(lumen.places_mm)[1])
        known = KnownParts(known.now)


def test_further_coordinates_count_and_tell_searches_apart():
    voxels = np.argwhere(np.ones((3, 3, 3))).astype(np.int32)
    lumen, known = Lumen((3, 3, 3), (1.0, 1.0, 1.0), voxels), KnownParts()
    tree = cKDTree([[1.1, 1.2, 1.3, 0.0], [1.1, 1.2, 1.3, 9.0]])
    for value, point in ((0.0, 0), (9.0, 1)):
        known = KnownParts(known.now)
        search = KnownSearch(lumen, known)
        assert (search.nearest(tree, "further", np.full((27, 1), value)) == point).all()


def test_a_lumen_elsewhere_in_the_scan_is_another(fork):
    known = KnownParts()
    shell_of(fork, known)
    known = KnownParts(known.now)
    assert np.array_equal(*shell_of(np.pad(fork, ((1, 0), (0, 0), (0, 0))), known))
    assert "shell" not in known.taken
