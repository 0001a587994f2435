"""Whether making patches keeps up with training: seconds of a patch on one core, and of a step on this machine.

    .venv/bin/python Testing/benchmarks/training.py --data DATA [--recipes wingsnet tang ...] [--patch 128] [--step]

For each stage: seconds to make one patch, and how many so many ``--cores`` make in a second; with ``--step`` also the
patches that the network learns from in a second here, and both as a ratio (above 1: it never waits).
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from AirwaySegTraining.data.cases import case_folders, prepared_case
from AirwaySegTraining.distributed import joined_team
from AirwaySegTraining.fit.checkpoint import start_run
from AirwaySegTraining.fit.loop import train_step
from AirwaySegTraining.fit.machine import settled
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


def step_seconds(recipe: Recipe, place: int, batches: Batches, cases: list, times: int) -> float:
    """Median seconds of a step of the recipe's stage on batches that are there already."""
    ready = [batches[number] for number in range(2)]
    with joined_team("auto") as team:
        run = start_run(settled(FitSettings(), team, None), recipe, cases, team.device)
        stage = run.enter(place)
        run.net.train()
        return seconds_of(lambda number: train_step(run.net, run, stage, dict(ready[number % 2]), team), times)


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
    options = parser.parse_args()
    folders = case_folders(options.data)[:2]
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


if __name__ == "__main__":
    sys.exit(main())
