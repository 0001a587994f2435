"""The command `airwayseg`: segment, cohort, repair, edit, measure... Bad input gives a sentence and exit code 2."""

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import Field, fields
from io import TextIOWrapper
from pathlib import Path

from AirwaySegLib import __version__
from AirwaySegLib.arguments import Parser, add_spacing, add_verbose
from AirwaySegLib.cohort.options import add_cohort_options, add_dicom_seg
from AirwaySegLib.commands.edit_options import add_cut, add_grow, add_join
from AirwaySegLib.errors import Cancelled, one_sentence
from AirwaySegLib.files.ct_checks import parse_spacing
from AirwaySegLib.networks.plugins import add_plugin_option, load_plugins
from AirwaySegLib.progress import Bar, JsonLines, Progress, silent, stop_on_signals
from AirwaySegLib.settings import SegmentSettings

log = logging.getLogger("airwayseg")

EXIT_FAILED = 2
EXIT_CANCELLED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Exit codes: 0 success, 2 an error (one sentence on standard error), 130 cancelled."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # one that cannot print a name, as on Windows into a file, writes escapes
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="airwayseg: %(message)s")
    stop_on_signals()
    try:
        load_plugins(getattr(options, "plugin", ()))
        return int(options.run(options))
    except (Cancelled, KeyboardInterrupt):
        print("airwayseg: cancelled; no unfinished result was written.", file=sys.stderr)
        return EXIT_CANCELLED
    except Exception as error:
        print(f"airwayseg: {one_sentence(error)}", file=sys.stderr)
        log.info("details", exc_info=error)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="airwayseg",
        description="Segment and measure airways in chest CT. Everything runs on this computer. Not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"airwayseg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_segment(commands.add_parser("segment", help="CT in, airway tree out"))
    _add_cohort(commands.add_parser("cohort", help="folder of a study in, one table and one page of all its CTs out"))
    _add_info(commands.add_parser("info", help="what is in a CT, what would be done, and how long it takes"))
    _add_repair(commands.add_parser("repair", help="mask with loose fragments in, joined tree out"))
    add_grow(commands.add_parser("grow", help="mask and points in, mask with the missed airway there out"))
    add_join(
        commands.add_parser(
            "join", help="mask and a point in, mask with the piece or subtree there joined to its parent out"
        )
    )
    add_cut(commands.add_parser("cut", help="mask and a point in, mask without what lies beyond it out"))
    _add_measure(commands.add_parser("measure", help="mask in, tree, measures and distance maps out"))
    _add_evaluate(commands.add_parser("evaluate", help="compare masks with a reference by the field's metrics"))
    _add_weights(commands.add_parser("weights", help="list, show or import weights"))
    return parser


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ct", nargs="+", type=Path, help="NIfTI, NRRD or MetaImage file, or DICOM folder; several are a batch"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for the results; in a batch, with a subfolder per CT"
    )
    add_spacing(parser)
    parser.add_argument("--series", help="DICOM series of a folder: its number, UID or a part of its description")
    for setting in fields(SegmentSettings):
        _add_setting(parser, setting)
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="only every Nth input, starting with the Ith")
    parser.add_argument(
        "--skip-finished",
        action="store_true",
        help="leave finished results as they are, also that of a single CT and those of other settings or weights",
    )
    measuring = parser.add_mutually_exclusive_group()
    measuring.add_argument("--no-measure", action="store_true", help="only the mask, without tree and distance maps")
    _add_voxels(measuring, "; the mask is kept even if measuring fails")
    _add_names(parser)
    add_dicom_seg(parser)
    add_plugin_option(parser)
    _add_progress_and_force(parser)
    parser.set_defaults(run=_segment)


def _add_cohort(parser: argparse.ArgumentParser) -> None:
    add_cohort_options(parser)
    for setting in fields(SegmentSettings):
        _add_setting(parser, setting)
    add_plugin_option(parser)
    _add_progress_and_force(parser, "results of other settings, weights, versions or CTs; those that fit are kept")
    parser.set_defaults(run=_cohort)


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ct", type=Path, help="NIfTI, NRRD or MetaImage file, or a folder")
    for setting in fields(SegmentSettings):
        if setting.name in ("weights", "device", "overlap", "first_look"):
            _add_setting(parser, setting)
    add_plugin_option(parser)
    add_verbose(parser)
    parser.set_defaults(run=_info)


