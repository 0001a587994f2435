"""Anatomy by shape and side: airway trees whose names, lobes and generations are known, whole and damaged."""

import dataclasses
import math

import numpy as np
import pytest
from lungtrees import (
    LEFT_LUNG,
    LLL,
    LOBAR,
    LUL,
    RIGHT_LUNG,
    RLL,
    RML,
    RUL,
    TRUNK,
    UNIT_VOXEL,
    WHOLE,
    Stretches,
    assemble,
    attached,
    draw,
    grown,
    turn,
    with_side_branch,
    without,
)
from phantoms import a_forked_tree, draw_tubes

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.tree.airway_tree import LEFT_MAIN, RIGHT_MAIN, TRACHEA, AirwayTree, Branch
from AirwaySegLib.tree.build import parse_airways
from AirwaySegLib.tree.lobes import INTERMEDIUS, LOBAR_BRONCHUS
from AirwaySegLib.tree.naming import name_branches, plausibility
from AirwaySegLib.tree.patient_axes import patient_axes, turned
from AirwaySegLib.tree.shape import measure_shape

# The whole tree -------------------------------------------------------------------------------------------------------


def test_a_whole_tree_has_its_names_and_generations():
    drawing = draw(WHOLE)
    expected = {
        "trachea": (TRACHEA, 0),
        "RMB": (RIGHT_MAIN, 1),
        "LMB": (LEFT_MAIN, 1),
        "RUL": (LOBAR_BRONCHUS[RUL], 2),
        "BI": (INTERMEDIUS, 2),
        "RML": (LOBAR_BRONCHUS[RML], 3),
        "RLL": (LOBAR_BRONCHUS[RLL], 3),
        "LUL": (LOBAR_BRONCHUS[LUL], 2),
        "LLL": (LOBAR_BRONCHUS[LLL], 2),
        "B1": ("", 3),
        "B10": ("", 7),
        "l basal": ("", 3),
    }
    found = {name: (drawing.of(name).name, drawing.of(name).generation) for name in expected}
    assert found == expected
    assert sum(bool(branch.name) for branch in drawing.tree.branches) == 9
    assert drawing.tree.warnings == () and plausibility(drawing.tree) == []


def test_the_carina_is_where_the_main_bronchi_begin():
    np.testing.assert_allclose(draw(WHOLE).tree.carina_mm, (0, 0, 0), atol=1e-9)


def test_every_branch_gets_its_lobe_and_the_central_airways_none():
    drawing = draw(WHOLE)
    assert [branch.lobe for branch in drawing.tree.branches] == drawing.lobes
    confidence = [branch.lobe_confidence for branch in drawing.tree.branches if branch.lobe]
    assert min(confidence) > 0.8 and max(confidence) < 1
    assert {branch.lobe_confidence for branch in drawing.tree.branches if not branch.lobe} == {0.0}


@pytest.mark.parametrize("seed", range(8))
def test_lobes_are_right_where_every_branch_is_turned_at_random(seed):
    assert draw(WHOLE, wobble=0.2, seed=seed).lobes_right() >= 0.95


@pytest.mark.parametrize("seed", range(6))
def test_lobes_are_right_in_trees_that_the_simulator_grows(seed):
    assert grown(seed).lobes_right() >= 0.9


