"""Child processes that run a module of a package with Slicer's Python, and their end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable

try:
    from slicer.i18n import tr as _
except ImportError:  # Outside Slicer nothing is translated.

    def _(text: str) -> str:
        return text


MODULE_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARY, TRAINING = "AirwaySegLib", "AirwaySegTraining"

UTF8 = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}
"""Environment of a command: it reads and prints names in any script, whatever the computer's language."""


def launched(launch: Callable[..., subprocess.Popen], module: str, arguments: list[str]) -> subprocess.Popen:
    """Start a module of a package with Slicer's Python; ``launch`` is as in `ConsoleProcess`.

    Raises RuntimeError when that Python or the package is not found.
    """
    folder = package_folder(module)
    environment = dict(UTF8)
    if folder != MODULE_FOLDER:
        known = [MODULE_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(known)
    # -m looks for the package in the working directory.
    command = [slicer_python(), "-m", module, *arguments]
    return launch(command, useStartupEnvironment=False, updateEnvironment=environment, cwd=folder)


def slicer_python() -> str:
    """Slicer's Python interpreter; raises RuntimeError when it is not on the path."""
    python = shutil.which("PythonSlicer")
    if not python:
        raise RuntimeError(_("Slicer's Python (PythonSlicer) was not found."))
    return python


def package_folder(module: str) -> str:
    """The folder with this package: the module's folder, or `Training` beside it in the source tree."""
    for folder in (MODULE_FOLDER, os.path.join(os.path.dirname(MODULE_FOLDER), "Training")):
        if os.path.isdir(os.path.join(folder, module.split(".")[0])):
            return folder
    raise RuntimeError(_("{package} is not installed beside the module AirwaySeg.").format(package=module))


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants: killing the launcher PythonSlicer alone would leave its Python running."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], capture_output=True)
        return
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    parents = {int(child): int(parent) for child, parent in (row.split() for row in table.splitlines())}
    for one in descendants(pid, parents):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue  # It ended in the meantime.


def descendants(pid: int, parents: dict[int, int]) -> list[int]:
    """The process and everything below it, parents before children; `parents` maps a process to its parent."""
    found = [pid]
    for one in found:
        found.extend(child for child, parent in parents.items() if parent == one and child != one)
    return found
