"""Diagonal contacts become faces without joining what is apart; airways that touch are parted, forks are not."""

import numpy as np
from skimage.draw import line_nd

from AirwaySegLib.evaluation.metrics import tree_length_detected
from AirwaySegLib.evaluation.protocols import PROTOCOLS, compare
from AirwaySegLib.evaluation.reference_parse import largest_component
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.masks.contacts import joined_by_faces, kept_apart
from AirwaySegLib.masks.sparse_mask import FACES, Lumen
from AirwaySegLib.tree.centerline import loops_in

ISOTROPIC = (1.0, 1.0, 1.0)


def tube(shape: tuple[int, int, int], start: tuple[int, int, int], end: tuple[int, int, int], radius: float):
    """Voxels within a radius of a straight line."""
    points = np.stack(line_nd(start, end, endpoint=True), axis=1)
    grid = np.indices(shape).reshape(3, -1).T
    mask = np.zeros(shape, bool)
    for point in points:
        mask |= (np.linalg.norm(grid - point, axis=1) <= radius).reshape(shape)
    return mask


def parts_by_faces(mask: np.ndarray) -> int:
    return int(Lumen.of(mask, ISOTROPIC).pieces(FACES[3:]).max()) + 1


def loops(mask: np.ndarray) -> int:
    return loops_in(Lumen.of(mask, ISOTROPIC))


def test_a_line_along_the_diagonal_hangs_together_by_faces():
    mask = np.zeros((14, 14, 14), bool)
    mask[tuple(np.arange(2, 12) for _ in range(3))] = True
    assert parts_by_faces(mask) == 10
    joined = joined_by_faces(mask)
    assert parts_by_faces(joined) == 1 and joined[mask].all()
    assert joined.sum() == 10 + 2 * 9  # two voxels at each corner contact


def test_of_the_voxels_at_a_contact_the_more_probable_is_added():
    mask = np.zeros((5, 6, 6), bool)
    mask[2, 2, 1:3] = mask[2, 3, 3:5] = True
    probability = np.zeros(mask.shape, np.uint8)
    probability[2, 3, 2], probability[2, 2, 3] = 40, 90
    joined = joined_by_faces(mask, probability)
    assert np.argwhere(joined & ~mask).tolist() == [[2, 2, 3]]


def test_what_does_not_touch_stays_apart_and_what_has_faces_stays_as_it_is():
    mask = np.zeros((8, 8, 8), bool)
    mask[1:3, 1:3, 1:3] = mask[4:6, 4:6, 4:6] = True  # a voxel of background between their corners
    assert np.array_equal(joined_by_faces(mask), mask)
    assert not joined_by_faces(np.zeros((3, 3, 3), bool)).any()


def test_two_parts_that_touch_at_several_contacts_are_joined_at_the_most_probable_one():
    mask = np.zeros((5, 8, 12), bool)
    mask[2, 2, :] = mask[2, 4, :] = False
    mask[2, 2, 0:12:4] = True
    mask[2, 3, 1:11] = True
    mask[2, 3, 0] = mask[2, 3, 4] = mask[2, 3, 8] = False
    joined = joined_by_faces(mask)
    assert label_components(joined).max() == 1 and parts_by_faces(joined) == 1


def test_the_published_scores_count_all_of_a_mask_joined_by_faces():
    reference = tube((40, 24, 40), (4, 12, 20), (20, 12, 20), 3)
    reference |= tube((40, 24, 40), (20, 12, 20), (36, 12, 34), 1.5)
    broken = reference.copy()
    broken[26] = False
    points = np.argwhere(reference[27])
    start = points[points[:, 1].argmin()]
    broken[26, start[0], start[1] - 1] = True
    above = np.argwhere(reference[25])
    broken[25] = False
    broken[25, start[0], start[1] - 2] = True
    broken[24, start[0], start[1] - 2 : above[:, 1].max() + 1] = True
    assert label_components(broken).max() == 1 and parts_by_faces(broken) > 1
    joined = joined_by_faces(broken)
    assert np.array_equal(largest_component(joined), joined)
    atm22 = PROTOCOLS["atm22"]
    before, after = (compare(mask, reference, ISOTROPIC, atm22, "zyx").detection for mask in (broken, joined))
    assert after.tree_length > before.tree_length + 0.2
    assert after.tree_length >= tree_length_detected(broken, reference)


def fork_that_closes_again() -> tuple[np.ndarray, np.ndarray]:
    """A fork whose daughters run beside each other and touch far from it, where the probability is lower."""
    shape = (60, 24, 40)
    mask = tube(shape, (55, 12, 20), (40, 12, 20), 3)
    left, right = np.zeros(shape, bool), np.zeros(shape, bool)
    for points in (((40, 12, 20), (28, 12, 12)), ((28, 12, 12), (4, 12, 18))):
        left |= tube(shape, *points, 1.5)
    for points in (((40, 12, 20), (28, 12, 28)), ((28, 12, 28), (4, 12, 23))):
        right |= tube(shape, *points, 1.5)
    mask |= left | right
    mask[7, 12, 18:24] = True
    probability = np.where(mask, 255, 0).astype(np.uint8)
    between = np.zeros(shape, bool)
    between[7, 12, :] = mask[7, 12] & ~left[14, 12] & ~right[14, 12]
    probability[between] = 180
    return mask, probability


def test_daughters_that_touch_are_parted_in_the_valley_between_them():
    mask, probability = fork_that_closes_again()
    assert loops(mask) == 1
    apart = kept_apart(mask, probability)
    taken = mask & ~apart
    assert loops(apart) == 0 and label_components(apart).max() == 1
    assert 1 <= taken.sum() <= 2 and (probability[taken] == 180).all()


def test_without_a_valley_nothing_is_taken_away():
    mask, probability = fork_that_closes_again()
    assert np.array_equal(kept_apart(mask, np.where(mask, 255, 0).astype(np.uint8)), mask)
    assert probability.max() == 255


def test_a_tree_without_loops_keeps_every_voxel_also_where_it_is_improbable():
    shape = (60, 24, 40)
    mask = tube(shape, (55, 12, 20), (30, 12, 20), 3) | tube(shape, (30, 12, 20), (5, 12, 8), 1.5)
    mask |= tube(shape, (30, 12, 20), (5, 12, 32), 1.5)
    probability = np.where(mask, 255, 0).astype(np.uint8)
    probability[20] = np.where(mask[20], 100, 0)
    assert np.array_equal(kept_apart(mask, probability), mask)
    empty = np.zeros((4, 4, 4), bool)
    assert not kept_apart(empty, empty.astype(np.uint8)).any()
