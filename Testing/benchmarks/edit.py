"""Branches removed from measured masks and grown back with one click: length recovered, strays, milliseconds.

    .venv/bin/python Testing/benchmarks/edit.py CT RESULT [--branches 30] [--points 25] [--seed 1] [--ct-only]

RESULT is a folder of `airwayseg segment CT` or `measure` with branches.nrrd, tree.json and, unless
`--ct-only`, probability.nrrd. Single branches without children, longer than 6 mm and beyond generation 2, are taken out
of the mask, and each is grown back from a click near its tip. The points are drawn at random where lung and its vessels
are, 6 to 20 mm from the airways: what is grown there is hardly airway. Printed are two lines:

- recovered: share of the branch's centerline within a voxel of what was grown, and in how many it is more than 0.9;
- outside: of the grown voxels, the share outside the former mask;
- refused: how many clicks ended in a sentence;
- ms: processor time of a click, median, that of nine in ten, and most;
- passed: how many random points give a branch.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "AirwaySeg"))

from AirwaySegLib.edit.grow import grow
from AirwaySegLib.edit.scan import Part, Scan
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume, lps_to_voxels, read_ct, read_on_grid
from AirwaySegLib.masks.components import bounding_box
from AirwaySegLib.tree.airway_tree import AirwayTree, Branch

LEAST_MM, LEAST_GENERATION, CLICK_FROM_END = 6.0, 3, 2

LUNG_HU, LUNG_MM = -500.0, 5.0
"""Smoothed with this standard deviation, lung with its vessels is darker, and chest wall and mediastinum are not."""

AWAY_MM = 6.0, 20.0


def tips(tree: AirwayTree, count: int, seed: int) -> list[Branch]:
    """Some branches without children, drawn at random."""
    found = [
        branch
        for branch in tree.main()
        if not branch.children and branch.length_mm > LEAST_MM and branch.generation >= LEAST_GENERATION
    ]
    return [found[row] for row in np.random.default_rng(seed).permutation(len(found))[:count]]


def regrown(ct: Volume, labels: np.ndarray, probability: Part | None, branch: Branch) -> tuple[float, float, float]:
    """Of one branch: share recovered, share of the grown voxels outside the former mask, ms; NaN where refused."""
    mask = labels > 0
    rest = mask & (labels != branch.id)
    voxels = lps_to_voxels(branch.points_mm, ct)
    own = voxels[~rest[tuple(np.rint(voxels).astype(int).T)]]
    if len(own) <= CLICK_FROM_END:
        return np.nan, np.nan, np.nan
    z, y, x = mask.shape
    scan = Scan(Part(rest), ct.spacing_mm, (z, y, x), ct.array, probability)
    start = time.process_time()
    try:
        growth = grow(scan, own[-CLICK_FROM_END][None])
    except AirwaySegError:
        return 0.0, np.nan, 1000 * (time.process_time() - start)
    taken_ms = 1000 * (time.process_time() - start)
    spacing = np.asarray(ct.spacing_mm)
    apart, _ = cKDTree(growth.voxels * spacing).query(own * spacing)
    return float((apart <= spacing.max()).mean()), float((~mask[tuple(growth.voxels.T)]).mean()), taken_ms


def at_random(
    ct: Volume, mask: np.ndarray, probability: Part | None, count: int, seed: int
) -> Iterator[tuple[float, float]]:
    """Of random points: whether (1 or 0) a branch is grown there, and ms."""
    spacing = np.asarray(ct.spacing_mm)
    box = bounding_box(mask)
    lung = ndimage.gaussian_filter(ct.array[box].astype(np.float32), LUNG_MM / spacing) < LUNG_HU
    away_mm = ndimage.distance_transform_edt(~mask[box], spacing)
    places = np.argwhere(lung & (away_mm > AWAY_MM[0]) & (away_mm < AWAY_MM[1])) + [part.start for part in box]
    z, y, x = mask.shape
    scan = Scan(Part(mask), ct.spacing_mm, (z, y, x), ct.array, probability)
    for row in np.random.default_rng(seed).permutation(len(places))[:count]:
        start = time.process_time()
        try:
            grow(scan, places[row][None])
            passed = 1.0
        except AirwaySegError:
            passed = 0.0
        yield passed, 1000 * (time.process_time() - start)


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--branches", type=int, default=30)
    parser.add_argument("--points", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ct-only", action="store_true")
    options = parser.parse_args()
    ct, _ = read_ct(options.ct)
    tree = AirwayTree.from_json((options.result / "tree.json").read_text(encoding="utf-8"))
    labels = read_on_grid(options.result / "branches.nrrd", ct).array
    probability = None if options.ct_only else Part(read_on_grid(options.result / "probability.nrrd", ct).array)
    found = [regrown(ct, labels, probability, branch) for branch in tips(tree, options.branches, options.seed)]
    recovered, outside, taken_ms = np.array(found)[~np.isnan(np.array(found)[:, 2])].T
    print(
        f"{len(recovered)} branches: recovered {recovered.mean():.2f}, "
        f"more than 0.9 in {(recovered > 0.9).mean():.0%}, outside {np.nanmean(outside):.2f}, "
        f"refused {np.isnan(outside).sum()}, "
        f"{_times(taken_ms)}"
    )
    passed, taken_ms = np.array(list(at_random(ct, labels > 0, probability, options.points, options.seed))).T
    print(f"{len(passed)} random points: {passed.sum():.0f} passed, {_times(taken_ms)}")


def _times(taken_ms: np.ndarray) -> str:
    middle, most = np.percentile(taken_ms, (50, 90))
    return f"{middle:.0f} ms (nine in ten within {most:.0f}, at most {taken_ms.max():.0f})"


if __name__ == "__main__":
    main()
