"""Progress of a cohort for people and programs: a line for each case, the time left for all, and a log file."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from AirwaySegLib.cohort.records import FINISHED, Outcome
from AirwaySegLib.progress import silent

log = logging.getLogger("airwayseg")


class CohortDisplay:
    """Shows how far a cohort is; it is also the progress callback of the case that is being computed.

    ``kind`` is "bar" (lines, and on a terminal a bar below them), "json" (an object a line) or "none" (messages only).
    ``voxels`` are those of each case that is to be run, by id, 0 where unknown: the time left is estimated from the
    seconds for each voxel, or for each case, of those that were finished. ``before`` cases needed not be run.
    """

    def __init__(self, kind: str, voxels: Mapping[str, int], before: int = 0) -> None:
        self.workers = 1
        """How many cases are computed at once."""
        self._kind = kind
        self._voxels = dict(voxels) if all(voxels.values()) else dict.fromkeys(voxels, 1)
        self._waiting = set(voxels)
        self._total, self._done = before + len(voxels), before
        self._seconds = self._amount = 0.0
        self.case_id = ""
        """The case that is being computed."""
        self._bar: tqdm | None = None
        if kind == "bar" and sys.stderr.isatty():
            self._bar = tqdm(total=100, bar_format="{desc} {percentage:3.0f}%", leave=False)

    def start(self, case_id: str) -> None:
        """Say which case is computed from now on."""
        self.case_id = case_id

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show the stage of the current case; a progress callback."""
        silent(stage, done, total)
        if self._kind == "json":
            values = {"event": "stage", "case": self.case_id, "number": self._done + 1, "of": self._total}
            self._json({**values, "stage": stage, "done": done, "total": total})
        elif self._bar is not None:
            left = self.seconds_left()
            self._bar.set_description_str(
                f"{self._done + 1}/{self._total}  {self.case_id}  {stage}{_left(left)}", False
            )
            self._bar.total, self._bar.n = max(1, total), done
            self._bar.refresh()

    def case(self, outcome: Outcome, again: bool = False) -> None:
        """Show how a case ended; ``again``: it failed and will be tried once more."""
        if not again:
            self._count(outcome)
        left = self.seconds_left()
        if self._kind == "json":
            values = {"event": "case", "case": outcome.id, "number": self._done, "of": self._total}
            values |= {"status": outcome.status, "sentence": outcome.sentence, "try_again": again}
            self._json({**values, "seconds": round(outcome.seconds, 1), "seconds_left": left})
        text = f"{self._done}/{self._total}  {outcome.id}  {_said(outcome, again)}{_left(left)}"
        self._line(text, shown=self._kind == "bar")
        log_to_file(text)

    def _count(self, outcome: Outcome) -> None:
        self._done += 1
        self._waiting.discard(outcome.id)
        if outcome.status == FINISHED:
            self._seconds += outcome.seconds
            self._amount += self._voxels.get(outcome.id, 0)

    def seconds_left(self) -> float | None:
        """Estimated seconds for all that is left; None before a case was finished."""
        left = sum(self._voxels[name] for name in self._waiting)
        if not left:
            return 0.0
        return round(self._seconds / self._amount * left / self.workers, 1) if self._amount else None

    def message(self, text: str) -> None:
        """Show a message, and write it into the log file."""
        self.show(text)
        log_to_file(text)

    def show(self, text: str) -> None:
        """Show a message on a line of its own."""
        if self._kind == "json":
            self._json({"event": "message", "case": self.case_id, "text": text})
        self._line(text, shown=self._kind != "json")

    def _line(self, text: str, shown: bool) -> None:
        """A bar is taken away for the line and drawn again below it."""
        if shown and self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        elif shown:
            print(text, flush=True)

    def _json(self, values: Mapping[str, object]) -> None:
        print(json.dumps(values), flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration(seconds: float) -> str:
    """Such as "45 s", "12 min" or "3 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _left(seconds: float | None) -> str:
    return f" ({duration(seconds)} left)" if seconds else ""


def _said(outcome: Outcome, again: bool) -> str:
    if outcome.status != FINISHED:
        return f"{outcome.status}{', will be tried again' if again else ''}: {outcome.sentence}"
    found = (
        [] if outcome.branches is None else ["1 branch" if outcome.branches == 1 else f"{outcome.branches} branches"]
    )
    found += [] if outcome.millilitres is None else [f"{outcome.millilitres:.1f} ml"]
    if outcome.warnings:
        found.append(f"{outcome.warnings} warning{'s' if outcome.warnings > 1 else ''}")
    return f"finished in {duration(outcome.seconds)}: {', '.join(found)}"


class _ToDisplay(logging.Handler):
    """Sends the library's errors to the display, with -v all messages; warnings are counted in a case's line."""

    def __init__(self, display: CohortDisplay) -> None:
        super().__init__(logging.INFO if log.isEnabledFor(logging.INFO) else logging.ERROR)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != _FILE_ONLY:
            self._display.show(record.getMessage())


class _CaseOf(logging.Filter):
    """Gives a record the id of the case that is being computed."""

    def __init__(self, display: CohortDisplay) -> None:
        super().__init__()
        self._display = display

    def filter(self, record: logging.LogRecord) -> bool:
        record.case = "" if record.name == _FILE_ONLY or not self._display.case_id else f"{self._display.case_id}  "
        return True


_FILE_ONLY = "airwayseg.cohort.lines"
"""The logger of lines that the display has shown already."""


def log_to_file(text: str) -> None:
    """Write a line into the log file only."""
    logging.getLogger(_FILE_ONLY).warning("%s", text)


@contextmanager
def shown(display: CohortDisplay, log_file: Path) -> Iterator[CohortDisplay]:
    """While the block runs, the library's messages go to the display and, with the time, into the log file."""
    to_file = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
    to_file.setFormatter(logging.Formatter("%(asctime)s  %(case)s%(message)s"))
    to_file.addFilter(_CaseOf(display))
    to_display = _ToDisplay(display)
    before = log.propagate
    log.addHandler(to_file)
    log.addHandler(to_display)
    log.propagate = False
    try:
        yield display
    finally:
        log.propagate = before
        log.removeHandler(to_display)
        log.removeHandler(to_file)
        to_file.close()
        display.close()
