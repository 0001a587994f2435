"""Fit the weights of both questions of the repair, and print them beside those in use.

    nice .venv/bin/python Testing/benchmarks/fit_repair_scores.py CASE ... [--results RESULT=CASE ...]
        [--judged FILE] [--draws 2] [--distractors 30] [--weights breakage] [--seed 0]

Is a loose piece airway (`AirwaySegLib.repair.piece_score`, a logistic regression), and where does it come from
(`AirwaySegLib.repair.path_score`, a conditional logit over the ways by which it may have come)? Learnt from

- CASE, a folder with ct.nrrd and label.nrrd (1 airway, 2 left out), simulated (`airwayseg-train simulate`) or real. Its
  tree is broken as in `repair.py` beside this file, with false pieces, mucus and collapse; the pieces have no
  probability;
- RESULT=CASE, the folder of `airwayseg segment` on such a case: the pieces that the network itself left loose;
- FILE, a table with the columns result, z, y, x, airway: pieces of results of CTs without a label that somebody has
  looked at, each by one of its voxels (an index on the canonical grid), airway 1 or 0. These are for the first question
  only.

A piece is airway if at least half of it lies in the label, and none if at most a tenth does; others are left out. A way
is right if it joins only true pieces, at least half of its voxels lie within a voxel of true airway, and it arrives
nearer to the trachea than the piece begins. Both fits are penalised (`PENALTY` times half the sum of squared weights,
but not of the constant "one"); the constraints in `SIGNS` keep a term that the examples hardly tell of from turning
against anatomy. Nothing is written: who takes over the weights does so by hand and compares both sets with `repair.py`.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from repair import Task, depth_of, tasks
from scipy.ndimage import binary_dilation
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from AirwaySegLib.commands.repair import LOOSE, MASK, REPAIRS
from AirwaySegLib.files.volume import Volume, read_ct, read_mask, read_probability, to_canonical
from AirwaySegLib.masks.components import bounding_box, label_components
from AirwaySegLib.progress import silent
from AirwaySegLib.repair import path_score, piece_score
from AirwaySegLib.repair.bridge import MAIN
from AirwaySegLib.repair.origins import Candidate, Found, find_origins
from AirwaySegLib.repair.path_bridges import Evidence
from AirwaySegLib.repair.proposal import APPLIED, from_json
from AirwaySegLib.repair.repair import Network, number_components, open_repair_model, whole_hu
from AirwaySegLib.settings import SegmentSettings
from AirwaySegLib.tree import fragment_joints
from AirwaySegLib.tree.build import parse_airways
from AirwaySegTraining.data.cases import read_case

Floats = NDArray[np.float64]
Rows = list[dict[str, float]]

RIGHT_SHARE, FALSE_SHARE = 0.5, 0.1
"""Shares of a piece, or of a way's voxels, in or near true airway: see above."""

DEEPER_MM = 2.0
"""A way may arrive so much farther from the trachea than the piece begins: the depth of a voxel is no truer."""

PENALTY = 1.0

EXPECTED, EXPECTED_PENALTY = {"dense": -2.0, "plug": 2.0}, 30.0
"""Weights that are held near an assumed value: in simulated gaps soft tissue is mucus, on real CTs beside a lumen it is
its wall or a vessel. Several joins that looked false on two real CTs went through it; these pieces were not counted."""

LOST, SHORT_MM = 0.25, 5.0
"""See `fit_ways`. How often what a short piece comes from was not found, for every time that it was: assumed."""

SIGNS = {
    **dict.fromkeys(
        ["long", "probability", "decile", "open", "ring", "darker", "lumen", "plug", "likely", "network"], 1
    ),
    **dict.fromkeys(["proximal"], 1),
    **dict.fromkeys(
        ["blunt", "soft", "pocket", "behind", "gap", "far", "bend", "aside", "turn", "backwards", "wider"], -1
    ),
    **dict.fromkeys(["thinner", "wrong_way", "cost", "worst", "dense", "silent"], -1),
}
"""Of the weights: 1 for at least 0, -1 for at most 0."""

MARGIN = 50


