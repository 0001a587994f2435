"""Two pictures of an airway tree: its surface coloured by generation, and the lumen radius along each lobe's path.

The pictures depend on the input only. The surface is drawn with numpy and Pillow, the plot with matplotlib's Figure:
without pyplot and without a window, and matplotlib's settings are restored afterwards.
"""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from AirwaySegLib.masks.components import bounding_box
from AirwaySegLib.tree.airway_tree import LOBES, TRACHEA, AirwayTree, Branch
from AirwaySegLib.tree.colours import generation_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Spacing = tuple[float, float, float]
Colour = tuple[int, int, int]
Floats = NDArray[np.float64]

LONGEST_PATH = "longest path"
BACKGROUND: Colour = (16, 18, 22)
FRAGMENT: Colour = (122, 128, 136)
TEXT: Colour = (235, 238, 242)
DIM_TEXT: Colour = (165, 174, 186)
WARNING_TEXT: Colour = (240, 190, 90)

# The palette of `generation_colours` (white, yellow, orange, red, rose, violet, blue, turquoise, pale green) was found
# by a search that kept this order and made the smallest CIEDE2000 difference large for 8 to 16 generations, with normal
# and with colour-blind vision (Machado et al. 2009, doi 10.1109/TVCG.2009.113), none darker than L* 50. For 12
# generations it is 6.2; of matplotlib's turbo (0.1-0.9) it is 2.1.

_MARGIN = 28
_VIEWS_WIDE, _MOST_TALL, _LEAST_TALL = 1060, 780, 420
_LEGEND_WIDE = 216
_HEAD = 84
_WARNING_ROW = 19
_CAPTION = 24
_ROW = 25
_BAR_TALL = 56
_MOST_PIXELS_PER_MM = 10.0
_BAR_MM = (100, 50, 20, 10, 5, 2, 1)

_LIGHT = np.array([-0.42, -0.55, -0.72]) / np.linalg.norm([-0.42, -0.55, -0.72])
"""Unit vector to the light at the upper left, in the picture's axes: right, down, away from the viewer."""

_AMBIENT, _DIFFUSE = 0.34, 0.86
"""Ambient and diffuse light of Lambert's shading; above a sum of 1 the colour turns to white."""

_FARTHEST = 0.55  # share of the farthest voxel's colour that the haze leaves
_NOTHING_MM = 1e6  # depth of the background
_SMOOTHED_MM = 1.6
_SAME_SURFACE_MM = 3.0  # difference in depth of neighbouring pixels; a larger one is an edge


def draw_generations(tree: AirwayTree, branch_map: NDArray[np.uint16], spacing_mm: Spacing, title: str) -> Image.Image:
    """The tree's surface from the front and from the patient's right, coloured by Weibel generation, with a legend.

    Both views have one scale, head up. Legend and facts count the main tree; loose fragments are grey. The tree's
    warnings are below the facts. The map is not copied.

    Parameters
    ----------
    tree
        Gives each branch's generation and component.
    branch_map
        (Z, Y, X) in canonical axes (z to the head, y to the back, x to the patient's left): `Branch.id`, 0 outside.
        If it has no branch the picture says so.
    spacing_mm
        z, y, x.
    title
        One line above everything; shortened if it is too long.

    Raises
    ------
    ValueError
        If a visible voxel has an id that the tree does not have.
    """
    legend = _legend_rows(tree)
    box = bounding_box(branch_map, margin=2)
    views, scale = ([], 0.0) if box is None else _views(tree, branch_map[box], spacing_mm)
    warnings = _wrapped(tree.warnings, _font(13), _VIEWS_WIDE + _LEGEND_WIDE + _MARGIN)
    head = _HEAD + len(warnings) * _WARNING_ROW
    tall = max(_LEAST_TALL, len(legend) * _ROW + _BAR_TALL, *(view.height for view in views))
    size = (_VIEWS_WIDE + _LEGEND_WIDE + 3 * _MARGIN, head + _CAPTION + tall + _MARGIN)
    canvas = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    write_head(pen, title, facts(tree), canvas.width - 2 * _MARGIN)
    for number, line in enumerate(warnings):
        pen.text((_MARGIN, _HEAD - 8 + number * _WARNING_ROW), line, fill=WARNING_TEXT, font=_font(13))
    _write_legend(pen, legend, (canvas.width - _MARGIN - _LEGEND_WIDE, head))
    if views:
        _place_views(canvas, views, head)
        _draw_bar(pen, canvas.size, scale)
    else:
        pen.text((_MARGIN, head), "There is no airway to draw.", fill=TEXT, font=_font(14))
    return canvas


