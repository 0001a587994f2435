"""How much simulated CTs look like real ones: figures of walls, lung, vessels, tree and noise, side by side.

A CT comes with a mask of its airways: a folder with ct.nrrd and label.nrrd (1 airway), or a pair CT=MASK. Rings are
sampled across the centerlines of the mask, so the same is measured on both sides. A clean simulated case gets the blur
and noise of a random scanner first, as in training, and airways that this noise hides do not count.

    .venv/bin/python Testing/benchmarks/realism.py --simulated CASE ... --real CT=MASK ... [--csv FILE]
"""

import argparse
import csv
import json
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from lumen_evidence import lumen_evidence
from numpy.typing import NDArray
from scipy import ndimage

from AirwaySegLib.chest.preprocessing import body_mask, lung_mask
from AirwaySegLib.files.volume import Volume, read_ct, read_mask, to_canonical
from AirwaySegLib.tree.build import ParsedAirways, parse_airways
from AirwaySegLib.tree.centerline import tangents
from AirwaySegTraining.simulator.scanner import NOISE_LIMIT, draw_scanner, scan, whole_hu

Figures = dict[str, float]

CALIBRES_MM = ((3.0, 5.0), (1.5, 2.0), (0.75, 1.1))
"""Lumen radii between which walls are measured."""

RAYS = 24
REACH_MM = np.arange(-1.0, 6.01, 0.25)
"""Rings are sampled at these distances from the edge of the lumen."""

WALL_MM, OUTSIDE_MM = 2.0, (3.0, 6.0)
"""The wall's peak is looked for up to here; what lies around a bronchus is the mean between these two."""

DENSE_HU, HAZY_HU = -200, -700

BORDER_MM, PERIPHERY_MM = 4.0, 15.0
"""Lung nearer to its own border does not count as lung, and up to the second is its outer part."""


def read_case(text: str) -> tuple[str, Volume, Volume]:
    """Name, CT and airway mask on canonical axes."""
    if "=" in text:
        ct_path, mask_path = (Path(part) for part in text.split("=", 1))
        return ct_path.name.split(".")[0], to_canonical(read_ct(ct_path)[0]), to_canonical(read_mask(mask_path))
    ct = read_ct(Path(text) / "ct.nrrd")[0]
    airway = sitk.GetArrayFromImage(sitk.ReadImage(Path(text) / "label.nrrd")) == 1  # 2, left out, is no airway here
    description = Path(text) / "case.json"
    if description.is_file() and json.loads(description.read_text(encoding="utf-8")).get("clean"):
        rng = np.random.default_rng(zlib.crc32(Path(text).name.encode()))
        scanner = draw_scanner(rng, to_canonical(ct).spacing_mm[0])
        ct = replace(ct, array=whole_hu(scan(ct.array, scanner, rng)))
        if (Path(text) / NOISE_LIMIT).is_file():
            limit = sitk.GetArrayFromImage(sitk.ReadImage(Path(text) / NOISE_LIMIT))
            airway &= (limit == 0) | (limit >= scanner.noise_hu)
    return Path(text).name, to_canonical(ct), to_canonical(replace(ct, array=airway.astype(np.uint8)))


def rings(hu: NDArray, parsed: ParsedAirways, which: NDArray[np.bool_]) -> NDArray[np.float32]:
    """HU around centerline points, (points, distances, rays), at `REACH_MM` from the lumen's edge."""
    lines = parsed.lines
    along = np.concatenate([tangents(lines.places_mm[lines.of(k)]) for k in range(len(lines.starts) - 1)])[which]
    least = np.abs(along).argmin(axis=1)
    across = np.cross(along, np.eye(3)[least])
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    over = np.cross(along, across)
    turns = 2 * np.pi * np.arange(RAYS) / RAYS
    rays = np.cos(turns)[:, None] * across[:, None] + np.sin(turns)[:, None] * over[:, None]
    reach = np.maximum(lines.radii_mm[which][:, None] + REACH_MM, 0)
    places = lines.places_mm[which][:, None, None] + reach[:, :, None, None] * rays[:, None]
    corner = np.array([part.start for part in parsed.box])
    voxels = places / np.asarray(parsed.grid.spacing_mm) + corner
    return ndimage.map_coordinates(hu, np.moveaxis(voxels, -1, 0), order=1, mode="nearest", output=np.float32)


def wall_figures(hu: NDArray, parsed: ParsedAirways) -> Figures:
    """Peak of the wall by calibre, what lies outside the wide bronchi, and how far the lumen is darker than both."""
    lines = parsed.lines
    generation = np.array([branch.generation for branch in parsed.tree.branches])[lines.branch]
    figures: Figures = {}
    for low, high in CALIBRES_MM:
        which = (lines.radii_mm >= low) & (lines.radii_mm < high) & (generation > 0)
        name = f"{low:g} to {high:g} mm"
        if np.count_nonzero(which) < 20:
            continue
        profile = np.median(rings(hu, parsed, which), axis=2)  # a vessel beside a part of the ring does not count
        near = REACH_MM <= WALL_MM
        figures[f"wall's peak HU, lumen radius {name}"] = float(np.median(profile[:, near].max(axis=1)))
        outside = (REACH_MM >= OUTSIDE_MM[0]) & (REACH_MM <= OUTSIDE_MM[1])
        figures[f"HU outside, lumen radius {name}"] = float(np.median(profile[:, outside].mean(axis=1)))
    return figures