@dataclass
class Examples:
    """Facts of pieces with whether they are airway, and of the ways of each true piece with which of them are right."""

    pieces: Rows = field(default_factory=list)
    airway: list[bool] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    ways: list[Rows] = field(default_factory=list)
    right: list[list[bool]] = field(default_factory=list)

    def add_pieces(self, found: Found, truth: Mapping[int, bool], source: str) -> None:
        """Pieces by number and whether they are airway."""
        for number, is_airway in truth.items():
            self.pieces.append({name: float(values[number]) for name, values in found.pieces.items()})
            self.airway.append(is_airway)
            self.sources.append(source)

    def add_ways(self, found: Found, truth: Mapping[int, bool], is_right: Callable[[Candidate], bool]) -> None:
        """All ways of the true pieces."""
        for number in [number for number, is_airway in truth.items() if is_airway]:
            ways = [one for one in found.candidates if one.piece == number]
            if ways:
                self.ways.append([one.facts for one in ways])
                self.right.append([is_right(one) for one in ways])


@dataclass(frozen=True, eq=False)
class Truth:
    """What is true on the grid of a broken mask: airway, what is near it, the distance of its voxels from the root."""

    airway: NDArray[np.bool_]
    near_airway: NDArray[np.bool_]
    depth_mm: NDArray[np.float32]

    def of_pieces(self, labels: NDArray[np.int32]) -> dict[int, bool]:
        """By number, whether a piece is airway; what is neither is left out."""
        held = labels > 0
        share = np.bincount(labels[held], self.airway[held]) / np.maximum(np.bincount(labels[held]), 1)
        numbers = [number for number in np.unique(labels[held]).tolist() if number > MAIN]
        return {n: bool(share[n] >= RIGHT_SHARE) for n in numbers if share[n] >= RIGHT_SHARE or share[n] <= FALSE_SHARE}

    def judge_of(
        self, labels: NDArray[np.int32], spacing_mm: tuple[float, float, float]
    ) -> Callable[[Candidate], bool]:
        """What tells whether a way is right."""
        pieces = self.of_pieces(labels) | {MAIN: True}
        known = self.depth_mm > 0
        numbers, depths = labels[known], self.depth_mm[known]
        begins = np.full(int(labels.max()) + 1, np.inf)
        np.minimum.at(begins, numbers, depths)

        def is_right(one: Candidate) -> bool:
            if not all(pieces.get(number, False) for number in (one.piece, one.parent)):
                return False
            near = self.near_airway[tuple(one.voxels.T)].mean()
            at = np.rint(one.arrives_mm / np.asarray(spacing_mm)).astype(int)
            part = tuple(slice(max(0, place - 2), place + 3) for place in at)
            depth = self.depth_mm[part][known[part] & (labels[part] == one.parent)]
            return bool(near >= RIGHT_SHARE and len(depth) and np.median(depth) <= begins[one.piece] + DEEPER_MM)

        return is_right


def of_task(task: Task, network: Network, with_ct: bool, examples: Examples) -> None:
    """Everything of a broken mask."""
    labels = label_components(task.broken.mask)
    truth = Truth(task.airway, task.near_airway, task.depth_mm)
    bridges = network(task.hu, labels, task.spacing_mm, silent) if with_ct else None
    parsed = parse_airways(Volume(task.broken.mask.astype(np.uint8), task.spacing_mm))
    found = find_origins(parsed, labels, task.spacing_mm, Evidence(task.hu if with_ct else None), bridges)
    of_pieces = truth.of_pieces(labels)
    examples.add_pieces(found, of_pieces, BROKEN)
    examples.add_ways(found, of_pieces, truth.judge_of(labels, task.spacing_mm))


@dataclass(frozen=True, eq=False)
class Result:
    """A result of `airwayseg segment` before its repair, in the box of its mask, whose first voxel is ``corner``."""

    mask: Volume
    labels: NDArray[np.int32]
    evidence: Evidence
    corner: NDArray[np.int64]


def read_result(folder: Path, ct: Path) -> Result:
    """Take the applied bridges out of a result's mask and put its loose fragments back."""
    mask = read_mask(folder / MASK)
    hu = whole_hu(to_canonical(read_ct(ct)[0]).array)
    probability = read_probability(folder / "probability.nrrd", mask)
    on_axes = [
        to_canonical(Volume(array, mask.spacing_mm, mask.origin_mm, mask.direction)).array
        for array in (mask.array, probability, *(read_labels(folder / name) for name in (LOOSE, REPAIRS)))
    ]
    applied = [one.number for one in from_json((folder / "repairs.json").read_text()) if one.state == APPLIED]
    whole = ((on_axes[0] > 0) & ~np.isin(on_axes[3], applied)) | (on_axes[2] > 0)
    box = bounding_box(whole, margin=MARGIN)
    assert box is not None
    grid = Volume(whole[box], to_canonical(mask).spacing_mm)
    labels = number_components(grid.array, None)
    corner = np.array([part.start for part in box])
    return Result(grid, labels, Evidence(np.ascontiguousarray(hu[box]), on_axes[1][box]), corner)


