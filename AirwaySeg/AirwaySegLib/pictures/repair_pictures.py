"""The picture of a repair: the tree before, with the proposals, and after; with a CT also slices through proposals.

The picture depends on the input only. Letters in shapes: N voxels of a mask or of a part of it, as indices (z, y, x).
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from AirwaySegLib.masks.components import bounding_box
from AirwaySegLib.pictures.preview import BACKGROUND, LUNG_WINDOW_HU
from AirwaySegLib.repair.bridge import MAIN
from AirwaySegLib.repair.proposal import APPLIED, PROPOSED, REFUSED, Proposal, facts, fragments_of

Spacing = tuple[float, float, float]
Colour = tuple[int, int, int]
Layers = dict[str, NDArray[np.integer]]

TREE, LOOSE, JOINED = "tree", "loose fragment", "fragment that was joined"
COLOURS: dict[str, Colour] = {
    TREE: (150, 180, 205),
    LOOSE: (150, 110, 70),
    JOINED: (240, 228, 66),
    REFUSED: (213, 94, 0),
    PROPOSED: (204, 121, 167),
    APPLIED: (60, 220, 170),
}
"""In the order in which they are drawn, later ones over earlier ones; distinguishable with colour-blindness."""

MEANINGS = {
    TREE: "tree",
    LOOSE: "loose fragment",
    JOINED: "fragment that was joined",
    APPLIED: "bridge, applied",
    PROPOSED: "bridge, proposed only",
    REFUSED: "bridge, refused",
}

VIEW_WIDE, VIEW_TALL = 430, 400
"""Largest width and height of one view of the tree in pixels."""

FARTHEST = 0.35
"""Brightness of the farthest voxels, relative to the nearest."""

NUMBERED = 20
"""Number of proposals that are marked by their number, the first ones: more would hide the tree."""

SLICES, SLICES_IN_A_ROW = 12, 6
"""Number of proposals that are shown in slices of the CT, the first ones, and how many of them fill a row."""

SLICE_MM, SLICE_PIXELS = 40.0, 210
"""Side of the square of CT that is shown, in mm and in pixels."""

_MARGIN, _LINE, _RING = 18, 20, 9
_WORDS: Colour = (235, 238, 242)
_DIM: Colour = (165, 174, 186)


def draw_repairs(
    labels: NDArray[np.integer], proposals: list[Proposal], spacing_mm: Spacing, hu: NDArray | None, title: str
) -> Image.Image:
    """Draw the tree before, with the proposals, and after, each from the front and from the right, with a legend.

    Parameters
    ----------
    labels
        (Z, Y, X) numbers of the components in canonical axes, `bridge.MAIN` the tree; 0 is no airway.
    proposals
        Their voxels are indices on the same grid. Rings with numbers mark the first `NUMBERED` of them.
    spacing_mm
        z, y, x.
    hu
        The CT on the same grid: adds slices through the first `SLICES` proposals. None leaves them out.
    title
        One line above everything.
    """
    columns = _columns(labels, proposals)
    views = _Views.of(labels, proposals, spacing_mm)
    joined = list(fragments_of(proposals))
    slices = []
    if hu is not None:
        slices = [_slice((hu, labels), proposal, joined, spacing_mm) for proposal in proposals[:SLICES]]
    wide = 2 * _MARGIN + 3 * VIEW_WIDE
    top = _MARGIN + 3 * _LINE
    below = top + _LINE + sum(tall for _, tall in views.sizes) + 2 * _MARGIN
    rows = -(-len(slices) // SLICES_IN_A_ROW)
    canvas = Image.new("RGB", (wide, below + rows * (SLICE_PIXELS + 3 * _LINE)), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN, _MARGIN), _fitting(title, wide), fill=_WORDS, font=_font())
    pen.text((_MARGIN, _MARGIN + _LINE), facts(labels, proposals), fill=_DIM, font=_font())
    _draw_legend(pen, _MARGIN + 2 * _LINE)
    for number, (name, layers) in enumerate(columns.items()):
        left = _MARGIN + number * VIEW_WIDE
        pen.text((left + VIEW_WIDE // 2, top), name, fill=_WORDS, font=_font(), anchor="ma")
        marked = proposals[:NUMBERED] if name == "Proposals" else []
        _place_column(canvas, views, layers, marked, (left, top + _LINE))
    for number, (proposal, picture) in enumerate(zip(proposals, slices)):
        row, column = divmod(number, SLICES_IN_A_ROW)
        corner = _MARGIN + column * (SLICE_PIXELS + 4), below + row * (SLICE_PIXELS + 3 * _LINE)
        _place_slice(canvas, picture, proposal, corner)
    return canvas


# The tree ------------------------------------------------------------------------------------------------------------


def _columns(labels: NDArray[np.integer], proposals: list[Proposal]) -> dict[str, Layers]:
    """The voxels (N, 3) of each layer of each column."""
    voxels = np.argwhere(labels)
    numbers = labels[tuple(voxels.T)]
    tree, joined = numbers == MAIN, np.isin(numbers, list(fragments_of(proposals)))
    bridges: Layers = {}
    for state in (REFUSED, PROPOSED, APPLIED):
        own = [proposal.bridge.voxels for proposal in proposals if proposal.state == state]
        bridges[state] = np.concatenate([np.empty((0, 3), np.int32), *own])
    before = {TREE: voxels[tree], LOOSE: voxels[~tree]}
    after = {TREE: voxels[tree], LOOSE: voxels[~tree & ~joined], JOINED: voxels[joined], APPLIED: bridges[APPLIED]}
    return {"Before": before, "Proposals": before | bridges, "After": after}


class _Views:
    """Geometry of the two views of the tree: axis 1 from the front, axis 2 from the patient's right."""

    def __init__(self, start: NDArray, stop: NDArray, spacing_mm: Spacing) -> None:
        self.start, self.counts, self.spacing_mm = start, np.maximum(stop - start, 1), spacing_mm
        high_mm, deep_mm, wide_mm = self.counts * spacing_mm
        self.scale = min(VIEW_TALL / high_mm, (VIEW_WIDE - _MARGIN) / max(wide_mm, deep_mm))
        tall = max(1, round(high_mm * self.scale))
        self.sizes = [(max(1, round(mm * self.scale)), tall) for mm in (wide_mm, deep_mm)]

    @classmethod
    def of(cls, labels: NDArray, proposals: list[Proposal], spacing_mm: Spacing) -> "_Views":
        """Views that show all components and all bridges; without any, views of an empty box."""
        box = bounding_box(labels) or (slice(0, 1),) * 3
        corners = [[part.start for part in box], [part.stop for part in box]]
        bridges = [proposal.bridge.voxels for proposal in proposals]
        start = np.min([corners[0], *(voxels.min(axis=0) for voxels in bridges)], axis=0) - 2
        stop = np.max([corners[1], *(voxels.max(axis=0) + 1 for voxels in bridges)], axis=0) + 2
        return cls(start, stop, spacing_mm)

    def draw(self, layers: Layers, axis: int) -> Image.Image:
        """One view: near voxels are brighter, later layers are drawn over earlier ones."""
        rows, columns = self.counts[0], self.counts[3 - axis]
        picture = np.broadcast_to(np.array(BACKGROUND, float), (rows, columns, 3)).copy()
        for name, voxels in layers.items():
            inside = voxels - self.start
            depth = np.full((rows, columns), self.counts[axis], np.int64)
            np.minimum.at(depth, (inside[:, 0], inside[:, 3 - axis]), inside[:, axis])
            seen = depth < self.counts[axis]
            bright = 1 - (1 - FARTHEST) * depth[seen] / self.counts[axis]
            ground = np.array(BACKGROUND, float)
            picture[seen] = ground + bright[:, None] * (np.array(COLOURS[name]) - ground)
        turned = picture[::-1, :: 1 if axis == 1 else -1]  # the head up; from the right, the front on the right
        image = Image.fromarray(np.round(turned).astype(np.uint8))
        return image.resize(self.sizes[axis - 1], Image.Resampling.BOX if self.scale < 1 else Image.Resampling.BICUBIC)

    def position(self, voxel: NDArray, axis: int) -> tuple[float, float]:
        """Position of a voxel's centre in a view: pixels from its left and from its top."""
        z, _, _ = inside = (np.asarray(voxel) - self.start + 0.5) / self.counts
        wide, tall = self.sizes[axis - 1]
        across = inside[3 - axis] if axis == 1 else 1 - inside[3 - axis]
        return float(across * wide), float((1 - z) * tall)


