"""Progress of long work: the callback that a stage calls, and the three ways in which the command line shows it."""

import json
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

Progress = Callable[[str, int, int], None]
"""A callback, called as ``progress(stage, done, total)``. It cancels the work by raising `errors.Cancelled`."""


_came: list[int] = []
"""Stop signals (SIGINT, SIGTERM) received so far."""


def stop_on_signals() -> None:
    """Make Ctrl+C and SIGTERM raise KeyboardInterrupt, which no ``except Exception`` catches.

    Python drops an exception that is raised in a finalizer; the next call of a progress callback then raises it again.
    """
    _came.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # ignored in a background job of a shell
            signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    _came.append(number)
    raise KeyboardInterrupt


def stop_signal_came() -> bool:
    """Whether the command has been told to stop: an error after that may be what stopping led to."""
    return bool(_came)


def _raise_if_stopped() -> None:
    if _came:
        raise KeyboardInterrupt


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""
    _raise_if_stopped()


class JsonLines:
    """One JSON object per line, with the estimated seconds left in the stage, for a graphical interface to read."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._stage = ""
        self._start = 0.0
        self._first = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Write ``{"stage": ..., "done": ..., "total": ..., "seconds_left": ...}``.

        Steps that were done before the stage's first call, as after a resume, do not count for its speed.
        """
        _raise_if_stopped()
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._start, self._first = stage, now, done
        seconds_left = 0.0 if done >= total else None
        if seconds_left is None and done > self._first:
            seconds_left = round((now - self._start) / (done - self._first) * (total - done), 1)
        line = {"stage": stage, "done": done, "total": total, "seconds_left": seconds_left}
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """No-op; `Bar` has something to close."""


class Bar:
    """One tqdm bar per stage, on standard error so that standard output stays clean."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the stage's bar to ``done`` of ``total``; a new stage closes the bar before it."""
        _raise_if_stopped()
        if self._bar is None or stage != self._stage:
            self.close()
            from tqdm import tqdm  # slow to import, and only used here

            # Steps done before a resume do not count for the speed.
            self._bar = tqdm(initial=done, total=total, desc=f"{stage:<10}", leave=True, ncols=80)
            self._stage = stage
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the current bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