def _add_voxels(parser: argparse._ActionsContainer, besides: str = "") -> None:
    parser.add_argument(
        "--voxels",
        action="store_true",
        help="for 3D Slicer: voxels.npz with the values at airway voxels only, instead of maps and pictures" + besides,
    )


def _add_names(parser: argparse.ArgumentParser) -> None:
    words = "lobes, segments and generations by hand, for points (JSON)"
    parser.add_argument("--names", type=Path, metavar="FILE", help=words)


def _add_setting(parser: argparse.ArgumentParser, setting: Field) -> None:
    """The flag of one setting."""
    meaning = str(setting.metadata["meaning"])
    default = "chosen per scan" if setting.default is None else setting.default
    parser.add_argument(
        "--" + setting.name.replace("_", "-"),
        type=str if isinstance(setting.default, str) else float,
        choices=setting.metadata.get("choices"),
        default=setting.default,
        help=f"{meaning} (default: {default})",
    )


def _add_progress_and_force(parser: argparse.ArgumentParser, replaced: str = "existing results") -> None:
    parser.add_argument("--progress", choices=("bar", "json", "none"), default="bar", help="progress display")
    parser.add_argument("--force", action="store_true", help=f"replace {replaced}")
    add_verbose(parser)


def _add_repair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mask", type=Path, help="NIfTI, NRRD or MetaImage file; what is not 0 is airway")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--ct", type=Path, help="the CT, on the mask's grid; without it paths follow the mask alone")
    parser.add_argument("--probability", type=Path, help="raw probability, 0..255 on the mask's grid: guides the paths")
    add_spacing(parser)
    for setting in fields(SegmentSettings):
        if setting.name.startswith("repair") or setting.name == "device":
            _add_setting(parser, setting)
    _add_progress_and_force(parser)
    parser.set_defaults(run=_repair)


def _add_measure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mask", type=Path, help="NIfTI, NRRD or MetaImage file; what is not 0 is airway")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--ct", type=Path, help="the CT, on the mask's grid: adds walls, Pi10, arteries and pictures")
    parser.add_argument(
        "--probability",
        type=Path,
        help="raw probability, 0..255 on the mask's grid: adds doubtful tips to the suspects",
    )
    add_spacing(parser)
    _add_names(parser)
    parser.add_argument("--curves", action="store_true", help="also centerline.mrk.json, curves for 3D Slicer")
    _add_voxels(parser)
    parser.add_argument(
        "--known",
        type=Path,
        metavar="FILE",
        help="parts.npz of an earlier result with --voxels: what has not changed since is not measured again",
    )
    _add_progress_and_force(parser)
    parser.set_defaults(run=_measure)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prediction", type=Path, help="a mask, or a folder of masks named as the references")
    parser.add_argument("reference", type=Path, help="a mask, or a folder of masks")
    parser.add_argument(
        "--protocol",
        choices=("atm22", "aiib23", "deeptree"),
        default="atm22",
        help="whose definitions of the metrics (default: atm22)",
    )
    parser.add_argument(
        "--axes",
        choices=("xyz", "zyx"),
        default="xyz",
        help="order of the axes in which branches are parsed, on which BD and TLD depend a little (default: xyz, as "
        "in the challenges' programs; zyx is the order in a program that reads with SimpleITK)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results as a table")
    _add_progress_and_force(parser)
    parser.set_defaults(run=_evaluate)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the known weights: name, kind of network, file")
    listing.set_defaults(run=_list_weights)
    show = actions.add_parser("show", help="the description in a weights file, as JSON")
    show.add_argument("weights", help="name or file")
    add_plugin_option(show)
    show.set_defaults(run=_show_weights)
    importing = actions.add_parser("import", help="convert a published WingsNet checkpoint")
    importing.add_argument("checkpoint", type=Path, help="the authors' .ckpt file")
    importing.add_argument("--as", dest="name", help="name of the new weights, or a .safetensors file to write")
    importing.add_argument("--force", action="store_true", help="replace weights of that name")
    importing.set_defaults(run=_import_weights)
    for action in (listing, show, importing):
        add_verbose(action)