def _place_column(
    canvas: Image.Image, views: _Views, layers: Layers, marked: list[Proposal], corner: tuple[int, int]
) -> None:
    """Both views of one column one below the other, with rings around the marked proposals."""
    pen = ImageDraw.Draw(canvas)
    left, top = corner
    for axis, (wide, tall) in zip((1, 2), views.sizes, strict=True):
        x, y = left + (VIEW_WIDE - wide) // 2, top
        canvas.paste(views.draw(layers, axis), (x, y))
        for proposal in marked:
            across, down = views.position(_middle(proposal), axis)
            _draw_ring(pen, (x + across, y + down), proposal)
        top += tall + _MARGIN


def _draw_ring(pen: ImageDraw.ImageDraw, centre: tuple[float, float], proposal: Proposal) -> None:
    x, y = centre
    colour = COLOURS[proposal.state]
    pen.ellipse((x - _RING, y - _RING, x + _RING, y + _RING), outline=colour, width=1)
    pen.text((x + _RING + 1, y), str(proposal.number), fill=colour, font=_font(), anchor="lb")


def _middle(proposal: Proposal) -> NDArray[np.int32]:
    """The bridge's voxel (3,) that is nearest to its mean."""
    voxels = proposal.bridge.voxels
    return voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()]


# The slices ----------------------------------------------------------------------------------------------------------


