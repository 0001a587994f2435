"""The command `airwayseg-train`: simulate and manage cases, fit and fine-tune a network, evaluate it."""

import argparse
import logging
import os
import sys
from dataclasses import fields
from pathlib import Path

from AirwaySegLib import __version__
from AirwaySegLib.arguments import Parser
from AirwaySegLib.commands.evaluate import csv_text, json_text, table_text
from AirwaySegLib.errors import AirwaySegError, Cancelled, one_sentence
from AirwaySegLib.files.atomic_output import check_free, write_text
from AirwaySegLib.files.image_files import case_name
from AirwaySegLib.files.volume import read_ct, read_on_grid, to_canonical
from AirwaySegLib.networks.plugins import add_plugin_option, load_plugins
from AirwaySegLib.progress import Bar, JsonLines, stop_on_signals, stop_signal_came
from AirwaySegTraining.data.pseudo_labels import pseudo_case
from AirwaySegTraining.fit.derived_weights import add_mix, add_narrow
from AirwaySegTraining.fit.recipes import list_recipes
from AirwaySegTraining.fit.settings import PRECISIONS, FitSettings
from AirwaySegTraining.simulator.simulate import simulate, write_case

log = logging.getLogger("airwayseg")

CHECKPOINT_STEPS = 50
"""A fine-tuning that is stopped loses less than two minutes on a CPU."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Exit codes: 0 success, 2 an error (one sentence on standard error), 130 stopped."""
    options = _parser().parse_args(arguments)
    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format="airwayseg-train: %(message)s")
    stop_on_signals()
    progress = JsonLines() if getattr(options, "progress", "bar") == "json" else Bar()
    try:
        load_plugins(getattr(options, "plugin", ()))
        return options.run(options, progress)
    except (Cancelled, KeyboardInterrupt):
        return _stopped(progress)
    except Exception as error:
        log.info("details", exc_info=error)
        if stop_signal_came():  # PyTorch raises a RuntimeError when the signal ended its workers too
            return _stopped(progress)
        progress.close()
        print(f"airwayseg-train: {one_sentence(error)}", file=sys.stderr)
        return 2
    finally:
        progress.close()


def _stopped(progress: Bar | JsonLines) -> int:
    progress.close()
    print("airwayseg-train: stopped; no unfinished file was written.", file=sys.stderr)
    return 130


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="airwayseg-train", description="Simulate chest CTs and train on them.")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the details of an error")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_simulate(commands.add_parser("simulate", help="make labelled chest CTs"))
    _add_fit(commands.add_parser("fit", help="train a network on a folder of cases"))
    _add_finetune(commands.add_parser("finetune", help="fine-tune weights on a few corrected cases"))
    add_mix(commands.add_parser("mix", help="mix weights from before and after a training"))
    add_narrow(commands.add_parser("narrow", help="make a network of half the channels, the start of a fast one"))
    _add_breakage(commands.add_parser("breakage", help="train the network that joins fragments"))
    _add_evaluate(commands.add_parser("evaluate", help="metrics of weights on a folder of cases"))
    _add_cases(commands.add_parser("cases", help="add, list and remove the cases of a data folder"))
    _add_pseudolabel(commands.add_parser("pseudolabel", help="make a case from a real CT and an incomplete mask"))
    _add_paste(commands.add_parser("paste", help="draw simulated airways into the lungs of real cases"))
    _add_thicken(commands.add_parser("thicken", help="average the slices of real cases to thick ones"))
    _add_rehearsal(commands.add_parser("rehearsal", help="make the bundled rehearsal patches, against forgetting"))
    return parser


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; cases go into OUTPUT/cases/<id>")
    parser.add_argument("--cases", type=int, default=1, help="number of cases (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="random seed: the same gives the same cases (default 0)")
    parser.add_argument("--clean", action="store_true", help="no blur and noise: `fit` then adds them to each patch")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="worker processes")
    parser.set_defaults(run=_run_simulate)


def _run_simulate(options: argparse.Namespace, progress: Bar) -> int:
    _check_least(options, cases=1, seed=0, workers=1)
    folders = simulate(
        options.output, options.cases, options.seed, progress, clean=options.clean, workers=options.workers
    )
    progress.close()
    print(f"{len(folders)} cases in {options.output / 'cases'}")
    return 0


