"""The plot of the walls: what is drawn with walls, without a line, and without a CT."""

import numpy as np

from AirwaySegLib.pictures.wall_plot import draw_wall_plot
from AirwaySegLib.tree.airway_tree import AirwayTree, Branch
from AirwaySegLib.tree.wall import Pi10, Wall, WallScan

LINE = (240, 190, 90)


def a_tree(walls: list[Wall], pi10: Pi10 | None) -> AirwayTree:
    """A chain of branches with these walls."""
    branches = [
        Branch(
            id=number,
            parent=number - 1 if number > 1 else None,
            children=(number + 1,) if number < len(walls) else (),
            component=1,
            points_mm=np.array([[0.0, 0.0, -number], [0.0, 0.0, -number - 1.0]]),
            radii_mm=np.ones(2),
            volume_mm3=1.0,
            generation=number,
            wall=wall,
        )
        for number, wall in enumerate(walls, start=1)
    ]
    return AirwayTree(tuple(branches), (1.0, 1.0, 1.0), wall_scan=WallScan((0.5, 0.6), -1000.0, 40.0, pi10))


def pixels_of(picture, colour) -> int:
    return int((np.abs(np.asarray(picture).astype(int) - colour).sum(axis=2) < 12).sum())


def test_the_line_of_pi10_is_drawn_where_there_is_one():
    walls = [Wall(diameter, 0.2 * diameter, 0.8, 1.0) for diameter in (2.0, 3.0, 4.0, 5.0)]
    pi10 = Pi10(3.0, 0.25, 0.5, 0.9, 9, 0, 6.0, 16.0)
    with_line, without = draw_wall_plot(a_tree(walls, pi10), "case"), draw_wall_plot(a_tree(walls, None), "case")
    assert with_line.size == without.size
    assert pixels_of(with_line, LINE) > pixels_of(without, LINE) + 200


def test_the_medians_of_the_wall_area_stand_at_their_height():
    low, high = (draw_wall_plot(a_tree([Wall(4.0, part, 0.8, 1.0)], None), "case") for part in (0.3, 1.2))
    rows = [
        np.argwhere(np.abs(np.asarray(one).astype(int) - LINE).sum(axis=2) < 12)[:, 0].mean() for one in (low, high)
    ]
    assert rows[0] > rows[1] + 60  # pictures count rows from the top


def test_a_tree_without_walls_gives_a_picture_too():
    assert pixels_of(draw_wall_plot(a_tree([Wall(), Wall(lumen_rays=0.4)], None), "case"), LINE) == 0
    assert draw_wall_plot(AirwayTree((), (1.0, 1.0, 1.0)), "nothing").width > 1000
