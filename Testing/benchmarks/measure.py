"""Seconds of every stage and peak memory of `airwayseg measure` for a large mask.

    .venv/bin/python Testing/benchmarks/measure.py [--mask MASK]

Without a mask a tree of 255 tubes is drawn on 682 x 512 x 512 voxels. All files of the command are written. The memory
is the operating system's figure for the child process that does the work.
"""

import argparse
import functools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support")]

from phantoms import a_deep_tree, draw_tubes

from AirwaySegLib.commands import measure as measuring
from AirwaySegLib.files.volume import Volume, write_nrrd
from AirwaySegLib.masks.sparse_mask import Lumen
from AirwaySegLib.pictures import tree_pictures
from AirwaySegLib.progress import silent
from AirwaySegLib.tree import build

SHAPE = (682, 512, 512)
SPACING_MM = (0.45, 0.55, 0.6)
MOST_SECONDS, MOST_GIB = 8.0, 3.0

STAGES = {
    "read": (measuring, ["read_mask", "to_canonical"]),
    "trachea": (build, ["find_trunk"]),
    "list of voxels": (build, ["voxels_of"]),
    "holes": (Lumen, ["cavities", "with_voxels"]),
    "thinning": (build, ["thinned", "completed"]),
    "graph": (build, ["grow_forest", "prune", "contract", "courses_of", "rooted_at_a_tip"]),
    "lines and radii": (build, ["_draw"]),
    "voxels to branches": (build, ["_assign"]),
    "branches and names": (build, ["_branches", "name_branches"]),
    "distances": (measuring, []),
    "volumes to files": (measuring, ["write_sparse_nrrd"]),
    "pictures": (tree_pictures, ["draw_generations", "draw_radius_plot"]),
    "suspects": (measuring, ["find_suspects"]),
    "tables": (measuring, ["write_centerline", "write_table", "write_summary"]),
}


def timed(function: Callable, seconds: dict[str, float], stage: str) -> Callable:
    """The function, adding what it takes to ``seconds[stage]``."""

    @functools.wraps(function)
    def call(*arguments: object, **options: object) -> object:
        start = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[stage] += time.perf_counter() - start

    return call


def measure_and_time(mask: Path, folder: Path) -> None:
    """Measure the mask in this process and print what each stage took."""
    seconds = dict.fromkeys(STAGES, 0.0)
    for stage, (module, names) in STAGES.items():
        for name in names:
            setattr(module, name, timed(getattr(module, name), seconds, stage))
    distances = {name: timed(function, seconds, "distances") for name, function in measuring.DISTANCES.items()}
    measuring.DISTANCES.update(distances)
    start = time.perf_counter()
    text = measuring.run_measure(measuring.MeasureRequest(mask, folder), silent)
    total = time.perf_counter() - start
    print(text.splitlines()[0])
    seconds["everything else"] = total - sum(seconds.values())
    for stage, took in seconds.items():
        print(f"{stage:20} {took:6.2f} s")
    print(f"{'together':20} {total:6.2f} s ({'within' if total <= MOST_SECONDS else 'above'} {MOST_SECONDS:g} s)")


def main() -> int:
    """Draw the mask, measure it in a child process, print its peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure_and_time(*options.child)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        mask = options.mask
        if mask is None:
            mask = Path(folder, "mask.nrrd")
            drawn = draw_tubes(a_deep_tree(7), SHAPE, SPACING_MM)
            write_nrrd(mask, drawn, Volume(drawn, SPACING_MM))
        child = [sys.executable, __file__, "--child", str(mask), str(Path(folder, "result"))]
        code = subprocess.run(child).returncode
        if code:
            return code
        branches = json.loads(Path(folder, "result", "tree.json").read_text())["branches"]
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB on Linux
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    print(f"{len(branches)} branches, grid {'x'.join(map(str, SHAPE)) if options.mask is None else options.mask}")
    print(f"peak {peak_gib:.2f} GiB ({'within' if peak_gib <= MOST_GIB else 'above'} {MOST_GIB:g} GiB)")
    print(f"mean diameter {np.mean([branch['mean_diameter_mm'] for branch in branches]):.2f} mm")
    return 0


if __name__ == "__main__":
    sys.exit(main())
