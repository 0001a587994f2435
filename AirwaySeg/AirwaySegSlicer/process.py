"""The console command as a child process: its command line, its progress, its end."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable

MODULE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class ConsoleProcess:
    """One run of `python -m AirwaySegLib`.

    `launch` has the arguments of `slicer.util.launchConsoleProcess`; on_progress is called as
    ``on_progress(stage, done, total)``, on_completed once with the one sentence that went wrong, empty if nothing did
    or the run was cancelled.
    """

    def __init__(
        self,
        launch: Callable[..., subprocess.Popen],
        on_progress: Callable[[str, int, int], None],
        on_completed: Callable[[str], None],
    ) -> None:
        self._launch = launch
        self._on_progress = on_progress
        self._on_completed = on_completed
        self._last_line = ""
        self._process: subprocess.Popen | None = None
        self.cancelled = False

    def start(self, arguments: list[str]) -> None:
        """Run the command with Slicer's Python; raises RuntimeError when that is not to be found."""
        python = shutil.which("PythonSlicer")
        if not python:
            raise RuntimeError("Slicer's Python (PythonSlicer) was not found.")
        self._process = self._launch(
            [python, "-m", "AirwaySegLib", *arguments],
            useStartupEnvironment=False,
            cwd=MODULE_FOLDER,  # where -m finds AirwaySegLib
            blocking=False,
            logCallback=self._read_line,
            completedCallback=self._complete,
        )

    def cancel(self) -> None:
        """Kill the process and everything it started."""
        if self._process is not None and self._process.poll() is None:
            self.cancelled = True
            kill_tree(self._process.pid)

    def _read_line(self, line: str) -> None:
        progress = parse_progress(line)
        if progress:
            self._on_progress(*progress)
        elif line.strip():
            self._last_line = line.strip().removeprefix("airwayseg: ")

    def _complete(self, exit_code: int) -> None:
        failed = exit_code != 0 and not self.cancelled
        self._on_completed((self._last_line or f"The command ended with code {exit_code}.") if failed else "")


def parse_progress(line: str) -> tuple[str, int, int] | None:
    """(stage, done, total) of a line of progress; None for every other line."""
    try:
        record = json.loads(line)
        return str(record["stage"]), int(record["done"]), int(record["total"])
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