def test_a_wrong_lobe_has_a_low_confidence():
    drawings = [draw(WHOLE, fan=1, wobble=0.5, seed=seed) for seed in range(30)]
    both = [(b, truth) for drawing in drawings for b, truth in zip(drawing.tree.branches, drawing.lobes, strict=True)]
    right = [branch.lobe_confidence for branch, truth in both if branch.lobe and branch.lobe == truth]
    wrong = [branch.lobe_confidence for branch, truth in both if branch.lobe and branch.lobe != truth]
    named = [branch.lobe_confidence for branch, _ in both if branch.name in LOBAR_BRONCHUS.values()]
    assert min(named) >= 0.6 and min(right) < 0.6
    assert len(wrong) > 20 and np.mean(wrong) < np.mean(right) - 0.1


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("degrees", [-25, -15, 15, 25])
def test_a_patient_who_lies_askew_has_the_same_names_and_lobes(axis, degrees):
    turned = draw(WHOLE).moved(turn(axis, degrees))
    assert [turned.of(name).name for name in LOBAR] == [draw(WHOLE).of(name).name for name in LOBAR]
    assert turned.lobes_right() == 1


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("degrees", [-20, 20])
@pytest.mark.parametrize("seed", range(4))
def test_a_tilt_of_20_degrees_changes_no_lobe_of_a_grown_tree(axis, degrees, seed):
    straight, askew = grown(seed), grown(seed).moved(turn(axis, degrees))
    same = [one.lobe == other.lobe for one, other in zip(straight.tree.branches, askew.tree.branches, strict=True)]
    assert np.mean(same) >= 0.92


@pytest.mark.parametrize("axis", range(3))
def test_the_patient_is_turned_back_most_of_the_way(axis):
    shape = measure_shape(draw(WHOLE).tree)
    askew = turned(shape, turn(axis, 20))
    main = draw(WHOLE).ids["RMB"], draw(WHOLE).ids["LMB"]
    back = patient_axes(askew, ([1], *main)) @ turn(axis, 20)
    rest = math.degrees(math.acos((np.trace(back) - 1) / 2))
    assert rest < 12 and np.linalg.det(back) == pytest.approx(1)


def test_a_mirrored_patient_is_named_by_side_with_a_warning_and_less_confidence():
    mirrored = draw(WHOLE).moved(np.diag([-1.0, 1, 1]))
    assert mirrored.of("RMB").name == LEFT_MAIN and mirrored.of("LMB").name == RIGHT_MAIN
    assert mirrored.of("RUL").lobe == LUL and mirrored.of("l B10").lobe == RLL
    assert "mirrored" in mirrored.tree.warnings[0]
    assert mirrored.of("RUL").lobe_confidence < 0.8 * draw(WHOLE).of("RUL").lobe_confidence


def test_naming_twice_changes_nothing():
    once = draw(without("RML", "B4", "B5")).tree
    assert once.warnings == ("No branch of the right middle lobe was found.",)
    assert name_branches(once).to_json() == once.to_json()


def test_strahler_orders_grow_only_where_two_of_the_highest_meet():
    #      4 - 5          tips 1, 3 and 5; 2 (1 and 3 meet) and 4 (one child: keeps 1); root (2 and 1 meet): 2
    stretches: Stretches = {
        "root": ("", (0, 0, -50), 5.0, ""),
        "2": ("root", (20, 0, -20), 3.0, ""),
        "1": ("2", (10, 0, -30), 2.0, ""),
        "3": ("2", (30, 0, -10), 2.0, ""),
        "4": ("root", (-20, 0, -20), 3.0, ""),
        "5": ("4", (-20, 0, -20), 3.0, ""),
    }
    drawing = draw(stretches)
    assert {name: drawing.of(name).strahler for name in stretches} == {
        "root": 2,
        "2": 2,
        "1": 1,
        "3": 1,
        "4": 1,
        "5": 1,
    }


# Variants and spurs ---------------------------------------------------------------------------------------------------


def test_a_spur_on_the_trachea_leaves_two_stretches_of_trachea_and_no_lobe():
    drawing = draw(with_side_branch("spur", "trachea", 0.6, (12, -3, -2), 3.0))
    assert [branch.length_mm for branch in drawing.tree.named(TRACHEA)] == pytest.approx([61.0, 40.6], abs=0.1)
    spur = drawing.of("spur")
    assert (spur.generation, spur.name, spur.lobe) == (1, "", "")
    assert drawing.of("RMB").generation == 1 and drawing.lobes_right() == 1


