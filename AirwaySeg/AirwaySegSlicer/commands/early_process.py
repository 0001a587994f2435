"""A process that loads what a command needs before its arguments are known (`AirwaySegLib.early`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable

import slicer

from AirwaySegSlicer.commands.child_process import LIBRARY, kill_tree, launched

USABLE_S = 500.0
"""A process gets no arguments after this time: it is about to end by itself (`AirwaySegLib.early.LONGEST_S`)."""


class EarlyProcess:
    """A process that waits for the arguments of ``command``, in a temporary folder of its own.

    Raises RuntimeError when Slicer's Python or the package is not found, OSError when the folder cannot be made.
    """

    def __init__(self, launch: Callable[..., subprocess.Popen], command: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="AirwaySeg-", dir=slicer.app.temporaryPath)
        self._begun = False
        self._started = time.monotonic()
        try:
            self.process = launched(launch, f"{LIBRARY}.early", [command, self._file])
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    @property
    def _file(self) -> str:
        return os.path.join(self._folder, "arguments.json")

    @property
    def waits(self) -> bool:
        """Whether it is alive and has no arguments yet. It ends by itself when it has waited for long."""
        return not self._begun and self.process.poll() is None

    def begin(self, arguments: list[str]) -> bool:
        """Give the command its arguments, the first of which is its name; False if it waits no more or not long."""
        if not self.waits or time.monotonic() - self._started > USABLE_S:
            return False
        with open(self._file + ".part", "w", encoding="utf-8") as stream:
            json.dump(arguments[1:], stream)
        os.replace(self._file + ".part", self._file)
        self._begun = True
        return True

    def discard(self) -> None:
        """Kill it if it still waits, and remove its folder."""
        if self.waits:
            kill_tree(self.process.pid)
        shutil.rmtree(self._folder, ignore_errors=True)
