"""The argument parser of both command lines, which checks paths."""

import argparse
import re
from pathlib import Path
from typing import Any


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser`, also for its subcommands, whose ``type=Path`` is `path_of`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", Path, path_of)
        self._negative_number_matcher = re.compile(r"^-[.\d]")  # of a point -32.5,1,2: a value, no option


def path_of(text: str) -> Path:
    """The path that was typed; an empty one or one with a null character is an error.

    An empty path, such as an unset variable in a script, would mean the current folder.
    """
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid path")
    return Path(text)


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """The option of every command that says more."""
    parser.add_argument("-v", "--verbose", action="store_true", help="print what is done, and the details of an error")


def add_spacing(parser: argparse.ArgumentParser) -> None:
    """The option of commands that read images without a voxel spacing."""
    parser.add_argument(
        "--spacing", metavar="X,Y,Z", help="voxel spacing in mm, for a file without; it must not contradict the file's"
    )
