"""What fine-tuning on three cases of a strange scanner brings, and what it costs on the cases of before.

The scanner is simulated: a sharper kernel and more noise than the weights are used to, and labels one voxel wider (the
wall goes with the lumen). Of three cases two are trained on and one is held out; two others of that scanner and two
ordinary ones are segmented before and after.

    .venv/bin/python Testing/benchmarks/finetune.py -o OUT [--weights NAME] [--steps N]
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation

from AirwaySegLib.commands.evaluate import mean_and_deviation
from AirwaySegLib.progress import Bar
from AirwaySegTraining.fit.validation import evaluate_model
from AirwaySegTraining.simulator.scanner import Scanner, scan, whole_hu
from AirwaySegTraining.simulator.simulate import SimulatedCase, simulate, simulate_case, write_case

STRANGE = Scanner(0.3, 0.3, 1.2, 75.0, 0.45, 0.0, 0.0, 1.0, -1024.0)
SEED = 8100


def write_strange(output: Path, seeds: range) -> None:
    """Cases of the strange scanner."""
    for seed in seeds:
        folder = output / "cases" / f"strange-{seed}"
        if folder.exists():
            continue
        case = simulate_case(seed, clean=True)
        hu = whole_hu(scan(case.ct, STRANGE, np.random.default_rng(seed)))
        wider = binary_dilation(case.label == 1)
        label = np.where(wider, 1, case.label).astype(np.uint8)
        label[(case.noise_limit > 0) & (case.noise_limit < STRANGE.noise_hu)] = 2
        write_case(SimulatedCase(hu, label, case.spacing_mm, {"patient": folder.name, "clean": False}), folder)


def main() -> int:
    """Make the data, fine-tune by the command line, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    os.environ["AIRWAYSEG_MODELS"] = str(options.output / "models")
    from AirwaySegTraining.__main__ import main as airwayseg_train

    corrected, strange, ordinary = (options.output / name for name in ("corrected", "strange", "ordinary"))
    write_strange(corrected, range(SEED, SEED + 3))
    write_strange(strange, range(SEED + 3, SEED + 5))
    simulate(ordinary, 2, SEED + 5, Bar())  # other patients than those trained on
    command = ["finetune", "--weights", options.weights, "--data", str(corrected), "-o", str(options.output / "run")]
    start = time.monotonic()
    resume = ["--resume"] if (options.output / "run" / "last.pt").exists() else []
    if airwayseg_train([*command, *resume, *(["--steps", str(options.steps)] if options.steps else [])]):
        return 1
    print(f"Fine-tuning took {(time.monotonic() - start) / 60:.1f} minutes.")
    tuned = str(options.output / "run" / "model.safetensors")
    print(f"{'mean of two':<24}{'TLD':>14}{'BD':>14}{'precision':>14}{'DSC':>14}")
    for title, data in (("strange scanner", strange), ("ordinary scanners", ordinary)):
        pairs = [mean_and_deviation(evaluate_model(w, [data], "cpu", Bar()).cases)[0] for w in (options.weights, tuned)]
        keys = ("tld", "bd", "precision", "dsc")
        cells = (" -> ".join(f"{100 * numbers[key]:.1f}" for numbers in pairs) for key in keys)
        print(f"{title:<24}" + "".join(f"{cell:>14}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
