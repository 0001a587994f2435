"""Running the cases one after another on this computer, with the next CT read while one is computed."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.records import Outcome
from AirwaySegLib.files.volume import Volume

Read = Callable[[], tuple[Volume, list[str]]]
"""Gives a CT and the warnings about it, once."""

Work = Callable[[Case, Read], Outcome]
"""Runs one case."""


def run_here(cases: Iterable[Case], work: Work) -> Iterator[Outcome]:
    """Run the cases in order and yield how each ended.

    While one is computed, a thread reads the next, and no further: two CTs at most are in memory.
    """
    reader = ThreadPoolExecutor(1, thread_name_prefix="airwayseg-read")
    waiting = iter(cases)
    try:
        case = next(waiting, None)
        ahead = _Ahead(reader, case) if case is not None else None
        while case is not None and ahead is not None:
            following = next(waiting, None)
            ahead.then(following)
            yield work(case, ahead)
            case, ahead = following, ahead.following
    finally:
        reader.shutdown(wait=False, cancel_futures=True)


class _Ahead:
    """The CT of one case, being read; when it is taken, reading of the following one begins."""

    def __init__(self, reader: ThreadPoolExecutor, case: Case) -> None:
        self._reader = reader
        self._future: Future[tuple[Volume, list[str]]] | None = reader.submit(case.read)
        self._next: Case | None = None
        self._following: _Ahead | None = None

    def then(self, case: Case | None) -> None:
        """Which case follows."""
        self._next = case

    def __call__(self) -> tuple[Volume, list[str]]:
        future, self._future = self._future, None
        if future is None:
            raise ValueError("a CT that was read ahead can be taken once")
        try:
            return future.result()
        finally:
            self._begin()

    def _begin(self) -> None:
        if self._next is not None and self._following is None:
            self._following = _Ahead(self._reader, self._next)

    @property
    def following(self) -> "_Ahead | None":
        """The reading of the following case, which begins now at the latest."""
        self._begin()
        return self._following