def facts(tree: AirwayTree) -> str:
    """One line: branches, length and depth of the main tree, loops cut; further trees and loose fragments, if any."""
    main = tree.main()
    components = {branch.component for branch in tree.loose()}
    words = [
        *([f"trees: {len(tree.trees)}"] if len(tree.trees) > 1 else []),
        f"branches: {len(main)}",
        f"total length: {sum(branch.length_mm for branch in main):.0f} mm",
        f"deepest generation: {max((branch.generation for branch in main), default='none')}",
        f"loops cut: {tree.loops_cut}",
        *([f"loose fragments: {len(components)}"] if components else []),
    ]
    return "   ·   ".join(words)


def _views(tree: AirwayTree, part: NDArray[np.uint16], spacing_mm: Spacing) -> tuple[list[Image.Image], float]:
    """Both views of the tree's box at one scale, and that scale in pixels for a mm."""
    colours = _branch_colours(tree)
    high_mm, deep_mm, wide_mm = (count * mm for count, mm in zip(part.shape, spacing_mm, strict=True))
    scale = min(_MOST_TALL / high_mm, (_VIEWS_WIDE - 2 * _MARGIN) / (wide_mm + deep_mm), _MOST_PIXELS_PER_MM)
    views = []
    for axis, across_mm in ((1, wide_mm), (2, deep_mm)):
        ids, depth_mm = _seen(part, axis, spacing_mm[axis])
        view = _shaded(ids, depth_mm, colours, (spacing_mm[0], spacing_mm[3 - axis]))
        view = view.filter(ImageFilter.GaussianBlur(0.55))  # smooths the staircase of voxels at outlines
        size = max(1, round(across_mm * scale)), max(1, round(high_mm * scale))
        views.append(view.resize(size, Image.Resampling.BICUBIC))
    return views, scale


# The surface ---------------------------------------------------------------------------------------------------------


def _branch_colours(tree: AirwayTree) -> NDArray[np.uint8]:
    """Colour of each id, (number of branches + 1, 3); id 0 is the background."""
    main = tree.main()
    of_generation = generation_colours(1 + max((branch.generation for branch in main), default=0))
    colours = np.empty((len(tree.branches) + 1, 3), np.uint8)
    colours[0] = BACKGROUND
    for branch in tree.branches:
        colours[branch.id] = of_generation[branch.generation] if branch.component in tree.trees else FRAGMENT
    return colours


def _seen(part: NDArray[np.uint16], axis: int, deep_mm: float) -> tuple[NDArray[np.uint16], Floats]:
    """Ids and depth in mm of the first voxels along ``axis``, as a picture with the head up; id 0 is background.

    Along y the view is from the front, with the patient's left on the picture's right; along x from the patient's
    right, with the front (small y) on the picture's right.
    """
    # Slice by slice, because a slice fits into the processor's cache: twice as fast as all slices at once.
    first = np.stack([(plane != 0).argmax(axis=axis - 1) for plane in part])
    ids = np.take_along_axis(part, np.expand_dims(first, axis), axis).squeeze(axis)
    depth_mm = np.where(ids > 0, first * deep_mm, _NOTHING_MM)
    turned = (slice(None, None, -1), slice(None, None, 1 if axis == 1 else -1))
    return ids[turned], depth_mm[turned]


def _shaded(
    ids: NDArray[np.uint16], depth_mm: Floats, colours: NDArray[np.uint8], pixel_mm: tuple[float, float]
) -> Image.Image:
    """Colour by id, Lambert's shading by slope, and a haze that increases with depth; one pixel per voxel."""
    if ids.max() >= len(colours):
        raise ValueError(f"the branch map holds id {ids.max()}, but the tree has {len(colours) - 1} branches")
    deepest_mm = max(float(depth_mm[ids > 0].max()), 1.0)
    haze = 1 - (1 - _FARTHEST) * np.minimum(depth_mm / deepest_mm, 1)
    light = (_AMBIENT + _DIFFUSE * _lambert(_smoothed(depth_mm, pixel_mm), pixel_mm))[..., None]
    lit = np.minimum(light, 1) * colours[ids] + np.maximum(light - 1, 0) * (255.0 - colours[ids])
    ground = np.array(BACKGROUND, float)
    picture = np.where(ids[..., None] > 0, ground + haze[..., None] * (lit - ground), ground)
    return Image.fromarray(np.round(picture).astype(np.uint8))


