"""The pictures of a tree: what is in front hides what is behind, colours mean generations, lines have true lengths."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from phantoms import Tube, a_forked_tree, draw_tubes
from skimage.color import deltaE_ciede2000, rgb2lab
from source_tree import ROOT

from AirwaySegLib.pictures.tree_pictures import (
    BACKGROUND,
    FRAGMENT,
    LONGEST_PATH,
    TEXT,
    WARNING_TEXT,
    draw_generations,
    draw_radius_plot,
    facts,
    longest_paths,
)
from AirwaySegLib.tree.airway_tree import LOBES, TRACHEA, AirwayTree, Branch
from AirwaySegLib.tree.colours import generation_colours

MM = (1.0, 1.0, 1.0)
UPPER_RIGHT, MIDDLE_RIGHT, LOWER_RIGHT, UPPER_LEFT, LOWER_LEFT = LOBES
ORANGE, VERMILION, SKY_BLUE = (230, 159, 0), (213, 94, 0), (86, 180, 233)
VIEWS = (slice(110, None), slice(0, 1100))
LEGEND = (slice(100, None), slice(1100, None))

# Machado, Oliveira and Fernandes (2009), doi 10.1109/TVCG.2009.113: full protanopia and deuteranopia, on linear RGB.
COLOUR_BLIND = {
    "nobody": np.eye(3),
    "protanope": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranope": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def tree_of(tubes: list[Tube], **changes) -> AirwayTree:
    """The tree that the tubes are: a tube whose start is another one's end is its child. Points every mm.

    A tube that starts nowhere is a fragment.
    """
    branches: list[Branch] = []
    for number, tube in enumerate(tubes, start=1):
        parents = [branch for branch, other in zip(branches, tubes) if other.end_mm == tube.start_mm]
        places = np.linspace(0, 1, max(2, round(tube.length_mm) + 1))
        points_zyx = np.array(tube.start_mm) + places[:, None] * np.subtract(tube.end_mm, tube.start_mm)
        branches.append(
            Branch(
                id=number,
                parent=parents[0].id if parents else None,
                children=tuple(k for k, other in enumerate(tubes, start=1) if other.start_mm == tube.end_mm),
                component=parents[0].component if parents else 1 + len({branch.component for branch in branches}),
                points_mm=points_zyx[:, ::-1],
                radii_mm=tube.start_radius_mm + places * (tube.end_radius_mm - tube.start_radius_mm),
                volume_mm3=1.0,
                generation=parents[0].generation + 1 if parents else 0,
            )
        )
    return AirwayTree(tuple(branches), MM, **changes)


def map_of(tubes: list[Tube], shape: tuple[int, int, int], spacing_mm=MM) -> np.ndarray:
    """Each tube's voxels bear its number; where tubes overlap, the earlier one's."""
    branch_map = np.zeros(shape, np.uint16)
    for number, tube in reversed(list(enumerate(tubes, start=1))):
        branch_map[draw_tubes([tube], shape, spacing_mm)] = number
    return branch_map


def with_branch(tree: AirwayTree, number: int, **changes) -> AirwayTree:
    """The tree with one branch changed."""
    return tree.with_branches(
        [replace(branch, **changes) if branch.id == number else branch for branch in tree.branches]
    )


def generations_shown(pixels: np.ndarray, count: int) -> np.ndarray:
    """Of each pixel, the generation whose colour it has at whatever brightness; -1 for the ground and for words."""
    rays = np.vstack([generation_colours(count), FRAGMENT]) - np.array(BACKGROUND, float)
    seen = pixels - np.array(BACKGROUND, float)
    strength = np.linalg.norm(seen, axis=-1)
    likeness = seen @ (rays / np.linalg.norm(rays, axis=1, keepdims=True)).T
    return np.where((strength > 40) & (likeness.max(axis=-1) > 0.97 * strength), likeness.argmax(axis=-1), -1)


def both_views(picture: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Generations shown in the front and in the right view, cut to what is drawn."""
    shown = generations_shown(picture[VIEWS], count)
    columns = np.flatnonzero((shown >= 0).any(axis=0))
    gap = np.diff(columns).argmax()
    views = shown[:, columns[0] : columns[gap] + 1], shown[:, columns[gap + 1] : columns[-1] + 1]
    front, right = (view[(view >= 0).any(axis=1)] for view in views)
    return front, right


