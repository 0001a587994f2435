"""Where the network's windows lie: operations and accuracy of several layouts on one CT, with the same network.

    .venv/bin/python Testing/benchmarks/windows.py CT [--reference MASK] [--weights default]

Layouts: a raster over the volume with several overlaps, windows spread over the box of the region that is searched,
larger ones, and those after a first look (`--first-look yes`). Work is told in windows of 128^3 voxels. The tree before
growth of open lumens and repair is compared with the reference's, or without one with that of the densest raster.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from accuracy import read
from numpy.typing import NDArray

from AirwaySegLib.chest.preprocessing import calibrate, normalise, resample
from AirwaySegLib.evaluation.metrics import dice, precision, tree_length_detected
from AirwaySegLib.files.volume import from_canonical, read_ct, to_canonical
from AirwaySegLib.networks.search import WINDOW_VOXELS, Area, search
from AirwaySegLib.networks.sliding_window import Backend, predict
from AirwaySegLib.networks.weights import ModelInfo
from AirwaySegLib.networks.windows import Sides, Sliding, voxels_run
from AirwaySegLib.pipeline import RunReport, Scan, area_of, in_whole, load_model, opened, select, survey
from AirwaySegLib.progress import silent
from AirwaySegLib.settings import SegmentSettings

Layout = Callable[[NDArray, Backend, Area, ModelInfo], tuple[NDArray[np.uint8], float]]
"""Image, backend, where to search, weights -> probability, work."""


def layouts(side: int) -> Iterator[tuple[str, Layout]]:
    """Names and layouts, the densest first."""
    usual, larger = (side,) * 3, (side * 5 // 4,) * 3
    for overlap in (0.5, 0.25, 0.125):
        yield f"raster, overlap {overlap}", raster(Sliding(usual, overlap, "gaussian"))
    for overlap in (0.25, 0.125):
        yield f"on the region's box, overlap {overlap}", raster(Sliding(usual, overlap, "gaussian", on_region=True))
    yield f"raster of {larger[0]}^3, the same overlap as 0.25", raster(of_size(larger, side // 4))
    yield "first look", first_look


def of_size(patch: Sides, overlap_voxels: int) -> Sliding:
    """Windows of another size, which overlap by so many voxels."""
    return Sliding(patch, 0.25, "gaussian", (overlap_voxels,) * 3)


def raster(sliding: Sliding) -> Layout:
    """All windows of a layout that meet the region."""

    def run(image: NDArray, backend: Backend, area: Area, info: ModelInfo) -> tuple[NDArray[np.uint8], float]:
        voxels = voxels_run(area.region.shape, sliding, area.region)
        return predict(image, backend, sliding, area.region), voxels / WINDOW_VOXELS

    return run


def first_look(image: NDArray, backend: Backend, area: Area, info: ModelInfo) -> tuple[NDArray[np.uint8], float]:
    """A look at half the resolution, then windows fitted to what it leaves."""
    probability, ran = search(image, backend, area, info, SegmentSettings(first_look="yes"), silent)
    return probability, float(str(ran["windows_of_128"]))


class Patient:
    """A CT prepared for the network, as `airwayseg segment` does it."""

    def __init__(self, path: Path, weights: str) -> None:
        self.model, self.settings, said = load_model(weights), SegmentSettings(), RunReport()
        self.volume = read_ct(path)[0]
        self.ct = to_canonical(self.volume)
        self.around = survey(self.ct, said, silent)
        offset_hu = calibrate(self.ct.array, self.around.trachea)
        hu = self.ct.array[self.around.box]
        self.scan = Scan(hu, offset_hu, self.ct.spacing_mm, self.around.region, self.around.seeds)
        self.area = area_of(self.scan, self.model.info)
        if self.area.spacing_mm != self.scan.spacing_mm:
            hu = resample(hu, self.scan.spacing_mm, self.area.spacing_mm, order=1)
        low, high = self.model.info.window_hu
        self.image = normalise(hu, (low - offset_hu, high - offset_hu))[None]
        self.backend = opened(self.model, self.image.shape, self.settings, said)

    def tree(self, layout: Layout) -> tuple[NDArray[np.bool_], float]:
        """The tree on the CT's own grid, and the work."""
        probability, work = layout(self.image, self.backend, self.area, self.model.info)
        scan = self.scan
        if self.area.spacing_mm != scan.spacing_mm:
            probability = resample(probability, self.area.spacing_mm, scan.spacing_mm, order=1, shape=scan.hu.shape)
            probability[~scan.region] = 0
        mask = select(probability, scan.spacing_mm, self.around, self.settings, RunReport()).mask
        return from_canonical(in_whole(mask, self.around.box, self.ct), self.volume) > 0, work


def main() -> int:
    """Read the command line, run the layouts, print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--reference", type=Path, help="a mask: 1 airway, 2 left out")
    parser.add_argument("--weights", default="default")
    options = parser.parse_args()
    patient = Patient(options.ct, options.weights)
    labels = read(options.reference) if options.reference is not None else None
    print("| windows | work | TLD | precision | DSC |\n| --- | --- | --- | --- | --- |")
    for name, layout in layouts(patient.model.info.patch_zyx[0]):
        mask, work = patient.tree(layout)
        labels = mask.astype(np.uint8) if labels is None else labels
        truth, left_out = labels == 1, labels == 2
        rates = tree_length_detected(mask, truth), precision(mask, truth, left_out), dice(mask, truth, left_out)
        cells = " | ".join(f"{100 * rate:.2f}" for rate in rates)
        print(f"| {name} | {work:.1f} | {cells} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
