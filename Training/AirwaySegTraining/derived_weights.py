"""The commands that make weights out of weights without a training: `mix` and `narrow`."""

import argparse
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.plugins import add_plugin_option
from AirwaySegLib.progress import Bar


def add_mix(parser: argparse.ArgumentParser) -> None:
    """The options of `airwayseg-train mix`."""
    parser.add_argument("--weights", required=True, help="weights after the training: a name or a file")
    parser.add_argument("--with", dest="old", default="default", help="weights before it (default: default)")
    parser.add_argument("--share", type=float, default=0.5, help="share of the new ones, 0 to 1 (default 0.5)")
    _add_output(parser)
    add_plugin_option(parser)
    parser.set_defaults(run=_run_mix)


def _run_mix(options: argparse.Namespace, _progress: Bar) -> int:
    from AirwaySegTraining.fit.mix import mix

    _check_name(options.output)
    mix(options.weights, options.old, options.share, options.output, options.output.stem, options.force)
    print(f"Weights: {options.output}")
    return 0


def add_narrow(parser: argparse.ArgumentParser) -> None:
    """The options of `airwayseg-train narrow`."""
    parser.add_argument("--weights", default="default", help="the wide network: a name or a file (default: default)")
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="folders with cases/<id>/{ct,label}.nrrd")
    parser.add_argument("--patches", type=int, default=16, help="patches of these that are looked at (default 16)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the patches (default 0)")
    _add_output(parser)
    parser.set_defaults(run=_run_narrow)


def _run_narrow(options: argparse.Namespace, progress: Bar) -> int:
    from AirwaySegTraining.fit.narrow import narrow

    for name, least in (("patches", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise AirwaySegError(f"--{name} is {getattr(options, name)}; it must be at least {least}.")
    _check_name(options.output)
    given = {"patches": options.patches, "seed": options.seed, "force": options.force}
    narrow(options.weights, options.data, options.output, progress, **given)
    progress.close()
    print(f"Weights: {options.output}")
    return 0


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="a .safetensors file")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def _check_name(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise AirwaySegError(f"{path} does not end in .safetensors.")
