"""The preview of a result: the tree from the front and from the side, beside three slices with its outline."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from AirwaySegLib.masks.components import Box, bounding_box
from AirwaySegLib.tree import colours

Spacing = tuple[float, float, float]

LUNG_WINDOW_HU = (-1150.0, 350.0)
OUTLINE = (255, 90, 60)
BACKGROUND = (16, 18, 22)
TREE, UNCONNECTED = (tuple(bytes.fromhex(colour)) for colour in (colours.AIRWAYS, colours.UNCONNECTED))
"""Colours of the tree and of certain pieces without a way to it."""

TALL = 620
"""Height in pixels of the tree's views; a slice has half of it."""

LOOSE = 2
"""In a mask that is drawn: certain pieces of airway that have no way to the tree."""

SURROUNDINGS_MM = 45.0
"""Margin of the slices around the tree."""

GAP = 10
CAPTION = 22


def depth_projection(mask: NDArray, axis: int) -> NDArray[np.float32]:
    """Brightness 0..1 of the mask seen along ``axis`` from its low side: near is bright, far dim, background 0."""
    count = mask.shape[axis]
    first = mask.argmax(axis=axis)
    seen = mask.any(axis=axis)
    return np.where(seen, 1.0 - 0.65 * first / max(1, count), 0.0).astype(np.float32)


def tree_view(mask: NDArray, axis: int, spacing_mm: Spacing, unconnected: NDArray | None = None) -> Image.Image:
    """The tree projected along y (axis 1: from the front) or x (axis 2: from the right), head up, true to scale.

    Where only ``unconnected`` voxels (Z, Y, X) are seen, these show in their own colour.
    """
    whole = mask if unconnected is None else mask | unconnected
    box = bounding_box(whole, margin=6) or (slice(0, 2),) * 3
    brightness = np.flipud(depth_projection(whole[box], axis))
    alone = np.flipud(whole[box].any(axis=axis) & ~mask[box].any(axis=axis))
    if axis == 2:  # seen from the patient's right, the front is on the right-hand side
        brightness, alone = np.fliplr(brightness), np.fliplr(alone)
    across = spacing_mm[2] if axis == 1 else spacing_mm[1]
    seen = np.where(alone[..., None], UNCONNECTED, TREE)
    colour = np.array(BACKGROUND) + brightness[..., None] * (seen - np.array(BACKGROUND))
    image = Image.fromarray(colour.astype(np.uint8))
    high_mm, wide_mm = brightness.shape[0] * spacing_mm[0], brightness.shape[1] * across
    scale = min((TALL - CAPTION) / high_mm, TALL / wide_mm)
    return image.resize((max(1, round(wide_mm * scale)), max(1, round(high_mm * scale))), Image.Resampling.BILINEAR)


def slice_view(hu: NDArray, mask: NDArray, spacing_mm: tuple[float, float]) -> Image.Image:
    """One slice (rows, columns) in a lung window with the mask's outline; ``spacing_mm`` of rows and columns."""
    low, high = LUNG_WINDOW_HU
    grey = np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1) * 255
    scale = min((TALL / 2 - CAPTION) / (hu.shape[0] * spacing_mm[0]), TALL / (hu.shape[1] * spacing_mm[1]))
    size = (max(1, round(hu.shape[1] * spacing_mm[1] * scale)), max(1, round(hu.shape[0] * spacing_mm[0] * scale)))
    picture = np.array(Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR).convert("RGB"))
    inside = np.array(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)) > 127
    eroded = inside.copy()
    eroded[1:-1, 1:-1] &= inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    picture[inside & ~eroded] = OUTLINE
    return Image.fromarray(picture)


def interesting_slices(mask: NDArray) -> tuple[int, int, int]:
    """Axial slice at about the carina, axial slice through most lower branches, coronal slice through most of the tree.

    The first is the slice of the upper half with the largest cross-section, near the carina: simple, and only for the
    picture.
    """
    if not mask.any():
        middle = [n // 2 for n in mask.shape]
        return middle[0], middle[0], middle[1]
    per_slice = mask.sum(axis=(1, 2), dtype=np.int64)
    used = np.flatnonzero(per_slice)
    carina = int(used[-len(used) // 2 :][per_slice[used[-len(used) // 2 :]].argmax()])
    lower = int(used[len(used) // 4])
    coronal = int(mask.sum(axis=(0, 2), dtype=np.int64).argmax())
    return carina, lower, coronal


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=13)


def draw_preview(hu: NDArray, mask: NDArray, spacing_mm: Spacing, title: str) -> Image.Image:
    """Draw the preview.

    Parameters
    ----------
    hu, mask
        (Z, Y, X) in canonical axes: z to the head, y to the back, x to the patient's left (right in the picture). In
        the mask certain pieces that have no way to the tree are `LOOSE`.
    spacing_mm
        z, y, x.
    title
        One line above everything.
    """
    view = _view(mask, spacing_mm)
    pieces = mask[view] == LOOSE
    hu, mask = hu[view], (mask[view] != 0) & ~pieces
    carina, lower, coronal = interesting_slices(mask)
    trees = [
        ("Airways from the front", tree_view(mask, 1, spacing_mm, pieces)),
        ("from the patient's right", tree_view(mask, 2, spacing_mm, pieces)),
    ]
    flat = (spacing_mm[1], spacing_mm[2])
    slices = [
        ("Axial, widest above the middle", slice_view(hu[carina], mask[carina], flat)),
        ("Axial, lower lobes", slice_view(hu[lower], mask[lower], flat)),
    ]
    upright = slice_view(np.flipud(hu[:, coronal]), np.flipud(mask[:, coronal]), (spacing_mm[0], spacing_mm[2]))
    slices.append(("Coronal", upright))
    return _arrange(trees, slices, title)


def _view(mask: NDArray, spacing_mm: Spacing) -> Box:
    """The box of what is not 0 with `SURROUNDINGS_MM` around it; the whole array if everything is 0."""
    box = bounding_box(mask)
    if box is None:
        return slice(None), slice(None), slice(None)
    margins = [round(SURROUNDINGS_MM / mm) for mm in spacing_mm]
    z, y, x = (
        slice(max(0, part.start - margin), part.stop + margin) for part, margin in zip(box, margins, strict=True)
    )
    return z, y, x


def _arrange(trees: list[tuple[str, Image.Image]], slices: list[tuple[str, Image.Image]], title: str) -> Image.Image:
    """Trees side by side, then two rows: two axial slices above, the coronal one below."""
    tree_wide = sum(image.width + GAP for _, image in trees) + GAP
    slice_wide = max(slices[0][1].width + GAP + slices[1][1].width, slices[2][1].width) + GAP
    canvas = Image.new("RGB", (tree_wide + slice_wide, TALL + 2 * GAP + 2 * CAPTION), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    pen.text((GAP, 6), title, fill=(235, 235, 235), font=_font())
    top, left = CAPTION + GAP, GAP
    for caption, image in trees:
        pen.text((left, top), caption, fill=(170, 180, 190), font=_font())
        canvas.paste(image, (left, top + CAPTION))
        left += image.width + GAP
    half = TALL // 2 + GAP
    corners = [(left, top), (left + slices[0][1].width + GAP, top), (left, top + half)]
    for (caption, image), (x, y) in zip(slices, corners, strict=True):
        pen.text((x, y), caption, fill=(170, 180, 190), font=_font())
        canvas.paste(image, (x, y + CAPTION))
    return canvas
