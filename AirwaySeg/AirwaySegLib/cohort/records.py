"""What the folder of a cohort holds of each case: its result, or why it failed. Nothing else has to be remembered."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from AirwaySegLib.files.atomic_output import write_text
from AirwaySegLib.files.json_documents import parse_json

CASES, FAILED = "cases", "failed"
"""Folders of the results and of the failures."""

FINISHED, FAILURE, IN_USE, WAITING = "finished", "failed", "in use", "not run"
"""What can be said of a case: its status. ``IN_USE``: another run is working on it."""


@dataclass(frozen=True)
class Outcome:
    """How one case ended, with what its line says; small enough to be sent over a network.

    ``sentence`` is why it failed, ``warnings`` how many there are, ``branches`` None where nothing was measured.
    """

    id: str
    status: str
    sentence: str = ""
    seconds: float = 0.0
    warnings: int = 0
    branches: int | None = None
    millilitres: float | None = None


def result_folder(output: Path, case_id: str) -> Path:
    """Where the result of a case lies."""
    return output / CASES / case_id


def failure_of(output: Path, case_id: str) -> str:
    """Why a case failed when it was last tried; empty if it did not."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        return str(parse_json(_failure_file(output, case_id).read_text(encoding="utf-8"))["sentence"])
    return ""


def note_failure(output: Path, case_id: str, sentence: str) -> None:
    """Write down why a case failed.

    Raises
    ------
    AirwaySegError
        If it cannot be written.
    """
    write_text(_failure_file(output, case_id), json.dumps({"sentence": sentence}) + "\n")


def forget_failure(output: Path, case_id: str) -> None:
    """Remove what is written of an earlier failure."""
    file = _failure_file(output, case_id)
    with suppress(OSError):
        file.unlink()
        file.parent.rmdir()  # if it was the last


def report_of(folder: Path) -> dict[str, Any] | None:
    """The report of the result in a folder; None if there is none."""
    with suppress(OSError, ValueError):
        document = parse_json((folder / "report.json").read_bytes())
        return document if isinstance(document, dict) else None
    return None


def outcome_of(output: Path, case_id: str, seconds: float) -> Outcome:
    """The outcome of a case that has just been finished."""
    report = report_of(result_folder(output, case_id)) or {}
    return Outcome(
        case_id,
        FINISHED,
        seconds=seconds,
        warnings=len(report.get("warnings", [])),
        branches=report.get("decisions", {}).get("branches"),
        millilitres=report.get("result", {}).get("millilitres"),
    )


def _failure_file(output: Path, case_id: str) -> Path:
    return output / FAILED / f"{case_id}.json"