@contextmanager
def _shown(kind: str) -> Iterator[Progress]:
    """The progress callback of the given kind; a bar is closed at the end."""
    if kind == "bar":
        bar = Bar()
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield silent if kind == "none" else JsonLines()


def _segment(options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.segment import (  # brings PyTorch, which takes seconds to import
        Batch,
        last_lines,
        run_batch,
    )

    values = {setting.name: getattr(options, setting.name) for setting in fields(SegmentSettings)}
    spacing = parse_spacing(options.spacing)
    batch = Batch(
        options.ct,
        options.output,
        options.series,
        options.shard,
        options.force,
        not options.no_measure,
        spacing,
        options.voxels,
        options.skip_finished,
        options.dicom_seg,
        options.names,
    )
    with _shown(options.progress) as progress:
        finished, failed = run_batch(batch, SegmentSettings(**values), progress)
    for folder in finished:
        if options.progress == "json":
            print(json.dumps({"result": str(folder)}))
        else:
            print(last_lines(folder))
    return EXIT_FAILED if failed else 0


def _cohort(options: argparse.Namespace) -> int:
    from AirwaySegLib.cohort.cluster import cluster_of
    from AirwaySegLib.commands.cohort import CohortRequest, list_cohort, run_cohort

    values = {setting.name: getattr(options, setting.name) for setting in fields(SegmentSettings)}
    request = CohortRequest(
        options.input,
        options.output,
        SegmentSettings(**values),
        options.all_series,
        options.thickest,
        options.shard,
        options.force,
        options.dicom_seg,
        cluster_of(options),
        tuple(options.plugin),
    )
    if options.list:
        print(list_cohort(request, options.progress))
        return 0
    blocked = run_cohort(request, options.progress)
    if options.progress == "json":
        print(json.dumps({"result": str(options.output)}))
    return EXIT_FAILED if blocked else 0


def _info(options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.info import describe

    settings = SegmentSettings(
        weights=options.weights, overlap=options.overlap, device=options.device, first_look=options.first_look
    )
    print(describe(options.ct, settings, silent))
    return 0


def _repair(options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.repair import RepairRequest, run_repair

    request = RepairRequest(
        mask=options.mask,
        output=options.output,
        ct=options.ct,
        probability=options.probability,
        method=options.repair,
        threshold=options.repair_threshold,
        weights=options.repair_weights,
        device=options.device,
        force=options.force,
        spacing_mm=parse_spacing(options.spacing),
    )
    with _shown(options.progress) as progress:
        text = run_repair(request, progress)
    print(json.dumps({"result": str(options.output)}) if options.progress == "json" else text)
    return 0


def _measure(options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.measure import MeasureRequest, run_measure

    request = MeasureRequest(
        options.mask,
        options.output,
        options.ct,
        options.probability,
        options.curves,
        options.force,
        parse_spacing(options.spacing),
        options.voxels,
        options.names,
        options.known,
    )
    with _shown(options.progress) as progress:
        text = run_measure(request, progress)
    print(json.dumps({"result": str(options.output)}) if options.progress == "json" else text)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.evaluate import EvaluationRequest, run_evaluation

    request = EvaluationRequest(
        options.prediction, options.reference, options.protocol, options.json, options.csv, options.force, options.axes
    )
    with _shown(options.progress) as progress:
        text, failed = run_evaluation(request, progress)
    print(json.dumps({"result": text}) if options.progress == "json" else text)
    return EXIT_FAILED if failed else 0


def _list_weights(_options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.weights import weights_table

    print(weights_table())
    return 0


def _show_weights(options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.weights import weights_description

    print(json.dumps(weights_description(options.weights), indent=1))
    return 0


def _import_weights(options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.weights import import_weights

    print(import_weights(options.checkpoint, options.name, options.force))
    return 0


if __name__ == "__main__":
    sys.exit(main())
