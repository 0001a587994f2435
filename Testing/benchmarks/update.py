"""Seconds until tree, table and overlays follow an edit: measured anew, and with what is known of the unchanged parts.

    .venv/bin/python Testing/benchmarks/update.py [--mask MASK [--ct CT]]

Without a mask a tree of 511 tubes is drawn on 600 x 512 x 512 voxels. Each edit cuts a terminal branch through, or puts
a ball beside one. It is written and measured three times in the same run by the command that the panel runs, one
process each: without the file of known parts, with it, and with it in a process that has loaded its packages since the
edit, as in the panel. All results must be the same. Seconds are those of the clock from the update on, with the
writing, and those of the processor, of all its cores; where other work runs beside it only the latter tell much.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support")]

from phantoms import a_deep_tree, draw_tubes

from AirwaySegLib.files.atomic_output import write_text
from AirwaySegLib.files.volume import Volume, part_of, read_ct, read_mask, write_nrrd
from AirwaySegLib.tree.airway_tree import AirwayTree

SHAPE, SPACING_MM = (600, 512, 512), (0.5, 0.6, 0.6)
MARGIN_VOXELS = 32
"""Around the airways: the panel writes such a part of the scan."""
LONG_MM = 5.0
MOST_SECONDS = 2.0
LOADING_S = 5.0
"""Enough for a process to load its packages."""
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


def measured(mask: Volume, folder: Path, more: list[str], early: bool = False) -> tuple[float, float]:
    """Write a mask and measure it by the command; seconds of the clock and of the processor."""
    path, given = folder.with_suffix(".nrrd"), folder.with_suffix(".json")
    arguments = [str(path), "-o", str(folder), "--voxels", "--force", "--progress", "none", *more]
    command = [sys.executable, "-m", "AirwaySegLib.early", "measure", str(given)]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    if early:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
            time.sleep(LOADING_S)
            begun = time.perf_counter()
            write_plain(mask, path)
            write_text(given, json.dumps(arguments))
            if child.wait():
                raise SystemExit("The command failed.")
        given.unlink()
    else:
        write_plain(mask, path)
        measure = [sys.executable, "-m", "AirwaySegLib", "measure", *arguments]
        subprocess.run(measure, check=True, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_plain(mask: Volume, path: Path) -> None:
    """Write a mask without compression, as the panel does."""
    image = sitk.GetImageFromArray(mask.array.astype(np.uint8))
    image.SetSpacing(mask.spacing_mm[::-1])
    image.SetOrigin(mask.origin_mm)
    image.SetDirection(mask.direction)
    sitk.WriteImage(image, str(path))


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
        full, partial, ready = folder / "full", folder / "partial", folder / "ready"
        volume = read_mask(options.mask) if options.mask else drawn()
        box = around(volume.array)
        volume = part_of(volume, box, volume.array[box])
        mask = volume.array != 0
        if options.ct:
            whole = read_ct(options.ct)[0]
            write_nrrd(folder / "ct.nrrd", whole.array[box], part_of(whole, box, whole.array[box]))
        ct = ["--ct", str(folder / "ct.nrrd")] if options.ct else []
        first = measured(volume, partial, ct)
        tree = AirwayTree.from_json((partial / "tree.json").read_text())
        print(f"{len(tree.branches)} branches, {np.count_nonzero(mask)} voxels; first measurement {_words(first)}")
        tips = [one.id for one in tree.main() if one.parent and not one.children and one.length_mm > LONG_MM]
        for title, edited in edits(mask, partial / "voxels.npz", tips, options.edits):
            after = replace(volume, array=edited)
            known = [*ct, "--known", str(folder / "known.npz")]
            shutil.copy(partial / "parts.npz", known[-1])
            anew, again = measured(after, full, ct), measured(after, partial, known)
            loaded = measured(after, ready, known, early=True)
            equal = are_equal(full, partial) and are_equal(full, ready)
            same &= equal
            ratios.append((anew[1] / again[1], again[0] / loaded[0]))
            words = f"anew {_words(anew)}, with known parts {_words(again)}, loaded before {_words(loaded)}"
            print(f"{title:24} {words}; {'the same' if equal else 'DIFFERENT'}", flush=True)
    faster = np.median(ratios, axis=0)
    words = f"{faster[0]:.1f} times as fast with known parts (processor), {faster[1]:.2f} times as fast again (clock)"
    print(f"{words} if loaded before; medians; the aim was {MOST_SECONDS:g} s")
    return 0 if same else 1


def are_equal(folder: Path, other: Path) -> bool:
    """Whether two results are the same."""
    same = all((folder / name).read_bytes() == (other / name).read_bytes() for name in SAME)
    with np.load(folder / "voxels.npz") as one, np.load(other / "voxels.npz") as two:
        return same and all(np.array_equal(one[key], two[key]) for key in one.files)


def _words(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:5.1f} s (processor {seconds[1]:5.1f} s)"


if __name__ == "__main__":
    sys.exit(main())
