"""Which loss, sampling, data, normalisation and channels do better: each trained for the same number of steps.

    .venv/bin/python Testing/benchmarks/ablation.py -o OUT [--scratch] [ARM ...]

Arms either go on from weights (the bundled ones unless --start names others: the question of a second stage), or begin
with nothing (--scratch). Each is a recipe of one stage, written into its folder, then evaluated on held-out simulated
cases by the protocol of ATM'22, and on real CTs against another network's mask (--pairs: share of its skeleton covered,
share of our voxels far from it, length of our tree over that of theirs). Simulated cases are made in OUT unless --sim
and --held name some; arms of real CTs need --real and --pasted and are left out without them. Arms that are trained
already are only evaluated, those evaluated only printed.
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from AirwaySegLib.evaluation.metrics import share_outside, tree_length_detected
from AirwaySegLib.files.volume import Volume, read_ct, read_mask, to_canonical
from AirwaySegLib.pipeline import Model, RunReport, load_model, segment
from AirwaySegLib.progress import Bar, silent
from AirwaySegLib.settings import SegmentSettings
from AirwaySegLib.tree.build import parse_airways
from AirwaySegTraining.data.cases import case_folders, prepared_case
from AirwaySegTraining.fit.loop import fit
from AirwaySegTraining.fit.settings import FitSettings
from AirwaySegTraining.fit.validation import validate
from AirwaySegTraining.simulator.simulate import simulate

CROSS_ENTROPY = "[[stage.loss]]\nterm = 'cross_entropy'\nshare = 0.3\n"
DICE = f"[[stage.loss]]\nterm = 'dice'\n{CROSS_ENTROPY}"
GENERAL_UNION = f"[[stage.loss]]\nterm = 'general_union'\nalpha = 0.3\nexponent = 0.7\n{CROSS_ENTROPY}"
TANG = "[[stage.loss]]\nterm = 'tang'\nalpha = 0.3\nexponent = 0.7\n"
OURS = "thin = 0.38\nmiddle = 0.1\nwide = 0.22\nborder = 0.14\nanywhere = 0.16\n"


@dataclass(frozen=True)
class Arm:
    """What one training has of its own: tables of the recipe, and the data folders with their shares."""

    loss: str = DICE
    sampling: str = OURS
    weights: str = "[]"
    network: str = "norm = 'batch'"
    shares: tuple[tuple[str, float], ...] = (("sim", 0.75), ("real", 0.25))


SIMULATED = (("sim", 1.0),)
GOING_ON = {
    "dice": Arm(),
    "general_union": Arm(GENERAL_UNION),
    "tang": Arm(TANG, weights="['lib']"),
    "union_simulated": Arm(GENERAL_UNION, shares=SIMULATED),
    "tang_simulated": Arm(TANG, weights="['lib']", shares=SIMULATED),
    "small_airways": Arm(sampling="thin = 0.7\nwide = 0.14\nborder = 0.08\nanywhere = 0.08\n"),
    "simulated_only": Arm(shares=SIMULATED),
    "pasted": Arm(shares=(("sim", 0.6), ("real", 0.2), ("pasted", 0.2))),
    # To see what real CTs do on an unseen scanner, --start with weights that saw none, and give --real and --pasted of
    # other patients than those of --pairs.
    "union_real_pasted": Arm(GENERAL_UNION, shares=(("sim", 0.55), ("real", 0.2), ("pasted", 0.25))),
}
FROM_NOTHING = {
    "batch_norm": Arm(shares=SIMULATED),
    "instance_norm": Arm(network="norm = 'instance'", shares=SIMULATED),
    "two_channels": Arm(network="norm = 'batch'\nsecond_window_hu = [-625, 125]", shares=SIMULATED),
    "random_patches": Arm(sampling="random = 1.0\n", shares=SIMULATED),
}


def recipe_text(arm: Arm, options: argparse.Namespace) -> str:
    """The arm's recipe as TOML."""
    frozen = 1.0 if options.scratch else 0.0
    return (
        f"[network]\n{arm.network}\n[[stage]]\nname = 'ablation'\nsteps = {options.steps}\npatch = {options.patch}\n"
        f"batch = 2\nrate = {options.rate}\nwarm_up = 20\naverage = 0.98\nfrozen_from = {frozen}\n"
        f"weights = {arm.weights}\n{arm.loss}[stage.sampling]\n{arm.sampling}"
    )


