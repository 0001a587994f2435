"""Throughput and memory of `airwayseg cohort` with many tiny CTs and the bundled weights.

    .venv/bin/python Testing/benchmarks/cohort.py batch [--cases 6] [--rounds 3]
    .venv/bin/python Testing/benchmarks/cohort.py workers [--cases 6] [--workers 2]
    .venv/bin/python Testing/benchmarks/cohort.py memory [--cases 200] [--weights fast]

The CTs are 128 x 128 x 80 voxels round the carina of a simulated patient, each with noise of its own: one window of the
network. ``batch``: in one process with loaded weights, by turns CTs one by one (read, then computed) and the same CTs
as a cohort runs them (the next is read while one is computed). ``workers``: `airwayseg cohort` with one worker, with
several, and as many such programs at the same time, one thread each. ``memory``: the resident memory of one
`airwayseg cohort` after each case. Lines end with the computer's load: seconds of a busy computer can be compared
within one run only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.records import FINISHED, Outcome
from AirwaySegLib.cohort.schedule import Read, run_here
from AirwaySegLib.commands.cohort import How, run_one
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.pipeline import Model, load_model
from AirwaySegLib.progress import silent
from AirwaySegLib.settings import SegmentSettings
from AirwaySegTraining.simulator.simulate import simulate_case

SIZE_ZYX = (80, 128, 128)
NOISE_HU = 15.0


def write_cts(folder: Path, count: int) -> list[Case]:
    """Write tiny CTs and return their cases."""
    case = simulate_case(7)
    z, y, x = case.ct.shape
    low = (z - SIZE_ZYX[0] - 8, y // 2 - 70, x // 2 - 64)
    tiny = case.ct[tuple(slice(first, first + size) for first, size in zip(low, SIZE_ZYX, strict=True))]
    folder.mkdir(parents=True)
    cases = []
    for number in range(count):
        noise = np.random.default_rng(number).normal(0, NOISE_HU, tiny.shape)
        image = sitk.GetImageFromArray(np.rint(tiny + noise).astype(np.int16))
        image.SetSpacing(case.spacing_mm[::-1])
        path = folder / f"ct{number:03d}.nii.gz"
        sitk.WriteImage(image, str(path), True)
        cases.append(Case(path.stem, path))
    return cases


def load() -> str:
    """How many processes compute or wait for a core, mean of the last minute, of how many cores."""
    with suppress(AttributeError, OSError):
        return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return f"{os.cpu_count()} cores"


# One process: read ahead or not ---------------------------------------------------------------------------------------


class Timed(Case):
    """A case that notes when it is read."""

    def read(self) -> tuple[Volume, list[str]]:
        """The CT, as `Case.read`."""
        start = time.perf_counter()
        found = super().read()
        READING.append((start, time.perf_counter()))
        return found


READING: list[tuple[float, float]] = []
"""Start and end of each reading."""


def batch(folder: Path, options: argparse.Namespace) -> None:
    """Compare cases one by one with a cohort, by turns."""
    cases = [Timed(case.id, case.path) for case in write_cts(folder / "cts", options.cases)]
    model = load_model("default")
    warm_up = How(folder / "first", SegmentSettings())
    run_one(cases[0], warm_up, model, cases[0].read, silent)  # the network is compiled
    one_by_one, together = [], []
    for number in range(options.rounds):
        how = How(folder / f"single{number}", SegmentSettings())
        one_by_one.append(measured(partial(one_after_other, cases, how, model)))
        READING.clear()
        computing: list[tuple[float, float]] = []
        how = How(folder / f"batch{number}", SegmentSettings())
        together.append(measured(partial(as_cohort, cases, partial(noted, computing, how, model))))
        print(f"{number + 1}: {len(cases)} CTs one by one {said(one_by_one[-1])}, as a cohort {said(together[-1])}")
        inside = share_inside(READING[1:], computing)
        print(
            f"  {inside:.0%} of the seconds of reading fell into the computing of the CT before; {load()}", flush=True
        )
    middle = np.median(together, axis=0) / np.median(one_by_one, axis=0)
    print(f"as a cohort / one by one, medians: {middle[0]:.2f} of the time, {middle[1]:.2f} of the processor's")


def one_after_other(cases: list[Timed], how: How, model: Model) -> None:
    """Read and compute one CT after the other."""
    for case in cases:
        run_one(case, how, model, case.read, silent)


def as_cohort(cases: list[Timed], work: Callable[[Case, Read], Outcome]) -> None:
    """Run the cases as a cohort does."""
    for outcome in run_here(cases, work):
        if outcome.status != FINISHED:
            raise RuntimeError(f"{outcome.id}: {outcome.sentence}")


def noted(computing: list[tuple[float, float]], how: How, model: Model, case: Case, read: Read) -> Outcome:
    """Run one case, and note when it was computed: from the moment that it has its CT."""
    starts: list[float] = []

    def taken() -> tuple[Volume, list[str]]:
        found = read()
        starts.append(time.perf_counter())
        return found

    outcome = run_one(case, how, model, taken, silent)
    computing.append((starts[0], time.perf_counter()))
    return outcome


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of the processor, that some work takes."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def said(pair: tuple[float, float]) -> str:
    """Both as text."""
    return f"{pair[0]:.1f} s ({pair[1]:.1f} s of the processor)"


def share_inside(parts: list[tuple[float, float]], spans: list[tuple[float, float]]) -> float:
    """Which share of the time of ``parts`` lies within ``spans``."""
    inside = sum(max(0.0, min(end, last) - max(start, first)) for start, end in parts for first, last in spans)
    return inside / sum(end - start for start, end in parts)


# Processes ------------------------------------------------------------------------------------------------------------


def workers(folder: Path, options: argparse.Namespace) -> None:
    """Compare one worker, several, and as many programs that know nothing of each other: what the computer can do."""
    count = options.workers
    parts = [folder / f"cts{number}" for number in range(count)]
    for part in parts:
        write_cts(part, options.cases // count)
    (folder / "all").mkdir()
    for part in parts:
        for ct in part.iterdir():
            os.link(ct, folder / "all" / f"{part.name}-{ct.name}")
    each = {}
    for name, several in (("1 worker", 1), (f"{count} workers", count)):
        each[name] = seconds_of_case([run(folder / "all", folder / name, "--workers", str(several))], several)
        print(f"{name}: {each[name]:.1f} s a case after the first of each; {load()}", flush=True)
    name = f"{count} programs"
    programs = [run(part, folder / f"out-{part.name}", "--workers", "1") for part in parts]
    each[name] = seconds_of_case(programs, count)
    print(f"{name}: {each[name]:.1f} s a case after the first of each; {load()}")
    alone = each["1 worker"]
    print(f"{count} workers are {alone / each[f'{count} workers']:.2f} times as fast as one, ", end="")
    print(f"{name} {alone / each[name]:.2f} times")


def seconds_of_case(runs: list[Iterator[tuple[float, dict[str, object]]]], several: int) -> float:
    """Seconds a case of runs at the same time, without the start of the ``several`` workers and their first cases."""
    with ThreadPoolExecutor(len(runs)) as pool:
        events = [event for found in pool.map(list, runs) for event in found]
    ends = sorted(when for when, _ in events)
    return (ends[-1] - ends[several - 1]) / (len(ends) - several)


def run(cts: Path, output: Path, *arguments: str) -> Iterator[tuple[float, dict[str, object]]]:
    """The events of `airwayseg cohort` with their times; the resident memory in MB stands in each case's event."""
    command = [sys.executable, "-m", "AirwaySegLib", "cohort", str(cts), "-o", str(output), "--progress", "json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for line in child.stdout:
            event = json.loads(line)
            if event.get("event") == "case":
                yield time.perf_counter(), {**event, "memory_mb": resident_mb(child.pid)}
    if child.returncode:
        raise RuntimeError(f"airwayseg cohort ended with code {child.returncode}")


def resident_mb(process: int) -> float:
    """Resident memory of a process in MB (10^6 bytes)."""
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], stdout=subprocess.PIPE, text=True).stdout
    return float(said or "nan") * 1024 / 1e6


def memory(folder: Path, options: argparse.Namespace) -> None:
    """Print the memory after each tenth case, and how much it grew over the last half."""
    write_cts(folder / "cts", options.cases)
    after = []
    for _, event in run(folder / "cts", folder / "out", "--weights", options.weights):
        after.append(float(str(event["memory_mb"])))
        if len(after) % 10 == 0 or len(after) == 1:
            print(f"{len(after)} cases: {after[-1]:.0f} MB; {load()}", flush=True)
    quarters = [float(np.median(part)) for part in np.array_split(after, 4)]
    print(f"median of each quarter of the cases: {', '.join(f'{value:.0f}' for value in quarters)} MB")


def main() -> int:
    """Run the benchmark that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {"batch": batch, "workers": workers, "memory": memory}
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--cases", type=int, default=0, help="default: 6, for workers 12, for memory 200")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--weights", default="default", help="of memory: the weights (default: default)")
    options = parser.parse_args()
    options.cases = options.cases or {"memory": 200, "workers": 12}.get(options.kind, 6)
    with tempfile.TemporaryDirectory() as folder:
        kinds[options.kind](Path(folder), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
