"""The folder of a training: it belongs to one run, and to one process at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.folder_lock import locked

CHECKPOINT = "last.pt"
"""The checkpoint from which a run is resumed; it is written before anything else."""

RUN_FILES = (
    *(CHECKPOINT, "model.safetensors", "best.safetensors"),
    *("log.csv", "validation.csv", "run.log", "missed", "finetune.json"),
)
"""Files of a run in its folder; the pool of `breakage` is not one, because its names describe its content."""


@contextmanager
def run_folder(folder: Path, command: str, *, resume: bool) -> Iterator[None]:
    """Lock ``folder`` while the block trains in it; of several processes rank 0 does it.

    Raises
    ------
    AirwaySegError
        If another running process works in it, or it holds a run and ``resume`` is False, or one without checkpoint.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    with locked(folder, f"airwayseg-train {command}"):
        there = [name for name in RUN_FILES if (folder / name).exists()]
        if there and CHECKPOINT not in there:
            raise AirwaySegError(
                f"{folder} holds {there[0]} of a run, but no {CHECKPOINT} to resume it from; choose another folder."
            )
        if there and not resume:
            raise AirwaySegError(f"{folder} already holds a run; resume it with --resume or choose another folder.")
        yield