@pytest.mark.parametrize("bronchus", ["RMB", "BI", "LMB"])
def test_a_spur_on_a_main_bronchus_shifts_no_generation(bronchus):
    drawing = draw(with_side_branch("spur", bronchus, 0.5, (8, 3, 3), 2.0))
    whole = draw(WHOLE)
    names = [*LOBAR, "B1", "B10", "l B10"]
    assert [drawing.of(name).generation for name in names] == [whole.of(name).generation for name in names]
    assert len(drawing.tree.named(whole.of(bronchus).name)) == 2
    assert drawing.of("spur").generation == drawing.of(bronchus).generation + 1
    assert drawing.of("spur").lobe == "" and drawing.lobes_right() == 1


@pytest.mark.parametrize("way", [(8, 24, 3), (3, 12, 1)])
def test_a_side_branch_that_comes_out_of_the_lumen_does_shift_the_generation(way):
    drawing = draw(with_side_branch("real", "BI", 0.5, way, 2.5, RLL))
    assert drawing.of("RML").generation == draw(WHOLE).of("RML").generation + 1


def test_a_short_tip_among_short_branches_is_no_spur():
    drawing = draw(with_side_branch("tip", "B10", 0.5, (4, 2, -3), 2.0, RLL), fan=0)
    assert drawing.of("B10").generation == draw(WHOLE).of("B10").generation + 1


def test_a_tracheal_bronchus_serves_the_upper_lobe_and_the_carina_stays():
    stretches = with_side_branch("RUL high", "trachea", 0.75, (24, 3, 6), 3.5, RUL)
    drawing = draw(
        {name: ("RUL high", *rest) if name == "B1" else (_, *rest) for name, (_, *rest) in stretches.items()}
    )
    assert len(drawing.tree.named(TRACHEA)) == 2
    np.testing.assert_allclose(drawing.tree.carina_mm, (0, 0, 0), atol=1e-9)
    assert drawing.of("RUL high").generation == 1 and drawing.of("RUL high").lobe == RUL
    assert drawing.of("RMB").name == RIGHT_MAIN and drawing.lobes_right() == 1


def test_the_whole_upper_lobe_may_leave_the_trachea():
    drawing = draw(attached("RUL", "trachea"))
    assert drawing.of("RUL").name == LOBAR_BRONCHUS[RUL] and drawing.of("RUL").generation == 1
    assert drawing.of("LMB").name == LEFT_MAIN and drawing.lobes_right() == 1


@pytest.mark.parametrize(("name", "parent"), [("RML", "RMB"), ("B6", "BI"), ("B3", "RMB"), ("lingula", "LMB")])
def test_three_bronchi_may_leave_at_one_place(name, parent):
    drawing = draw(attached(name, parent))
    assert drawing.lobes_right() == 1
    assert [drawing.of(key).name for key in ("RMB", "LMB")] == [RIGHT_MAIN, LEFT_MAIN]


@pytest.mark.parametrize(("gone", "lobe"), [("RUL", RUL), ("RML", RML), ("LUL", LUL)])
def test_a_missing_lobe_is_reported_and_the_others_stay(gone, lobe):
    stretches = {name: stretch for name, stretch in WHOLE.items() if stretch[3] != lobe or name == gone}
    drawing = draw(without(gone, stretches=stretches))
    assert drawing.tree.warnings == (f"No branch of the {lobe} was found.",)
    others = [
        (b.lobe, truth) for b, truth in zip(drawing.tree.branches, drawing.lobes, strict=True) if b.lobe and truth
    ]
    assert len(others) > 80 and all(ours == truth for ours, truth in others)
    beside = {RUL: "RLL", RML: "RLL", LUL: "l B10"}[lobe]
    assert drawing.of(beside).lobe_confidence < 0.81 and draw(WHOLE).of(beside).lobe_confidence > 0.81


# Cut masks ------------------------------------------------------------------------------------------------------------


def test_a_bronchus_intermedius_that_ends_unbranched_serves_no_lobe():
    drawing = draw(without("RML", "RLL", "B4", "B5", "B6"))
    assert (drawing.of("BI").name, drawing.of("BI").lobe) == (INTERMEDIUS, "")
    assert drawing.of("RUL").lobe == RUL and len(drawing.tree.warnings) == 2


