"""Figures of breakage repair: trees of labelled cases, broken by simulation, repaired by every method.

    .venv/bin/python Testing/benchmarks/repair.py CASE ... [--draws 2] [--weights breakage] [--json FILE]

A case is a folder with ct.nrrd and label.nrrd (1 airway, 2 left out), best one that no training has seen. Each is
broken `--draws` times with seeds of their own: gaps in half of the peripheral branches, and false pieces beside them
(`AirwaySegTraining.connection.breaks`). Every method gets the same broken masks, once with the CT and once alone.
Printed is a table in Markdown:

- rejoined: share of the loose pieces of airway that are part of the tree after the repair, by width of the gap;
- length: share of the skeleton of all loose pieces that is;
- false joins: share of the false pieces that are;
- TLD: share of the whole tree's skeleton in the tree before and after, and in how many masks it became less;
- stray: of the voxels that bridges add, the share farther than a voxel from the true airway;
- seconds for a mask, everything from the components on.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.evaluation.metrics import share
from AirwaySegLib.evaluation.reference_parse import thinned
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import bounding_box, label_components
from AirwaySegLib.progress import silent
from AirwaySegLib.repair.repair import RepairModel, Source, open_repair_model, repair
from AirwaySegLib.settings import SegmentSettings
from AirwaySegLib.tree.build import ParsedAirways, parse_airways
from AirwaySegTraining.connection.breaks import BreakSettings, Broken, break_tree
from AirwaySegTraining.data.cases import read_case

GAPS_MM = (0.0, 5.0, 10.0, math.inf)
METHODS = ("none", "path", "network", "both")
OBSTRUCTED = 0.6
"""Share of the gaps in which the CT shows no lumen: where a first stage breaks a tree there is seldom an open one."""

MUCUS_HU, WALL_HU, NOISE_HU = (-50.0, 60.0), (-450.0, -100.0), 30.0
"""Of a plug, of a collapsed stretch with the lung beside it in the same voxels, and standard deviation of the noise."""

MARGIN = 50
"""Voxels around the label that are kept: more than the repair looks at."""


@dataclass(frozen=True, eq=False)
class Task:
    """A broken tree with its CT, on the part of the grid that the label needs, and what is true of the whole tree.

    ``line`` is its skeleton, ``near_airway`` what lies within a voxel of it, ``airway`` its lumen and ``depth_mm`` how
    far each voxel of that is from the root.
    """

    case: str
    broken: Broken
    hu: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    line: NDArray[np.bool_]
    near_airway: NDArray[np.bool_]
    airway: NDArray[np.bool_]
    depth_mm: NDArray[np.float32]


@dataclass
class Figures:
    """What was counted of one mask, or of many together."""

    pieces: list[int] = field(default_factory=lambda: [0] * (len(GAPS_MM) - 1))
    rejoined: list[int] = field(default_factory=lambda: [0] * (len(GAPS_MM) - 1))
    loose_line: int = 0
    rejoined_line: int = 0
    distractors: int = 0
    false_joins: int = 0
    tld_before: list[float] = field(default_factory=list)
    tld_after: list[float] = field(default_factory=list)
    added: int = 0
    stray: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        """Add the figures of another mask."""
        self.pieces = [a + b for a, b in zip(self.pieces, other.pieces)]
        self.rejoined = [a + b for a, b in zip(self.rejoined, other.rejoined)]
        for name in ("loose_line", "rejoined_line", "distractors", "false_joins", "added", "stray"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("tld_before", "tld_after", "seconds"):
            getattr(self, name).extend(getattr(other, name))

    def row(self) -> list[str]:
        """The table's cells."""
        up_to_ten = share(sum(self.rejoined[:2]), sum(self.pieces[:2]))
        worse = sum(after < before for before, after in zip(self.tld_before, self.tld_after))
        rates = [share(a, b) for a, b in zip(self.rejoined, self.pieces)]
        length = share(self.rejoined_line, self.loose_line)
        percent = [*rates[:2], up_to_ten, rates[2], length, share(self.false_joins, self.distractors)]
        tld = [float(np.mean(self.tld_before)), float(np.mean(self.tld_after))]
        cells = [f"{100 * value:.1f}" for value in [*percent, *tld]]
        stray = f"{100 * share(self.stray, self.added):.1f}"
        return [*cells, str(worse), stray, f"{np.mean(self.seconds):.1f}"]


HEAD = (
    "evidence", "method", "rejoined, gap up to 5 mm, %", "5 to 10 mm, %", "up to 10 mm, %", "wider, %",
    "length, %", "false joins, %", "TLD before, %", "after, %", "worse masks", "stray, %", "s",
)  # fmt: skip


def tasks(folder: Path, draws: int, distractors: int, seed: int) -> Iterator[Task]:
    """Break the tree of a case; in some of the gaps mucus or a collapse takes the place of the lumen."""
    case = read_case(folder)
    box = bounding_box(case.label, margin=MARGIN)
    label, hu = np.asarray(case.label)[box], np.ascontiguousarray(case.ct[box])
    airway = label_components(label == 1) == 1
    parsed = parse_airways(Volume(airway.astype(np.uint8), case.spacing_mm))
    line, near_airway = thinned(airway), binary_dilation(label > 0, np.ones((3, 3, 3)))
    settings = BreakSettings(distractors=distractors)
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw, *folder.name.encode()])
        broken = break_tree(parsed, airway, case.spacing_mm, rng, settings, hu, label == 2)
        shown = obstructed(hu, broken.removed, rng)
        yield Task(
            folder.name, broken, shown, case.spacing_mm, line, near_airway, airway, depth_of(parsed, airway.shape)
        )