@pytest.fixture
def a_forked_airway() -> tuple[AirwayTree, np.ndarray]:
    """Seven branches on a grid of 2 mm; lobes on the four last, a carina."""
    tubes = a_forked_tree()
    tree = tree_of(tubes, carina_mm=(90.0, 40.0, 110.0), loops_cut=3)
    tree = with_branch(tree, 1, name=TRACHEA)
    for number, lobe in ((3, UPPER_RIGHT), (4, LOWER_RIGHT), (6, UPPER_LEFT), (7, LOWER_LEFT)):
        tree = with_branch(tree, number, lobe=lobe, lobe_confidence=0.5)
    return tree, map_of(tubes, (100, 40, 90), (2.0, 2.0, 2.0))


@pytest.fixture
def a_point() -> AirwayTree:
    """One branch of one point."""
    branch = Branch(1, None, (), 1, np.array([[5.0, 5.0, 5.0]]), np.array([0.6]), 1.0)
    return AirwayTree((branch,), MM)


# Colours -------------------------------------------------------------------------------------------------------------


def linear(rgb: np.ndarray) -> np.ndarray:
    part = rgb / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def test_every_generation_has_its_own_colour_on_one_ramp():
    nine, seventeen = generation_colours(9), generation_colours(17)
    assert nine.shape == (9, 3) and nine.dtype == np.uint8
    assert (seventeen[::2] == nine).all()
    assert generation_colours(0).shape == (0, 3) and (generation_colours(1) == nine[:1]).all()
    assert len(np.unique(generation_colours(24), axis=0)) == 24