@pytest.mark.parametrize(("lung", "main", "side"), [(RIGHT_LUNG, "RMB", "right"), (LEFT_LUNG, "LMB", "left")])
def test_of_a_missing_lung_the_stump_of_the_main_bronchus_is_named(lung, main, side):
    drawing = draw(without(*(name for name in lung if name != main)))
    assert drawing.of("RMB").name == RIGHT_MAIN and drawing.of("LMB").name == LEFT_MAIN
    assert drawing.tree.warnings == (f"The {side} lung's airways end with the main bronchus.",)
    assert drawing.lobes_right() == 1


@pytest.mark.parametrize(("gone", "side"), [(LEFT_LUNG, "right"), (RIGHT_LUNG, "left")])
def test_a_tree_of_one_lung_without_carina_is_named_with_half_the_confidence(gone, side):
    drawing = draw(without(*gone))
    assert drawing.tree.carina_mm is None
    assert drawing.tree.warnings == (f"No carina was found: only airways of the {side} lung are in the mask.",)
    assert drawing.of("trachea").name == TRACHEA and drawing.of("trachea").generation == 0
    assert drawing.lobes_right() == 1
    whole = draw(WHOLE)
    for branch in drawing.tree.branches:
        assert branch.lobe_confidence <= 0.5 and (not branch.lobe or branch.lobe.startswith(side))
    assert not whole.tree.warnings


def test_a_lung_that_begins_with_its_main_bronchus_has_generation_1_there():
    stretches = {name: stretch for name, stretch in WHOLE.items() if name in RIGHT_LUNG}
    drawing = draw({**stretches, "RMB": ("", *RIGHT_LUNG["RMB"][1:])})
    assert drawing.of("RMB").name == RIGHT_MAIN and drawing.of("RMB").generation == 1
    assert drawing.of("RUL").generation == 2 and drawing.lobes_right() == 1


def test_a_trachea_of_5_mm_is_named_with_a_warning():
    drawing = draw({**WHOLE, "trachea": ("", (0, 0, -5), 8.5, "")})
    assert drawing.tree.warnings == ("Only 5 mm of the trachea are in the mask.",)
    assert drawing.of("trachea").name == TRACHEA and drawing.lobes_right() == 1


def test_a_trachea_alone_is_named_and_has_no_carina():
    tree = draw(TRUNK).tree
    assert tree.branches[0].name == TRACHEA and tree.carina_mm is None
    assert tree.warnings == ("No carina was found: the tree does not part into a right and a left side.",)


def test_a_thin_tree_gets_no_names_though_it_parts_to_both_sides():
    thin = {name: (parent, way, 0.25 * radius, lobe) for name, (parent, way, radius, lobe) in WHOLE.items()}
    tree = draw(thin).tree
    assert not any(branch.name or branch.lobe for branch in tree.branches) and tree.carina_mm is None
    assert tree.warnings == ("No carina was found: the tree does not begin in a trachea, so no lobes are named.",)
    assert max(branch.generation for branch in tree.branches) > 5


def test_an_empty_tree_gets_a_warning():
    tree = name_branches(AirwayTree((), UNIT_VOXEL))
    assert tree.branches == () and tree.warnings[0].startswith("No carina was found")


def test_fragments_keep_no_names_and_count_from_their_own_root():
    whole = draw(WHOLE).tree
    count = len(whole.branches)
    dots = [
        Branch(count + 1 + k, None, (), 2 + k, np.array([[50.0, k, 0.0]]), np.array([0.3]), 0.2) for k in range(2000)
    ]
    dots[0] = dataclasses.replace(dots[0], children=(count + 2,))
    dots[1] = dataclasses.replace(dots[1], parent=count + 1, component=2)
    tree = name_branches(AirwayTree((*whole.branches, *dots), UNIT_VOXEL))
    assert [branch.generation for branch in tree.branches[count : count + 3]] == [0, 1, 0]
    assert not any(branch.name or branch.lobe for branch in tree.branches[count:])
    assert [branch.lobe for branch in tree.branches[:count]] == [branch.lobe for branch in whole.branches]