def lung_figures(hu: NDArray, spacing_mm: tuple[float, float, float]) -> tuple[Figures, NDArray[np.bool_]]:
    """Density of the lungs and the share of their vessels; and the lungs themselves."""
    lungs = lung_mask(hu, body_mask(hu, spacing_mm), spacing_mm)
    inner = ndimage.distance_transform_edt(lungs[::2, ::2, ::2], sampling=2 * np.asarray(spacing_mm))
    values, depth = hu[::2, ::2, ::2][inner > BORDER_MM], inner[inner > BORDER_MM]
    figures = {"median HU of lung": float(np.median(values))}
    for percent in (5, 25, 75):
        figures[f"{percent} % of lung is below HU"] = float(np.percentile(values, percent))
    figures[f"lung pixels above {DENSE_HU} HU, %"] = 100 * float(np.mean(values > DENSE_HU))
    between = (values > HAZY_HU) & (values <= DENSE_HU)
    figures[f"lung pixels from {HAZY_HU} to {DENSE_HU} HU, %"] = 100 * float(np.mean(between))
    outer = depth < PERIPHERY_MM
    figures[f"pixels above {DENSE_HU} HU, {BORDER_MM:g} to {PERIPHERY_MM:g} mm from the border, %"] = 100 * float(
        np.mean(values[outer] > DENSE_HU)
    )
    return figures, lungs


def tree_figures(hu: NDArray, parsed: ParsedAirways) -> Figures:
    """Mean lengths of the generations, total length, branches, and how much of it has no lumen in the CT."""
    main = parsed.tree.main()
    figures: Figures = {}
    for generation in range(2, 7):
        lengths = [branch.length_mm for branch in main if branch.generation == generation]
        if lengths:
            figures[f"mean length of generation {generation}, mm"] = float(np.mean(lengths))
    figures["centerline, m"] = sum(branch.length_mm for branch in main) / 1000
    figures["branches"] = len(main)
    figures["centerline without a lumen in the CT, %"] = 100 * float(np.mean(~lumen_evidence(hu, parsed)))
    return figures


def noise_figures(hu: NDArray, parsed: ParsedAirways, lungs: NDArray[np.bool_]) -> Figures:
    """Noise in the widest airways and in lung: standard deviation, its neighbours' correlation, how it differs."""
    whole = np.asarray(hu, np.float32)
    mean = ndimage.uniform_filter(whole, (1, 5, 5))
    deviation = np.sqrt(np.maximum(ndimage.uniform_filter(whole * whole, (1, 5, 5)) - mean * mean, 0) * 25 / 24)
    air = ndimage.binary_erosion(parsed.grid.array != 0, iterations=4)
    clear = ndimage.binary_erosion(lungs, iterations=3) & (mean < -780)
    figures: Figures = {}
    for name, where in (("trachea", air), ("lung", clear)):
        if where.any():
            figures[f"noise SD in {name}, HU"] = float(np.median(deviation[where]))
    spread = deviation[clear]
    if spread.size:
        figures["noise SD in lung, 10 % to 90 %, ratio"] = float(np.divide(*np.percentile(spread, (90, 10))))
    residue = whole - mean
    for axis, name in ((2, "x"), (1, "y"), (0, "z")):
        pairs = np.take(clear, range(1, clear.shape[axis]), axis) & np.take(clear, range(clear.shape[axis] - 1), axis)
        one = np.take(residue, range(1, hu.shape[axis]), axis)[pairs]
        two = np.take(residue, range(hu.shape[axis] - 1), axis)[pairs]
        if one.size:
            figures[f"correlation of neighbours in lung along {name}"] = float(np.corrcoef(one, two)[0, 1])
    return figures


def figures_of(text: str) -> tuple[str, Figures]:
    """All figures of one CT."""
    name, ct, mask = read_case(text)
    parsed = parse_airways(mask)
    figures = wall_figures(np.asarray(ct.array, np.float32), parsed)
    about_lung, lungs = lung_figures(ct.array, ct.spacing_mm)
    figures |= about_lung | tree_figures(ct.array, parsed) | noise_figures(ct.array, parsed, lungs)
    figures["slices, mm"] = float(ct.spacing_mm[0])
    return name, figures


def rows(simulated: list[tuple[str, Figures]], real: list[tuple[str, Figures]]) -> list[list[str]]:
    """A table: figure, median and range of both sides, share of the simulated within the real ones' spread, each CT."""
    names = list(dict.fromkeys(name for _, figures in real + simulated for name in figures))
    table = [["", "simulated", "real", "within", *(name for name, _ in simulated + real)]]
    for name in names:
        ours, theirs = ([f[name] for _, f in side if name in f] for side in (simulated, real))
        cells = [name]
        for values in (ours, theirs):
            many = f"{np.median(values):.4g} ({min(values):.4g} to {max(values):.4g})" if values else ""
            cells.append(many)
        inside = [min(theirs) <= value <= max(theirs) for value in ours] if theirs else []
        cells.append(f"{sum(inside)}/{len(inside)}" if inside else "")
        table.append(cells + [f"{f[name]:.4g}" if name in f else "" for _, f in simulated + real])
    return table


def main() -> int:
    """Measure every CT and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", nargs="*", default=[], metavar="CASE")
    parser.add_argument("--real", nargs="*", default=[], metavar="CT=MASK")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    sides = []
    for cases in (options.simulated, options.real):
        measured = []
        for case in cases:
            print(f"measuring {case}", file=sys.stderr, flush=True)
            measured.append(figures_of(case))
        sides.append(measured)
    table = rows(*sides)
    for number, cells in enumerate(table):
        print("| " + " | ".join(cells) + " |")
        if number == 0:
            print("| --- " * len(cells) + "|")
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
