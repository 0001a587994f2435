"""One long piece of work: a temporary folder, a console command in it, and its result taken into the scene.

Whatever happens, the folder is gone before anybody hears of the end.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.console_process import LIBRARY, ConsoleProcess, ignore_line
from AirwaySegSlicer.event_loop import call_later

POLL_S = 0.1
"""How often a running command is asked what it has printed."""


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Listener:
    """Who hears of a run: every step, every other line, and once its end as (result, "") or (None, sentence).

    The sentence is empty when the run was cancelled without a reason. With a result it says what that lacks.
    """

    on_finished: Callable[[Any, str], None]
    on_progress: Callable[[str, int, int], None] = ignore_progress
    on_line: Callable[[str], None] = ignore_line


@dataclass(frozen=True)
class JobCallbacks(Listener):
    """A listener, and how the command is started.

    ``launch`` is in the place of `slicer.util.launchConsoleProcess`; with ``blocking`` the run has ended when it is
    returned.
    """

    launch: Callable[..., subprocess.Popen] | None = None
    blocking: bool = False


@dataclass(frozen=True)
class Partial:
    """A result that lacks something, and the sentence that says why."""

    result: Any
    sentence: str


Steps = Generator[None, None, list[str]]
"""Pauses, and returns the arguments of a command."""

Starter = Callable[[JobCallbacks], ConsoleProcess]
"""Starts one kind of work and tells these callbacks of it."""


def start_job(
    callbacks: JobCallbacks,
    prepare: Callable[[str], Steps | list[str]],
    collect: Callable[[str], Any],
    module: str = LIBRARY,
) -> ConsoleProcess:
    """Run a command on what ``prepare`` writes into a temporary folder.

    ``prepare(folder)`` gives the command's arguments, or is a generator that returns them and pauses now and then, so
    that the window lives; ``collect(folder)`` makes the result, or a `Partial` one, when the command has ended well.
    Errors of the start, up to the first pause, are raised here; later ones, and those of ``collect``, become the
    sentence.
    """
    folder = tempfile.mkdtemp(prefix="AirwaySeg-", dir=slicer.app.temporaryPath)

    def on_completed(message: str) -> None:
        result = None
        try:
            if not message and not run.cancelled:
                result = collect(folder)
                if isinstance(result, Partial):
                    result, message = result.result, result.sentence
        except Exception as error:
            logging.exception("The result of AirwaySeg could not be taken in.")
            message = one_line(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        callbacks.on_finished(result, message)

    launch = callbacks.launch or slicer.util.launchConsoleProcess
    run = ConsoleProcess(launch, callbacks.on_progress, on_completed, callbacks.on_line, module)
    try:
        steps = prepare(folder)
        if isinstance(steps, list):
            _begin(run, steps, callbacks.blocking)
        else:
            _walk(steps, run, callbacks.blocking)
    except BaseException:
        run.cancel()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return run


def _begin(run: ConsoleProcess, arguments: list[str], blocking: bool) -> None:
    """Start the command, and wait for its end or watch it from the event loop."""
    run.start(arguments)
    if blocking:
        run.wait()
    else:
        call_later(partial(_watch, run), POLL_S)


def _watch(run: ConsoleProcess) -> None:
    """Look at the command, now and again until it has ended, also where somebody who hears of it fails."""
    ended = False
    try:
        ended = run.poll()
    finally:
        if not ended:
            call_later(partial(_watch, run), POLL_S)


def _walk(steps: Steps, run: ConsoleProcess, blocking: bool) -> None:
    """Go to the next pause and come back from the event loop for the next step, or without pauses; then start."""
    try:
        next(steps)
        while blocking:
            next(steps)
    except StopIteration as end:
        _begin(run, end.value, blocking)
        return
    call_later(partial(_go_on, steps, run))


def _go_on(steps: Steps, run: ConsoleProcess) -> None:
    """The next step, unless the run was cancelled during the pause."""
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
    """Where in a job's folder the command puts its result."""
    return os.path.join(folder, "result")


def one_line(error: Exception) -> str:
    """An error as one line for the user; one without words by its kind."""
    return " ".join(str(error).split()) or type(error).__name__


class Runs:
    """What runs now, at most one command in each slot (a name)."""

    def __init__(self, launch: Callable[..., subprocess.Popen]) -> None:
        self._launch = launch
        self._runs: dict[str, ConsoleProcess] = {}

    def is_running(self, slot: str) -> bool:
        """Whether the slot is taken."""
        return slot in self._runs

    def start(self, slot: str, starter: Starter, listener: Listener) -> None:
        """Start and return at once; raises RuntimeError when the slot is taken."""
        self._begin(slot, starter, listener, blocking=False)

    def run(self, slot: str, starter: Starter) -> Any:
        """Start, wait for the end and return the result; raises RuntimeError with the sentence of a failure.

        Where there is a result and a sentence, such as that it could not be measured, the sentence is logged.
        """
        ends: list[tuple[Any, str]] = []
        self._begin(slot, starter, Listener(lambda *end: ends.append(end)), blocking=True)
        result, message = ends[0]
        if message and result is None:
            raise RuntimeError(message)
        if message:
            logging.warning(message)
        return result

    def _begin(self, slot: str, starter: Starter, listener: Listener, blocking: bool) -> None:
        if self.is_running(slot):
            raise RuntimeError(_("Something is running already; wait for it or cancel it first."))
        ended = []

        def on_finished(result: Any, message: str) -> None:
            ended.append(True)
            self._runs.pop(slot, None)
            listener.on_finished(result, message)

        run = starter(JobCallbacks(on_finished, listener.on_progress, listener.on_line, self._launch, blocking))
        if not ended:
            self._runs[slot] = run

    def cancel(self, slot: str, reason: str = "") -> None:
        """Kill what runs in the slot; its listener hears of the end, and of the reason, a sentence, a moment later."""
        if slot in self._runs:
            self._runs[slot].cancel(reason)

    def cancel_all(self) -> None:
        """Kill everything."""
        for slot in list(self._runs):
            self.cancel(slot)

    def seconds_left(self, slot: str) -> float | None:
        """What the slot's command expects its stage to take still; None where it does not say."""
        return self._runs[slot].seconds_left if slot in self._runs else None
