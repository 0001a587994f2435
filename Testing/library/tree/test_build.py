"""Trees of drawn masks against what was drawn: lengths, radii, angles, generations, gap, loop, leak; invariants."""

from dataclasses import replace

import numpy as np
import pytest
from phantoms import Tube, a_deep_tree, a_forked_tree, draw_tubes
from scipy import ndimage

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume, to_canonical
from AirwaySegLib.tree.airway_tree import LEFT_MAIN, RIGHT_MAIN, TRACHEA, AirwayTree, Branch
from AirwaySegLib.tree.build import ParsedAirways, parse_airways

SHAPE, SPACING_MM = (200, 100, 225), (1.0, 0.8, 0.8)


def parsed(tubes: list[Tube], shape: tuple = SHAPE, spacing_mm: tuple = SPACING_MM) -> ParsedAirways:
    return parse_airways(Volume(draw_tubes(tubes, shape, spacing_mm), spacing_mm))


@pytest.fixture(scope="module")
def a_fork() -> ParsedAirways:
    return parsed(a_forked_tree())


def by_end(tree: AirwayTree, tube: Tube) -> Branch:
    """The branch whose end is nearest to a tube's."""
    end = np.array(tube.end_mm[::-1])
    return min(tree.branches, key=lambda branch: float(np.linalg.norm(branch.points_mm[-1] - end)))


def test_a_drawn_tree_comes_back_branch_by_branch(a_fork):
    tubes = a_forked_tree()
    assert len(a_fork.tree.branches) == len(tubes) == 7
    assert (a_fork.tree.loops_cut, len(a_fork.tree.roots())) == (0, 1)
    for tube in tubes:
        branch = by_end(a_fork.tree, tube)
        assert branch.length_mm == pytest.approx(tube.length_mm, abs=4.0)
        mean_mm = tube.start_radius_mm + tube.end_radius_mm
        assert branch.mean_diameter_mm == pytest.approx(mean_mm, abs=0.35)
        assert branch.tortuosity < 1.05


def test_generations_names_and_orders_of_the_drawn_tree(a_fork):
    tree = a_fork.tree
    assert [branch.generation for branch in tree.branches] == [0, 1, 1, 2, 2, 2, 2]
    assert sorted(branch.strahler for branch in tree.branches) == [1, 1, 1, 1, 2, 2, 3]
    (trachea,), (right,), (left,) = tree.named(TRACHEA), tree.named(RIGHT_MAIN), tree.named(LEFT_MAIN)
    assert trachea.parent is None and {right.parent, left.parent} == {trachea.id}
    assert right.points_mm[-1, 0] < trachea.points_mm[-1, 0] < left.points_mm[-1, 0]
    assert tree.carina_mm == pytest.approx((90, 40, 110), abs=6)


def test_angles_are_those_between_the_tubes(a_fork):
    tubes = a_forked_tree()
    along = [np.subtract(tube.end_mm, tube.start_mm) / tube.length_mm for tube in tubes]
    for child, parent in ((1, 0), (2, 1), (3, 1), (4, 0), (5, 4), (6, 4)):
        expected = np.degrees(np.arccos(along[child] @ along[parent]))
        assert by_end(a_fork.tree, tubes[child]).angle_deg == pytest.approx(expected, abs=8)


def test_the_root_reaches_the_upper_end(a_fork):
    assert a_fork.tree.branches[0].points_mm[0] == pytest.approx((90, 40, 195), abs=1.5)


def test_volumes_add_up_to_the_mask_and_are_those_of_the_tubes(a_fork):
    voxel_mm3 = float(np.prod(SPACING_MM))
    total = sum(branch.volume_mm3 for branch in a_fork.tree.branches)
    assert total == pytest.approx(a_fork.grid.array.sum() * voxel_mm3)
    trachea = a_fork.tree.branches[0]
    assert trachea.volume_mm3 == pytest.approx(np.pi * 64 * 85, rel=0.06)


def test_every_voxel_of_the_mask_belongs_to_a_branch_and_no_other_voxel_does(a_fork):
    branch_map = np.zeros(SHAPE, np.uint16)
    branch_map[a_fork.box] = a_fork.in_box(a_fork.branch_of_voxel())
    assert np.array_equal(branch_map > 0, a_fork.grid.array)
    assert np.unique(branch_map).tolist() == list(range(8))


def test_voxels_belong_to_the_tube_that_they_were_drawn_for(a_fork):
    branch_map = np.zeros(SHAPE, np.uint16)
    branch_map[a_fork.box] = a_fork.in_box(a_fork.branch_of_voxel())
    for tube in a_forked_tree():
        middle = np.rint(np.add(tube.start_mm, tube.end_mm) / 2 / SPACING_MM).astype(int)
        assert branch_map[tuple(middle)] == by_end(a_fork.tree, tube).id
    # The wall of the trachea just above the carina is no part of the bronchi whose lines begin within it.
    assert branch_map[118, 50, round(83 / 0.8)] == by_end(a_fork.tree, a_forked_tree()[0]).id