def _check_least(options: argparse.Namespace, **least: int) -> None:
    for name, number in least.items():
        if getattr(options, name) < number:
            raise AirwaySegError(f"--{name} is {getattr(options, name)}; it must be at least {number}.")


def _add_fit(parser: argparse.ArgumentParser) -> None:
    default = FitSettings()
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="folders with cases/<id>/{ct,label}.nrrd")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="resume the run in OUTPUT, also with more --steps")
    parser.add_argument("--shares", type=float, nargs="+", default=(), help="share of each data folder in the patches")
    parser.add_argument("--recipe", default=default.recipe, help=f"{', '.join(list_recipes())}, or a .toml file")
    for name, kind, meaning in (
        ("steps_scale", float, "factor for the length of every stage"),
        ("steps", int, "updates of the weights, for recipes of one stage"),
        ("minutes", float, "train so long instead, likewise; the learning rate follows the time"),
        ("rate", float, "highest learning rate, for recipes of one stage"),
        (
            "frozen_from",
            float,
            "share of the steps after which batch normalisation keeps its statistics, for recipes of one stage",
        ),
        ("batch", int, "patches per step, of all processes together"),
        ("patch", int, "side of a patch in voxels, a multiple of 8"),
        ("norm", str, "normalisation: batch or instance"),
        ("start_from", str, "initial weights: a name or a file"),
        ("teacher", str, "weights whose probabilities are learned, for recipes with the loss distillation"),
        ("validation", float, "share of the patients that are held out"),
        ("rehearsal", float, "share of the bundled simulated patches"),
        ("validate_every", int, "steps between two validations, a multiple of --checkpoint-every"),
        ("validate_cases", int, "largest number of held-out cases in a validation"),
        ("checkpoint_every", int, "steps between two checkpoints"),
        ("seed", int, "random seed of weights and patches"),
    ):
        value = getattr(default, name)
        flag = "--" + name.replace("_", "-")
        shown = "the recipe's" if value is None and name not in ("start_from", "teacher", "minutes") else value
        parser.add_argument(flag, type=kind, default=value, help=f"{meaning} (default {shown})")
    _add_machine(parser)
    add_plugin_option(parser)
    parser.set_defaults(run=_run_fit)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    """Options that depend on the machine, the same for all trainings."""
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    parser.add_argument(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="number format of the network; auto: bfloat16 if the device supports it, else float32; a resumed run "
        "keeps its own",
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="worker processes that crop patches, for each training process (default: the unused processors, at most "
        "4; 0 on Windows and macOS)",
    )


def _run_fit(options: argparse.Namespace, progress: Bar) -> int:
    from AirwaySegTraining.fit.loop import fit  # PyTorch takes seconds to import; `simulate` does without

    values = {field.name: getattr(options, field.name) for field in fields(FitSettings)}
    values["shares"] = tuple(options.shares)
    target = fit(options.data, options.output, FitSettings(**values), progress, resume=options.resume)
    progress.close()
    print(f"Weights: {target}")
    return 0


def _add_breakage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        nargs="+",
        help="folders with cases/<id>/{ct,label}.nrrd and optionally prediction.nrrd, the mask of a first stage",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="resume the run in OUTPUT, also with more --steps")
    parser.add_argument("--steps", type=int, default=4000, help="updates of the weights (default 4000)")
    parser.add_argument("--batch", type=int, default=4, help="patches per step (default 4)")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate (default 0.002)")
    parser.add_argument("--trees", type=int, default=1, help="broken trees made of each case (default 1)")
    parser.add_argument("--patches", type=int, default=32, help="patches of each broken tree (default 32)")
    parser.add_argument("--validation", type=float, default=0.1, help="share of the patients held out (default 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of weights, breaks and patches (default 0)")
    parser.add_argument("--validate-cases", type=int, default=20, help="most held-out cases evaluated (default 20)")
    parser.add_argument("--checkpoint-every", type=int, default=200, help="steps between two checkpoints (default 200)")
    parser.add_argument("--start-from", help="initial weights: a name or a file")
    _add_machine(parser)
    parser.set_defaults(run=_run_breakage)


