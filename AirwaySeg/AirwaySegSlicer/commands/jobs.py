"""A job: input files in a temporary folder, a console command, and its result taken into the scene.

`ConsoleProcess` reads the child's output and calls the job's `Listener`; at the end `start_job` collects the result
first. Whatever happens, the temporary folder is removed before the listener is called for the end.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.child_process import LIBRARY
from AirwaySegSlicer.commands.console_process import ConsoleProcess, ignore_line, ignore_progress
from AirwaySegSlicer.commands.early_process import EarlyProcess
from AirwaySegSlicer.commands.wording import with_node_names
from AirwaySegSlicer.event_loop import call_later

POLL_S = 0.1
"""How often a running command is asked what it has printed."""


@dataclass(frozen=True)
class Listener:
    """Callbacks of a job: for its end (called once), for each progress step, and for each other line of output.

    The end is (result, "") or (None, sentence); the sentence is empty when the job was cancelled without a reason. With
    a result the sentence says what the result lacks.
    """

    on_finished: Callable[[Any, str], None]
    on_progress: Callable[[str, int, int], None] = ignore_progress
    on_line: Callable[[str], None] = ignore_line


@dataclass(frozen=True)
class Partial:
    """A result that lacks something, and the sentence that says why."""

    result: Any
    sentence: str


Steps = Generator[None, None, list[str]]
"""Yields where the event loop may run, and returns the arguments of a command."""


@dataclass(frozen=True)
class Job:
    """A console command with what is done before and after it.

    ``prepare(folder)`` writes the input files into a temporary folder and returns the command's arguments, or is a
    generator that yields now and then, so that the window stays responsive, and returns them at its end.
    ``collect(folder)`` makes the result, or a `Partial` one, after the command has succeeded. ``module`` is the package
    that is run. ``names`` gives for an input file the name of its node, which the user reads instead of the file's.
    ``early`` is the library's command if it loads its packages while its input is prepared, or before.
    """

    prepare: Callable[[str], Steps | list[str]]
    collect: Callable[[str], Any]
    module: str = LIBRARY
    names: dict[str, str] = field(default_factory=dict)
    early: str = ""


def start_job(
    job: Job,
    listener: Listener,
    launch: Callable[..., subprocess.Popen] | None = None,
    blocking: bool = False,
    early: EarlyProcess | None = None,
) -> ConsoleProcess:
    """Run a job; with ``blocking`` it has ended when this returns.

    ``launch`` replaces `slicer.util.launchConsoleProcess`, ``early`` is a process that loads the job's command already
    (by default one is started here, for a job that wants one). Errors of the preparation up to its first pause are
    raised here; later ones, and those of collecting the result, reach the listener as the sentence.
    """
    launch = launch or slicer.util.launchConsoleProcess
    if job.early and early is None:
        early = EarlyProcess(launch, job.early)
    folder = tempfile.mkdtemp(prefix="AirwaySeg-", dir=slicer.app.temporaryPath)
    worded = with_node_names(job.names)

    def on_completed(message: str) -> None:
        """Collect the result, remove the folder, tell the listener."""
        result = None
        try:
            if not message and not run.cancelled:
                result = job.collect(folder)
                if isinstance(result, Partial):
                    result, message = result.result, result.sentence
        except Exception as error:
            logging.exception("The result of AirwaySeg could not be taken in.")
            message = one_line(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        listener.on_finished(result, worded(message))

    def on_line(line: str) -> None:
        """Give the listener a line with the names of nodes."""
        listener.on_line(worded(line))

    run = ConsoleProcess(launch, listener.on_progress, on_completed, on_line, job.module, early)
    try:
        steps = job.prepare(folder)
        if isinstance(steps, list):
            _begin(run, steps, blocking)
        else:
            _walk(steps, run, blocking)
    except BaseException:
        run.cancel()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return run


def _begin(run: ConsoleProcess, arguments: list[str], blocking: bool) -> None:
    """Start the command, and wait for its end or poll it from the event loop."""
    run.start(arguments)
    if blocking:
        run.wait()
    else:
        call_later(partial(_poll, run), POLL_S)


def _poll(run: ConsoleProcess) -> None:
    """Poll the command until it has ended, also after a listener has raised."""
    ended = False
    try:
        ended = run.poll()
    finally:
        if not ended:
            call_later(partial(_poll, run), POLL_S)


def _walk(steps: Steps, run: ConsoleProcess, blocking: bool) -> None:
    """Prepare up to the next pause, or with ``blocking`` up to the end; start the command when all is prepared."""
    try:
        next(steps)
        while blocking:
            next(steps)
    except StopIteration as end:
        _begin(run, end.value, blocking)
        return
    call_later(partial(_go_on, steps, run))


def _go_on(steps: Steps, run: ConsoleProcess) -> None:
    """Prepare on after a pause, unless the job was cancelled meanwhile."""
    if run.cancelled:
        steps.close()
        run.end(run.reason)
        return
    try:
        _walk(steps, run, blocking=False)
    except Exception as error:
        logging.exception("AirwaySeg could not start its work.")
        run.end(one_line(error))


def result_folder(folder: str) -> str:
    """The folder for the command's result inside the job's temporary folder."""
    return os.path.join(folder, "result")


def one_line(error: Exception) -> str:
    """The error's message as one line for the user; its class name where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


