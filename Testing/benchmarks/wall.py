"""The wall's thickness on drawn tubes of known walls, by the library and by full width at half maximum.

    .venv/bin/python Testing/benchmarks/wall.py [--fast]
    .venv/bin/python Testing/benchmarks/wall.py --ct CT --mask MASK [--pictures FOLDER]

Tubes with lumens of 1.25 to 3.5 mm of radius, along, across and oblique to the slices, by four scanners: voxels of 0.6
to 1.25 mm, blur of 0.5 to 0.8 mm, noise of 30 HU. With a CT its branches are measured, and measured again after it was
made worse: thicker slices, noise, blur. The pictures show cross-sections with the edges of every ray.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates, uniform_filter1d

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support")]

from walled_tubes import Pipe, Scanner, draw_ct

from AirwaySegLib.files.volume import read_ct, read_mask, to_canonical
from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.build import ParsedAirways, parse_airways
from AirwaySegLib.walls.measure import air_of, measure_walls
from AirwaySegLib.walls.rays import profiles_of
from AirwaySegLib.walls.sections import RAYS, sample, sections_of

THICKNESSES_MM = (0.5, 0.75, 1.0, 1.5, 2.0)
DIRECTIONS = ((1.0, 0.1, 0.05), (1.0, 0.6, 0.4), (0.2, 1.0, 0.5))
SCANNERS = (
    Scanner((0.6, 0.6, 0.6), (0.5, 0.5, 0.5)),
    Scanner((0.6, 0.6, 0.6), (0.8, 0.8, 0.8)),
    Scanner((1.0, 1.0, 1.0), (0.6, 0.6, 0.6)),
    Scanner((1.25, 0.7, 0.7), (0.7, 0.5, 0.5)),
)
BINS_MM = ((0.0, 0.4), (0.4, 0.7), (0.7, 1.0), (1.0, 1.5), (1.5, 4.0))


@dataclass(frozen=True)
class Case:
    """A tube: radius of its lumen in mm, direction, and the scanner."""

    radius_mm: float
    direction: tuple[float, float, float]
    scanner: Scanner


@dataclass(frozen=True)
class Row:
    """Errors in mm over the cases of one thickness, and how many cases were measured."""

    thickness_mm: float
    cases: int
    mean_error_mm: float
    sd_mm: float
    largest_error_mm: float
    half_maximum_error_mm: float
    inner_radius_error_mm: float


def drawn_cases(fast: bool) -> list[Case]:
    """All combinations; with ``fast`` one scanner only."""
    scanners = SCANNERS[3:] if fast else SCANNERS
    return [Case(radius, way, one) for one in scanners for way in DIRECTIONS for radius in (1.25, 2.0, 3.5)]


def row_of(thickness_mm: float, cases: list[Case]) -> Row:
    """Measure one thickness in all cases."""
    errors, usual, inner = [], [], []
    for number, case in enumerate(cases):
        pipe = Pipe(case.radius_mm, thickness_mm, case.direction, (0.0, 0.2, 0.3))
        ct, mask = draw_ct([pipe], replace(case.scanner, seed=number))
        airways = parse_airways(mask)
        branch = max(measure_walls(airways, ct.array).branches, key=lambda branch: branch.length_mm)
        profiles = profiles_of(airways, ct.array, list(sections_of(airways)), air_of(airways, ct.array))
        if branch.wall is not None and branch.wall.thickness_mm is not None:
            errors.append(branch.wall.thickness_mm - thickness_mm)
            inner.append(branch.wall.inner_diameter_mm / 2 - case.radius_mm)
            usual.append(float(np.median(profiles.thickness_mm[profiles.usable])) - thickness_mm)
    largest = float(np.abs(errors).max())
    means = float(np.mean(errors)), float(np.std(errors)), largest, float(np.mean(usual)), float(np.mean(inner))
    return Row(thickness_mm, len(errors), *means)


def worse(ct: NDArray, pixel_mm: float) -> Iterator[tuple[str, NDArray]]:
    """The CT made worse, under the name of what was done to it."""
    for count in (2, 3, 5):
        yield f"{count} slices averaged", _thick(ct, count)
    noise = gaussian_filter1d(np.random.default_rng(0).normal(size=ct.shape).astype(np.float32), 0.7, axis=1)
    noise = gaussian_filter1d(noise, 0.7, axis=2)
    yield "noise of 40 HU more", ct + noise * (40 / noise.std())
    yield "blur of 0.6 mm more in the slices", gaussian_filter(ct.astype(np.float32), (0, *(0.6 / pixel_mm,) * 2))


def _thick(ct: NDArray, count: int) -> NDArray[np.float32]:
    """Slices ``count`` times as thick and as far apart, interpolated to the old slices again."""
    averaged = uniform_filter1d(ct.astype(np.float32), count, axis=0)[count // 2 :: count]
    at = (np.arange(len(ct)) - (count - 1) // 2 - (0 if count % 2 else 0.5)) / count
    whole = np.empty(ct.shape, np.float32)
    rows = np.arange(ct.shape[1])
    for column in range(ct.shape[2]):
        grid = np.meshgrid(at, rows, indexing="ij")
        whole[:, :, column] = map_coordinates(averaged[:, :, column], grid, order=3, mode="nearest")
    return whole


def compare(airways: ParsedAirways, ct: NDArray) -> None:
    """Print what is measured in a CT, and how much each branch changes where the CT is worse."""
    start = time.process_time()
    tree = measure_walls(airways, ct)
    walls = [branch.wall for branch in tree.main() if branch.wall]
    found = sum(wall.thickness_mm is not None for wall in walls)
    arteries = [wall.airway_artery_ratio for wall in walls if wall.airway_artery_ratio is not None]
    print(f"{found} of {len(walls)} walls, {len(arteries)} arteries (median ratio {np.median(arteries):.2f}), ", end="")
    print(f"{time.process_time() - start:.1f} s of processor time; {_pi10(tree)}")
    for name, changed in worse(ct, airways.grid.spacing_mm[2]):
        other = measure_walls(airways, changed)
        print(f"{name}: {_pi10(other)}")
        for low, high in BINS_MM:
            pairs = [
                (ours.wall.thickness_mm, theirs.wall.thickness_mm)
                for ours, theirs in zip(tree.branches, other.branches, strict=True)
                if ours.wall and theirs.wall and ours.wall.thickness_mm and theirs.wall.thickness_mm
            ]
            changes = [after - before for before, after in pairs if low <= before < high]
            if changes:
                low_mm, middle_mm, high_mm = np.percentile(changes, [10, 50, 90])
                print(
                    f"  walls of {low} to {high} mm: {len(changes)}, {middle_mm:+.2f} ({low_mm:+.2f} to {high_mm:+.2f})"
                )


def _pi10(tree: AirwayTree) -> str:
    scan = tree.wall_scan
    values = [f"{one.value_mm:.2f}" if one else "none" for one in (scan.pi10, scan.pi10_half_maximum)]
    return f"blur {scan.blur_mm[0]:.2f}, {scan.blur_mm[1]:.2f} mm; Pi10 {values[0]}, by half maximum {values[1]}"


def draw_sections(airways: ParsedAirways, ct: NDArray, folder: Path) -> None:
    """Pictures of middle cross-sections by generation: inner edges, outer edges, edges on rays that are left out."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    tree, air_hu = measure_walls(airways, ct), air_of(airways, ct)
    spacing, corner = np.array(airways.grid.spacing_mm), np.array([part.start for part in airways.box])
    sections = {one.branch: one for one in sections_of(airways)}
    for generation in sorted({branch.generation for branch in tree.main()}):
        branches = [one for one in tree.main() if one.generation == generation and one.id in sections][:40]
        figure, axes = plt.subplots(5, 8, figsize=(24, 15.5))
        for axis in axes.ravel():
            axis.axis("off")
        for axis, branch in zip(axes.ravel(), branches, strict=False):
            one = sections[branch.id]
            profiles = profiles_of(airways, ct, [one], air_hu)
            middle = len(one.middles_mm) // 2
            half_mm = max(6.0, 3 * float(one.radii_mm.max()) + 2)
            at = np.arange(-half_mm, half_mm, 0.25)
            u, v = np.meshgrid(at, at, indexing="ij")
            points = one.middles_mm[middle] + u[..., None] * one.across[middle] + v[..., None] * one.over[middle]
            edge = (-half_mm, half_mm, half_mm, -half_mm)
            axis.imshow(sample(ct, corner, points, spacing), cmap="gray", vmin=-1100, vmax=300, extent=edge)
            mine = profiles.part(np.flatnonzero(profiles.section == middle))
            rows = np.flatnonzero(mine.usable)
            turns = 2 * np.pi * np.arange(RAYS) / RAYS
            left_out = np.setdiff1d(np.arange(RAYS), rows)
            axis.plot(*(mine.inner_mm[left_out] * np.array([np.sin(turns), np.cos(turns)])[:, left_out]), "r.", ms=2)
            if len(rows):
                tubes = mine.part(rows).fitted(tree.wall_scan.blur_mm, air_hu, tree.wall_scan.wall_hu)
                for radius, style in ((tubes.inner_mm, "c."), (tubes.inner_mm + tubes.thickness_mm, "y.")):
                    axis.plot(radius * np.sin(turns[rows]), radius * np.cos(turns[rows]), style, ms=3)
            wall = branch.wall
            axis.set_title(f"{branch.id}: {wall.inner_diameter_mm or 0:.1f}, wall {wall.thickness_mm or 0:.2f} mm")
        figure.tight_layout()
        figure.savefig(folder / f"generation-{generation:02}.png", dpi=60)
        plt.close(figure)


def main() -> int:
    """Print the table of drawn tubes, or of a CT; 1 if a wall from 1 mm on is wrong by more than 0.15 mm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="one scanner instead of four")
    parser.add_argument("--ct", type=Path)
    parser.add_argument("--mask", type=Path, help="the CT's airways")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.ct:
        ct, airways = to_canonical(read_ct(options.ct)[0]).array, parse_airways(to_canonical(read_mask(options.mask)))
        if options.pictures:
            draw_sections(airways, ct, options.pictures)
        compare(airways, ct)
        return 0
    cases, wrong = drawn_cases(options.fast), False
    print("wall (mm)  tubes  error: mean  sd    largest  half maximum  inner radius")
    for thickness_mm in THICKNESSES_MM:
        row = row_of(thickness_mm, cases)
        wrong |= thickness_mm >= 1 and row.largest_error_mm > 0.15
        print(
            f"{thickness_mm:>9}{row.cases:>7}{row.mean_error_mm:>+13.2f}{row.sd_mm:>6.2f}{row.largest_error_mm:>9.2f}"
            f"{row.half_maximum_error_mm:>+14.2f}{row.inner_radius_error_mm:>+14.2f}",
            flush=True,
        )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