def _run_breakage(options: argparse.Namespace, progress: Bar) -> int:
    from AirwaySegTraining.connection.train import BreakageSettings, train_breakage

    values = {field.name: getattr(options, field.name) for field in fields(BreakageSettings)}
    target = train_breakage(options.data, options.output, BreakageSettings(**values), progress, resume=options.resume)
    progress.close()
    print(f"Weights: {target}")
    return 0


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", default="default", help="initial weights: a name or a file (default: default)")
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="folders with cases/<id>/{ct,label}.nrrd")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="resume the run in OUTPUT, also with more --steps")
    parser.add_argument("--name", help="name under which better weights are listed (default: the folder's)")
    parser.add_argument("--recipe", default="finetune", help="finetune, or a .toml file of one stage")
    parser.add_argument("--steps", type=int, help="updates of the weights (default the recipe's)")
    parser.add_argument("--minutes", type=float, help="train so long instead; the learning rate follows the time")
    parser.add_argument("--patch", type=int, help="side of a patch in voxels (default the recipe's)")
    parser.add_argument("--batch", type=int, help="patches per step (default the recipe's)")
    parser.add_argument(
        "--validation",
        type=float,
        default=0.25,
        help="share of the patients that are held out; at least one, if there are two (default 0.25)",
    )
    parser.add_argument("--rehearsal", type=float, default=0.4, help="share of simulated patches (default 0.4)")
    parser.add_argument("--validate-cases", type=int, default=20, help="most held-out cases evaluated (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of patches and held-out patients (default 0)")
    _add_machine(parser)
    parser.add_argument("--progress", choices=("bar", "json"), default="bar", help="progress display")
    add_plugin_option(parser)
    parser.set_defaults(run=_run_finetune)


def _run_finetune(options: argparse.Namespace, progress: Bar | JsonLines) -> int:
    from AirwaySegTraining.fit.finetune import finetune

    patches = ("recipe", "steps", "minutes", "patch", "batch", "validation", "validate_cases", "rehearsal", "seed")
    own = (*patches, "device", "precision", "workers")
    settings = FitSettings(
        **{name: getattr(options, name) for name in own},
        start_from=options.weights,
        checkpoint_every=CHECKPOINT_STEPS,
        validate_every=CHECKPOINT_STEPS * 10**6,  # only before and after the training
    )
    outcome = finetune(options.data, options.output, settings, progress, name=options.name, resume=options.resume)
    progress.close()
    print(outcome.text())
    print(f"Weights: {outcome.weights}" + (f", listed as {outcome.name}" if outcome.name else ", not listed"))
    return 0


def _add_cases(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add = actions.add_parser("add", help="add a CT with its label")
    add.add_argument("data", type=Path, help="the data folder; the case goes into DATA/cases/<name>")
    add.add_argument("--ct", type=Path, required=True, help="NIfTI, NRRD or MetaImage file or DICOM folder")
    add.add_argument("--series", help="DICOM series of a folder with several: its number or UID")
    add.add_argument("--label", type=Path, required=True, help="0 background, 1 airway, 2 left out, on the CT's grid")
    add.add_argument("--initial", type=Path, help="the mask before correction: voxels that differ get a larger weight")
    add.add_argument("--edited", type=Path, help="mask of the corrected voxels (not 0), instead of --initial")
    add.add_argument("--origin", type=Path, help="where each voxel of the label comes from, as origin.nrrd of a result")
    add.add_argument(
        "--patient", help="patient of the case; one patient's cases are held out together (default: see Training)"
    )
    add.add_argument("--name", help="name of the case (default: the CT's name, made unique)")
    add.add_argument("--force", action="store_true", help="replace a case of that name, of the same CT or --patient")
    add.add_argument(
        "--trust-label", action="store_true", dest="trusted", help="add a label that does not seem to fit the CT"
    )
    add.set_defaults(run=_run_cases_add)
    listing = actions.add_parser("list", help="list the cases of a data folder, with any problems")
    listing.add_argument("data", type=Path)
    listing.set_defaults(run=_run_cases_list)
    remove = actions.add_parser("remove", help="remove cases")
    remove.add_argument("data", type=Path)
    remove.add_argument("names", nargs="+", metavar="NAME")
    remove.set_defaults(run=_run_cases_remove)


def _run_cases_add(options: argparse.Namespace, _progress: Bar) -> int:
    from AirwaySegTraining.data.data_folder import CaseFiles, add_case

    keys = ("ct", "label", "initial", "edited", "origin", "patient", "name", "series", "trusted")
    folder, warnings = add_case(
        options.data, CaseFiles(**{key: getattr(options, key) for key in keys}), force=options.force
    )
    for warning in warnings:
        print(f"airwayseg-train: {warning}", file=sys.stderr)
    print(folder)
    return 0


def _run_cases_list(options: argparse.Namespace, _progress: Bar) -> int:
    from AirwaySegTraining.data.data_folder import cases_table

    print(cases_table(options.data))
    return 0


def _run_cases_remove(options: argparse.Namespace, _progress: Bar) -> int:
    from AirwaySegTraining.data.data_folder import remove_cases

    remove_cases(options.data, options.names)
    print(f"removed {', '.join(options.names)}")
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", default="default", help="a name or a file (default: default)")
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="folders with cases/<id>/{ct,label}.nrrd")
    parser.add_argument(
        "--axes",
        choices=("xyz", "zyx"),
        default="xyz",
        help="order of the axes in which branches are parsed, as in airwayseg evaluate (default: xyz)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row per case, mean and standard deviation")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same as JSON")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    add_plugin_option(parser)
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(options: argparse.Namespace, progress: Bar) -> int:
    from AirwaySegTraining.fit.validation import evaluate_model

    for path in (options.csv, options.json):
        if path is not None:
            check_free(path.parent, (path.name,), options.force)
    report = evaluate_model(options.weights, options.data, options.device, progress, options.axes)
    progress.close()
    print(table_text(report))
    if options.csv is not None:
        write_text(options.csv, csv_text(report))
    if options.json is not None:
        write_text(options.json, json_text(report))
    return 0


