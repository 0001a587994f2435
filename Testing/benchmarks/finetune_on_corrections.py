"""How many actions of the simulated user fine-tuning on three corrected cases saves on the next cases of a scanner.

    .venv/bin/python Testing/benchmarks/finetune_on_corrections.py -o OUT [--weights fast] [--later 1] [--minutes 25]

The scanner is simulated: slices of 2 mm, wide pixels and a soft kernel, for which the weights do badly. The first three
cases are segmented, and the user of `simulated_user.py` corrects them until tree length and precision are 98 %, or
nothing helps any more. What he leaves behind, right or wrong, is added with the mask before and the map of origins as
training cases (`airwayseg-train cases add`), and the weights are fine-tuned on the three (`airwayseg-train finetune
--validation 0`, the other options as they are unless given here). The next cases he corrects twice: as the weights
segment them, and as the fine-tuned ones do.

What is there already in OUT is not done again, and a fine-tuning that was stopped goes on. Printed are the turns, a row
of the table of `simulated_user.py` for each case and weights, and the sums of the actions.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from simulated_user import Case, Session, corrected, print_table

from AirwaySegTraining.simulator.scanner import Scanner
from AirwaySegTraining.simulator.simulate import Machine, simulate_case, write_case

SOFT = Machine(Scanner(0.9, 0.5, 0.0, 25.0, 0.9, 0.0, 0.0, 1.0, -1024.0), slices_mm=2.0, pixel_mm=0.88)
CORRECTED = 3
OLD, NEW = "bundled", "fine-tuned"


def simulated(output: Path, number: int, seed: int) -> Path:
    """The folder of a simulated case of the scanner, by its number from 1."""
    folder = output / "cases" / str(number)
    if not folder.exists():
        write_case(simulate_case(seed + number - 1, machine=SOFT), folder)
    return folder


def segmented(folder: Path, result: Path, weights: str) -> Case:
    """The case with its result."""
    if not (result / "report.json").exists():
        run("AirwaySegLib", "segment", folder / "ct.nrrd", "-o", result, "--weights", weights, "--force")
    return Case(f"{folder.name}, {result.parent.name}", folder / "ct.nrrd", folder / "label.nrrd", result, result)


def played(case: Case, output: Path, most: int) -> dict[str, object]:
    """What the user did with a result, and in ``output``/corrected what he left behind."""
    left = output / "corrected" / case.name.replace(", ", "-")
    if not (left / "actions.json").exists():
        print(case.name)
        session = Session.of_result(case.ct, case.result, case.measured)
        done = corrected(session, case, 98.0, most)
        session.write_case(left)
        about = {"actions": done.actions, "row": done.row(), "start": done.start.tld, "end": done.end.tld}
        (left / "actions.json").write_text(json.dumps(about, indent=1))
    return json.loads((left / "actions.json").read_text()) | {"folder": left}


def added(case: Case, left: Path, data: Path) -> None:
    """Make what the user left behind a training case, as the panel does."""
    name = case.ct.parent.name
    if not (data / "cases" / name).exists():
        maps = [part for key in ("label", "initial", "origin") for part in (f"--{key}", left / f"{key}.nrrd")]
        run("AirwaySegTraining", "cases", "add", data, "--ct", case.ct, *maps, "--patient", name, "--name", name)


def fine_tuned(data: Path, output: Path, options: argparse.Namespace) -> str:
    """The file of the fine-tuned weights."""
    if not (output / "finetune.json").exists():
        resume = ["--resume"] if (output / "last.pt").exists() else []
        long = ["--minutes", options.minutes] if options.minutes else []
        command = ("finetune", "--weights", options.weights, "--data", data, "-o", output, "--name", "soft-kernel")
        run("AirwaySegTraining", *command, "--validation", 0, *long, *resume)
    return str(output / "model.safetensors")


def run(package: str, *arguments: object) -> None:
    """Run a command of the program, and end if it fails."""
    subprocess.run([sys.executable, "-m", package, *map(str, arguments)], check=True)


def main() -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--later", type=int, default=1, help="cases that are corrected after it (default 1)")
    parser.add_argument("--seed", type=int, default=501, help="of the first simulated patient (default 501)")
    parser.add_argument("--minutes", type=float, help="of the fine-tuning (default: the recipe's number of steps)")
    parser.add_argument("--weights", default="default", help="those that are fine-tuned (default: default)")
    parser.add_argument("--most", type=int, default=200, help="actions after which the user gives up (default 200)")
    options = parser.parse_args()
    output = options.output
    os.environ["AIRWAYSEG_MODELS"] = str(output / "models")
    done = []
    for number in range(1, CORRECTED + options.later + 1):
        folder = simulated(output, number, options.seed)
        case = segmented(folder, output / OLD / folder.name, options.weights)
        done.append(played(case, output, options.most))
        if number <= CORRECTED:
            added(case, done[-1]["folder"], output / "data")
    weights = fine_tuned(output / "data", output / "run", options)
    for number in range(CORRECTED + 1, CORRECTED + options.later + 1):
        case = segmented(output / "cases" / str(number), output / NEW / str(number), weights)
        done.append(played(case, output, options.most))
    print_table(str(one["row"]) for one in done)
    before, after = done[CORRECTED : CORRECTED + options.later], done[CORRECTED + options.later :]
    first, *sums = (sum(int(str(one["actions"])) for one in part) for part in (done[:1], before, after))
    print(f"Actions on the first case: {first}; on the later ones {sums[0]} before fine-tuning, and {sums[1]} after it")


if __name__ == "__main__":
    main()
