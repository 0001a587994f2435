"""The console commands as child processes: their command line, their progress, their end."""

import json
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


MODULE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARY, TRAINING = "AirwaySegLib", "AirwaySegTraining"


def ignore_line(line: str) -> None:
    """Nobody reads along."""


class ConsoleProcess:
    """One run of `python -m AirwaySegLib` or of another package beside the module.

    `launch` has the arguments of `slicer.util.launchConsoleProcess`; on_progress is called as
    ``on_progress(stage, done, total)``, on_completed once with the one sentence that went wrong, empty if nothing did
    or the run was cancelled, on_line with every line that is no progress. ``seconds_left`` is the command's own
    estimate for the stage, None as long as it has none.
    """

    def __init__(
        self,
        launch: Callable[..., subprocess.Popen],
        on_progress: Callable[[str, int, int], None],
        on_completed: Callable[[str], None],
        on_line: Callable[[str], None] = ignore_line,
        module: str = LIBRARY,
    ) -> None:
        self._launch = launch
        self._on_progress = on_progress
        self._on_completed = on_completed
        self._on_line = on_line
        self._module = module
        self._last_line = ""
        self._process: subprocess.Popen | None = None
        self.cancelled = False
        self.seconds_left: float | None = None

    def start(self, arguments: list[str], blocking: bool = False) -> None:
        """Run the command with Slicer's Python and return at once, or when it has ended.

        Raises RuntimeError when that Python or the package is not to be found.
        """
        folder = package_folder(self._module)
        options = {"useStartupEnvironment": False, "cwd": folder}  # -m finds the package where it runs
        if folder != MODULE_FOLDER:
            known = [MODULE_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
            options["updateEnvironment"] = {"PYTHONPATH": os.pathsep.join(known)}
        command = [slicer_python(), "-m", self._module, *arguments]
        if not blocking:
            options |= {"logCallback": self._read_line, "completedCallback": self._complete}
        self._process = self._launch(command, blocking=blocking, **options)
        if blocking:
            for line in self._process.stdout:
                self._read_line(line.rstrip())
            self._complete(self._process.wait())

    def cancel(self) -> None:
        """Kill the process and everything it started; one that was not started yet is not to be."""
        if self._process is None:
            self.cancelled = True
        elif self._process.poll() is None:
            self.cancelled = True
            kill_tree(self._process.pid)

    def _read_line(self, line: str) -> None:
        if self.cancelled:
            return
        progress = parse_progress(line)
        if progress:
            self.seconds_left = parse_seconds_left(line)
            self._on_progress(*progress)
        elif line.strip():
            self._last_line = line.strip().removeprefix("airwayseg: ").removeprefix("airwayseg-train: ")
            self._on_line(line.rstrip())

    def _complete(self, exit_code: int) -> None:
        failed = exit_code != 0 and not self.cancelled
        without_words = _("The command ended with code {code}.").format(code=exit_code)
        self._on_completed((self._last_line or without_words) if failed else "")


def slicer_python() -> str:
    """Slicer's Python interpreter; raises RuntimeError when it is not on the path."""
    python = shutil.which("PythonSlicer")
    if not python:
        raise RuntimeError(_("Slicer's Python (PythonSlicer) was not found."))
    return python


def package_folder(module: str) -> str:
    """The folder that holds a package of ours: that of the module, or in the source tree `Training` beside it."""
    for folder in (MODULE_FOLDER, os.path.join(os.path.dirname(MODULE_FOLDER), "Training")):
        if os.path.isdir(os.path.join(folder, module.split(".")[0])):
            return folder
    raise RuntimeError(_("{package} is not installed beside the module AirwaySeg.").format(package=module))


def parse_progress(line: str) -> tuple[str, int, int] | None:
    """(stage, done, total) of a line of progress; None for every other line."""
    try:
        record = json.loads(line)
        return str(record["stage"]), int(record["done"]), int(record["total"])
    except (ValueError, TypeError, KeyError):
        return None


def parse_seconds_left(line: str) -> float | None:
    """What a line of progress expects the stage to take still; None where it does not say."""
    try:
        return float(json.loads(line)["seconds_left"])
    except (ValueError, TypeError, KeyError):
        return None


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants: PythonSlicer is a launcher whose death alone leaves the real Python alive."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], capture_output=True)
        return
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    parents = dict(map(int, row.split()) for row in table.splitlines())
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