def _beside(depth_mm: Floats, step: int, axis: int) -> Floats:
    """Depth of the pixel ``step`` further along ``axis``; beyond the border, that of the border."""
    rows = np.arange(depth_mm.shape[axis]) + step
    return depth_mm.take(np.clip(rows, 0, len(rows) - 1), axis=axis)


def _smoothed(depth_mm: Floats, pixel_mm: tuple[float, float]) -> Floats:
    """Depth without the staircase of voxels: twice a mean over neighbours on the same surface, by columns and rows."""
    for axis in (0, 1, 0, 1):
        reach = max(1, round(_SMOOTHED_MM / pixel_mm[axis]))
        total, count = np.zeros_like(depth_mm), np.zeros_like(depth_mm)
        for step in range(-reach, reach + 1):
            beside = _beside(depth_mm, step, axis)
            same = np.abs(beside - depth_mm) < _SAME_SURFACE_MM
            total += same * beside
            count += same
        depth_mm = total / count  # each pixel counts itself, so the count is never 0
    return depth_mm


def _slope(depth_mm: Floats, axis: int, pixel_mm: float) -> Floats:
    """Change of depth along ``axis``, mm for each mm: the mean of both sides, or the flatter one at an edge."""
    ahead, behind = _beside(depth_mm, 1, axis) - depth_mm, depth_mm - _beside(depth_mm, -1, axis)
    flatter = np.where(np.abs(ahead) < np.abs(behind), ahead, behind)
    inside = np.maximum(np.abs(ahead), np.abs(behind)) < _SAME_SURFACE_MM
    return np.clip(np.where(inside, (ahead + behind) / 2, flatter), -_SAME_SURFACE_MM, _SAME_SURFACE_MM) / pixel_mm


def _lambert(depth_mm: Floats, pixel_mm: tuple[float, float]) -> Floats:
    """Cosine between the surface's normal (slope to the right, slope down, -1) and the light, 0..1."""
    down, right = (_slope(depth_mm, axis, pixel_mm[axis]) for axis in (0, 1))
    length = np.sqrt(right**2 + down**2 + 1)
    return np.clip((_LIGHT[0] * right + _LIGHT[1] * down - _LIGHT[2]) / length, 0, 1)


# Layout --------------------------------------------------------------------------------------------------------------


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font lacks characters such as umlauts."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _fitting(text: str, font: ImageFont.FreeTypeFont, wide: int) -> str:
    """The text on one line, with its end replaced by three dots if it is wider than ``wide`` pixels."""
    return _fitting_end(" ".join(text.split()), font, wide)


def _fitting_end(text: str, font: ImageFont.FreeTypeFont, wide: int) -> str:
    if font.getlength(text) <= wide:
        return text
    while font.getlength(text + "...") > wide:
        text = text[:-1]
    return text + "..."


def _wrapped(warnings: tuple[str, ...], font: ImageFont.FreeTypeFont, wide: int) -> list[str]:
    """The warnings as lines of at most ``wide`` pixels; each warning begins on a new line."""
    lines: list[str] = []
    for warning in warnings:
        line = "Warning:"
        for word in warning.split():
            if font.getlength(f"{line} {word}") > wide:
                lines.append(line)
                line = "    "
            line = _fitting_end(f"{line} {word}", font, wide)
        lines.append(line)
    return lines


def write_head(pen: ImageDraw.ImageDraw, title: str, line: str, wide: int) -> None:
    """Write a picture's title, at most ``wide`` pixels, and a line of facts below it."""
    pen.text((_MARGIN, 22), _fitting(title, _font(19), wide), fill=TEXT, font=_font(19))
    pen.text((_MARGIN, 52), line, fill=DIM_TEXT, font=_font(13))


def _legend_rows(tree: AirwayTree) -> list[tuple[Colour, str, int]]:
    """Colour, name and number of branches of each generation of the main tree, and of any fragments."""
    branches = Counter(branch.generation for branch in tree.main())
    colours = generation_colours(1 + max(branches, default=-1)).tolist()
    rows = [((red, green, blue), str(number), branches[number]) for number, (red, green, blue) in enumerate(colours)]
    fragments = len(tree.branches) - branches.total()
    return [*rows, (FRAGMENT, "loose fragments", fragments)] if fragments else rows


