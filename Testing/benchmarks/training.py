"""Whether making patches keeps up with training: seconds of a patch on one core, and of a step on this machine.

    .venv/bin/python Testing/benchmarks/training.py --data DATA [--recipes wingsnet tang ...] [--patch 128] [--step]
    .venv/bin/python Testing/benchmarks/training.py --data DATA --recipes precise --forms

For each stage: seconds to make one patch, and how many so many ``--cores`` make in a second; with ``--step`` also the
patches that the network learns from in a second here, and both as a ratio (above 1: it never waits). ``--forms``
compares the seconds of a step on a CPU with channels first, with channels last, and with freed memory kept, as `fit`
trains.
"""

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from AirwaySegTraining.data.cases import case_folders, prepared_case
from AirwaySegTraining.distributed import joined_team
from AirwaySegTraining.fit.checkpoint import start_run
from AirwaySegTraining.fit.loop import train_step
from AirwaySegTraining.fit.machine import keep_freed_memory, settled, use_all_cpus
from AirwaySegTraining.fit.patches import Batches, Source, case_maps
from AirwaySegTraining.fit.recipes import Recipe, Stage, list_recipes, load_recipe
from AirwaySegTraining.fit.settings import FitSettings
from AirwaySegTraining.losses.terms import MISSED_WEIGHTS


def seconds_of(work, times: int) -> float:
    """Median seconds of ``work(number)``, after one call that does not count."""
    work(0)
    taken = []
    for number in range(1, times + 1):
        start = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def step_seconds(
    recipe: Recipe,
    place: int,
    batches: Batches,
    cases: list,
    times: int,
    form: torch.memory_format | None = None,
    device: str = "auto",
) -> float:
    """Median seconds of a step of the recipe's stage on batches that are there already; the network may be given in
    another memory format than `fit` gives it."""
    ready = [batches[number] for number in range(2)]
    taught = recipe.stages[place].is_taught
    with joined_team(device) as team:
        settings = settled(FitSettings(teacher="default" if taught else None), team, None)
        run = start_run(settings, recipe, cases, team.device)
        run.net = run.net if form is None else run.net.to(memory_format=form)
        stage = run.enter(place)
        run.net.train()
        return seconds_of(lambda number: train_step(run.net, run, stage, dict(ready[number % 2]), team), times)


def print_forms(recipe: Recipe, place: int, batches: Batches, cases: list, times: int) -> None:
    """Seconds of a step on the CPU with both memory formats, and with freed memory kept, which cannot be undone."""
    measure = partial(step_seconds, recipe, place, batches, cases, times, device="cpu")
    first, last = measure(torch.contiguous_format), measure()
    with joined_team("cpu") as team:
        keep_freed_memory(team)
    print(
        f"  {first:.2f} s a step with channels first, {last:.2f} with channels last, {measure():.2f} with memory kept"
    )


def main() -> int:
    """One row for each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=list_recipes())
    parser.add_argument("--patch", type=int)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--forms", action="store_true", help="compare memory formats, of the first stage only")
    options = parser.parse_args()
    folders = case_folders(options.data)[:2]
    with joined_team("auto") as team:
        use_all_cpus(team)
    print(f"{'recipe, stage':<24}{'patch':>6}{'s a patch':>11}{f'{options.cores} cores, a s':>16}{'learnt a s':>12}")
    for name in options.recipes:
        recipe = load_recipe(name)
        changes = {"batch": options.batch} | ({"patch": options.patch} if options.patch else {})
        stages = tuple(replace(stage, **changes) for stage in recipe.stages)
        recipe = replace(recipe, stages=stages)
        for place, stage in enumerate(stages):
            row(recipe, place, stage, folders, options)
    return 0


def row(recipe: Recipe, place: int, stage: Stage, folders: list[Path], options: argparse.Namespace) -> None:
    """Measure and print one stage; the voxels missed by a model are replaced by the skeleton or by other points."""
    cases = [prepared_case(folder, case_maps(stage)) for folder in folders]
    cases = [replace(case, maps=dict.fromkeys(MISSED_WEIGHTS, case.skeleton) | case.maps) for case in cases]
    source = Source([cases], np.ones(1), recipe.network.windows_hu, seed=0)
    single = Batches(source, replace(stage, batch=1))
    patch = seconds_of(lambda number: single[number], options.times)
    text = f"{recipe.name + ', ' + stage.name:<24}{stage.patch:>6}{patch:>11.3f}{options.cores / patch:>16.0f}"
    if options.step:
        learnt = stage.batch / step_seconds(recipe, place, Batches(source, stage), cases, options.times)
        text += f"{learnt:>12.2f}   ratio {options.cores / patch / learnt:.0f}"
    print(text, flush=True)
    if options.forms and place == 0:
        print_forms(recipe, place, Batches(source, stage), cases, options.times)


if __name__ == "__main__":
    sys.exit(main())
