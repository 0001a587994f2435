"""Python files that a user names with ``--plugin``: they are run, and register networks or losses."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """The option ``--plugin``, which may be given several times."""
    parser.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="run this Python file first: it registers a network or a loss; only for files that you trust",
    )


def load_plugins(paths: Sequence[Path]) -> None:
    """Run each file as a Python module.

    It has every right of the user who runs the command, so only the command line names such files, never a weights
    file, a recipe or a data folder.

    Raises
    ------
    AirwaySegError
        If a file is missing or no Python file, or running it raises any exception.
    """
    for path in paths:
        if path.suffix != ".py" or not path.is_file():
            raise AirwaySegError(f"The plug-in {path} is no Python file (.py).")
        _run(path.resolve())


def _run(path: Path) -> None:
    name = f"airwayseg_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AirwaySegError(f"The plug-in {path} is no Python file (.py).")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look up the module of a class
    try:
        spec.loader.exec_module(module)
    except AirwaySegError as error:
        raise AirwaySegError(f"The plug-in {path} cannot be used: {error}") from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise AirwaySegError(f"The plug-in {path} cannot be run ({what}).") from error