class Runs:
    """The running jobs, at most one in each slot (a name)."""

    def __init__(self, launch: Callable[..., subprocess.Popen]) -> None:
        self._launch = launch
        self._runs: dict[str, ConsoleProcess] = {}
        self._early: dict[str, EarlyProcess] = {}

    def is_running(self, slot: str) -> bool:
        """Whether a job runs in the slot."""
        return slot in self._runs

    def start(self, slot: str, job: Job, listener: Listener) -> None:
        """Start a job and return at once; raises RuntimeError when another one runs in the slot."""
        self._begin(slot, job, listener, blocking=False)

    def run(self, slot: str, job: Job) -> Any:
        """Run a job, wait for its end and return the result; raises RuntimeError with the sentence of a failure.

        Where there is a result and a sentence, such as that it could not be measured, the sentence is logged.
        """
        ends: list[tuple[Any, str]] = []
        self._begin(slot, job, Listener(lambda *end: ends.append(end)), blocking=True)
        result, message = ends[0]
        if message and result is None:
            raise RuntimeError(message)
        if message:
            logging.warning(message)
        return result

    def _begin(self, slot: str, job: Job, listener: Listener, blocking: bool) -> None:
        if self.is_running(slot):
            raise RuntimeError(_("Something is running already; wait for it or cancel it first."))

        def on_finished(result: Any, message: str) -> None:
            """Free the slot before the listener is told."""
            self._runs.pop(slot, None)
            listener.on_finished(result, message)

        early = self._early.pop(job.early, None)
        run = start_job(job, replace(listener, on_finished=on_finished), self._launch, blocking, early)
        if not run.ended:
            self._runs[slot] = run

    def load_early(self, command: str) -> None:
        """Let a process load what a command needs, for the next job that wants it.

        Where that fails nothing is said: the job itself will say why.
        """
        waiting = self._early.get(command)
        if waiting is not None and not waiting.waits:
            self._early.pop(command).discard()
        if command not in self._early:
            with suppress(RuntimeError, OSError):
                self._early[command] = EarlyProcess(self._launch, command)

    def cancel(self, slot: str, reason: str = "") -> None:
        """Kill the slot's job; its listener gets the end, with the reason (a sentence), from the event loop."""
        if slot in self._runs:
            self._runs[slot].cancel(reason)

    def cancel_all(self) -> None:
        """Kill all jobs, and what waits for one."""
        while self._early:
            self._early.popitem()[1].discard()
        for slot in list(self._runs):
            self.cancel(slot)

    def seconds_left(self, slot: str) -> float | None:
        """The command's estimate of the time left in its stage; None where there is none."""
        return self._runs[slot].seconds_left if slot in self._runs else None