@pytest.mark.parametrize("seed", range(0, 300, 30))
def test_any_forest_is_named_without_an_error(seed):
    for rng in map(np.random.default_rng, range(seed, seed + 30)):
        tree = name_branches(a_wild_forest(rng))
        assert name_branches(tree).to_json() == tree.to_json()
        assert all(0 <= branch.lobe_confidence < 1 for branch in tree.branches)
        steps = [b.generation - tree.branch(b.parent).generation for b in tree.branches if b.parent is not None]
        assert set(steps) <= {0, 1} and len(tree.named(TRACHEA)) <= len(tree.main())


def a_wild_forest(rng: np.random.Generator) -> AirwayTree:
    """Up to 60 branches anywhere, of one point, of no length, of radius 0, some of them roots."""
    branches: list[Branch] = []
    for number in range(1, int(rng.integers(2, 61))):
        is_root = number == 1 or rng.random() < 0.1
        parent = None if is_root else branches[int(rng.integers(max(0, number - 9), number - 1))]
        start = 50 * rng.normal(size=3) if parent is None else parent.points_mm[-1]
        count = int(rng.choice([1, 2, 5, 8]))
        points = start + np.linspace(0, 1, count)[:, None] * rng.normal(size=3) * rng.choice([0, 1, 10, 40])
        component = number if parent is None else parent.component
        radii = np.full(count, rng.choice([0.0, 0.5, 3.0, 8.0]))
        branches.append(Branch(number, None if parent is None else parent.id, (), component, points, radii, 1.0))
    return assemble(branches)


# No trachea -----------------------------------------------------------------------------------------------------------


def a_forked_tree_without_its_trachea() -> AirwayTree:
    return parse(draw_tubes(a_forked_tree()[1:], (200, 80, 180), (1, 1, 1)))


def parse(mask: np.ndarray) -> AirwayTree:
    return parse_airways(Volume(mask, (1.0, 1.0, 1.0))).tree


def test_a_tree_without_trachea_gets_no_names_and_a_reason():
    tree = a_forked_tree_without_its_trachea()
    assert tree.carina_mm is None and not any(branch.name or branch.lobe for branch in tree.branches)
    assert tree.warnings[0].startswith("No trachea was found: the airway at the upper end ")
    assert [branch.generation for branch in tree.branches] == [0, 1, 1, 2, 2]


def test_an_array_that_stands_on_its_head_gets_no_names_and_a_reason():
    tree = parse(draw_tubes(a_forked_tree(), (200, 80, 180), (1, 1, 1))[::-1])
    assert tree.carina_mm is None and not any(branch.name or branch.lobe for branch in tree.branches)
    assert tree.warnings[0].startswith("No trachea was found: the airway at the upper end does not lead down to where")


def test_a_wide_airway_that_comes_from_below_is_no_trachea():
    drawing = draw(WHOLE).moved(np.diag([1.0, 1.0, -1.0]))
    assert drawing.tree.carina_mm is None and not any(branch.name for branch in drawing.tree.branches)
    assert drawing.tree.warnings == (
        "No trachea was found: the airway at the upper end does not lead down to where the tree parts, so neither "
        "carina nor lobes are named.",
    )


@pytest.mark.parametrize("top", [121, 127])
def test_a_trachea_cut_off_a_few_mm_above_the_carina_is_named_in_a_parsed_mask(top):
    whole = draw_tubes(a_forked_tree(), (200, 80, 180), (1, 1, 1))
    whole[top:] = False
    tree = parse(whole)
    assert tree.branches[0].name == TRACHEA and tree.carina_mm == pytest.approx((90, 40, 111), abs=2)
    assert tree.branches[0].length_mm == pytest.approx(top - 113, abs=2)
    assert tree.warnings[0] == f"Only {tree.branches[0].length_mm:.0f} mm of the trachea are in the mask."


