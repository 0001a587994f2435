"""One long piece of work: a temporary folder, a console command in it, and its result taken into the scene.

Whatever happens, the folder is gone before anybody hears of the end.
"""

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer

from AirwaySegSlicer.process import LIBRARY, ConsoleProcess, ignore_line


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Audience:
    """Who hears of a run: every step, every other line, and once its end as (result, "") or (None, sentence).

    The sentence is empty when the run was cancelled. ``launch`` has the arguments of
    `slicer.util.launchConsoleProcess`; with ``blocking`` the run has ended when it is returned.
    """

    launch: Callable[..., subprocess.Popen]
    on_finished: Callable[[Any, str], None]
    on_progress: Callable[[str, int, int], None] = ignore_progress
    on_line: Callable[[str], None] = ignore_line
    blocking: bool = False


def start_job(
    audience: Audience,
    prepare: Callable[[str], list[str]],
    collect: Callable[[str], Any],
    module: str = LIBRARY,
) -> ConsoleProcess:
    """Run a command on what ``prepare`` writes into a temporary folder.

    ``prepare(folder)`` gives the command's arguments; ``collect(folder)`` makes the result when the command has ended
    well. Errors of ``prepare`` and of the start are raised here, those of ``collect`` become the sentence.
    """
    folder = tempfile.mkdtemp(prefix="AirwaySeg-", dir=slicer.app.temporaryPath)

    def on_completed(message: str) -> None:
        result = None
        try:
            if not message and not run.cancelled:
                result = collect(folder)
        except Exception as error:
            logging.exception("The result of AirwaySeg could not be taken in.")
            message = one_line(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        audience.on_finished(result, message)

    run = ConsoleProcess(audience.launch, audience.on_progress, on_completed, audience.on_line, module)
    try:
        run.start(prepare(folder), audience.blocking)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return run


def one_line(error: Exception) -> str:
    """An error as one line for the user; one without words by its kind."""
    return " ".join(str(error).split()) or type(error).__name__