def obstructed(hu: NDArray[np.int16], removed: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int16]:
    """The CT (Z, Y, X) with `OBSTRUCTED` of the removed stretches filled: half with mucus, half collapsed.

    Mucus has `MUCUS_HU` throughout, a collapsed stretch the density of its walls, `WALL_HU`; noise is as elsewhere.
    """
    shown = hu.copy()
    gaps = label_components(removed)
    for number, box in enumerate(find_objects(gaps), start=1):
        if rng.random() < OBSTRUCTED:
            level = rng.uniform(*(MUCUS_HU if rng.random() < 0.5 else WALL_HU))
            inside = gaps[box] == number
            noise = rng.normal(0, NOISE_HU, int(inside.sum()))
            shown[box][inside] = np.maximum(level + noise, shown[box][inside]).astype(np.int16)
    return shown


def depth_of(parsed: ParsedAirways, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Distance of each voxel of the lumen from the root along the centerlines in mm, (Z, Y, X); 0 elsewhere."""
    ends = [0.0]
    starts = []
    for branch in parsed.tree.branches:
        starts.append(ends[branch.parent or 0])
        ends.append(starts[-1] + branch.length_mm)
    depth = np.zeros(shape, np.float32)
    corner = [part.start for part in parsed.box]
    lines, nearest = parsed.lines, parsed.nearest
    depth[tuple((parsed.lumen.voxels + corner).T)] = np.array(starts)[lines.branch[nearest]] + lines.along_mm[nearest]
    return depth


def judge(task: Task, repair_model: RepairModel, with_ct: bool) -> Figures:
    """Repair a broken tree and count."""
    broken = task.broken
    source = Source(Volume(broken.mask.astype(np.uint8), task.spacing_mm), task.hu if with_ct else None)
    start = time.perf_counter()
    result = repair(source, repair_model, silent).whole_mask(broken.mask.shape)
    figures = Figures(seconds=[time.perf_counter() - start])
    before = label_components(broken.mask) == 1
    for one in broken.breaks:
        place = int(np.searchsorted(GAPS_MM, one.gap_mm)) - 1
        figures.pieces[place] += 1
        figures.rejoined[place] += bool(result[one.beyond])
    loose = task.line & broken.mask & ~before & ~broken.distractors
    figures.loose_line, figures.rejoined_line = int(loose.sum()), int(result[loose].sum())
    distractors = label_components(broken.distractors)
    figures.distractors = int(distractors.max())
    figures.false_joins = len(np.unique(distractors[result & broken.distractors]))
    figures.tld_before.append(share(int(before[task.line].sum()), int(task.line.sum())))
    figures.tld_after.append(share(int(result[task.line].sum()), int(task.line.sum())))
    bridges = result & ~broken.mask
    figures.added, figures.stray = int(bridges.sum()), int((bridges & ~task.near_airway).sum())
    return figures


def menders(options: argparse.Namespace) -> dict[tuple[str, str], RepairModel]:
    """What repairs, by evidence and method; what cannot be opened is left out, with a line that says why."""
    opened = {}
    for evidence in ("CT and mask", "mask alone"):
        for method in options.methods:
            with_ct = evidence == "CT and mask"
            if not with_ct and method in ("network", "both"):
                continue
            settings = SegmentSettings(
                repair=method,
                repair_threshold=options.threshold,
                repair_weights=options.weights,
                device=options.device,
            )
            try:
                repair_model = open_repair_model(settings, with_ct)
            except AirwaySegError as error:
                print(f"{method}: {error}", file=sys.stderr)
                continue
            if repair_model.method == method:
                opened[evidence, method] = repair_model
    return opened


def table(found: dict[tuple[str, str], Figures]) -> str:
    """The figures in Markdown."""
    rows = [HEAD, ("---",) * len(HEAD), *([*key, *figures.row()] for key, figures in found.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    """Break, repair, count, print; fails if a mask's TLD became less."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--distractors", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--weights", default=SegmentSettings.repair_weights)
    parser.add_argument("--threshold", type=float, default=SegmentSettings.repair_threshold)
    parser.add_argument("--device", default=SegmentSettings.device)
    parser.add_argument("--json", type=Path, help="write the counts here, of all masks together and of each")
    options = parser.parse_args()
    opened = menders(options)
    together = {key: Figures() for key in opened}
    masks = []
    for folder in options.cases:
        for task in tasks(folder, options.draws, options.distractors, options.seed):
            print(f"{task.case}: {len(task.broken.breaks)} loose pieces", file=sys.stderr, flush=True)
            for key, repair_model in opened.items():
                figures = judge(task, repair_model, with_ct=key[0] == "CT and mask")
                together[key].add(figures)
                masks.append({"case": task.case, "evidence": key[0], "method": key[1], **asdict(figures)})
    print(table(together))
    if options.json:
        whole = [{"evidence": key[0], "method": key[1], **asdict(value)} for key, value in together.items()]
        options.json.write_text(json.dumps({"gaps_mm": [0, 5, 10], "together": whole, "masks": masks}, indent=1))
    worse = any(a < b for one in together.values() for b, a in zip(one.tld_before, one.tld_after))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