def train(name: str, arm: Arm, options: argparse.Namespace) -> Path:
    """The arm's weights, trained unless they are there."""
    folder = options.output / name
    weights = folder / "model.safetensors"
    if not (folder / "trained").exists():
        folder.mkdir(parents=True, exist_ok=True)
        recipe = folder / "ablation.toml"
        recipe.write_text(recipe_text(arm, options))
        settings = FitSettings(
            recipe=str(recipe),
            validation=0.0,
            seed=options.seed,
            start_from=None if options.scratch else options.start,
            shares=tuple(share for _, share in arm.shares),
        )
        data = [path for key, _ in arm.shares for path in [getattr(options, key)]]
        fit(data, folder, settings, Bar(), resume=(folder / "last.pt").exists())
        (folder / "trained").touch()
    return weights


def on_pair(model: Model, ct_path: str, mask_path: str) -> dict[str, float]:
    """Figures of a real CT against another network's mask; ``length`` is that of our centerlines over theirs."""
    ct, _ = read_ct(ct_path)
    theirs = read_mask(mask_path).array
    ours = segment(ct, model, SegmentSettings(repair="none"), RunReport(), silent).mask
    return {
        "covered": tree_length_detected(ours, theirs),
        "outside": share_outside(ours, theirs),
        "length": length_mm(replace(ct, array=ours)) / length_mm(replace(ct, array=theirs)),
    }


def length_mm(mask: Volume) -> float:
    """Total length of a mask's centerlines."""
    branches = parse_airways(to_canonical(mask)).tree.branches
    return float(sum(np.linalg.norm(np.diff(branch.points_mm, axis=0), axis=1).sum() for branch in branches))


def evaluate(weights: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Figures of every held-out case and real CT, kept beside the weights."""
    kept = weights.with_name("figures.json")
    if kept.exists():
        return json.loads(kept.read_text())
    model = load_model(str(weights))
    figures = {}
    for folder in case_folders(options.held)[: options.cases]:
        numbers = validate(model, prepared_case(folder), "cpu")
        figures[folder.name] = {key: numbers[key] for key in ("tld", "bd", "precision", "dsc")}
    for pair in options.pairs:
        ct, mask = pair.split("=")
        figures[Path(ct).name.split(".")[0]] = on_pair(model, ct, mask)
    kept.write_text(json.dumps(figures, indent=1))
    return figures


def row(name: str, figures: dict[str, dict[str, float]]) -> str:
    """Means over the simulated cases, then each real CT, in per cent."""
    simulated = [numbers for numbers in figures.values() if "tld" in numbers]
    cells = [100 * float(np.mean([numbers[key] for numbers in simulated])) for key in ("tld", "bd", "precision", "dsc")]
    for numbers in figures.values():
        if "covered" in numbers:
            cells += [100 * numbers["covered"], 100 * numbers["outside"], numbers["length"]]
    return f"| {name} | " + " | ".join(f"{cell:.2f}" if cell < 5 else f"{cell:.1f}" for cell in cells) + " |"


def give_data(options: argparse.Namespace) -> None:
    """Simulate what is not given: cases to train on, and held-out ones with a scanner's blur and noise."""
    for name, cases, seed in (("sim", 30, 5000), ("held", options.cases, 905)):
        if getattr(options, name) is None:
            folder = options.output / name
            simulate(folder, cases, seed, Bar(), clean=name == "sim")
            setattr(options, name, folder)


def main() -> int:
    """Train and evaluate the arms and print one row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", help=f"{', '.join(GOING_ON)}; with --scratch {', '.join(FROM_NOTHING)}")
    for name in ("sim", "real", "pasted", "held"):
        parser.add_argument(f"--{name}", type=Path, help="a folder of cases")
    parser.add_argument("--pairs", nargs="*", default=[], metavar="CT=MASK")
    parser.add_argument("--cases", type=int, default=2, help="how many held-out cases are looked at (default 2)")
    parser.add_argument("--start", default="default", help="weights to go on from: a name or a file (default default)")
    parser.add_argument("--scratch", action="store_true", help="begin with nothing")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--patch", type=int, default=72)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    known = FROM_NOTHING if options.scratch else GOING_ON
    give_data(options)
    missing = {name: [key for key, _ in arm.shares if getattr(options, key) is None] for name, arm in known.items()}
    for name in options.arms or [name for name, keys in missing.items() if not keys]:
        if name not in known:
            parser.error(f"there is no arm {name!r}; there are {', '.join(known)}")
        if missing[name]:
            parser.error(f"the arm {name} needs --{missing[name][0]}")
        print(row(name, evaluate(train(name, known[name], options), options)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
