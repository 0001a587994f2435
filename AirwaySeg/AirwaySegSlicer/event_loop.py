"""Calls functions later from Slicer's event loop, with one timer for the whole module.

Slicer's `qt.QTimer.singleShot` makes a timer for each call and keeps it, with the function and all that it refers to,
until Slicer ends. Here a function is released when it is called.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import slicer


class _Later:
    """The waiting functions, the earliest first, and the timer for the first one."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._timer: Any = None

    def add(self, function: Callable[[], object], seconds: float) -> None:
        """Call the function once after this time; functions of the same time are called in the order of `add`."""
        heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._numbers), function))
        self._restart()

    def _restart(self) -> None:
        if not self._waiting:
            return
        if self._timer is None:
            import qt

            # Qt deletes the timer with the module manager, before Slicer's Python ends.
            self._timer = qt.QTimer(slicer.app.moduleManager())
            self._timer.setSingleShot(True)
            self._timer.connect("timeout()", self._fire)
        seconds = self._waiting[0][0] - time.monotonic()
        self._timer.start(max(0, math.ceil(1000 * seconds)))

    def _fire(self) -> None:
        function = None
        if self._waiting and self._waiting[0][0] <= time.monotonic():
            function = heapq.heappop(self._waiting)[2]
        # Before the call: the function may fail, or open a dialog, which runs the event loop itself.
        self._restart()
        if function is not None:
            function()


_later = _Later()


def call_later(function: Callable[[], object], seconds: float = 0.0) -> None:
    """Call a function once from the event loop, after some seconds or as soon as possible.

    Only from the main thread.
    """
    _later.add(function, seconds)