def test_doubled_spacing_doubles_lengths_and_radii(a_fork):
    doubled = parse_airways(replace(a_fork.grid, spacing_mm=tuple(2 * mm for mm in SPACING_MM))).tree
    for ours, theirs in zip(a_fork.tree.branches, doubled.branches, strict=True):
        assert theirs.length_mm == pytest.approx(2 * ours.length_mm)
        assert theirs.radii_mm == pytest.approx(2 * ours.radii_mm)
        assert theirs.volume_mm3 == pytest.approx(8 * ours.volume_mm3)
        assert theirs.points_mm == pytest.approx(2 * ours.points_mm)


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 0, 2), (0, 2, 1)])
def test_a_mask_stored_along_other_axes_gives_exactly_the_same_tree(a_fork, axes):
    # The same voxels at the same places of the patient, stored in another order and partly backwards.
    array = np.flip(np.transpose(a_fork.grid.array, axes), axis=0)
    directions = np.eye(3)[:, ::-1]  # columns: LPS directions of the axes z, y, x of the array
    columns = directions[:, list(axes)].copy()
    origin = columns[:, 0] * (array.shape[0] - 1) * SPACING_MM[axes[0]]
    columns[:, 0] *= -1
    turned = Volume(
        array, tuple(SPACING_MM[axis] for axis in axes), tuple(origin), tuple(columns[:, ::-1].ravel().tolist())
    )
    again = parse_airways(to_canonical(turned)).tree
    assert again.to_json() == a_fork.tree.to_json()


def test_a_mirrored_patient_has_the_mirrored_tree(a_fork):
    mirrored = parse_airways(replace(a_fork.grid, array=np.ascontiguousarray(a_fork.grid.array[:, :, ::-1]))).tree
    wide_mm = (SHAPE[2] - 1) * SPACING_MM[2]
    assert len(mirrored.branches) == 7
    for ours in a_fork.tree.branches:
        end = ours.points_mm[-1] * [-1, 1, 1] + [wide_mm, 0, 0]
        theirs = min(mirrored.branches, key=lambda branch, end=end: float(np.linalg.norm(branch.points_mm[-1] - end)))
        assert theirs.length_mm == pytest.approx(ours.length_mm, abs=1.5)
        assert theirs.mean_diameter_mm == pytest.approx(ours.mean_diameter_mm, abs=0.1)
        assert theirs.generation == ours.generation
    assert mirrored.named(RIGHT_MAIN) and mirrored.named(LEFT_MAIN)


def test_a_rotated_patient_has_the_same_lengths_and_radii(a_fork):
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
    middle = np.array([110.0, 40.0, 90.0])

    def turned(place: tuple) -> tuple:
        return tuple(turn @ (np.array(place) - middle) + middle + [0.0, 0.0, 25.0])

    tubes = [replace(tube, start_mm=turned(tube.start_mm), end_mm=turned(tube.end_mm)) for tube in a_forked_tree()]
    tree = parsed(tubes, (230, 100, 280)).tree
    assert len(tree.branches) == 7
    for drawn, turned_tube in zip(a_forked_tree(), tubes, strict=True):
        before, after = by_end(a_fork.tree, drawn), by_end(tree, turned_tube)
        assert after.length_mm == pytest.approx(before.length_mm, abs=6)
        assert after.mean_diameter_mm == pytest.approx(before.mean_diameter_mm, abs=0.3)


def test_a_gap_makes_a_fragment_with_branches_of_its_own():
    tubes = a_forked_tree()
    lobe = tubes[3]
    at = [tuple(np.add(lobe.start_mm, part * np.subtract(lobe.end_mm, lobe.start_mm))) for part in (0.5, 0.7)]
    broken = [*tubes[:3], replace(lobe, end_mm=at[0]), replace(lobe, start_mm=at[1]), *tubes[4:]]
    airways = parsed(broken)
    tree = airways.tree
    assert [branch.component for branch in tree.branches] == [1] * 7 + [2]
    fragment = tree.branches[-1]
    assert fragment.parent is None and fragment.generation == 0
    assert fragment.length_mm == pytest.approx(0.3 * lobe.length_mm, abs=3)
    voxels = ndimage.label(airways.grid.array, np.ones((3, 3, 3)))[0]
    of_fragment = int(np.bincount(voxels.ravel())[1:].min())
    assert (airways.branch_of_voxel() == fragment.id).sum() == of_fragment


def test_a_loop_is_cut_and_counted():
    tubes = a_forked_tree()
    ends = tubes[2].end_mm, tubes[5].end_mm  # the two upper lobes, joined over the trachea's front
    bridge = [Tube(ends[0], (135.0, 15.0, 60.0), 2.5, 2.5), Tube((135.0, 15.0, 60.0), (135.0, 15.0, 120.0), 2.0, 2.0)]
    tree = parsed([*tubes, *bridge, Tube((135.0, 15.0, 120.0), ends[1], 2.5, 2.5)]).tree
    assert tree.loops_cut == 1
    assert len(tree.roots()) == 1
    assert all(branch.component == 1 for branch in tree.branches)


