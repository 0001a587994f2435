"""Seconds until tree, table and overlays follow an edit: measured anew, and with what is known of the unchanged parts.

    .venv/bin/python Testing/benchmarks/update.py [--mask MASK [--ct CT]]

Without a mask a tree of 511 tubes is drawn on 600 x 512 x 512 voxels. Each edit cuts a terminal branch through, or puts
a ball beside one, and is measured twice in the same run by the command that the panel runs, one process each: without
and with the file of known parts. Both results must be the same. Seconds are those of the clock and those of the
processor, of all its cores; where other work runs beside it only the latter tell much.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support")]

from phantoms import a_deep_tree, draw_tubes

from AirwaySegLib.files.volume import Volume, part_of, read_ct, read_mask, write_nrrd
from AirwaySegLib.tree.airway_tree import AirwayTree

SHAPE, SPACING_MM = (600, 512, 512), (0.5, 0.6, 0.6)
MARGIN_VOXELS = 32
"""Around the airways: the panel writes such a part of the scan."""
LONG_MM = 5.0
MOST_SECONDS = 2.0
SAME = ("tree.json", "branches.csv", "suspects.json", "summary.csv")


def drawn() -> Volume:
    """A tree of 511 tubes."""
    return Volume(draw_tubes(a_deep_tree(8), SHAPE, SPACING_MM).astype(np.uint8), SPACING_MM)


def around(mask: np.ndarray) -> tuple[slice, ...]:
    """The part of the scan that the panel would write."""
    voxels = np.argwhere(mask)
    lows, highs = np.maximum(voxels.min(axis=0) - MARGIN_VOXELS, 0), voxels.max(axis=0) + MARGIN_VOXELS + 1
    return tuple(slice(int(low), int(high)) for low, high in zip(lows, highs, strict=True))


def edits(mask: np.ndarray, voxels: Path, tips: list[int], count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Edits of a mask, one after the other, at the middles of terminal branches: their names, and the masks after them.

    ``voxels`` is the file of the first measurement; its box is that of the mask's voxels.
    """
    with np.load(voxels) as file:
        places = np.stack(np.unravel_index(file["where"], file["shape"]), axis=1) + np.argwhere(mask).min(axis=0)
        branches = file["branches.nrrd"]
    ball = np.argwhere(((np.indices((9, 9, 9)) - 4) ** 2).sum(axis=0) <= 16) - 4
    random = np.random.default_rng(0)
    for number in range(count):
        branch = tips[int(random.integers(len(tips)))]
        mine = places[branches == branch]
        middle = mine[len(mine) // 2] + (0 if number % 2 == 0 else random.integers(3, 5, 3))
        mask = mask.copy()
        mask[tuple((middle + ball).T)] = number % 2
        yield f"{'ball beside' if number % 2 else 'gap in'} branch {branch}", mask


def measured(mask: Path, folder: Path, more: list[str]) -> tuple[float, float]:
    """Measure by the command; seconds of the clock and of the processor."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "AirwaySegLib", "measure", str(mask), "-o", str(folder), "--voxels", "--force"]
    subprocess.run([*command, "--progress", "none", *more], check=True, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure, edit, measure twice, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--ct", type=Path)
    parser.add_argument("--edits", type=int, default=4)
    options = parser.parse_args()
    same, ratios = True, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, full, partial = folder / "mask.nrrd", folder / "full", folder / "partial"
        volume = read_mask(options.mask) if options.mask else drawn()
        box = around(volume.array)
        volume = part_of(volume, box, volume.array[box])
        mask = volume.array != 0
        write_nrrd(path, mask.astype(np.uint8), volume)
        if options.ct:
            whole = read_ct(options.ct)[0]
            write_nrrd(folder / "ct.nrrd", whole.array[box], part_of(whole, box, whole.array[box]))
        ct = ["--ct", str(folder / "ct.nrrd")] if options.ct else []
        first = measured(path, partial, ct)
        tree = AirwayTree.from_json((partial / "tree.json").read_text())
        print(f"{len(tree.branches)} branches, {np.count_nonzero(mask)} voxels; first measurement {_words(first)}")
        tips = [one.id for one in tree.main() if one.parent and not one.children and one.length_mm > LONG_MM]
        for title, edited in edits(mask, partial / "voxels.npz", tips, options.edits):
            write_nrrd(path, edited.astype(np.uint8), volume)
            anew = measured(path, full, ct)
            again = measured(path, partial, [*ct, "--known", str(partial / "parts.npz")])
            equal = all((full / one).read_bytes() == (partial / one).read_bytes() for one in SAME)
            with np.load(full / "voxels.npz") as one, np.load(partial / "voxels.npz") as other:
                equal &= all(np.array_equal(one[key], other[key]) for key in one.files)
            same &= equal
            ratios.append(anew[1] / again[1])
            words = "the same" if equal else "DIFFERENT"
            print(f"{title:24} anew {_words(anew)}, with known parts {_words(again)}; {words}", flush=True)
    print(f"{np.median(ratios):.1f} times as fast (processor, median); the aim was {MOST_SECONDS:g} s")
    return 0 if same else 1


def _words(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:5.1f} s (processor {seconds[1]:5.1f} s)"


if __name__ == "__main__":
    sys.exit(main())
