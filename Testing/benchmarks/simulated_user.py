"""A user played by a script corrects results with the program's tools until tree length and precision are reached.

    .venv/bin/python Testing/benchmarks/simulated_user.py CASE ... [--results FOLDER] [--broken CT=MASK ... -o OUT]

A CASE is a folder with ct.nrrd and label.nrrd (1 airway, 2 left out), such as `airwayseg-train simulate` makes; its
result of `airwayseg segment` lies in FOLDER/CASE. ``--broken`` makes a bad start of a real CT: from MASK, which is
taken for the truth, subtrees and stretches are taken out and false pieces added (`broken_starts.py` in
Testing/support). It is repaired and measured with the CT alone, as a mask from elsewhere is, into OUT.

How the user works, and what an action is, says `correcting_user.py`; what a stroke of the brush is, `painting.py`. Each
case prints its actions, with the mm of airway that each brought, and one row of a table:

- TLD, BD: share of the reference's skeleton, and of its branches, in the connected part of the mask;
- precision: share of the mask that lies no more than the width of a voxel outside the reference; exact: in it;
- actions: accepted, refused, clicks, cuts, and how many of all of them were in vain; s: processor time of all of them;
- strokes, balls: what painting takes to the same tree length and precision.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "AirwaySeg"), str(ROOT / "Training"), str(ROOT / "Testing" / "support")]

from broken_starts import Damage, broken_start
from correcting import Session
from correcting_user import Step, User
from painting import Painting, painting_to
from reference_airways import Reference, Scores

from AirwaySegLib.commands.measure import MeasureRequest, run_measure
from AirwaySegLib.commands.repair import RepairRequest, run_repair
from AirwaySegLib.files.volume import part_of, read_ct, read_mask, read_on_grid, to_canonical, write_nrrd
from AirwaySegLib.masks.components import bounding_box
from AirwaySegLib.progress import silent
from AirwaySegLib.repair.repair import whole_hu

MARGIN_VOXELS = 70
"""What is kept around a mask that is broken: more than the tools look at."""

HEAD = (
    "| case | start: TLD, precision (exact) | accepted | refused | clicks | cuts | in vain | all | s | end: TLD, BD, "
)
HEAD += "precision (exact) | strokes | balls |"


@dataclass(frozen=True)
class Case:
    """A start and its truth: files of CT and labels, and the folders of the result and of its suspects."""

    name: str
    ct: Path
    labels: Path
    result: Path
    measured: Path


@dataclass(frozen=True)
class Corrected:
    """A corrected case."""

    name: str
    start: Scores
    steps: list[Step]
    end: Scores
    painting: Painting

    @property
    def actions(self) -> int:
        """All of them."""
        return sum(step.actions for step in self.steps)

    def row(self) -> str:
        """Its row of the table under `HEAD`."""
        counts: Counter[str] = Counter()
        for step in self.steps:
            counts[step.kind.split(" ", 1)[0]] += step.actions
            counts["vain"] += step.actions - step.helped
        kinds = [counts[kind] for kind in ("accept", "refuse", "click", "cut", "vain")]
        start = f"{self.start.tld:.1f}, {self.start.precision:.1f} ({self.start.exact:.1f})"
        end = f"{self.end.tld:.1f}, {self.end.bd:.1f}, {self.end.precision:.1f} ({self.end.exact:.1f})"
        seconds = f"{sum(step.seconds for step in self.steps):.0f}"
        cells = [self.name, start, *kinds, self.actions, seconds, end, self.painting.strokes, self.painting.balls]
        return "| " + " | ".join(map(str, cells)) + " |"


def corrected(session: Session, case: Case, goal: float, most: int) -> Corrected:
    """Play the user on a case, and print each of his turns; he gives up after ``most`` actions."""
    labels = to_canonical(read_on_grid(case.labels, read_ct(case.ct)[0])).array
    reference = Reference.of(labels, session.ct.spacing_mm)
    first, start = session.mask.copy(), reference.scores(session.mask)
    steps: list[Step] = []
    for step in User(session, reference, goal).work():
        steps.append(step)
        done = sum(one.actions for one in steps)
        gained_mm = (step.scores.tld - (steps[-2].scores if len(steps) > 1 else start).tld) / 100 * reference.length_mm
        words = f"  {done:3d} {step.kind}: {gained_mm:+.0f} mm, {_told(step.scores)}"
        print(f"{words}{' - ' + step.note if step.note else ''}", flush=True)
        if done >= most:
            break
    end = steps[-1].scores if steps else start
    painting = painting_to(reference, first, min(goal, end.tld), min(goal, end.precision))
    return Corrected(case.name, start, steps, end, painting)


def _told(scores: Scores) -> str:
    return f"TLD {scores.tld:.2f}, BD {scores.bd:.1f}, precision {scores.precision:.2f} ({scores.exact:.2f})"


def broken_case(ct_path: Path, mask_path: Path, output: Path, seed: int) -> Case:
    """A bad start of a real CT, made once."""
    folder = output / f"{ct_path.parent.name}-{seed}"
    case = Case(folder.name, folder / "ct.nrrd", folder / "label.nrrd", folder / "result", folder / "measured")
    if (case.measured / "tree.json").exists():
        return case
    folder.mkdir(parents=True, exist_ok=True)
    ct, whole = to_canonical(read_ct(ct_path)[0]), to_canonical(read_mask(mask_path))
    box = bounding_box(whole.array, margin=MARGIN_VOXELS)
    hu, truth = whole_hu(ct.array)[box], (whole.array[box] != 0).astype(np.uint8)
    grid = part_of(whole, box, truth)
    mask = broken_start(grid, hu, Damage(), np.random.default_rng(seed))
    for path, array in ((case.ct, hu), (case.labels, truth), (folder / "broken.nrrd", mask.astype(np.uint8))):
        write_nrrd(path, array, grid)
    run_repair(RepairRequest(folder / "broken.nrrd", case.result, case.ct, force=True), silent)
    run_measure(MeasureRequest(case.result / "airways.nrrd", case.measured, ct=case.ct, force=True), silent)
    return case


def cases_of(options: argparse.Namespace) -> Iterator[Case]:
    """The cases that were asked for."""
    for folder in options.cases:
        result = options.results / folder.name
        yield Case(folder.name, folder / "ct.nrrd", folder / "label.nrrd", result, result)
    for pair in options.broken:
        ct, mask = (Path(part) for part in pair.split("="))
        yield broken_case(ct, mask, options.output, options.seed)


def main() -> None:
    """Print the turns of each case, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", type=Path, metavar="CASE")
    parser.add_argument("--results", type=Path, default=Path(), metavar="FOLDER")
    parser.add_argument("--broken", nargs="*", default=[], metavar="CT=MASK")
    parser.add_argument("-o", "--output", type=Path, default=Path("broken"), metavar="OUT")
    parser.add_argument("--seed", type=int, default=1, help="of what is broken (default 1)")
    parser.add_argument("--goal", type=float, default=98.0, help="per cent, of TLD and of precision (default 98)")
    parser.add_argument("--most", type=int, default=100, help="actions after which the user gives up (default 100)")
    options = parser.parse_args()
    done = []
    for case in cases_of(options):
        print(case.name)
        session = Session.of_result(case.ct, case.result, case.measured)
        done.append(corrected(session, case, options.goal, options.most))
        print(f"{done[-1].row()}\n", flush=True)
    print_table(one.row() for one in done)


def print_table(rows: Iterable[str]) -> None:
    """Print `HEAD` and rows."""
    print(HEAD, "|" + " --- |" * (HEAD.count("|") - 1), *rows, sep="\n")


if __name__ == "__main__":
    main()