def test_a_leak_shows_in_radius_and_volume():
    tubes = a_forked_tree()
    end = tubes[3].end_mm
    healthy = by_end(parsed(tubes).tree, tubes[3])
    leaking = by_end(parsed([*tubes, Tube(end, end, 8.0, 8.0)]).tree, tubes[3])
    assert leaking.max_diameter_mm > 1.6 * healthy.max_diameter_mm
    assert leaking.volume_mm3 > 1.5 * healthy.volume_mm3
    assert leaking.tapering < 0 < healthy.tapering


def test_a_deep_tree_has_every_branch_that_was_drawn():
    spacing = (0.9, 0.9, 0.9)
    tubes = a_deep_tree(5)
    tree = parsed(tubes, (330, 280, 330), spacing).tree
    assert len(tree.main()) == len(tubes) == 63
    assert max(branch.generation for branch in tree.main()) == 5
    assert np.bincount([branch.generation for branch in tree.main()]).tolist() == [1, 2, 4, 8, 16, 32]
    thinner = [branch.mean_diameter_mm < tree.branch(branch.parent).mean_diameter_mm for branch in tree.main()[1:]]
    assert np.mean(thinner) > 0.95
    drawn_mm = sum(tube.length_mm for tube in tubes)
    assert sum(branch.length_mm for branch in tree.main()) == pytest.approx(drawn_mm, rel=0.06)


def test_a_cavity_counts_for_the_lumen_but_not_for_the_branch_map():
    mask = draw_tubes(a_forked_tree(), SHAPE, SPACING_MM)
    hollow = mask.copy()
    hollow[150:156, 48:53, 110:115] = False
    airways = parse_airways(Volume(hollow, SPACING_MM))
    assert len(airways.tree.branches) == 7
    assert len(airways.lumen) == mask.sum()
    assert np.array_equal(airways.in_box(airways.branch_of_voxel()) > 0, hollow[airways.box])


def test_an_empty_mask_is_refused_in_a_sentence():
    with pytest.raises(AirwaySegError, match="empty"):
        parse_airways(Volume(np.zeros((4, 4, 4), bool), (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("voxels", [1, 2, 3])
def test_a_few_voxels_are_a_tree_of_one_branch(voxels):
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2, :voxels] = True
    tree = parse_airways(Volume(mask, (1.0, 1.0, 1.0))).tree
    assert len(tree.branches) == 1
    assert tree.branches[0].volume_mm3 == voxels


def test_a_mask_that_fills_the_array_and_touches_every_border_is_parsed():
    tree = parse_airways(Volume(np.ones((12, 9, 9), bool), (1.0, 1.0, 1.0))).tree
    assert len(tree.main()) >= 1 and tree.branches[0].volume_mm3 > 0


def test_ten_thousand_specks_are_ten_thousand_fragments():
    rng = np.random.default_rng(0)
    mask = np.zeros((120, 120, 120), bool)
    cells = rng.choice(30**3, 10_000, replace=False)
    z, y, x = (4 * part for part in np.unravel_index(cells, (30, 30, 30)))
    mask[z, y, x] = True
    mask[:, 1:3, 1:3] = True  # and a bar of even width that is the largest
    airways = parse_airways(Volume(mask, (1.0, 1.0, 1.0)))
    components = ndimage.label(mask, np.ones((3, 3, 3)))[1]
    assert len(airways.tree.roots()) == components > 9_000
    assert (airways.branch_of_voxel() > 0).all()


def test_without_a_trachea_each_tree_begins_where_the_array_s_border_cuts_it():
    tubes = [
        Tube((58.0, 12.0, 10.0), (40.0, 12.0, 10.0), 2.0, 2.0),
        Tube((40.0, 12.0, 10.0), (20.0, 12.0, 4.0), 1.5, 1.5),
        Tube((40.0, 12.0, 10.0), (46.0, 12.0, 20.0), 2.5, 3.0),  # wider, but it ends within the scan
        Tube((58.0, 12.0, 30.0), (25.0, 12.0, 30.0), 1.2, 2.4),  # another tree, wider at its lower end
    ]
    airways = parsed(tubes, shape=(90, 50, 80), spacing_mm=(0.6, 0.5, 0.5))
    roots = airways.tree.roots()
    assert len(roots) == 2 and sorted(round(root.points_mm[0][0]) for root in roots) == [10, 30]
    assert all(root.points_mm[0][2] > 50 for root in roots)
    inside = np.pad(airways.grid.array, 3)  # no border cuts them any more
    assert min(root.points_mm[0][2] for root in parse_airways(replace(airways.grid, array=inside)).tree.roots()) < 30
