"""Results reach their folder whole or not at all: they are written beside it and moved in at the end."""

import glob
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.userfiles import check_name

_UNFINISHED = ".airwayseg-unfinished+"


def check_free(folder: Path, names: tuple[str, ...], force: bool) -> None:
    """Refuse to go on where results cannot be written or would overwrite files, before any work is done.

    Raises
    ------
    AirwaySegError
        If ``folder`` is a file or cannot be written, or holds one of ``names`` and ``force`` is False.
    """
    check_name(folder)
    try:
        if folder.exists() and not folder.is_dir():
            raise AirwaySegError(f"{folder} is a file; the results need a folder.")
        there = [name for name in names if (folder / name).exists()]
        place = folder
        while not place.exists():
            place = place.parent
        writable = place.is_dir() and os.access(place, os.W_OK)
    except OSError as error:
        raise AirwaySegError(f"{folder} cannot be used: {error.strerror or error}.") from error
    if there and not force:
        raise AirwaySegError(f"{folder} already holds {', '.join(there)}; use --force to replace it.")
    if not writable:
        raise AirwaySegError(f"{place} cannot be written.")


@contextmanager
def delivered_into(folder: Path, last: str) -> Iterator[Path]:
    """Give a temporary folder; when the block ends well, its files become ``folder``.

    A folder that does not exist yet appears with one rename. Into one that exists the files are moved one by one:
    ``last`` is removed before and put there at the end, so a result that has ``last`` is complete. When the block fails
    nothing is left. What a killed run on this machine left behind is removed at the next start.

    Raises
    ------
    AirwaySegError
        If the disk is full or the folder cannot be written.
    """
    unfinished: Path | None = None
    try:
        # Inside a folder that exists: it may be a link or a disk of its own, and its parent may be read-only.
        beside = folder if folder.exists() else folder.parent
        beside.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(beside)
        unfinished = beside / f"{_prefix()}{os.getpid()}-{secrets.token_hex(4)}"
        unfinished.mkdir()
        yield unfinished
        _move_in(unfinished, folder, last)
    except OSError as error:
        raise AirwaySegError(f"The results cannot be written into {folder}: {error.strerror or error}.") from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, what it wrote there takes that name.

    Raises
    ------
    AirwaySegError
        If it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise AirwaySegError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            unfinished.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, with its folder if that is missing; it appears under its name only when it is complete.

    Raises
    ------
    AirwaySegError
        If it cannot be written.
    """
    with written_whole(path) as unfinished:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8", newline="\n")


def _prefix() -> str:
    """The same for all runs on this machine. "+" cannot stand in a machine's name."""
    return f"{_UNFINISHED}{socket.gethostname()}+"


def _move_in(unfinished: Path, folder: Path, last: str) -> None:
    if not folder.exists():
        os.rename(unfinished, folder)
        return
    (folder / last).unlink(missing_ok=True)
    for file in sorted(unfinished.iterdir(), key=lambda path: path.name == last):
        os.replace(file, folder / file.name)


def _remove_abandoned(place: Path) -> None:
    """Remove temporary folders of runs on this machine that are no longer alive."""
    for path in place.glob(f"{glob.escape(_prefix())}*"):
        process = path.name.removeprefix(_prefix()).split("-")[0]
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
