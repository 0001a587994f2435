"""Fit the weights of the path score on broken trees, and print them beside those in use.

    nice .venv/bin/python Testing/benchmarks/fit_path_score.py CASE ... [--draws 2] [--distractors 30] [--seed 0]

A case is a folder with ct.nrrd and label.nrrd (1 airway, 2 left out), simulated (`airwayseg-train simulate`) or real.
Its tree is broken as in `repair.py` beside this file: `AirwaySegTraining.connection.breaks` removes stretches of
peripheral branches and adds distractors, false pieces beside them. All paths that the repair would search are found in
each broken mask, once with the CT and once on the mask alone. A path is right if it joins no distractor and at least
half of its voxels lie within a voxel of true airway. The logistic regression

    P(right) = 1 / (1 + exp(-sum of weight * term)),    terms of `AirwaySegLib.repair.path_score.terms_of`

is fitted by maximum likelihood with a small penalty on the squared weights (not on the constant "one").

Printed are, with the CT and alone, the number of paths, the fitted and the current weight of each term, and the log
loss and the area under the ROC curve (AUC) of both on the same paths. Nothing is written: who takes over new weights
into `ALONE` or `WITH_CT` does so by hand and compares both sets with `repair.py`.

The current weights were fitted before this script existed; the script and the cases of that fit are not kept, and the
constants ("one") were shifted by hand afterwards, as the docstrings of `ALONE` and `WITH_CT` say. So this script is not
expected to give them again. Which pairs are searched at all is decided with the current weights `ALONE`
(`find_pairs` keeps the best), so that the fit depends on them a little.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from repair import Task, tasks
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.repair.bridge import Bridge
from AirwaySegLib.repair.path_bridges import Evidence, PathSearch
from AirwaySegLib.repair.path_score import ALONE, WITH_CT, terms_of
from AirwaySegLib.tree.build import parse_airways

Floats = NDArray[np.float64]

RIGHT_SHARE = 0.5
"""Share of a path's voxels near true airway from which on it is right: less has left the airway."""

PENALTY = 1.0
"""Factor of half the sum of squared weights; a path counts 1, so it matters only where paths are few."""

EVIDENCE: dict[str, Mapping[str, float]] = {"CT and mask": WITH_CT, "mask alone": ALONE}


def candidates(task: Task, with_ct: bool) -> Iterator[tuple[Bridge, bool]]:
    """Every path of a broken mask and whether it is right."""
    broken = task.broken
    labels = label_components(broken.mask)
    parsed = parse_airways(Volume(broken.mask.astype(np.uint8), task.spacing_mm))
    search = PathSearch.of(parsed, labels, task.spacing_mm, Evidence(task.hu if with_ct else None))
    false_pieces = set(np.unique(labels[broken.distractors]).tolist())
    for bridge in search.bridges() if search else []:
        near = task.near_airway[tuple(bridge.voxels.T)].mean()
        yield bridge, not false_pieces & set(bridge.joins) and bool(near >= RIGHT_SHARE)


def table_of(paths: list[Bridge], names: list[str]) -> Floats:
    """The terms of paths, (paths, terms)."""
    facts = {name: np.array([path.facts[name] for path in paths]) for name in paths[0].facts}
    terms = terms_of(facts)
    return np.column_stack([terms[name] for name in names])


def log_loss(weights: Floats, terms: Floats, right: Floats) -> float:
    """Mean negative log likelihood of a path."""
    logit = terms @ weights
    return float(np.mean(np.logaddexp(0, logit) - right * logit))


def fit(terms: Floats, right: Floats, is_constant: NDArray[np.bool_]) -> Floats:
    """Weights (terms,) of the penalised maximum of the likelihood; the problem is convex."""
    penalty = np.where(is_constant, 0, PENALTY)

    def loss(weights: Floats) -> tuple[float, Floats]:
        logit = terms @ weights
        value = np.sum(np.logaddexp(0, logit) - right * logit) + (penalty * weights**2).sum() / 2
        return float(value), terms.T @ (expit(logit) - right) + penalty * weights

    found = minimize(loss, np.zeros(terms.shape[1]), jac=True, method="L-BFGS-B")
    if not found.success:
        raise RuntimeError(f"The fit did not converge: {found.message}")
    return np.asarray(found.x)


def area_under_curve(score: Floats, right: Floats) -> float:
    """Probability that a right path scores higher than a wrong one; ties count half."""
    count = right.sum()
    return float((rankdata(score)[right > 0].sum() - count * (count + 1) / 2) / (count * (len(right) - count)))


def report(evidence: str, found: list[tuple[Bridge, bool]]) -> None:
    """Fit one set of weights and print it."""
    right = np.array([is_right for _, is_right in found], float)
    print(f"\n{evidence}: {len(found)} paths, {int(right.sum())} right")
    if not 0 < right.sum() < len(right):
        print("Nothing to fit: there must be right and wrong paths.")
        return
    current = EVIDENCE[evidence]
    names = list(current)
    terms = table_of([path for path, _ in found], names)
    old, new = np.array(list(current.values())), fit(terms, right, np.array([name == "one" for name in names]))
    print("\n| term | fitted | current |\n| --- | --- | --- |")
    for name, fitted, used in zip(names, new, old, strict=True):
        print(f"| {name} | {fitted:.2f} | {used:.2f} |")
    print(f"| log loss | {log_loss(new, terms, right):.3f} | {log_loss(old, terms, right):.3f} |")
    print(f"| AUC | {area_under_curve(terms @ new, right):.3f} | {area_under_curve(terms @ old, right):.3f} |")


def main() -> int:
    """Break, search, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE")
    parser.add_argument("--draws", type=int, default=2, help="broken masks made of each case (default 2)")
    parser.add_argument("--distractors", type=int, default=30, help="false pieces tried in each mask (default 30)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found: dict[str, list[tuple[Bridge, bool]]] = {evidence: [] for evidence in EVIDENCE}
    for folder in options.cases:
        for task in tasks(folder, options.draws, options.distractors, options.seed):
            for evidence, paths in found.items():
                paths.extend(candidates(task, evidence == "CT and mask"))
            print(f"{task.case}: {len(found['CT and mask'])} paths so far", file=sys.stderr, flush=True)
    for evidence, paths in found.items():
        report(evidence, paths)
    return 0


if __name__ == "__main__":
    sys.exit(main())
