"""The airway tree as data: measures with known answers, walks along it, JSON and back, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.tree.airway_tree import FORMAT, LOBES, TRACHEA, AirwayTree, Branch, distances_from_carina, measures_of

Numbers = list[float]


def a_branch(points_mm: list[Numbers], radii_mm: Numbers, number: int = 1, parent: int | None = None) -> Branch:
    return Branch(
        id=number,
        parent=parent,
        children=(),
        component=1,
        points_mm=np.array(points_mm, float),
        radii_mm=np.array(radii_mm, float),
        volume_mm3=12.5,
    )


@pytest.fixture
def a_tree() -> AirwayTree:
    """Trachea (1) with two main bronchi (2, 3), a branch on the right one (4), and a fragment of one point (5)."""
    trachea = a_branch([[0, 0, 40], [0, 0, 0]], [8, 8])
    right = a_branch([[0, 0, 0], [-4, 0, -4]], [6, 6], 2, 1)
    left = a_branch([[0, 0, 0], [5.0004, 0, -3]], [6, 5.5], 3, 1)
    small = a_branch([[-4, 0, -4], [-4, 3, -4], [-4, 3, -8]], [2, 1.5, 1], 4, 2)
    crumb = a_branch([[70.5, -20.25, 3.125]], [0.7], 5)
    return AirwayTree(
        branches=(
            replace(trachea, children=(2, 3), name=TRACHEA, strahler=2),
            replace(right, children=(4,), generation=1, angle_deg=45.0),
            replace(left, generation=1, angle_deg=30.1, name="Hauptbronchus für links"),
            replace(small, generation=2, angle_deg=90.0, lobe=LOBES[0], lobe_confidence=0.625),
            replace(crumb, component=2),
        ),
        voxel_mm=(1.25, 0.7, 0.75),
        carina_mm=(0.0, 0.0, 0.5),
        loops_cut=3,
        spurs_pruned=17,
        warnings=("Two branches touch.",),
    )


def as_plain(tree: AirwayTree) -> dict:
    return json.loads(tree.to_json())


def test_length_follows_the_line_and_tortuosity_compares_it_with_the_straight_way():
    branch = a_branch([[0, 0, 0], [3, 0, 0], [3, 4, 0]], [2, 2, 2])
    assert branch.along_mm == pytest.approx([0, 3, 7])
    assert branch.length_mm == pytest.approx(7)
    assert branch.tortuosity == pytest.approx(7 / 5)
    assert a_branch([[1, 1, 1], [5, 5, 1]], [2, 2]).length_mm == pytest.approx(4 * math.sqrt(2))
    assert a_branch([[1, 1, 1], [5, 5, 1]], [2, 2]).tortuosity == pytest.approx(1)


def test_diameters_leave_out_the_rounding_of_free_ends():
    # The median radius is 2: half of it, 1 mm, is left out at either end, which is less than a quarter of the branch.
    radii = [0.1, 0.5, 2, 2.5, 1.5, 2, 2, 0.7, 0.2]
    branch = a_branch([[0, 0, z] for z in range(9)], radii)
    assert branch.own_radii_mm.tolist() == [0.5, 2, 2.5, 1.5, 2, 2, 0.7]
    forking = replace(branch, children=(2,))
    assert forking.own_radii_mm.tolist() == [0.5, 2, 2.5, 1.5, 2, 2, 0.7, 0.2]
    assert (forking.min_diameter_mm, forking.max_diameter_mm) == (0.4, 5.0)
    assert branch.mean_diameter_mm == pytest.approx(2 * 11.2 / 7)


def test_diameters_of_a_child_leave_out_the_stretch_within_its_parent():
    # Radius 3 at the start: the points 0, 1 and 2 mm along lie within the parent; 1 mm of rounding is left out, too.
    branch = a_branch([[0, 0, z] for z in range(9)], [3, 3, 3, 2, 2, 1, 2, 2, 3], 2, parent=1)
    assert branch.own_radii_mm == pytest.approx([2, 2, 1, 2, 2])
    assert branch.mean_diameter_mm == pytest.approx(3.6)
    assert (branch.min_diameter_mm, branch.max_diameter_mm) == (2, 4)


def test_a_child_shorter_than_its_parents_radius_keeps_its_outer_half():
    branch = a_branch([[0, 0, z] for z in range(5)], [8, 8, 3, 2, 1], 2, parent=1)
    assert branch.own_radii_mm == pytest.approx([3, 2])


def test_tapering_is_the_diameter_lost_for_each_mm():
    along = np.arange(21.0)
    branch = a_branch([[0, z, 0] for z in along], list(4 - 0.05 * along))
    assert branch.tapering == pytest.approx(0.1)
    child = a_branch([[0, z, 0] for z in along], list(np.where(along < 4, 4.0, 3 - 0.05 * along)), 2, parent=1)
    assert child.tapering == pytest.approx(0.1)
    widening = a_branch([[0, z, 0] for z in along], list(2 + 0.05 * along))
    assert widening.tapering == pytest.approx(-0.1)
    assert a_branch([[0, 0, 0], [0, 0, 9]], [4, 2]).tapering == 0


def test_a_branch_of_one_point_has_no_length_but_a_diameter():
    for parent in (None, 1):
        crumb = a_branch([[1, 2, 3]], [0.7], 2, parent)
        assert (crumb.length_mm, crumb.tapering, crumb.tortuosity) == (0, 0, 1)
        assert crumb.mean_diameter_mm == crumb.min_diameter_mm == crumb.max_diameter_mm == pytest.approx(1.4)


def test_measures_scale_with_the_size_and_ratios_do_not():
    small = a_branch([[0, 0, 0], [3, 0, 0], [3, 4, 0], [3, 4, 9]], [2, 1.9, 1.7, 1.6], 2, parent=1)
    large = replace(small, points_mm=2 * small.points_mm, radii_mm=2 * small.radii_mm)
    for name in ("length_mm", "mean_diameter_mm", "min_diameter_mm", "max_diameter_mm"):
        assert getattr(large, name) == pytest.approx(2 * getattr(small, name))
    assert large.tapering == pytest.approx(small.tapering)
    assert large.tortuosity == pytest.approx(small.tortuosity)


def test_measures_by_name_are_rounded_and_a_roots_angle_is_none(a_tree):
    measures = measures_of(a_tree.branch(2))
    assert measures["length_mm"] == 5.657
    assert measures["volume_mm3"] == 12.5
    assert measures["angle_deg"] == 45.0
    assert measures_of(a_tree.branch(1))["angle_deg"] is None


def test_walks_find_roots_ways_and_subtrees(a_tree):
    def ids(branches) -> list[int]:
        return [branch.id for branch in branches]

    assert ids(a_tree.roots()) == [1, 5]
    assert ids(a_tree.main()) == [1, 2, 3, 4]
    assert ids(a_tree.path_to(4)) == [1, 2, 4]
    assert ids(a_tree.path_to(5)) == [5]
    assert ids(a_tree.below(2)) == [2, 4]
    assert ids(a_tree.below(1)) == [1, 2, 3, 4]
    assert ids(a_tree.named(TRACHEA)) == [1]
    assert a_tree.named("carina") == []


def test_other_branches_keep_the_rest_of_the_tree(a_tree):
    fewer = a_tree.with_branches(a_tree.main(), loops_cut=4)
    assert len(fewer.branches) == 4 and len(a_tree.branches) == 5
    assert (fewer.loops_cut, fewer.spurs_pruned, fewer.carina_mm) == (4, 17, (0.0, 0.0, 0.5))


def test_json_gives_the_tree_back(a_tree):
    back = AirwayTree.from_json(a_tree.to_json())
    plain = ("id", "parent", "children", "component", "volume_mm3", "generation", "strahler")
    names = ("angle_deg", "name", "lobe", "lobe_confidence")
    for before, after in zip(a_tree.branches, back.branches, strict=True):
        for attribute in plain + names:
            assert getattr(after, attribute) == getattr(before, attribute), (before.id, attribute)
        assert after.points_mm == pytest.approx(before.points_mm, abs=0.0005)
        assert after.radii_mm == pytest.approx(before.radii_mm, abs=0.0005)
    for attribute in ("voxel_mm", "carina_mm", "loops_cut", "spurs_pruned", "warnings"):
        assert getattr(back, attribute) == getattr(a_tree, attribute)
    assert back.to_json() == a_tree.to_json()


def test_an_empty_tree_without_carina_comes_back_too():
    back = AirwayTree.from_json(AirwayTree(branches=(), voxel_mm=(1, 1, 1)).to_json())
    assert back.branches == () and back.carina_mm is None
    assert back.main() == [] and back.roots() == []


def test_json_names_space_and_unit_and_holds_the_measures(a_tree):
    plain = as_plain(a_tree)
    assert (plain["format"], plain["space"], plain["unit"]) == (FORMAT, "LPS", "mm")
    assert plain["branches"][1]["length_mm"] == 5.657
    assert plain["branches"][3]["tortuosity"] == 1.4
    assert plain["branches"][2]["points_mm"] == [[0.0, 0.0, 0.0], [5.0, 0.0, -3.0]]


@pytest.mark.parametrize(
    ("branch", "entry", "value"),
    [
        (None, "format", "AirwaySeg tree 99"),
        (None, "branches", None),
        (None, "branches", [1, 2]),
        (None, "voxel_mm_zyx", [1.0, 1.0]),
        (None, "carina", [1.0, 2.0, 3.0, 4.0]),
        (None, "loops_cut", "many"),
        (0, "id", 2),
        (1, "parent", 2),
        (1, "parent", 4),
        (1, "parent", "trachea"),
        (1, "radii_mm", [6.0]),
        (1, "points_mm", []),
        (1, "points_mm", [[0.0, 0.0], [0.0, 1.0]]),
        (1, "points_mm", [[0.0, 0.0, math.inf], [0.0, 0.0, 1.0]]),
        (1, "radii_mm", [6.0, math.nan]),
        (1, "angle_deg", "steep"),
    ],
)
def test_a_file_with_a_wrong_entry_is_refused_in_a_sentence(a_tree, branch, entry, value):
    plain = as_plain(a_tree)
    (plain if branch is None else plain["branches"][branch])[entry] = value
    with pytest.raises(AirwaySegError, match=r"^This is .*\.$"):
        AirwayTree.from_json(json.dumps(plain))


@pytest.mark.parametrize("entry", ["format", "branches", "voxel_mm_zyx", "carina", "warnings"])
def test_a_file_that_lacks_an_entry_is_refused(a_tree, entry):
    plain = as_plain(a_tree)
    del plain[entry]
    with pytest.raises(AirwaySegError, match=entry):
        AirwayTree.from_json(json.dumps(plain))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"tree"', "null", "{}"])
def test_what_is_not_a_tree_at_all_is_refused(text):
    with pytest.raises(AirwaySegError, match="not a valid airway tree"):
        AirwayTree.from_json(text)


def test_branches_out_of_order_are_refused():
    first, second = a_branch([[0, 0, 0]], [1]), a_branch([[0, 0, 0]], [1], 2, parent=1)
    with pytest.raises(ValueError, match="branch 2 stands at position 1"):
        AirwayTree(branches=(second, first), voxel_mm=(1, 1, 1))
    with pytest.raises(ValueError, match="with parent 2"):
        AirwayTree(branches=(first, replace(second, parent=2)), voxel_mm=(1, 1, 1))


def test_of_several_trees_each_has_its_own_distances_and_the_file_names_them(a_tree):
    two = replace(a_tree, trees=(1, 2))
    assert AirwayTree.from_json(two.to_json()).trees == (1, 2) and not two.loose()
    distances = distances_from_carina(two.with_branches(list(two.branches), carina_mm=None))
    assert distances[0][0] == 0 and distances[4].tolist() == [0.0]
    with_carina = distances_from_carina(replace(two, carina_mm=(0.0, 0.0, 0.0)))
    assert with_carina[1][0] == 0 and np.isnan(with_carina[4]).all()
    plain = as_plain(a_tree)
    del plain["trees"]  # a file of an earlier version
    assert AirwayTree.from_json(json.dumps(plain)).trees == (1,)
