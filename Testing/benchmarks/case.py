"""A whole case, before and after: seconds by stage and peak memory of `airwayseg segment`, as users run it.

    .venv/bin/python Testing/benchmarks/case.py CT --before REVISION [--own="--weights fast" ...] [--processor avx2]

Each side is a child process with the code and the weights of its own tree: the revision in a temporary git worktree,
and this one, once without options and once with each text of ``--own``. They take turns, so that other work on the
computer falls on all. Stages are those of report.json; "start" is what lies outside them: Python, imports, weights.
Processor time tells more than seconds where other programs run. With ``--reference`` the masks are compared with a
reference, else with that of the revision. Linux and macOS.

``--processor avx2`` stands in for a processor without AVX-512 on one that has it: PyTorch and oneDNN, with which both
libraries compute convolutions, are told to use AVX2, and the network runs in float32. Other loops of OpenVINO still use
AVX-512, so a real AVX2 processor is a little slower.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from accuracy import read

from AirwaySegLib.evaluation.metrics import dice, precision, tree_length_detected

ROOT = Path(__file__).resolve().parents[2]
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


@dataclass
class Side:
    """One tree, and what its runs took."""

    name: str
    tree: Path
    options: list[str] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    peak_gib: float = 0.0
    decisions: dict[str, object] = field(default_factory=dict)

    def best(self, stage: str) -> float:
        """The shortest time of a stage; 0 where it was not run."""
        return min((one.get(stage, 0.0) for one in self.stages), default=0.0)


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """The files of a revision in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(tree), revision], check=True
        )
        try:
            yield tree
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], check=True)


def run(side: Side, out: Path, options: argparse.Namespace) -> None:
    """Segment once in a child process and note its stages, peak memory and processor time."""
    environment = os.environ | {"PYTHONPATH": str(side.tree / "AirwaySeg")}
    more = [*options.options.split(), *side.options]
    if options.processor == "avx2":
        environment |= AVX2
        more += ["--precision", "float32"]
    command = [sys.executable, "-m", "AirwaySegLib", "segment", str(options.ct.resolve()), "-o", str(out), "--force"]
    start = time.perf_counter()
    child = subprocess.Popen([*command, "--progress", "none", *more], env=environment, cwd=side.tree)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if child.returncode:
        raise SystemExit(f"{side.name} ended with code {child.returncode}.")
    report = json.loads((out / "report.json").read_text())
    seconds: dict[str, float] = report["seconds"]
    cpu = usage.ru_utime + usage.ru_stime
    side.stages.append({"start": wall - sum(seconds.values()), **seconds, "whole": wall, "processor": cpu})
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB on Linux
    side.peak_gib = max(side.peak_gib, usage.ru_maxrss / unit)
    side.decisions = report["decisions"]


def compare(sides: list[Side], folder: Path, reference: Path | None) -> None:
    """Print the sides beside each other, how many times as fast each is as the first, and how far the masks agree."""
    names = list(dict.fromkeys(name for side in sides for name in side.stages[0]))
    print(f"{'seconds':<12}" + "".join(f"{side.name[:26]:>28}" for side in sides))
    for name in names:
        first = sides[0].best(name)
        cells = [f"{side.best(name):12.1f} ({first / max(side.best(name), 0.05):5.2f} times)" for side in sides]
        print(f"{name:<12}" + "".join(f"{cell:>28}" for cell in cells))
    print(f"{'peak GiB':<12}" + "".join(f"{side.peak_gib:28.2f}" for side in sides))
    for side in sides:
        kept = ("device", "backend", "precision", "windows", "windows_of_128")
        print(f"{side.name}: { ({key: side.decisions.get(key) for key in kept}) }")
    masks = {side.name: read(folder / str(number) / "airways.nrrd") for number, side in enumerate(sides)}
    labels = read(reference) if reference is not None else masks.pop(sides[0].name)
    print(f"compared with {reference.name if reference is not None else sides[0].name}:")
    for name, mask in masks.items():
        rates = (
            tree_length_detected(mask > 0, labels == 1),
            precision(mask > 0, labels == 1, labels == 2),
            dice(mask > 0, labels == 1, labels == 2),
        )
        print(f"{name:<20} TLD {100 * rates[0]:.2f} precision {100 * rates[1]:.2f} DSC {100 * rates[2]:.2f}")


def main() -> int:
    """Read the command line, run both sides in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--before", required=True, help="a git revision")
    parser.add_argument("--processor", choices=("own", "avx2"), default="own")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--reference", type=Path, help="a mask: 1 airway, 2 left out")
    parser.add_argument("--options", default="", help="more options of `airwayseg segment`, in one text")
    parser.add_argument("--own", action="append", default=[], help="one more side: this tree with these options")
    options = parser.parse_args()
    with worktree(options.before) as tree, tempfile.TemporaryDirectory() as folder:
        own = [Side(("this " + text).strip(), ROOT, text.split()) for text in ["", *options.own]]
        sides = [Side(options.before, tree), *own]
        for _ in range(options.repeats):
            for number, side in enumerate(sides):
                run(side, Path(folder, str(number)), options)
        compare(sides, Path(folder), options.reference)
    print(f"fastest of {options.repeats}; {os.cpu_count()} processors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