def _slice(arrays: tuple[NDArray, NDArray], proposal: Proposal, joined: list[int], spacing_mm: Spacing) -> Image.Image:
    """A square of the slice that shows most of the bridge, with outlines in the colours of the layers.

    The slice is axial, coronal or sagittal: perpendicular to the axis along which the bridge is shortest. Head or front
    is up. ``arrays`` are HU and components; ``joined`` are numbers of fragments.
    """
    voxels, middle = proposal.bridge.voxels, _middle(proposal)
    across = int(((voxels.max(axis=0) - voxels.min(axis=0)) * np.array(spacing_mm)).argmin())
    rows, columns = (axis for axis in range(3) if axis != across)
    low, high = LUNG_WINDOW_HU
    half = [math.ceil(SLICE_MM / 2 / spacing_mm[axis]) for axis in (rows, columns)]
    plane = [_piece(array.take(middle[across], axis=across), middle[[rows, columns]], half) for array in arrays]
    own = voxels[voxels[:, across] == middle[across]][:, [rows, columns]] - middle[[rows, columns]] + half
    bridge = np.zeros(plane[1].shape, bool)
    bridge[tuple(own[((own >= 0) & (own < bridge.shape)).all(axis=1)].T)] = True
    grey = np.clip((plane[0].astype(np.float32) - low) / (high - low), 0, 1) * 255
    size = (SLICE_PIXELS, SLICE_PIXELS)
    shown = np.array(Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR).convert("RGB"))
    drawn, fragment = plane[1], np.isin(plane[1], joined)
    outlines = {TREE: drawn == MAIN, LOOSE: (drawn > MAIN) & ~fragment, JOINED: fragment, proposal.state: bridge}
    for name, mask in outlines.items():
        shown[_outline(mask, size)] = COLOURS[name]
    return Image.fromarray(shown if rows == 1 else shown[::-1])  # axial slices have the front up already


def _piece(plane: NDArray, middle: NDArray, half: list[int]) -> NDArray:
    """The rectangle of 2 half + 1 around a point of a slice; beyond the slice's border its edge is repeated."""
    rows, columns = (
        np.clip(np.arange(centre - reach, centre + reach + 1), 0, count - 1)
        for centre, reach, count in zip(middle, half, plane.shape, strict=True)
    )
    return plane[np.ix_(rows, columns)]


def _outline(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The rim of a mask enlarged to a picture of ``size``."""
    inside = np.array(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)) > 127
    core = inside.copy()
    core[1:-1, 1:-1] &= inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return inside & ~core


def _place_slice(canvas: Image.Image, picture: Image.Image, proposal: Proposal, corner: tuple[int, int]) -> None:
    left, top = corner
    pen = ImageDraw.Draw(canvas)
    words = f"{proposal.number}: {proposal.state}, {proposal.bridge.method} {proposal.bridge.score:.2f}"
    pen.text((left, top), words, fill=COLOURS[proposal.state], font=_font())
    pen.text((left, top + _LINE), f"gap {proposal.bridge.length_mm:.1f} mm", fill=_DIM, font=_font())
    canvas.paste(picture, (left, top + 2 * _LINE))


# Words ---------------------------------------------------------------------------------------------------------------


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=13)


def _fitting(text: str, wide: int) -> str:
    """The text on one line, cut off at the picture's width."""
    text = " ".join(text.split())
    while text and _font().getlength(text) > wide - 2 * _MARGIN:
        text = text[:-1]
    return text


def _draw_legend(pen: ImageDraw.ImageDraw, top: int) -> None:
    left = float(_MARGIN)
    for name, meaning in MEANINGS.items():
        pen.rounded_rectangle((left, top + 2, left + 14, top + 14), radius=3, fill=COLOURS[name])
        pen.text((left + 20, top), meaning, fill=_DIM, font=_font())
        left += 20 + _font().getlength(meaning) + 24
