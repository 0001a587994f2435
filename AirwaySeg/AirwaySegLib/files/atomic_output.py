"""Atomic writes: results are written beside their folder and moved in at the end, whole or not at all."""

import glob
import os
import re
import secrets
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.user_files import check_name

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
        blocked = next((folder / name for name in there if (folder / name).is_dir()), None)
        parent = folder
        while not parent.exists():
            parent = parent.parent
        writable = parent.is_dir() and os.access(parent, os.W_OK)
    except OSError as error:
        raise AirwaySegError(f"{folder} cannot be used: {error.strerror or error}.") from error
    if blocked is not None:
        raise AirwaySegError(f"{blocked} is a folder; the results need a file of that name.")
    if there and not force:
        raise AirwaySegError(f"{folder} already holds {', '.join(there)}; use --force to replace it.")
    if not writable:
        raise AirwaySegError(f"{parent} cannot be written.")


@contextmanager
def delivered_into(folder: Path, last: str, replaced: tuple[str, ...] = ()) -> Iterator[Path]:
    """Give a temporary folder; when the block ends well, its files become ``folder``.

    A folder that does not exist yet appears with one rename. Into one that exists the files are moved one by one:
    ``last`` is removed before and put there at the end, so a result that has ``last`` is complete. Old files of the
    names in ``replaced`` are removed even if the block wrote none. Ctrl+C waits until all are moved; if one cannot be
    moved, the old files are restored. When the block fails nothing is left. What a killed run on this machine left
    behind is removed at the next start.

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
        remove_abandoned(beside)
        unfinished = beside / f"{_prefix()}{os.getpid()}-{secrets.token_hex(4)}"
        unfinished.mkdir()
        yield unfinished
        if folder.exists():
            with _signals_held():
                _move_in(unfinished, folder, last, replaced)
        else:
            os.rename(unfinished, folder)
    except OSError as error:
        raise AirwaySegError(f"The results cannot be written into {folder}: {error.strerror or error}.") from error
    except AirwaySegError as error:
        if str(unfinished) not in str(error):
            raise
        raise AirwaySegError(str(error).replace(str(unfinished), str(folder))) from error  # the name that users know
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, what it wrote there takes that name.

    A folder that is missing is made.

    Raises
    ------
    AirwaySegError
        If it cannot be written.
    """
    unfinished = path.with_name(unfinished_names(path.name).replace("*", str(os.getpid())))
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise AirwaySegError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            unfinished.unlink()


def unfinished_names(name: str) -> str:
    """A pattern for the temporary names of a file that `written_whole` writes; "*" is the number of the process."""
    return f".{name}.*.part"


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file; it appears under its name only when it is complete. A folder that is missing is made.

    Raises
    ------
    AirwaySegError
        If it cannot be written.
    """
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


def _prefix() -> str:
    """The same for all runs on this machine. "+" cannot stand in a machine's name."""
    return f"{_UNFINISHED}{socket.gethostname()}+"


def _move_in(unfinished: Path, folder: Path, last: str, replaced: tuple[str, ...]) -> None:
    """Exchange the files in ``folder``, ``last`` last; where that fails it has its old files again."""
    new = sorted((path.name for path in unfinished.iterdir()), key=lambda name: name == last)
    old = unfinished / f"old-{secrets.token_hex(4)}"
    old.mkdir()
    try:
        for name in dict.fromkeys((last, *replaced, *new)):
            if (folder / name).is_file():
                os.replace(folder / name, old / name)
            if name in new and name != last:
                os.replace(unfinished / name, folder / name)
        if last in new:
            os.replace(unfinished / last, folder / last)
    except BaseException:
        _put_back(old, folder, [name for name in new if not (unfinished / name).exists()], last)
        raise


def _put_back(old: Path, folder: Path, moved: list[str], last: str) -> None:
    """Give each old file its name again, ``last`` last; new files that replaced nothing go.

    What cannot get its name back, because another program holds it, is kept in a folder of its own.
    """
    names = sorted((path.name for path in old.iterdir()), key=lambda name: name == last)
    for name in set(moved) - set(names):
        with suppress(OSError):
            (folder / name).unlink()
    for name in names:
        with suppress(OSError):
            os.replace(old / name, folder / name)
    left = [path.name for path in old.iterdir()]
    if left:
        kept = folder / f"previous-{secrets.token_hex(4)}"
        os.rename(old, kept)
        raise AirwaySegError(f"{folder} could not get its old {', '.join(left)} back; they are in {kept}.")


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let Ctrl+C and SIGTERM wait until the block has ended; they only ever interrupt the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = {number: handler for number, handler in before.items() if handler is not None}  # None: set by C, no way back
    for number in ours:
        signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def remove_abandoned(folder: Path) -> None:
    """Remove temporary folders of runs on this machine that are no longer alive."""
    for path in folder.glob(f"{glob.escape(_prefix())}*"):
        process = re.match(r"([0-9]{1,9})-", path.name.removeprefix(_prefix()))
        if process and not _is_alive(int(process[1])):
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
