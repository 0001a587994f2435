"""The folder of a training: it belongs to one run, and to one process at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.folder_lock import locked

CHECKPOINT = "last.pt"
"""What a run is continued from; it is written before anything else."""

RUN_FILES = (
    *(CHECKPOINT, "model.safetensors", "best.safetensors"),
    *("log.csv", "validation.csv", "run.log", "missed", "finetune.json"),
)
"""What a run leaves in its folder; the pool of `breakage` says itself what it was made of."""


@contextmanager
def run_folder(folder: Path, command: str, *, resume: bool) -> Iterator[None]:
    """Keep other runs out of ``folder`` while the block trains in it; of several processes the leading one does it.

    Raises
    ------
    AirwaySegError
        If another living process works in it, or it holds a run that is not continued or cannot be.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    with locked(folder, f"airwayseg-train {command}"):
        there = [name for name in RUN_FILES if (folder / name).exists()]
        if there and CHECKPOINT not in there:
            raise AirwaySegError(
                f"{folder} holds {there[0]} of a run, and no {CHECKPOINT} to continue it from; choose another folder."
            )
        if there and not resume:
            raise AirwaySegError(f"{folder} already holds a run; continue it with --resume or choose another folder.")
        yield
