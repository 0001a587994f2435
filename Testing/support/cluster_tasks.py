"""What the workers of a test's cluster run: tasks that write down their starts and wait until they may go on."""

import json
import os
import time
from pathlib import Path

from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.records import FINISHED, Outcome
from AirwaySegLib.files.atomic_output import delivered_into

LONG_ENOUGH_S = 300


def note_and_wait(output: Path, case: Case) -> Outcome:
    """Note the start, wait for the file "go", and deliver a result as the real work does."""
    starts = output / "starts"
    starts.mkdir(parents=True, exist_ok=True)
    (starts / f"{case.id}-{os.getpid()}").touch()
    for _ in range(LONG_ENOUGH_S * 20):
        if (output / "go").exists():
            break
        time.sleep(0.05)
    if case.id == "broken":
        raise ValueError("first line\nsecond line")
    with delivered_into(output / "cases" / case.id, "report.json") as unfinished:
        (unfinished / "report.json").write_text(json.dumps({"id": case.id}))
    return Outcome(case.id, FINISHED)