def read_labels(path: Path) -> NDArray:
    """The array of a map of numbers."""
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def of_result(folder: Path, case: Path, network: Network, examples: Examples) -> None:
    """The pieces that the network left loose in a labelled case."""
    result, label = read_result(folder, case / "ct.nrrd"), np.asarray(read_case(case).label)
    airway = label_components(label == 1) == 1
    parsed = parse_airways(Volume(airway.astype(np.uint8), result.mask.spacing_mm))
    box = tuple(slice(int(a), int(a) + n) for a, n in zip(result.corner, result.labels.shape, strict=True))
    near = binary_dilation(label > 0, np.ones((3, 3, 3)))
    truth = Truth(label[box] > 0, near[box], depth_of(parsed, airway.shape)[box])
    found = found_in(result, network)
    of_pieces = truth.of_pieces(result.labels)
    examples.add_pieces(found, of_pieces, LEFT)
    examples.add_ways(found, of_pieces, truth.judge_of(result.labels, result.mask.spacing_mm))


def of_judged(table: Path, network: Network | None, examples: Examples) -> None:
    """The pieces that somebody has looked at."""
    rows: dict[tuple[str, str], list[dict[str, str]]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault((row["result"], row["ct"]), []).append(row)
    for (folder, ct), judged in rows.items():
        result = read_result(Path(folder), Path(ct))
        found = found_in(result, network)
        truth = {}
        for row in judged:
            place = np.array([int(row[axis]) for axis in "zyx"]) - result.corner
            truth[int(result.labels[tuple(place)])] = row["airway"] == "1"
        truth.pop(0, None)
        truth.pop(MAIN, None)
        examples.add_pieces(found, truth, JUDGED)


def found_in(result: Result, network: Network | None) -> Found:
    """Pieces and ways of a result."""
    parsed = parse_airways(result.mask)
    spacing_mm, evidence = result.mask.spacing_mm, result.evidence
    bridges = None
    if network is not None and evidence.hu is not None:
        bridges = network(evidence.hu, result.labels, spacing_mm, silent)
    return find_origins(parsed, result.labels, spacing_mm, evidence, bridges)


# The fits ------------------------------------------------------------------------------------------------------------


def columns(rows: Rows, terms_of: Callable[[dict[str, Floats]], dict[str, Floats]], names: list[str]) -> Floats:
    """The terms of some rows, (rows, names); a fact that a row lacks counts 0 for the terms that come of it."""
    table = np.zeros((len(rows), len(names)))
    kinds: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        kinds.setdefault(tuple(sorted(row)), []).append(number)
    for facts, numbers in kinds.items():
        terms = terms_of({name: np.array([rows[number][name] for number in numbers]) for name in facts})
        for column, name in enumerate(names):
            if name in terms:
                table[numbers, column] = terms[name]
    return table


def fitted(loss: Callable[[Floats], tuple[float, Floats]], names: list[str]) -> dict[str, float]:
    """The weights that make a loss least, with the penalty and within `SIGNS`; the problem is convex."""
    penalty = np.array([0.0 if name == "one" else EXPECTED_PENALTY if name in EXPECTED else PENALTY for name in names])
    expected = np.array([EXPECTED.get(name, 0.0) for name in names])

    def penalised(weights: Floats) -> tuple[float, Floats]:
        value, slope = loss(weights)
        off = weights - expected
        return value + float((penalty * off**2).sum()) / 2, slope + penalty * off

    bounds = [{1: (0, None), -1: (None, 0)}.get(SIGNS.get(name, 0), (None, None)) for name in names]
    found = minimize(penalised, np.zeros(len(names)), jac=True, method="L-BFGS-B", bounds=bounds)
    if not found.success:
        raise RuntimeError(f"The fit did not converge: {found.message}")
    return dict(zip(names, found.x.tolist(), strict=True))


def balanced(examples: Examples) -> Floats:
    """Weights of the pieces: in all, each source counts as `SOURCES` says, and airway in it as `AIRWAY_SHARE`."""
    alone = not any("open_share" in facts for facts in examples.pieces)
    sources, airway = np.array(examples.sources), np.array(examples.airway)
    counts = np.zeros(len(airway))
    for source, total in SOURCES.items():
        for kind in (True, False):
            of_kind = (sources == source) & (airway == kind)
            share = AIRWAY_SHARE[alone] if kind else 1 - AIRWAY_SHARE[alone]
            counts[of_kind] = total * share / max(int(of_kind.sum()), 1)
    return counts


def counted(examples: Examples) -> Floats:
    """Weights of the pieces where no probability is known, by `WITHOUT_PROBABILITY`."""
    kinds = list(zip(examples.sources, examples.airway, strict=True))
    return np.array([WITHOUT_PROBABILITY[source][0 if airway else 1] for source, airway in kinds])


def fit_pieces(examples: Examples, names: list[str], counts: Floats | None = None) -> dict[str, float]:
    """The first question: a logistic regression."""
    terms = columns(examples.pieces, piece_score.terms_of, names)
    airway, counts = np.array(examples.airway, float), balanced(examples) if counts is None else counts

    def loss(weights: Floats) -> tuple[float, Floats]:
        logit = terms @ weights
        value = float(np.sum(counts * (np.logaddexp(0, logit) - airway * logit)))
        return value, terms.T @ (counts * (expit(logit) - airway))

    return fitted(loss, names)


def fit_ways(examples: Examples, names: list[str]) -> dict[str, float]:
    """The second question: a conditional logit; where several ways are right, any of them may be taken.

    Each piece is looked at once more without its right ways, `LOST` times as much: a first stage often misses what a
    piece comes from, and then none of the others is right. Of pieces longer than `SHORT_MM` the less, the longer they
    are: these come from wide airways, which are seldom missed.
    """
    blocks: list[tuple[Floats, NDArray[np.bool_], float]] = []
    for rows, right in zip(examples.ways, examples.right, strict=True):
        terms, wanted = columns(rows, path_score.origin_terms, names), np.array(right)
        blocks.append((terms, np.append(wanted, not wanted.any()), 1.0))
        if wanted.any():
            lost = LOST * min(1.0, SHORT_MM / rows[0]["length_mm"])
            blocks.append((terms[~wanted], np.append(wanted[~wanted], True), lost))

    def loss(weights: Floats) -> tuple[float, Floats]:
        value, slope = 0.0, np.zeros(len(names))
        for terms, wanted, count in blocks:
            utility = np.append(terms @ weights, 0.0)
            share = np.exp(utility - utility.max())
            share /= share.sum()
            among = share * wanted
            total = max(float(among.sum()), 1e-300)
            value -= count * np.log(total)
            slope += count * (share - among / total)[:-1] @ terms
        return float(value), slope

    return fitted(loss, names)


def area_under_curve(score: Floats, right: Floats) -> float:
    """Probability that a right one scores higher than a wrong one; ties count half."""
    count = right.sum()
    return float((rankdata(score)[right > 0].sum() - count * (count + 1) / 2) / (count * (len(right) - count)))


def print_weights(title: str, new: Mapping[str, float], old: Mapping[str, float]) -> None:
    """Both sets as a table."""
    print(f"\n{title}\n\n| term | fitted | current |\n| --- | --- | --- |")
    for name, value in new.items():
        print(f"| {name} | {value:.2f} | {old.get(name, 0.0):.2f} |")


def report_unseen(examples: Examples) -> None:
    """Fit the first question for masks without a probability, and print it."""
    known = ("probability", "upper_decile")
    pieces = [{name: value for name, value in facts.items() if name not in known} for facts in examples.pieces]
    unseen = replace(examples, pieces=pieces)
    weights = fit_pieces(unseen, UNSEEN_TERMS, counted(unseen))
    terms = columns(pieces, piece_score.terms_of, UNSEEN_TERMS)
    score, airway = terms @ list(weights.values()), np.array(examples.airway, float)
    title = f"CT and mask, no probability: AUC {area_under_curve(score, airway):.3f}"
    print_weights(title, weights, piece_score.WITHOUT_PROBABILITY)


def report(examples: Examples, with_ct: bool) -> None:
    """Fit both questions and print them."""
    evidence = "CT and mask" if with_ct else "mask alone"
    names = PIECE_TERMS if with_ct else SHAPE_TERMS
    airway = np.array(examples.airway, float)
    weights = fit_pieces(examples, names)
    terms = columns(examples.pieces, piece_score.terms_of, names)
    current = piece_score.WITH_CT if with_ct else fragment_joints.SHAPE_ALONE
    title = f"{evidence}: {len(airway)} pieces, {int(airway.sum())} airway, AUC "
    print_weights(title + f"{area_under_curve(terms @ list(weights.values()), airway):.3f}", weights, current)
    if with_ct:
        report_unseen(examples)
    names = WAY_TERMS if with_ct else JOINT_TERMS
    weights = fit_ways(examples, names)
    best = [
        int(np.argmax(np.append(columns(rows, path_score.origin_terms, names) @ list(weights.values()), 0)))
        for rows in examples.ways
    ]
    hit = [bool(np.append(right, not any(right))[row]) for row, right in zip(best, examples.right, strict=True)]
    current = path_score.WITH_CT if with_ct else fragment_joints.JOINT_ALONE
    title = f"{evidence}: {len(hit)} true pieces, {sum(map(any, examples.right))} with a right way"
    print_weights(f"{title}, the likeliest is right in {100 * np.mean(hit):.1f} %", weights, current)


BROKEN, LEFT, JUDGED = "broken", "left", "judged"
SOURCES = {BROKEN: 150.0, LEFT: 100.0, JUDGED: 300.0}
"""What the pieces of a source count in all: cut off at random and planted; left by the network in simulated cases,
where nine in ten are none; and judged on real CTs, which is what the score is for."""

AIRWAY_SHARE = {False: 0.62, True: 0.74}
"""Of the pieces, with a CT and (True) of a mask alone. Assumed; of those judged on four real CTs 0.71 were airway.
Shape alone tells little: with less, nothing would be joined by it. With a CT a false join weighs more."""

WITHOUT_PROBABILITY = {BROKEN: (1.0, 2.0), LEFT: (0.3, 0.6), JUDGED: (2.0, 4.0)}
"""How often a piece of a source counts, airway and none, for the score of a mask that no probability came with. False
pieces count twice, for nothing but the CT speaks against them; those that the network left were probable to it, and
pieces of other masks are seldom like them. `piece_score` has a lower constant than comes out."""

SHAPE_TERMS = ["one", "long", "slender", "blunt"]
PIECE_TERMS = [*SHAPE_TERMS, "probability", "decile", "open", "ring", "darker", "lumen", "soft", "pocket", "behind"]
UNSEEN_TERMS = [*SHAPE_TERMS, "open", "ring", "lumen", "soft", "pocket", "behind"]
JOINT_TERMS = [
    "one", "gap", "far", "bend", "aside", "turn", "beside", "backwards", "wider", "thinner", "proximal", "wrong_way",
    "long",
]  # fmt: skip
WAY_TERMS = [*JOINT_TERMS, "cost", "worst", "dense", "plug", "likely", "network", "silent", "no_path"]


def main() -> int:
    """Break, search, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE")
    parser.add_argument("--results", nargs="*", default=[], metavar="RESULT=CASE")
    parser.add_argument("--judged", type=Path, metavar="FILE")
    parser.add_argument("--draws", type=int, default=2, help="broken masks made of each case (default 2)")
    parser.add_argument("--distractors", type=int, default=30, help="false pieces tried in each mask (default 30)")
    parser.add_argument("--weights", default=SegmentSettings.repair_weights)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with_ct, alone = gathered(options)
    report(with_ct, True)
    report(alone, False)
    return 0


def gathered(options: argparse.Namespace) -> tuple[Examples, Examples]:
    """The examples with a CT and of masks alone."""
    settings = SegmentSettings(repair="network", repair_weights=options.weights)
    network = open_repair_model(settings).network
    assert network is not None
    with_ct, alone = Examples(), Examples()
    for folder in options.cases:
        for task in tasks(folder, options.draws, options.distractors, options.seed):
            of_task(task, network, True, with_ct)
            of_task(task, network, False, alone)
            told(task.case, with_ct)
    for pair in options.results:
        folder, case = map(Path, pair.split("=", 1))
        of_result(folder, case, network, with_ct)
        told(folder.name, with_ct)
    if options.judged:
        of_judged(options.judged, None, with_ct)
    return with_ct, alone


def told(name: str, examples: Examples) -> None:
    """How far it is."""
    print(f"{name}: {len(examples.airway)} pieces so far", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
