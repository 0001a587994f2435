"""A console command as a child process: its command line, progress and end."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from AirwaySegSlicer.commands.child_process import LIBRARY, kill_tree, launched
from AirwaySegSlicer.commands.early_process import EarlyProcess

try:
    from slicer.i18n import tr as _
except ImportError:  # Outside Slicer nothing is translated.

    def _(text: str) -> str:
        return text


def ignore_line(line: str) -> None:
    """Do nothing with a line of output."""


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Do nothing with a progress step."""


class ConsoleProcess:
    """One run of `python -m AirwaySegLib` or of another package beside the module.

    `launch` takes the arguments of `slicer.util.launchConsoleProcess` and returns the process. ``on_progress(stage,
    done, total)`` is called for each progress step, ``on_line`` with every other line, ``on_completed`` once with the
    error as one sentence, empty if there was none or the run was cancelled without a reason. All are called from `poll`
    and `wait`, and released after the end. ``seconds_left`` is the command's estimate for the current stage, None
    without one. ``early`` is a process that waits for the arguments; it belongs to the run now.

    The callbacks of `slicer.util` itself are not used: it makes a new timer ten times a second, and keeps each of them,
    with all that it refers to, until Slicer ends.
    """

    def __init__(
        self,
        launch: Callable[..., subprocess.Popen],
        on_progress: Callable[[str, int, int], None],
        on_completed: Callable[[str], None],
        on_line: Callable[[str], None] = ignore_line,
        module: str = LIBRARY,
        early: EarlyProcess | None = None,
    ) -> None:
        self._launch = launch
        self._on_progress: Callable[[str, int, int], None] = on_progress
        self._on_completed: Callable[[str], None] | None = on_completed
        self._on_line = on_line
        self._module = module
        self._last_line = ""
        self._process: subprocess.Popen | None = None
        self._early = early
        self._output: queue.SimpleQueue[str | int] = queue.SimpleQueue()
        self.cancelled = False
        self.reason = ""
        self.seconds_left: float | None = None

    def start(self, arguments: list[str]) -> None:
        """Run the command with Slicer's Python and return at once; `poll` or `wait` for it.

        Raises RuntimeError when that Python or the package is not found.
        """
        if self._early is not None and self._early.begin(arguments):
            self._process = self._early.process
        else:
            self._process = launched(self._launch, self._module, arguments)
        threading.Thread(target=_read_output, args=(self._process, self._output), daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether the end was passed on."""
        return self._on_completed is None

    def poll(self) -> bool:
        """Pass on what the command has printed until now, and its end; returns whether it has ended."""
        while self._on_completed is not None:
            try:
                self._take(self._output.get_nowait())
            except queue.Empty:
                return False
        return True

    def wait(self) -> None:
        """Pass on what the command prints until it has ended."""
        while self._on_completed is not None:
            self._take(self._output.get())

    def cancel(self, reason: str = "") -> None:
        """Kill the process and all its descendants; a command that was not started yet will not be.

        ``reason``, a sentence, is what on_completed gets.
        """
        if self._process is None:
            self.cancelled, self.reason = True, reason
            self._discard_early()
        elif self._process.poll() is None:
            self.cancelled, self.reason = True, reason
            kill_tree(self._process.pid)

    def _take(self, output: str | int) -> None:
        """A line, or the exit code."""
        if isinstance(output, int):
            self._complete(output)
        elif not self.cancelled:
            self._read_line(output)

    def _read_line(self, line: str) -> None:
        progress = parse_progress(line)
        if progress:
            self.seconds_left = parse_seconds_left(line)
            self._on_progress(*progress)
        elif line.strip():
            self._last_line = line.strip().removeprefix("airwayseg: ").removeprefix("airwayseg-train: ")
            self._on_line(line.rstrip())

    def _complete(self, exit_code: int) -> None:
        without_output = _("The command ended with code {code}.").format(code=exit_code)
        message = self._last_line or without_output if exit_code else ""
        self.end(self.reason if self.cancelled else message)

    def end(self, message: str) -> None:
        """Pass on the end, also of a command that was never started, and release all callbacks."""
        self._discard_early()
        on_completed = self._on_completed
        self._on_progress, self._on_completed, self._on_line = ignore_progress, None, ignore_line
        if on_completed is not None:
            on_completed(message)

    def _discard_early(self) -> None:
        if self._early is not None:
            self._early.discard()
            self._early = None


def _read_output(process: subprocess.Popen, output: queue.SimpleQueue[str | int]) -> None:
    """Runs in a thread: puts every line of the process's output (UTF-8), then its exit code, into the queue."""
    stream: Any = process.stdout  # a pipe
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        with stream:
            for line in stream:
                output.put(line.rstrip())
    finally:
        output.put(process.wait())


def parse_progress(line: str) -> tuple[str, int, int] | None:
    """(stage, done, total) of a progress line; None for any other line."""
    try:
        record = json.loads(line)
        return str(record["stage"]), int(record["done"]), int(record["total"])
    except (ValueError, TypeError, KeyError):
        return None


def parse_seconds_left(line: str) -> float | None:
    """The time left in the stage according to a progress line; None where it has none."""
    try:
        return float(json.loads(line)["seconds_left"])
    except (ValueError, TypeError, KeyError):
        return None