@pytest.mark.parametrize("eyes", COLOUR_BLIND)
def test_twelve_generations_differ_for_all_eyes(eyes):
    seen = np.clip(linear(generation_colours(12)) @ COLOUR_BLIND[eyes].T, 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
    apart = deltaE_ciede2000(lab[:, None], lab[None]) + 99 * np.eye(12)
    assert apart.min() > 5


def test_every_colour_stands_out_from_the_ground():
    weights = np.array([0.2126, 0.7152, 0.0722])
    bright, ground = linear(generation_colours(24)) @ weights, linear(np.array(BACKGROUND)) @ weights
    assert ((bright + 0.05) / (ground + 0.05)).min() > 3.5  # contrast after WCAG 2


# The surface ---------------------------------------------------------------------------------------------------------


def two_plates() -> tuple[AirwayTree, np.ndarray]:
    """Branch 1 (generation 0) lies behind branch 2 (generation 1), and a little higher."""
    branch_map = np.zeros((60, 40, 50), np.uint16)
    branch_map[10:40, 30:38, 10:40] = 1
    branch_map[10:40, 5:9, 10:40] = 2
    return tree_of([Tube((50, 34, 25), (30, 34, 25), 5, 5), Tube((30, 34, 25), (10, 7, 25), 5, 5)]), branch_map


def test_the_front_hides_the_back_and_lies_right_in_the_right_view():
    tree, branch_map = two_plates()
    front, right = both_views(np.asarray(draw_generations(tree, branch_map, MM, "plates")), 2)
    middle = front.shape[1] // 2
    assert (front[:, middle] == 1).mean() > 0.95 and not (front == 0).any()
    row = right[right.shape[0] // 2]
    assert (row[5:70] == 0).all() and (row[-30:] == 1).all()  # 8 and 4 mm at 10 pixels for each
    assert (row == 0).sum() == pytest.approx(2 * (row == 1).sum(), rel=0.15)


def test_the_patients_left_is_on_the_right_of_the_front_view_and_the_head_above(a_forked_airway):
    tree, branch_map = a_forked_airway
    tree = with_branch(tree, 6, generation=3)  # of four branches of generation 2 the upper left one
    front, _ = both_views(np.asarray(draw_generations(tree, branch_map, (2.0, 2.0, 2.0), "a tree")), 4)
    rows, columns = np.nonzero(front == 3)
    assert (columns > 0.6 * front.shape[1]).mean() > 0.95  # the rest are mixtures at outlines
    lower, _ = np.nonzero(front == 2)
    trachea, across = np.nonzero(front == 0)
    assert np.median(trachea) < np.median(rows) < np.median(lower)
    assert abs(across.mean() / front.shape[1] - 0.5) < 0.03


def test_both_views_are_true_to_scale_whatever_the_voxels():
    tube = Tube((10, 20, 20), (90, 20, 20), 8, 8, round_ends=False)
    for spacing_mm in ((1.0, 1.0, 1.0), (2.0, 0.5, 1.0)):
        shape = tuple(int(size / mm) for size, mm in zip((100, 40, 40), spacing_mm, strict=True))
        picture = draw_generations(tree_of([tube]), map_of([tube], shape, spacing_mm), spacing_mm, "a tube")
        for view in both_views(np.asarray(picture), 1):
            assert view.shape[0] / view.shape[1] == pytest.approx(80 / 16, rel=0.06)


def test_slopes_towards_the_lamp_are_brighter_and_far_branches_dimmer():
    near, far = Tube((5, 12, 15), (60, 12, 15), 8, 8), Tube((5, 80, 60), (60, 80, 60), 8, 8)
    one, other = tree_of([near, far]).branches
    tree = AirwayTree((replace(one, children=(2,)), replace(other, parent=1, component=1)), MM)
    picture = np.asarray(draw_generations(tree, map_of([near, far], (66, 95, 75)), MM, "two"))
    row = picture[picture.shape[0] // 2, :1100].astype(int).sum(axis=1)
    lit = np.flatnonzero(row > 120)
    starts = [lit[0], *lit[1:][np.diff(lit) > 5]]
    first = row[starts[0] : lit[lit < starts[1]][-1] + 1]
    second = row[starts[1] : lit[lit < starts[2]][-1] + 1]
    quarter = len(first) // 4
    assert first[quarter] > 1.3 * first[-quarter]
    assert second.max() < 0.85 * first.max()


def test_a_slope_is_as_bright_whatever_the_voxels():
    tree, medians = tree_of([Tube((40, 0, 20), (0, 0, 20), 5, 5)]), []
    for spacing_mm in ((1.0, 1.0, 1.0), (1.0, 0.5, 2.0)):
        y_mm, x_mm = (np.arange(int(40 / mm)) * mm for mm in spacing_mm[1:])
        wedge = np.broadcast_to(y_mm[:, None] >= 40 - x_mm, (40, len(y_mm), len(x_mm)))  # 45 degrees, facing the lamp
        picture = np.asarray(draw_generations(tree, wedge.astype(np.uint16), spacing_mm, "a wedge"))
        lit = picture[VIEWS][:, :600].astype(int).sum(axis=-1)
        medians.append(np.median(lit[lit > 200]))
    assert medians[0] == pytest.approx(medians[1], rel=0.02)


def test_fragments_are_grey_and_neither_legend_nor_facts_count_them_as_generations():
    lower_left = Tube((70, 48, 135), (35, 55, 150), 4, 3)
    tubes = [*a_forked_tree()[:6], lower_left]
    tree = tree_of(tubes, loops_cut=3)
    picture = np.asarray(draw_generations(tree, map_of(tubes, (100, 40, 90), (2.0, 2.0, 2.0)), (2.0, 2.0, 2.0), "8"))
    front, _ = both_views(picture, 3)
    rows, columns = np.nonzero(front == 3)
    below = (rows > 0.6 * front.shape[0]) & (columns > 0.5 * front.shape[1])
    assert below.sum() > 2000 and swatches(picture) == [*map(tuple, generation_colours(3).tolist()), FRAGMENT]
    assert facts(tree).split("   ·   ") == [
        "branches: 6",
        "total length: 322 mm",  # 85 + 2 x 47.2 + 2 x 43.3 + 55.9
        "deepest generation: 2",
        "loops cut: 3",
        "loose fragments: 1",
    ]


def test_warnings_stand_on_lines_of_their_own_and_push_the_rest_down(a_forked_airway):
    tree, branch_map = a_forked_airway
    warnings = ("Something long is to be said. " * 12, "Short.")
    plain, warned = (
        np.asarray(draw_generations(one, branch_map, (2.0, 2.0, 2.0), "a tree"))
        for one in (tree, replace(tree, warnings=warnings))
    )
    more = warned.shape[0] - plain.shape[0]
    rows = (warned == WARNING_TEXT).all(axis=-1).any(axis=1)
    beginnings = np.flatnonzero(rows[1:] & ~rows[:-1])
    assert more > 0 and len(beginnings) == 3 and rows[: 84 + more].sum() == rows.sum()
    assert (warned[84 + more :] == plain[84:]).all() and (warned[:72] == plain[:72]).all()
    assert (warned[:, -24:] == BACKGROUND).all()


def swatches(picture: np.ndarray) -> list[tuple[int, ...]]:
    """The colours of the legend from above, read along a column through its patches."""
    column = [tuple(pixel) for pixel in picture[LEGEND][:, 30].tolist()]
    return [colour for colour, before in zip(column[1:], column) if colour not in (before, BACKGROUND)]


def test_the_legend_has_a_patch_for_each_generation_of_the_tree(a_forked_airway):
    tree, branch_map = a_forked_airway
    picture = np.asarray(draw_generations(tree, branch_map, (2.0, 2.0, 2.0), "a tree"))
    assert swatches(picture) == [tuple(colour) for colour in generation_colours(3).tolist()]


def test_23_generations_and_a_fragment_find_room():
    tubes = [Tube((100 - 4 * n, 10, 10), (96 - 4 * n, 10, 10), 3, 3) for n in range(24)]
    tree = tree_of([*tubes, Tube((50, 40, 40), (40, 40, 40), 3, 3)])
    picture = np.asarray(draw_generations(tree, map_of(tubes, (105, 50, 50)), MM, "deep"))
    assert tree.branch(24).generation == 23
    assert swatches(picture) == [*map(tuple, generation_colours(24).tolist()), FRAGMENT]
    front, _ = both_views(picture, 24)
    middle = front[:, front.shape[1] // 2]
    assert set(range(24)) <= set(middle.tolist()) and (np.diff(middle[middle >= 0]) >= 0).mean() > 0.97


def test_a_tree_without_branches_gives_a_picture_that_says_so():
    nothing = AirwayTree((), MM)
    picture = np.asarray(draw_generations(nothing, np.zeros((9, 8, 7), np.uint16), MM, "nothing"))
    assert (picture[84:100, :300] == TEXT).all(axis=-1).any()
    assert not swatches(picture)
    assert "branches: 0" in facts(nothing) and "deepest generation: none" in facts(nothing)


def test_a_single_voxel_is_drawn_small(a_point):
    branch_map = np.zeros((9, 9, 9), np.uint16)
    branch_map[5, 5, 5] = 1
    for view in both_views(np.asarray(draw_generations(a_point, branch_map, MM, "a voxel")), 1):
        assert 5 < view.shape[0] < 30 and 5 < view.shape[1] < 30


def test_an_id_that_the_tree_lacks_is_refused(a_point):
    with pytest.raises(ValueError, match="id 7, but the tree has 1"):
        draw_generations(a_point, np.full((3, 3, 3), 7, np.uint16), MM, "wrong")


@pytest.mark.parametrize("draw", ["surface", "plot"])
def test_a_long_title_is_shortened_and_the_margin_stays_free(a_forked_airway, draw):
    tree, branch_map = a_forked_airway
    title = "a very long $name_of a file \n" * 20
    picture = np.asarray(
        draw_generations(tree, branch_map, (2.0, 2.0, 2.0), title)
        if draw == "surface"
        else draw_radius_plot(tree, title)
    )
    assert (picture[:50, 800:1100] == TEXT).all(axis=-1).any()
    edges = np.concatenate(
        [picture[:, -24:].reshape(-1, 3), picture[:18].reshape(-1, 3), picture[:, :24].reshape(-1, 3)]
    )
    assert (edges == BACKGROUND).all()


# The plot ------------------------------------------------------------------------------------------------------------


def ids(paths: dict[str, list[Branch]]) -> dict[str, list[int]]:
    return {name: [branch.id for branch in path] for name, path in paths.items()}


def test_each_lobe_has_its_path_from_the_carina_to_the_farthest_tip(a_forked_airway):
    tree, _ = a_forked_airway
    assert ids(longest_paths(tree)) == {
        UPPER_RIGHT: [2, 3],
        LOWER_RIGHT: [2, 4],
        UPPER_LEFT: [5, 6],
        LOWER_LEFT: [5, 7],
    }


def test_of_one_lobe_the_longer_path_wins_though_it_has_fewer_branches():
    tubes = [
        Tube((100, 0, 50), (80, 0, 50), 5, 5),  # trachea in two stretches
        Tube((80, 0, 50), (60, 0, 50), 5, 5),
        Tube((60, 0, 50), (60, 0, 40), 3, 3),
        Tube((60, 0, 40), (60, 0, 35), 2, 2),
        Tube((60, 0, 35), (60, 0, 30), 2, 2),
        Tube((60, 0, 40), (10, 0, 40), 2, 2),
    ]
    tree = tree_of(tubes, carina_mm=(50.0, 0.0, 60.0))
    for number in (1, 2):
        tree = with_branch(tree, number, name=TRACHEA)
    for number in (4, 5, 6):
        tree = with_branch(tree, number, lobe=LOWER_RIGHT)
    assert ids(longest_paths(tree)) == {LOWER_RIGHT: [3, 6]}
    assert ids(longest_paths(replace(tree, carina_mm=None))) == {LONGEST_PATH: [1, 2, 3, 6]}


def test_without_lobes_there_is_one_path_from_the_root(a_forked_airway, a_point):
    plain = tree_of(a_forked_tree(), carina_mm=(90.0, 40.0, 110.0))
    (path,) = longest_paths(plain).values()
    assert [branch.id for branch in path] == [1, 2, 4]
    assert ids(longest_paths(a_point)) == {LONGEST_PATH: [1]}
    assert longest_paths(AirwayTree((), MM)) == {}


def test_a_line_is_as_long_and_as_high_as_its_branch():
    """One lobe of 100 mm and radius 4 mm, one of 50 mm and radius 2 mm."""
    tubes = [
        Tube((60, 0, 50), (50, 0, 50), 4, 4),
        Tube((50, 0, 50), (50, 0, 150), 4, 4),
        Tube((50, 0, 50), (50, 0, 0), 2, 2),
    ]
    tree = with_branch(tree_of(tubes, carina_mm=(50.0, 0.0, 50.0)), 1, name=TRACHEA)
    tree = with_branch(with_branch(tree, 2, lobe=UPPER_LEFT), 3, lobe=UPPER_RIGHT)
    picture = np.asarray(draw_radius_plot(tree, "two lobes"))[:, :900]
    (high, long), (low, short) = (np.nonzero((picture == colour).all(axis=-1)) for colour in (SKY_BLUE, ORANGE))
    zero = 0.066 * 1160
    assert (long.max() - zero) / (short.max() - zero) == pytest.approx(2, abs=0.03)
    ground = (0.115 * 640 - 640) * -1
    assert (ground - high.mean()) / (ground - low.mean()) == pytest.approx(2, abs=0.03)


def test_a_shared_branch_shows_the_colours_of_all_its_paths(a_forked_airway):
    tree, _ = a_forked_airway
    for number in (6, 7):  # as thick as their mirror images on the right
        tree = with_branch(tree, number, lobe="")
    picture = np.asarray(draw_radius_plot(tree, "a tree"))
    stretch = picture[100:560, 140:400]  # 8 to 40 mm, within the right main bronchus
    upper, lower = (np.unique(np.nonzero((stretch == colour).all(axis=-1))[1]) for colour in (ORANGE, VERMILION))
    assert len(upper) == pytest.approx(len(lower), rel=0.1) and len(upper) + len(lower) > 180
    assert not set(upper) & set(lower)


def test_a_point_or_nothing_gives_a_plot_that_says_so(a_point):
    point, nothing = (np.asarray(draw_radius_plot(tree, "small")) for tree in (a_point, AirwayTree((), MM)))
    wide = {}
    for name, picture in (("point", point), ("nothing", nothing)):
        _, columns = np.nonzero((picture[90:, 76:] != BACKGROUND).any(axis=-1))
        assert columns.size > 500 and columns.max() < 812
        wide[name] = np.ptp(columns)
    assert wide["point"] > 1.3 * wide["nothing"]  # it tells the radius too


def test_the_same_input_gives_the_same_pictures(a_forked_airway):
    tree, branch_map = a_forked_airway
    for draw in (lambda: draw_generations(tree, branch_map, MM, "again"), lambda: draw_radius_plot(tree, "again")):
        assert draw().tobytes() == draw().tobytes()


def test_matplotlib_is_loaded_late_without_windows_and_its_settings_stay(a_forked_airway):
    script = (
        "import sys, AirwaySegLib.pictures.tree_pictures as pictures\n"
        "from AirwaySegLib.tree.airway_tree import AirwayTree\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import matplotlib\n"
        "matplotlib.rcParams['lines.linewidth'] = 9\n"
        "matplotlib.rcParams['axes.grid.axis'] = 'x'\n"
        "settings = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = settings()\n"
        "pictures.draw_radius_plot(AirwayTree((), (1.0, 1.0, 1.0)), 'late')\n"
        "assert settings() == before\n"
        "assert not {'matplotlib.pyplot', 'tkinter', 'PyQt5', 'PySide6'} & set(sys.modules)\n"
    )
    library = ROOT / "AirwaySeg"
    subprocess.run([sys.executable, "-c", script], cwd=library, check=True, timeout=60)
