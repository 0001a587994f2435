"""Forty crops, half of simulated CTs and half of real ones, shuffled, for a person to tell apart.

Each real crop has a simulated partner of slices as thick: those of the thinner CT are averaged. Outside the body
everything is air, so that no table gives a CT away. A clean simulated case gets the blur and noise of a random scanner.

    .venv/bin/python Testing/benchmarks/crops.py --simulated CASE ... --real CT ... -o FOLDER [--seed N]

writes FOLDER/crops.png, numbered from left to right and down, and FOLDER/key.csv, which says what each crop is.
"""

import argparse
import csv
import sys
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from realism import read_case
from scipy import ndimage

from AirwaySegLib.chest.preprocessing import body_mask, lung_mask
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume, read_ct, to_canonical

PAIRS, COLUMNS = 20, 8
SIDE_MM, PIXEL_MM = 80.0, 0.4
WINDOW_HU = (-1050.0, 150.0)
AROUND_BODY_MM = 3.0
"""Skin and clothes are shown up to here."""

HEIGHTS = (0.2, 0.8)
"""Part of the lungs' height, from their bottom, in which a crop lies."""

EDGE = 4


def inside_body(ct: Volume) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """HU with air around the body, and the lungs."""
    body = body_mask(ct.array, ct.spacing_mm)
    lungs = lung_mask(ct.array, body, ct.spacing_mm)
    around = tuple(2 * round(AROUND_BODY_MM / mm) + 1 for mm in ct.spacing_mm[1:])
    shown = ndimage.maximum_filter(body.view(np.uint8), (1, *around)) > 0
    return np.where(shown, ct.array, np.float32(-1000)).astype(np.float32), lungs


def draw_crop(ct: Volume, slices_mm: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random square of `SIDE_MM` around a voxel of lung, of a slice as thick as ``slices_mm`` or as the CT's own."""
    hu, lungs = inside_body(ct)
    heights = np.flatnonzero(lungs.any(axis=(1, 2)))
    if not len(heights):
        raise AirwaySegError(f"{ct.path} shows no lungs.")
    low, high = (heights[0] + share * (heights[-1] - heights[0]) for share in HEIGHTS)
    z = int(rng.integers(round(low), round(high) + 1))
    z = int(heights[np.abs(heights - z).argmin()])
    places = np.argwhere(lungs[z])
    count = max(1, round(slices_mm / ct.spacing_mm[0]))
    first = min(max(0, z - count // 2), max(0, len(hu) - count))
    plane = hu[first : first + count].mean(axis=0)
    spacing = np.asarray(ct.spacing_mm[1:])
    half = SIDE_MM / 2 / spacing
    middle = np.clip(rng.choice(places), half, np.maximum(plane.shape - half - 1, half))
    steps = (np.arange(round(SIDE_MM / PIXEL_MM)) * PIXEL_MM - SIDE_MM / 2)[:, None] / spacing + middle
    axes = np.meshgrid(steps[:, 0], steps[:, 1], indexing="ij")
    return ndimage.map_coordinates(plane, axes, order=1, mode="nearest", output=np.float32)


def drawn_pairs(simulated: list[str], real: list[str], rng: np.random.Generator) -> list[tuple[str, NDArray]]:
    """`PAIRS` crops of each side with the CT's name; the CTs of each side take turns."""
    crops = []
    kept: dict[str, Volume] = {}
    for case, path in islice(zip(cycle(simulated), cycle(real)), PAIRS):
        print(f"{case} and {path}", file=sys.stderr, flush=True)
        kept[path] = kept.get(path) or to_canonical(read_ct(Path(path))[0])
        pair = (case, read_case(case)[1]), (path, kept[path])
        slices_mm = max(ct.spacing_mm[0] for _, ct in pair)
        crops += [(name, draw_crop(ct, slices_mm, rng)) for name, ct in pair]
    return crops


def page(crops: list[NDArray]) -> Image.Image:
    """The crops with their numbers, from left to right and down."""
    side = crops[0].shape[0]
    cell = side + EDGE
    image = Image.new("L", (COLUMNS * cell, -(-len(crops) // COLUMNS) * cell))
    draw = ImageDraw.Draw(image)
    low, high = WINDOW_HU
    for number, crop in enumerate(crops):
        left, top = number % COLUMNS * cell, number // COLUMNS * cell
        grey = np.clip((crop - low) / (high - low), 0, 1) * 255
        image.paste(Image.fromarray(grey.astype(np.uint8)), (left, top))
        draw.text((left + 3, top + 1), str(number + 1), fill=255)
    return image


def main() -> int:
    """Draw the crops and write page and key."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", nargs="+", required=True, metavar="CASE")
    parser.add_argument("--real", nargs="+", required=True, metavar="CT")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    crops = drawn_pairs(options.simulated, options.real, rng)
    order = rng.permutation(len(crops))
    options.output.mkdir(parents=True, exist_ok=True)
    page([crops[k][1] for k in order]).save(options.output / "crops.png")
    with (options.output / "key.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["number", "kind", "ct"])
        table.writerows((n + 1, "real" if k % 2 else "simulated", crops[k][0]) for n, k in enumerate(order.tolist()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
