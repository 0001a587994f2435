"""The log files of a training: run.log, log.csv, validation.csv, and TensorBoard's files."""

import csv
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from AirwaySegLib.errors import AirwaySegError

log = logging.getLogger("airwayseg")

Batch = TypeVar("Batch")


class RunLog:
    """The log files of one run; rows after ``step``, which a resumed run repeats, are removed.

    Of several processes only one ``writes``.
    """

    def __init__(self, folder: Path, step: int, *, writes: bool = True) -> None:
        self.folder, self.writes, self.board = folder, writes, None
        if writes:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for name in ("log.csv", "validation.csv"):
                    _keep_until(folder / name, step)
            except OSError as error:
                raise AirwaySegError(f"{folder} cannot be written: {error.strerror}.") from error
            self.board = _open_board(folder / "tensorboard", step)
        self._begin()

    def _begin(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.waited = self.seconds = self.asked = 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; the time that steps wait for them is summed."""
        iterator = iter(batches)
        while True:
            self.asked = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.waited += time.monotonic() - self.asked
            yield batch

    def step(self, loss: float, norm: float) -> None:
        """Add a step's loss and its gradients' norm; with a norm that is not finite the step was skipped."""
        self.losses.append(loss)
        self.norms.append(norm)
        self.seconds += time.monotonic() - self.asked

    def write(self, step: int, stage: str, rate: float) -> None:
        """A row of log.csv with the means since the last one; ``waited`` is the share of the steps' time."""
        finite = [norm for norm in self.norms if norm < float("inf")]
        row = {
            "step": step,
            "stage": stage,
            "loss": round(sum(self.losses) / len(self.losses), 5),
            "rate": float(f"{rate:.4g}"),
            "gradient_norm": round(sum(finite) / max(1, len(finite)), 4),
            "skipped": len(self.norms) - len(finite),
            "waited": round(self.waited / max(self.seconds, 1e-9), 3),
            "seconds_a_step": round(self.seconds / len(self.losses), 3),
        }
        if self.writes:
            _append(self.folder / "log.csv", [row])
        self._show("train", step, row)
        self._begin()

    def say(self, step: int, sentence: str, level: int = logging.INFO) -> None:
        """Write a line of run.log, and log it at ``level``."""
        if not self.writes:
            return
        log.log(level, "%s", sentence)
        try:
            with (self.folder / "run.log").open("a", encoding="utf-8") as stream:
                stream.write(f"step {step}: {sentence}\n")
        except OSError as error:
            raise AirwaySegError(f"{self.folder / 'run.log'} cannot be written: {error.strerror}.") from error

    def write_validation(self, step: int, cases: dict[str, dict[str, float]], means: dict[str, float]) -> None:
        """Write rows of validation.csv, one per case and their mean; they replace those of the same step."""
        rows = [{"step": step, "case": name, **numbers} for name, numbers in {**cases, "mean": means}.items()]
        if self.writes:
            _keep_until(self.folder / "validation.csv", step - 1)
            _append(self.folder / "validation.csv", rows)
        self._show("validation", step, means)

    def close(self) -> None:
        """Flush and close TensorBoard's writer."""
        if self.board is not None:
            self.board.close()

    def _show(self, group: str, step: int, numbers: dict[str, Any]) -> None:
        if self.board is not None:
            for name, value in numbers.items():
                if isinstance(value, float):
                    self.board.add_scalar(f"{group}/{name}", value, step)
            self.board.flush()


def read_validation(folder: Path) -> dict[int, dict[str, dict[str, float]]]:
    """The cases of validation.csv by step; empty if no case was held out."""
    path = folder / "validation.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as stream:
        table = csv.DictReader(stream)
        named = "case" in (table.fieldnames or ())  # a full disk may have taken the first line
        rows = [row for row in table if row["case"] != "mean"] if named else []
    steps: dict[int, dict[str, dict[str, float]]] = {}
    for row in rows:
        numbers = {key: float(value) for key, value in row.items() if key not in ("step", "case")}
        steps.setdefault(int(row["step"]), {})[row["case"]] = numbers
    return steps


def _open_board(folder: Path, step: int) -> Any:
    """TensorBoard's writer, or None where TensorBoard is not installed (it is an optional extra)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step or None)


def _keep_until(path: Path, step: int) -> None:
    """Remove the rows after ``step``."""
    if path.exists():
        with path.open(newline="") as stream:
            rows = list(csv.reader(stream))
        whole = [row for row in rows[1:] if len(row) == len(rows[0])]  # a killed run may have left half a row
        kept = [*rows[:1], *(row for row in whole if int(row[0]) <= step)]
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("w", newline="") as stream:
            csv.writer(stream).writerows(kept)
        os.replace(unfinished, path)


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        begins = not path.exists() or path.stat().st_size == 0  # a full disk leaves an empty file
        with path.open("a", newline="") as stream:
            table = csv.DictWriter(stream, list(rows[0]))
            if begins:
                table.writeheader()
            table.writerows(rows)
    except OSError as error:
        raise AirwaySegError(f"{path} cannot be written: {error.strerror}.") from error
