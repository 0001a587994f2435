"""Results reach their folder whole or not at all: they are written beside it and moved in at the end."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError

_PREFIX = ".airwayseg-unfinished"


def check_free(folder: Path, names: tuple[str, ...], force: bool) -> None:
    """Refuse to go on where results would overwrite files, before any work is done.

    Raises
    ------
    AirwaySegError
        If ``folder`` is a file, or holds one of ``names`` and ``force`` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise AirwaySegError(f"{folder} is a file; the results need a folder.")
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise AirwaySegError(f"{folder} already holds {', '.join(there)}; use --force to replace it.")


@contextmanager
def delivered_into(folder: Path, last: str) -> Iterator[Path]:
    """Give a temporary folder beside ``folder``; when the block ends well, move its files into ``folder``.

    A new (or empty) folder appears with one rename. Into one that holds something the files are moved one by one:
    ``last`` is removed before and put there at the end, so a result that has ``last`` is complete. When the block fails
    nothing is left. What a killed run on this machine left behind is removed at the next start.

    Raises
    ------
    AirwaySegError
        If the disk is full or the folder cannot be written.
    """
    unfinished: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        prefix = f"{_PREFIX}-{socket.gethostname()}-{os.getpid()}-"
        unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        yield unfinished
        os.chmod(unfinished, 0o755)  # mkdtemp makes private folders; a result is as readable as any new folder
        _move_in(unfinished, folder, last)
    except OSError as error:
        raise AirwaySegError(f"The results cannot be written into {folder}: {error.strerror or error}.") from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)


def _move_in(unfinished: Path, folder: Path, last: str) -> None:
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
    if not folder.exists():
        os.rename(unfinished, folder)
        return
    (folder / last).unlink(missing_ok=True)
    for file in sorted(unfinished.iterdir(), key=lambda path: path.name == last):
        os.replace(file, folder / file.name)


def _remove_abandoned(parent: Path) -> None:
    """Remove temporary folders of runs on this machine that are no longer alive."""
    for path in parent.glob(f"{_PREFIX}-{socket.gethostname()}-*"):
        process = path.name.split("-")[-2]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there, signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
