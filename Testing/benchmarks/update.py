"""Seconds until tree, table and overlays follow an edit: measured anew, and with what is known of the unchanged parts.

    .venv/bin/python Testing/benchmarks/update.py [--mask MASK [--ct CT]]

Without a mask a tree of 511 tubes is drawn on 600 x 512 x 512 voxels. Each edit removes the last branches beyond some
point of the tree, or puts a ball beside an airway, and is measured twice in the same run by the command that the panel
runs, one process each: without and with the file of known parts. Both results must be the same. Seconds are those of
the clock and those of the processor; where other work runs beside it only the latter tell much.
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

from AirwaySegLib.files.volume import Volume, read_mask, write_nrrd
from AirwaySegLib.tree.airway_tree import AirwayTree

SHAPE, SPACING_MM = (600, 512, 512), (0.5, 0.6, 0.6)
MOST_SECONDS = 2.0
SAME = ("tree.json", "branches.csv", "suspects.json", "summary.csv")


def edits(mask: np.ndarray, tree: AirwayTree, spacing_mm: tuple[float, float, float], count: int) -> Iterator[tuple]:
    """Edits of a mask one after the other: their names, and the masks after them."""
    random = np.random.default_rng(0)
    tips = [branch for branch in tree.main() if not branch.children and branch.parent and branch.length_mm > 5]
    zyx = np.stack(np.indices([9, 9, 9]), axis=-1) - 4
    for number in range(count):
        branch = tips[int(random.integers(len(tips)))]
        at = branch.points_mm[len(branch.points_mm) // 2][::-1] / spacing_mm
        middle = np.rint(at).astype(int)
        mask = mask.copy()
        places = middle + zyx[(zyx**2).sum(axis=-1) <= 16]
        places = np.clip(places, 0, np.array(mask.shape) - 1)
        mask[tuple(places.T)] = number % 2
        yield f"{'ball beside' if number % 2 else 'gap in'} branch {branch.id}", mask


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
    ct = ["--ct", str(options.ct)] if options.ct else []
    same, ratios = True, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, full, partial = folder / "mask.nrrd", folder / "full", folder / "partial"
        if options.mask:
            volume = read_mask(options.mask)
        else:
            drawn = draw_tubes(a_deep_tree(8), SHAPE, SPACING_MM)
            volume = Volume(drawn.astype(np.uint8), SPACING_MM)
        mask = volume.array != 0
        write_nrrd(path, mask.astype(np.uint8), volume)
        first = measured(path, partial, ct)
        tree = AirwayTree.from_json((partial / "tree.json").read_text())
        print(f"{len(tree.branches)} branches, {np.count_nonzero(mask)} voxels; first measurement {_words(first)}")
        for title, edited in edits(mask, tree, volume.spacing_mm, options.edits):
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
