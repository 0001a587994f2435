"""Draws the module's icon, AirwaySeg/Resources/Icons/AirwaySeg.png: `python Testing/project/draw_icon.py`."""

import math
from pathlib import Path

from PIL import Image, ImageDraw

ICON = Path(__file__).resolve().parents[2] / "AirwaySeg/Resources/Icons/AirwaySeg.png"
SIZE = 128
OVERSAMPLING = 8


Point = tuple[float, float]


def draw_branch(draw: ImageDraw.ImageDraw, start: Point, angle: float, length: float, width: float) -> None:
    """Draw a branch and, below it, its two children, until they are thinner than a pixel; angle 0 points down."""
    end = (start[0] + length * math.sin(angle), start[1] + length * math.cos(angle))
    draw.line([start, end], fill="#8fd3ff", width=round(width))
    for x, y in (start, end):
        draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill="#8fd3ff")
    if width > 1.6 * OVERSAMPLING:
        draw_branch(draw, end, angle - 0.62, length * 0.68, width * 0.72)
        draw_branch(draw, end, angle + 0.55, length * 0.72, width * 0.70)


def draw_icon() -> Image.Image:
    """The icon, (128, 128) RGBA: an airway tree on a dark tile."""
    side = SIZE * OVERSAMPLING
    image = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle([0, 0, side - 1, side - 1], radius=side // 6, fill="#12324a")
    draw_branch(draw, (side / 2, side * 0.08), 0.0, side * 0.28, side * 0.085)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    draw_icon().save(ICON, optimize=True)
