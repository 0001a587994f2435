"""How the product does on CTs painted around real airway trees, in another manner than the simulator that taught it.

Any airway mask will do, without its CT: of a person, or of another program. Body, lungs, walls, a vessel on either side
of each thin airway, texture and noise are drawn around it voxel by voxel; nothing of the simulator in
`AirwaySegTraining` is used. Figures by the protocol of ATM'22, of the result with repair.

    .venv/bin/python Testing/benchmarks/painted.py MASK ... [--noise 25] [--keep FOLDER]
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image

from AirwaySegLib.commands.evaluate import as_numbers
from AirwaySegLib.evaluation.protocols import AXES, PROTOCOLS, compare
from AirwaySegLib.files.volume import Volume, read_mask, to_canonical, write_nrrd
from AirwaySegLib.masks.components import component_through, opening
from AirwaySegLib.pipeline import RunReport, load_model, segment
from AirwaySegLib.progress import silent
from AirwaySegLib.settings import SegmentSettings

Mask = NDArray[np.bool_]

AIR_HU, LUMEN_HU, LUNG_HU, TISSUE_HU, WALL_HU = -1000, -980, -850, 40, -250
"""The wall is what a voxel shows of it that holds little more than the wall."""

CENTRAL_RADIUS_MM = 4.0
"""Lumens as wide as this lie in the mediastinum."""

LUNG_AROUND_MM, MEDIASTINUM_MM, CHEST_WALL_VOXELS = 14.0, 9.0, 18
"""Lung beyond the outermost airways, tissue around the central ones, and the least depth of lung below the skin."""

BLUR, TEXTURE_HU = 0.6, 20.0
"""The scanner's, in voxels, and how far the parenchyma is off its mean."""

VESSELS = ((4, 3), (-3, 5))
"""Where an artery and a vein lie beside a thin airway, in voxels along y and x."""

FACTOR = 4
"""Lungs are outlined on a grid so many times as coarse."""


def lungs_around(thin: Mask, central: Mask, spacing_mm: NDArray) -> Mask:
    """The hull of each side's thin airways and a little more, without what lies around the central ones."""
    coarse_mm = spacing_mm * FACTOR
    shape = tuple(-(-size // FACTOR) for size in thin.shape)
    places, middle = np.argwhere(thin) // FACTOR, np.median(np.nonzero(central)[2]) / FACTOR
    lungs, near = np.zeros(shape, bool), np.zeros(shape, bool)
    for side in (places[:, 2] < middle, places[:, 2] >= middle):
        marked = np.zeros(shape, bool)
        marked[tuple(places[side].T)] = True
        lungs |= convex_hull_image(marked)
    near[tuple((np.argwhere(central) // FACTOR).T)] = True
    lungs = ndimage.distance_transform_edt(~lungs, sampling=coarse_mm) < LUNG_AROUND_MM
    lungs &= ndimage.distance_transform_edt(~near, sampling=coarse_mm) > MEDIASTINUM_MM
    fine = lungs.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1).repeat(FACTOR, axis=2)
    return fine[: thin.shape[0], : thin.shape[1], : thin.shape[2]]


def correlated(shape: tuple[int, ...], grain: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise of mean 0 and standard deviation 1 with a grain of so many voxels."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), grain)
    return field / field.std()


def paint(airways: Mask, spacing_mm: NDArray, noise_hu: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """A chest CT (Z, Y, X) in HU around a tree, one component of canonical voxels."""
    central = opening(airways, CENTRAL_RADIUS_MM, tuple(spacing_mm.tolist()))
    thin = airways & ~central
    y, x = np.indices(airways.shape[1:]) / np.array(airways.shape[1:])[:, None, None] - 0.5
    body = (y / 0.46) ** 2 + (x / 0.49) ** 2 < 1
    lungs = lungs_around(thin, central, spacing_mm) & ndimage.binary_erosion(body, iterations=CHEST_WALL_VOXELS)
    hu = np.full(airways.shape, AIR_HU, np.float32)
    hu[:, body] = TISSUE_HU
    hu[lungs] = LUNG_HU + TEXTURE_HU * correlated(hu.shape, 2.0, rng)[lungs]
    for shift in VESSELS:
        hu[np.roll(thin, shift, (1, 2)) & lungs] = TISSUE_HU
    wall = ndimage.binary_dilation(airways)
    hu[wall] = np.maximum(hu[wall], WALL_HU)
    hu[ndimage.binary_dilation(central, iterations=3)] = TISSUE_HU
    hu[airways] = LUMEN_HU
    hu = ndimage.gaussian_filter(hu, BLUR) + np.float32(noise_hu) * correlated(hu.shape, 0.5, rng)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def main() -> int:
    """Paint, segment and compare, a row for each mask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masks", nargs="+", type=Path, metavar="MASK")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--noise", type=float, default=25.0, help="standard deviation in HU (default 25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--axes", choices=AXES, default=AXES[0], help="as in airwayseg evaluate (default xyz)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write CT, tree and result there")
    options = parser.parse_args()
    print("| tree | TLD | BD | precision | DSC |\n| --- | --- | --- | --- | --- |")
    model, rows = load_model(options.weights), []
    for path in options.masks:
        mask = to_canonical(read_mask(path))
        tree = component_through(mask.array, np.argwhere(mask.array))  # the largest one
        spacing_mm = np.asarray(mask.spacing_mm)
        hu = paint(tree, spacing_mm, options.noise, np.random.default_rng(options.seed))
        ct = replace(mask, array=hu)
        found = segment(ct, model, SegmentSettings(), RunReport(), silent).mask
        numbers = as_numbers(compare(found, tree, mask.spacing_mm, PROTOCOLS["atm22"], options.axes))
        rows.append([100 * numbers[name] for name in ("tld", "bd", "precision", "dsc")])
        print(f"| {path.name} | " + " | ".join(f"{cell:.1f}" for cell in rows[-1]) + " |", flush=True)
        if options.keep:
            keep(options.keep / path.name.split(".")[0], ct, tree, found)
    print("| mean | " + " | ".join(f"{cell:.1f}" for cell in np.mean(rows, axis=0)) + " |")
    return 0


def keep(folder: Path, ct: Volume, tree: Mask, found: Mask) -> None:
    """Write what can be looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("ct", ct.array), ("tree", tree.astype(np.uint8)), ("airways", found.astype(np.uint8))):
        write_nrrd(folder / f"{name}.nrrd", array, like=ct)


if __name__ == "__main__":
    sys.exit(main())