def test_a_short_stump_above_a_small_and_a_large_part_is_no_trachea():
    stretches: Stretches = {
        "stump": ("", (0, 0, -5), 4.5, ""),
        "right": ("stump", (12, 0, -18), 4.0, ""),
        "LMB": ("stump", *LEFT_LUNG["LMB"][1:]),
    } | {name: LEFT_LUNG[name] for name in list(LEFT_LUNG)[1:]}
    tree = draw(stretches).tree
    assert "too short to tell it from a bronchus" in tree.warnings[0]
    assert tree.carina_mm is None and not any(branch.name for branch in tree.branches)


def test_the_root_may_bend_over_at_the_top_and_be_flat():
    hook = {"larynx": ("", (0, -60, 30), 8.5, ""), **WHOLE, "trachea": ("larynx", (0, 18, -100), 4.6, "")}
    drawing = draw(hook)
    assert drawing.of("trachea").name == drawing.of("larynx").name == TRACHEA and drawing.lobes_right() == 1


def test_a_lung_alone_is_named_only_if_its_main_bronchus_leads_down():
    stretches = {name: stretch for name, stretch in WHOLE.items() if name in LEFT_LUNG}
    drawing = draw({**stretches, "LMB": ("", *LEFT_LUNG["LMB"][1:])})
    assert drawing.of("LMB").name == LEFT_MAIN and drawing.lobes_right() == 1
    upright = drawing.moved(np.diag([1.0, 1.0, -1.0])).tree
    assert "does not lead down" in upright.warnings[0] and not any(branch.lobe for branch in upright.branches)


def test_a_large_tracheal_bronchus_over_a_sparse_lung_leaves_the_carina_low():
    """The lower trachea lies 0.5 mm to the left of where the bronchus leaves, and half of all is on its right."""
    few = {name: WHOLE[name] for name in ("trachea", "RMB", *LEFT_LUNG)}
    few["trachea"] = ("", (0, 9, -50), 8.5, "")
    few["low trachea"] = ("trachea", (1, 9, -50), 8.5, "")
    few["RUL"] = ("trachea", *WHOLE["RUL"][1:])
    few |= {name: WHOLE[name] for name in ("B1", "B2", "B3")}
    for name in ("RMB", "LMB"):
        few[name] = ("low trachea", *few.pop(name)[1:])
    few["BI"] = ("RMB", (5, 4, -60), 5.3, RLL)
    ordered = sorted(few.items(), key=lambda item: ("trachea" not in item[0], item[0][1:] != "MB"))
    drawing = draw(dict(ordered), fan=1)
    np.testing.assert_allclose(drawing.tree.carina_mm, drawing.of("low trachea").points_mm[-1])
    assert [branch.id for branch in drawing.tree.named(TRACHEA)] == [drawing.ids["trachea"], drawing.ids["low trachea"]]
    assert drawing.of("RUL").lobe == RUL and drawing.of("RUL").name != RIGHT_MAIN


# Plausibility ---------------------------------------------------------------------------------------------------------


def test_a_trachea_of_34_mm_is_doubted():
    tree = draw({**WHOLE, "trachea": ("", (0, 18, -100), 17.0, "")}).tree
    doubts = plausibility(tree)
    assert doubts == ["The trachea's mean diameter is 34.0 mm, outside 10 to 30 mm."] == list(tree.warnings)


def test_children_thicker_than_their_parents_are_doubted():
    tree = draw(WHOLE).tree
    wider = [dataclasses.replace(b, radii_mm=b.radii_mm + 4.0 * (b.generation == 5)) for b in tree.branches]
    thicker = sum(branch.generation == 5 for branch in tree.branches)
    assert plausibility(tree.with_branches(wider)) == [
        f"{thicker} of {len(wider) - 1} branches are thicker than the branch they spring from."
    ]


def test_more_than_23_generations_are_doubted():
    tree = draw(WHOLE).tree
    deep = [dataclasses.replace(branch, generation=3 * branch.generation) for branch in tree.branches]
    deepest = max(branch.generation for branch in deep)
    assert plausibility(tree.with_branches(deep)) == [
        f"The tree has {deepest} generations below the trachea, more than 23."
    ]