def _write_legend(pen: ImageDraw.ImageDraw, rows: list[tuple[Colour, str, int]], corner: tuple[int, int]) -> None:
    left, top = corner
    edge = left + _LEGEND_WIDE
    pen.text((left, top), "Generation (Weibel)", fill=DIM_TEXT, font=_font(13))
    pen.text((edge, top), "Branches", fill=DIM_TEXT, font=_font(13), anchor="ra")
    for number, (colour, name, many) in enumerate(rows):
        middle = top + _CAPTION + _ROW // 2 + number * _ROW
        pen.rounded_rectangle((left, middle - 8, left + 27, middle + 8), radius=4, fill=colour)
        pen.text((left + 38, middle), name, fill=TEXT, font=_font(14), anchor="lm")
        pen.text((edge, middle), str(many), fill=TEXT, font=_font(14), anchor="rm")


def _place_views(canvas: Image.Image, views: list[Image.Image], top: int) -> None:
    """Put the views side by side with equal space around them, below their captions."""
    pen = ImageDraw.Draw(canvas)
    free = _VIEWS_WIDE - sum(view.width for view in views)
    left = _MARGIN + free // 4
    for view, caption in zip(views, ("From the front", "From the patient's right"), strict=True):
        canvas.paste(view, (left, top + _CAPTION))
        pen.text((left + view.width // 2, top), caption, fill=DIM_TEXT, font=_font(13), anchor="ma")
        left += view.width + free // 2


def _draw_bar(pen: ImageDraw.ImageDraw, canvas_size: tuple[int, int], scale: float) -> None:
    """A bar of a round number of mm, at most 140 pixels, in the lower right corner."""
    length_mm = next((mm for mm in _BAR_MM if mm * scale <= 140), _BAR_MM[-1])
    end, low = canvas_size[0] - _MARGIN, canvas_size[1] - _MARGIN
    start = end - round(length_mm * scale)
    pen.line([(start, low - 6), (start, low), (end, low), (end, low - 6)], fill=DIM_TEXT, width=2)
    pen.text((end, low - 10), f"{length_mm} mm", fill=DIM_TEXT, font=_font(13), anchor="rb")


# The lumen's radius --------------------------------------------------------------------------------------------------


def unit_colour(colour: Colour) -> tuple[float, float, float]:
    """The colour as matplotlib wants it, 0..1."""
    red, green, blue = (part / 255 for part in colour)
    return red, green, blue


_PLOT_AREA = (0.066, 0.115, 0.70, 0.735)
"""Left, bottom, width, height of the axes as parts of the plot; the legend stands to their right."""

# Okabe and Ito's colours, which are distinguishable with colour-blindness: warm on the right, cool on the left.
_PATH_COLOURS: dict[str, Colour] = {
    **dict(zip(LOBES, [(230, 159, 0), (240, 228, 66), (213, 94, 0), (86, 180, 233), (0, 158, 115)], strict=True)),
    LONGEST_PATH: TEXT,
}
_DASH = 3.0
_DOT: dict[str, Any] = {"markersize": 5.5, "markeredgecolor": unit_colour(BACKGROUND), "markeredgewidth": 0.8}
_BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0, "frameon": False}


def longest_paths(tree: AirwayTree) -> dict[str, list[Branch]]:
    """The branches from the carina to the farthest tip of each lobe, in the order of `LOBES`.

    Farthest along the tree, among the main tree's branches with the lobe's name; a lobe without branches is left out.
    A path begins with the first branch that is not trachea: a bronchus that leaves the trachea above the carina is
    measured from there. Without a carina or without lobes there is one path, from the root to the farthest tip, named
    `LONGEST_PATH`; without branches there is none.
    """
    main = tree.main()
    ends_mm: dict[int | None, float] = {None: 0.0}
    for branch in main:
        ends_mm[branch.id] = ends_mm[branch.parent] + branch.length_mm

    def path_to_farthest(branches: list[Branch]) -> list[Branch]:
        return tree.path_to(max(branches, key=lambda branch: ends_mm[branch.id]).id)

    of_lobe = {lobe: [branch for branch in main if branch.lobe == lobe] for lobe in LOBES}
    if tree.carina_mm is None or not any(of_lobe.values()):
        return {LONGEST_PATH: path_to_farthest(main)} if main else {}
    return {
        lobe: [branch for branch in path_to_farthest(branches) if branch.name != TRACHEA]
        for lobe, branches in of_lobe.items()
        if branches
    }


def draw_radius_plot(tree: AirwayTree, title: str) -> Image.Image:
    """The lumen's radius along `longest_paths`, a line for each, with a dot at each branching point.

    The first part of a branch is inside its parent's lumen (`Branch.own_radii_mm`): it is bridged by a straight line,
    and left empty at the carina. If several paths share a branch, its line is dashed in the colours of all of them, and
    its dots are white. For a tree of a single point, or an empty one, the picture says so.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths = longest_paths(tree)
    with style.context("default"):  # a user's settings must not change the picture; they are restored afterwards
        figure = Figure(figsize=(11.6, 6.4), dpi=100, facecolor=unit_colour(BACKGROUND))
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes(_PLOT_AREA)
        _draw_paths(axes, paths)
        _dress(axes, paths)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    write_head(ImageDraw.Draw(image), title, facts(tree), image.width - 2 * _MARGIN)
    return image


def _draw_paths(axes: "Axes", paths: dict[str, list[Branch]]) -> None:
    through: dict[int, list[str]] = {}
    for name, path in paths.items():
        for branch in path:
            through.setdefault(branch.id, []).append(name)
    for name, path in paths.items():
        own = unit_colour(_PATH_COLOURS[name])
        stretches = _stretches(path)
        for branch, (x_mm, radii_mm) in zip(path, stretches, strict=True):
            names = through[branch.id]
            axes.plot(x_mm, radii_mm, color=own, linewidth=2.2, linestyle=_turns(names.index(name), len(names)))
            if branch is not path[-1]:
                axes.plot(x_mm[-1:], radii_mm[-1:], "o", color=own if len(names) == 1 else unit_colour(TEXT), **_DOT)
        length_mm = stretches[-1][0][-1] if stretches else 0.0
        label = f"{name}\n{length_mm:.0f} mm, branches: {len(path)}"
        axes.plot([], [], "o-", color=own, linewidth=2.2, label=label, **_DOT)


def _stretches(path: list[Branch]) -> list[tuple[Floats, Floats]]:
    """Distance from the path's start and radius of each branch's own points, joined to the branch before."""
    stretches: list[tuple[Floats, Floats]] = []
    start_mm = 0.0
    for branch in path:
        radii_mm = branch.own_radii_mm
        x_mm = start_mm + branch.along_mm[len(branch.along_mm) - len(radii_mm) :]
        if stretches:
            last_x_mm, last_radii_mm = stretches[-1]
            x_mm, radii_mm = np.r_[last_x_mm[-1], x_mm], np.r_[last_radii_mm[-1], radii_mm]
        stretches.append((x_mm, radii_mm))
        start_mm += branch.length_mm
    return stretches


def _turns(turn: int, sharing: int) -> "str | tuple[float, tuple[float, float]]":
    """The dash pattern with which ``sharing`` coinciding lines are all visible; solid for a single line."""
    if sharing == 1:
        return "solid"
    return _DASH * ((sharing - turn) % sharing), (_DASH, _DASH * (sharing - 1))


def _dress(axes: "Axes", paths: dict[str, list[Branch]]) -> None:
    """Axis limits, labels, grid and legend; one sentence if there is no path."""
    length_mm = max((sum(branch.length_mm for branch in path) for path in paths.values()), default=0.0)
    radii_mm = [float(branch.own_radii_mm.max()) for path in paths.values() for branch in path]
    if length_mm == 0:
        what = f"The tree is a single point (radius {max(radii_mm):.1f} mm)" if radii_mm else "There is no airway"
        axes.text(0.5, 0.5, f"{what}: no path to plot.", transform=axes.transAxes, ha="center", color=unit_colour(TEXT))
        axes.set_axis_off()
        return
    axes.set_xlim(0, 1.02 * length_mm)
    axes.set_ylim(0, 1.06 * max(radii_mm))
    words = unit_colour(DIM_TEXT)
    axes.set_xlabel(f"Distance from the {'root' if LONGEST_PATH in paths else 'carina'} (mm)", color=words, labelpad=8)
    axes.set_ylabel("Lumen radius (mm)", color=words, labelpad=8)
    axes.set_facecolor(unit_colour(BACKGROUND))
    axes.tick_params(colors=words)
    axes.grid(color=unit_colour((46, 51, 59)), linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(words)
    heading = None if LONGEST_PATH in paths else "Lobe (estimated)"
    legend = axes.legend(title=heading, labelcolor=unit_colour(TEXT), labelspacing=1.0, alignment="left", **_BESIDE)
    legend.get_title().set_color(words)
