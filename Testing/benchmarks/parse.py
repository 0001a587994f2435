"""The field's parse and its two metrics: ours against the published parse written out plainly, in the same run.

    .venv/bin/python Testing/benchmarks/parse.py [--generations 7] [--spacing-mm 0.57 1 0.75]

A drawn tree is compared with a prediction that lacks some of its branches. Both sides start from the two masks on the
whole grid and end with TLD and BD; the labels of all voxels must be the same. The best of our three runs counts; the
plain side takes minutes and runs once.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support")]

import published_parse
from phantoms import a_deep_tree, draw_tubes
from published_parse import Result

from AirwaySegLib.evaluation.metrics import count_branches
from AirwaySegLib.evaluation.reference_parse import largest_component, parse_branches, thinned

SIZE_MM = (300.0, 260.0, 300.0)
Evaluate = Callable[[np.ndarray, np.ndarray], Result]


def ours(prediction: np.ndarray, reference: np.ndarray) -> Result:
    """The same counts by the library."""
    parse = parse_branches(reference)
    skeleton = parse.skeleton if np.array_equal(parse.labels > 0, reference) else thinned(reference)
    detected = largest_component(prediction)[skeleton]
    branches, found = count_branches(parse.labels[skeleton], detected)
    return Result(int(skeleton.sum()), int(detected.sum()), branches, found, parse.labels)


def timed(evaluate: Evaluate, prediction: np.ndarray, reference: np.ndarray, runs: int) -> tuple[Result, float]:
    """The result, and the seconds of the fastest of some runs."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        result = evaluate(prediction, reference)
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def main() -> int:
    """Draw, run both sides, print, and fail if they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=7)
    parser.add_argument("--spacing-mm", type=float, nargs=3, default=(0.57, 1.0, 0.75), metavar="MM", help="z, y, x")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shape = tuple(int(mm / step) for mm, step in zip(SIZE_MM, options.spacing_mm, strict=True))
    tubes = a_deep_tree(options.generations, options.seed)
    reference = draw_tubes(tubes, shape, options.spacing_mm)
    # Of the last two generations a third is missing.
    missing = np.random.default_rng(options.seed).random(len(tubes)) < (np.arange(len(tubes)) > len(tubes) / 4) / 3
    prediction = draw_tubes(
        [tube for tube, gone in zip(tubes, missing, strict=True) if not gone], shape, options.spacing_mm
    )
    results, seconds = [], []
    for side, evaluate, runs in (("ours", ours, 3), ("published, plain", published_parse.evaluate, 1)):
        result, best = timed(evaluate, prediction, reference, runs)
        results.append(result)
        seconds.append(best)
        print(
            f"{side:<18}{best:8.2f} s   {result.branches} branches, BD {result.branches_detected}, "
            f"TLD {result.skeleton_detected} of {result.skeleton_voxels} skeleton voxels",
            flush=True,
        )
    same = all(np.array_equal(*(getattr(result, name) for result in results)) for name in vars(results[0]))
    print(f"{seconds[1] / seconds[0]:.1f} times as fast on {shape} voxels; results {'the same' if same else 'DIFFER'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