def _add_pseudolabel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ct", type=Path, help="NIfTI, NRRD or MetaImage file or DICOM folder")
    parser.add_argument("--mask", type=Path, required=True, help="precise but incomplete airways, on the CT's grid")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; the case goes into OUTPUT/cases/<id>")
    parser.add_argument("--source", default="pseudo-label", help="origin of the mask, for case.json")
    parser.set_defaults(run=_run_pseudolabel)


def _run_pseudolabel(options: argparse.Namespace, _progress: Bar) -> int:
    volume, _ = read_ct(options.ct)
    mask = read_on_grid(options.mask, volume)
    folder = options.output / "cases" / case_name(options.ct)
    if folder.exists():
        raise AirwaySegError(f"{folder} exists; choose another folder.")
    write_case(pseudo_case(to_canonical(volume), to_canonical(mask).array, options.source), folder)
    print(folder)
    return 0


def _add_paste(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with cases/<id>/{ct,label}.nrrd, real ones")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; cases go into OUTPUT/cases/<id>")
    parser.add_argument("--cases", type=int, default=4, help="versions of each case (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="random seed: the same gives the same cases (default 0)")
    parser.set_defaults(run=_run_paste)


def _run_paste(options: argparse.Namespace, progress: Bar) -> int:
    from AirwaySegTraining.data.paste import paste

    _check_least(options, cases=1, seed=0)
    folders = paste(options.data, options.output, options.cases, options.seed, progress)
    progress.close()
    print(f"{len(folders)} cases in {options.output / 'cases'}")
    return 0


def _add_thicken(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with cases/<id>/{ct,label}.nrrd, thin slices")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder; cases go into OUTPUT/cases/<id>-<mm>mm"
    )
    parser.add_argument(
        "--slices", type=float, nargs="+", default=[2.5, 3.0, 5.0], metavar="MM", help="thicknesses (default 2.5 3 5)"
    )
    parser.set_defaults(run=_run_thicken)


def _run_thicken(options: argparse.Namespace, progress: Bar) -> int:
    from AirwaySegTraining.data.thick_slices import thicken

    folders = thicken(options.data, options.output, options.slices, progress)
    progress.close()
    print(f"{len(folders)} cases in {options.output / 'cases'}")
    return 0


def _add_rehearsal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="an .npz file")
    parser.add_argument("--patients", type=int, default=6, help="how many; each gives 4 patches (default 6)")
    parser.add_argument("--seed", type=int, default=7000, help="random seed of the patches (default 7000)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.set_defaults(run=_run_rehearsal)


def _run_rehearsal(options: argparse.Namespace, progress: Bar) -> int:
    from AirwaySegTraining.fit.rehearsal import make_rehearsal

    _check_least(options, patients=1, seed=0)
    check_free(options.output.parent, (options.output.name,), options.force)
    options.output.absolute().parent.mkdir(parents=True, exist_ok=True)
    make_rehearsal(options.output, options.patients, options.seed, progress)
    return 0


if __name__ == "__main__":
    sys.exit(main())
