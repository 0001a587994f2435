"""The walls of a tree as a plot: the line of Pi10, and wall area and airway-to-artery ratio by generation."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from AirwaySegLib.pictures.tree_pictures import BACKGROUND, DIM_TEXT, TEXT, unit_colour, write_head
from AirwaySegLib.tree.airway_tree import AirwayTree, Branch
from AirwaySegLib.tree.colours import generation_colours
from AirwaySegLib.tree.wall import Pi10, WallScan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARGIN = 28
_GRID, _LINE = (46, 51, 59), (240, 190, 90)
_BOTTOM, _HEIGHT = 0.115, 0.68
_PANELS = ((0.055, 0.36), (0.475, 0.23), (0.755, 0.23))
"""Left edge and width of the three parts, as parts of the plot."""


def draw_wall_plot(tree: AirwayTree, title: str) -> Image.Image:
    """Root of the wall area over the inner perimeter with the line of Pi10; wall area and ratio over the generation.

    Each dot is a branch, coloured by generation; a bar is the median of a generation. The picture says so where the
    tree's walls were not measured.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scan = tree.wall_scan
    with style.context("default"):  # a user's settings must not change the picture; they are restored afterwards
        figure = Figure(figsize=(13.4, 5.6), dpi=100, facecolor=unit_colour(BACKGROUND))
        canvas = FigureCanvasAgg(figure)
        first, second, third = (figure.add_axes((left, _BOTTOM, wide, _HEIGHT)) for left, wide in _PANELS)
        _draw_pi10(first, tree, scan.pi10 if scan else None)
        _draw_generations(second, tree, "wall_area_fraction", "Wall area / (wall + lumen area)", 1.0)
        _draw_generations(third, tree, "airway_artery_ratio", "Inner diameter / artery's diameter", 2.0)
        for axes in (first, second, third):
            _dress(axes)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    write_head(ImageDraw.Draw(image), title, _facts(scan), image.width - 2 * _MARGIN)
    return image


def _facts(scan: WallScan | None) -> str:
    if scan is None:
        return "The walls were not measured: no CT."
    words = [f"blur {scan.blur_mm[0]:.2f} mm within slices, {scan.blur_mm[1]:.2f} mm across"]
    if scan.pi10 is None:
        words.append("Pi10: too few branches, or too similar ones")
    else:
        words.append(f"Pi10 {scan.pi10.value_mm:.2f} mm from {scan.pi10.branches} branches")
    if scan.pi10_half_maximum is not None:
        words.append(f"from half maximum to half maximum {scan.pi10_half_maximum.value_mm:.2f} mm")
    return "   ·   ".join(words)


def _draw_pi10(axes: "Axes", tree: AirwayTree, pi10: Pi10 | None) -> None:
    colours = _colours(tree)
    for branch in tree.main():
        wall = branch.wall
        if wall is not None and wall.inner_diameter_mm is not None and wall.wall_area_mm2 is not None:
            place = np.pi * wall.inner_diameter_mm, np.sqrt(wall.wall_area_mm2)
            axes.plot(*place, "o", color=colours[branch.generation], markersize=5)
    if pi10 is not None:
        ends = np.array([pi10.least_perimeter_mm, pi10.most_perimeter_mm])
        axes.plot(ends, pi10.intercept_mm + pi10.slope * ends, color=unit_colour(_LINE), linewidth=2)
        axes.plot([10, 10, 0], [0, pi10.value_mm, pi10.value_mm], "--", color=unit_colour(_LINE), linewidth=1)
        axes.annotate(f"Pi10 {pi10.value_mm:.2f} mm", (10, pi10.value_mm), (8, -14), textcoords="offset points")
        axes.texts[-1].set_color(unit_colour(_LINE))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Inner perimeter (mm)")
    axes.set_ylabel("Square root of the wall area (mm)")


def _draw_generations(axes: "Axes", tree: AirwayTree, figure: str, name: str, top: float) -> None:
    """One dot for each branch that has the figure, and the median of each generation; larger values lie at ``top``."""
    colours = _colours(tree)
    of_generation: dict[int, list[float]] = {}
    for branch in tree.main():
        value = getattr(branch.wall, figure) if branch.wall is not None else None
        if value is not None:
            beside = 0.12 * ((branch.id * 7) % 5 - 2)  # spreads the dots of a generation
            axes.plot(branch.generation + beside, min(value, top), "o", color=colours[branch.generation], markersize=4)
            of_generation.setdefault(branch.generation, []).append(value)
    for generation, values in of_generation.items():
        middle = min(float(np.median(values)), top)
        axes.plot([generation - 0.38, generation + 0.38], [middle, middle], color=unit_colour(_LINE), linewidth=2.2)
    axes.set_xlim(-0.6, _deepest(tree.main()) + 0.6)
    axes.set_ylim(0, top)
    axes.set_xlabel("Generation")
    axes.set_title(name, fontsize=10)


def _deepest(branches: list[Branch]) -> int:
    return max((branch.generation for branch in branches), default=0)


def _colours(tree: AirwayTree) -> list[tuple[float, float, float]]:
    rows = generation_colours(1 + _deepest(tree.main())).tolist()
    return [unit_colour((red, green, blue)) for red, green, blue in rows]


def _dress(axes: "Axes") -> None:
    words = unit_colour(DIM_TEXT)
    axes.set_facecolor(unit_colour(BACKGROUND))
    axes.tick_params(colors=words)
    axes.xaxis.label.set_color(words)
    axes.yaxis.label.set_color(words)
    axes.title.set_color(unit_colour(TEXT))
    axes.grid(color=unit_colour(_GRID), linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(words)
