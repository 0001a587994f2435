"""Which parts of a drawn tree an image shows: thin, flat and faint lumens do not count, short gaps do."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from AirwaySegTraining.simulator.growth import Branch, finer
from AirwaySegTraining.simulator.rendering import Grid, paint_tubes
from AirwaySegTraining.simulator.scene import apply_coverage
from AirwaySegTraining.simulator.slabs import Slabs
from AirwaySegTraining.simulator.visibility import (
    ABSENT,
    AIRWAY,
    FOLLOWED_MM,
    LEFT_OUT,
    Image,
    followed,
    labelled,
    lumen_contrast_hu,
    parts,
)

GRID = Grid((60, 60, 60), (0.7, 0.7, 0.7), (0.0, 0.0, 0.0), np.eye(3))
MIDDLE_MM = 21.0
WALL_MM = 0.8
THIN = Slabs()


def _tube(radius_mm, axis=0, first_mm=2.0, last_mm=38.0, parent=-1, **what):
    points = np.full((12, 3), MIDDLE_MM)
    points[:, axis] = np.linspace(first_mm, last_mm, 12)
    return finer(Branch(points, np.full(12, radius_mm), parent, parent + 1, **what))


def _clean(branches, around_hu=-880.0):
    """An image of tubes with walls of 20 HU around air of -1000 HU."""
    hu = np.full(GRID.shape, around_hu, np.float32)
    for wider_mm, value in ((WALL_MM, 20.0), (0.0, -1000.0)):
        coverage = np.zeros(GRID.shape, np.uint8)
        paint_tubes(coverage, branches, GRID, wider_mm)
        apply_coverage(hu, coverage, value)
    return hu


def _image(hu, slabs=THIN, noise_hu=0.0):
    blurred = gaussian_filter(slabs.mean(hu), 0.6)
    return Image(blurred, slabs.spacing_mm(GRID.spacing_mm), slabs.first_mm(GRID.spacing_mm[0]), noise_hu)


def _contrast_hu(branch, image):
    return float(np.median(lumen_contrast_hu(image, branch, branch.points_mm, WALL_MM)))


def test_the_contrast_of_a_wide_lumen_is_that_of_its_wall_and_a_thin_one_fades_with_the_blur():
    wide, thin, thinner = (_tube(radius_mm) for radius_mm in (3.0, 0.8, 0.4))
    contrasts = [_contrast_hu(tube, _image(_clean([tube]))) for tube in (wide, thin, thinner)]
    assert 500 < contrasts[0] < 1020
    assert contrasts[0] > 2 * contrasts[1] and contrasts[1] > 1.5 * contrasts[2]


def test_in_a_thick_slice_a_flat_thin_lumen_is_not_shown_and_an_upright_one_or_one_in_tissue_is():
    thick = Slabs(4.2, 0.7, every=6, over=6)
    contrasts = {}
    for name, axis, around_hu in (("upright", 0, -880.0), ("flat", 2, -880.0), ("in tissue", 2, 20.0)):
        tube = _tube(1.0, axis)
        contrasts[name] = _contrast_hu(tube, _image(_clean([tube], around_hu), thick))
    assert contrasts["flat"] < 25 < 80 < min(contrasts["upright"], contrasts["in tissue"])


def test_thick_slices_lie_where_their_means_are():
    hu = np.repeat(np.arange(60, dtype=np.float32)[:, None, None], 60, axis=1).repeat(60, axis=2)
    for slabs in (Slabs(), Slabs(2.1, 0.7, 3, 3), Slabs(2.8, 0.7, 4, 4), Slabs(2.8, 0.7, 3, 4)):
        image = Image(slabs.mean(hu), slabs.spacing_mm(GRID.spacing_mm), slabs.first_mm(0.7), 0.0)
        found = image.sampled(np.array([[14.0, 7.0, 7.0], [24.5, 7.0, 7.0]]))
        assert found == pytest.approx([14.0 / 0.7, 24.5 / 0.7], abs=1e-3)


def test_noise_hides_a_faint_lumen_and_what_shows_nothing_is_background():
    thin, hidden = _tube(0.8), _tube(0.2)
    hu = _clean([thin])
    assert set(labelled(_image(hu), [thin], [thin.points_mm], [WALL_MM])[0]) == {AIRWAY}
    noisy = _image(hu, noise_hu=400.0)
    assert AIRWAY not in labelled(noisy, [thin], [thin.points_mm], [WALL_MM])[0]
    assert set(labelled(_image(_clean([hidden])), [hidden], [hidden.points_mm], [WALL_MM])[0]) == {ABSENT}


def _none(branches):
    return [np.zeros(len(branch.points_mm), bool) for branch in branches]


@pytest.mark.parametrize("closed", ["short", "long", "plugged", "narrowed"])
def test_a_short_gap_or_a_closed_part_is_passed_and_a_long_gap_is_not(closed):
    length_mm = 0.8 * FOLLOWED_MM if closed == "short" else 3 * FOLLOWED_MM
    first, last = 10.0, 10.0 + length_mm
    what = {closed: True} if closed in ("plugged", "narrowed") else {}
    airways = [
        _tube(2.0, last_mm=first),
        _tube(2.0, first_mm=first, last_mm=last, parent=0, **what),
        _tube(2.0, first_mm=last, last_mm=last + 8, parent=1),
    ]
    seen = [np.full(len(branch.points_mm), which) for branch, which in zip(airways, (True, False, True))]
    marked = followed(airways, seen, _none(airways))
    assert marked[0].all()
    assert marked[1][2:-2].all() == marked[1][2:-2].any() == (closed == "short")
    assert marked[2].all() == (closed != "long") and marked[2].any() == (closed != "long")


def test_the_end_of_an_airway_that_fades_is_not_marked():
    branch = _tube(1.0)
    seen = np.arange(len(branch.points_mm)) < 20
    assert np.array_equal(followed([branch], [seen], _none([branch]))[0], seen)


def test_the_first_part_of_a_visible_branch_lies_in_its_parent_and_is_airway():
    parent, child = _tube(6.0, last_mm=20.0), _tube(1.5, axis=2, first_mm=21.0, last_mm=38.0, parent=0)
    child.points_mm[:, 0] = 20.0
    image = _image(_clean([parent, child]))
    label = labelled(image, [parent, child], [parent.points_mm, child.points_mm], [WALL_MM] * 2)[1]
    assert set(label) == {AIRWAY}


def test_where_nothing_is_drawn_no_fork_is_airway():
    airways = [_tube(1.0, first_mm=4.0 * k, last_mm=4.0 * k + 4, parent=k - 1) for k in range(1, 8)]
    for number, branch in enumerate(airways):
        branch.parent = number - 1
    image = _image(np.full(GRID.shape, -850, np.float32))
    label = labelled(image, airways, [branch.points_mm for branch in airways], [WALL_MM] * 7)
    assert AIRWAY not in np.concatenate(label)


def test_behind_the_last_seen_point_neither_the_rest_of_a_branch_nor_its_children_are_airway():
    parent, hidden = _tube(1.5, last_mm=14.0), _tube(1.5, first_mm=14.0, last_mm=18.0, parent=0)
    children = [_tube(1.5, axis, first_mm=21.0, last_mm=25.0, parent=1) for axis in (1, 2)]
    for child in children:
        child.points_mm[:, 0] = 18.0
    airways = [parent, hidden, *children]
    image = _image(_clean([parent]))
    label = labelled(image, airways, [branch.points_mm for branch in airways], [WALL_MM] * 4)
    assert (label[0][:-3] == AIRWAY).all()
    assert all(AIRWAY not in one[4:] for one in label[1:])


def test_a_trachea_that_begins_above_the_scan_is_followed_into_it():
    tube, child = _tube(2.0, first_mm=60.0, last_mm=20.0), _tube(2.0, first_mm=20.0, last_mm=4.0, parent=0)
    tube.points_mm[:, 1] += np.clip(tube.points_mm[:, 0] - 40 * 0.7, 0, None)
    image = _image(_clean([tube, child])[:40])
    label = labelled(image, [tube, child], [tube.points_mm, child.points_mm], [WALL_MM] * 2)
    assert (np.concatenate(label) == AIRWAY).all()


def test_a_branch_is_cut_where_its_label_changes():
    branch = _tube(1.0)
    label = np.full(len(branch.points_mm), AIRWAY, np.uint8)
    label[20:30], label[30:] = LEFT_OUT, ABSENT
    pieces = parts(branch, label)
    assert [value for value, _ in pieces] == [AIRWAY, LEFT_OUT, ABSENT]
    assert all(
        np.array_equal(one.points_mm[-1], other.points_mm[0]) for (_, one), (_, other) in zip(pieces, pieces[1:])
    )
    assert [len(piece.points_mm) for _, piece in pieces] == [20, 12, len(label) - 30]
