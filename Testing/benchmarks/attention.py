"""Breakage attention: ours against one distance transform of the whole grid for each component, in the same run.

    .venv/bin/python Testing/benchmarks/attention.py [--fragments 128] [--spacing-mm 1.5]

Short tubes lie around a drawn tree, none touching it or another. Both sides start from the numbered components and end
with the attention of every voxel, which must be the same to the last bit. The best of our three runs counts; the plain
side takes minutes and runs once. A finer grid takes the plain side longer in proportion to its voxels.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support")]

from phantoms import Tube, a_deep_tree, draw_tubes

from AirwaySegLib.masks.components import bounding_box, label_components
from AirwaySegLib.repair.attention import ALPHA, REACH, breakage_attention, kept_components, patch_centres

SIZE_MM = (300.0, 260.0, 300.0)
LEAST_RATIO = 50.0


def a_tree_with_fragments(fragments: int, spacing_mm: float, seed: int) -> NDArray[np.int32]:
    """Components of a tree that forks five times and of so many tubes of 15 to 30 mm beside it."""
    rng = np.random.default_rng(seed)
    shape, spacing = tuple(int(mm / spacing_mm) for mm in SIZE_MM), (spacing_mm,) * 3
    tubes = a_deep_tree(5, seed)
    mask = draw_tubes(tubes, shape, spacing)
    for _ in range(fragments):
        while True:
            beside = tubes[rng.integers(3, len(tubes))]
            start = np.array(beside.end_mm) + rng.normal(scale=8, size=3)
            way = rng.normal(size=3)
            end = start + way / np.linalg.norm(way) * rng.uniform(15, 30)
            radius = rng.uniform(1.5, 2.5) * spacing_mm
            tube = draw_tubes([Tube(tuple(start), tuple(end), radius, radius)], shape, spacing)
            box = bounding_box(tube, margin=1)
            if box and tube[box].sum() > 100 and not (binary_dilation(tube[box], np.ones((3, 3, 3))) & mask[box]).any():
                mask |= tube
                break
    return label_components(mask)


def plain(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """The definition: a distance transform for each component, the second smallest at every voxel."""
    first, second = (np.full(labels.shape, np.inf) for _ in range(2))
    for number in range(1, labels.max() + 1):
        distance = distance_transform_edt(labels != number)
        np.minimum(second, np.maximum(first, distance), out=second)
        np.minimum(first, distance, out=first)
    return np.where(second < REACH, 1 / (1 + np.exp(second - ALPHA)), 0).astype(np.float32)


def main() -> int:
    """Draw, run both sides, print, and fail if they differ or the ratio is not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fragments", type=int, default=128)
    parser.add_argument("--spacing-mm", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    labels = a_tree_with_fragments(options.fragments, options.spacing_mm, options.seed)
    larger = len(kept_components(labels)) - 1
    print(f"{labels.max() - 1} fragments on {labels.shape} voxels, {larger} of them larger than specks", flush=True)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        ours = breakage_attention(labels)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    centres = patch_centres(ours, labels)
    print(
        f"{'ours':<8}{min(seconds):9.3f} s   and {time.perf_counter() - start:.3f} s for {len(centres)} patch centres"
    )
    start = time.perf_counter()
    reference = plain(labels)
    plain_seconds = time.perf_counter() - start
    print(f"{'plain':<8}{plain_seconds:9.3f} s")
    difference, ratio = float(np.abs(ours - reference).max()), plain_seconds / min(seconds)
    print(f"greatest difference {difference:g}; {ratio:.0f} times as fast (reach: difference 0, {LEAST_RATIO:g} times)")
    return 0 if difference == 0 and ratio >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
