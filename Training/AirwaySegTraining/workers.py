"""Worker processes of a command, which end with it."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import active_children
from types import FrameType, TracebackType
from typing import Any


class WorkerPool(ProcessPoolExecutor):
    """A `ProcessPoolExecutor` whose processes stop and clean up when the command is stopped.

    The plain one would finish the tasks that have begun, and start the next, before Ctrl+C or SIGTERM ends the command.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(max_workers=workers, initializer=_ignore_interrupts)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """As `ProcessPoolExecutor.submit`."""
        return super().submit(_stoppable, function, *args, **kwargs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Wait for the processes; stop them at once if the block ends with a stop signal (not an `Exception`)."""
        if kind is not None and not issubclass(kind, Exception):
            self.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
        return super().__exit__(kind, error, trace)


def _ignore_interrupts() -> None:
    """Ctrl+C reaches all processes of a terminal; the workers ignore it, and the main process stops them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop_once(number: int, _frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; a second signal, as from a command that was stopped too, does not stop the cleaning."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _stoppable(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the function. SIGTERM raises KeyboardInterrupt in it, so that it cleans up, and then ends the process."""
    signal.signal(signal.SIGTERM, _stop_once)
    try:
        return function(*args, **kwargs)
    except KeyboardInterrupt:
        os._exit(130)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
