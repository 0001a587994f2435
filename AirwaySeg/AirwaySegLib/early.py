"""A command that starts before its input is written: `python -m AirwaySegLib.early COMMAND FILE`.

Python and its packages take a second and more to load. The Slicer module starts `measure` in this way after an edit, or
when it begins to write the mask. The command waits until FILE is there, a JSON list of its arguments, which has to
appear whole.
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path

from AirwaySegLib.__main__ import EXIT_CANCELLED, EXIT_FAILED, main

LOADED = {"measure": ("AirwaySegLib.commands.measure", "AirwaySegLib.walls.measure")}
"""The modules that a command loads at its beginning."""

LONGEST_S = 600.0
"""The program that writes the arguments has been killed, or it hangs."""

_PAUSE_S = 0.02


def arguments_in(path: Path, longest_s: float = LONGEST_S) -> list[str] | None:
    """Wait for a command's arguments; None when the file's folder goes away first, or after so many seconds."""
    end = time.monotonic() + longest_s
    while not path.exists():
        if time.monotonic() > end or not path.parent.is_dir():
            return None
        time.sleep(_PAUSE_S)
    return [str(argument) for argument in json.loads(path.read_text(encoding="utf-8"))]


def run_early(command: str, path: Path) -> int:
    """Load what a command needs, wait for its arguments, run it, and return its exit code."""
    if command not in LOADED:
        print(f"airwayseg: {command} is not a command that can start early.", file=sys.stderr)
        return EXIT_FAILED
    for module in LOADED[command]:
        import_module(module)
    arguments = arguments_in(path)
    return EXIT_CANCELLED if arguments is None else main([command, *arguments])


if __name__ == "__main__":
    sys.exit(run_early(sys.argv[1], Path(sys.argv[2])))
