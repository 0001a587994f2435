"""Results reach their folder whole or not at all: they are written beside it and moved in at the end.

Only one run at a time works in a folder.
"""

import glob
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.user_files import check_name

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_UNFINISHED = ".airwayseg-unfinished+"
_LOCK = ".airwayseg-lock"
_LOCKED_BYTE = 2**30
"""Windows lets nobody else read what is locked: a byte far behind the few that the file holds."""

_held: dict[Path, int] = {}
"""Lock files that this process holds, with their open descriptors."""


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
        place = folder
        while not place.exists():
            place = place.parent
        writable = place.is_dir() and os.access(place, os.W_OK)
    except OSError as error:
        raise AirwaySegError(f"{folder} cannot be used: {error.strerror or error}.") from error
    if blocked is not None:
        raise AirwaySegError(f"{blocked} is a folder; the results need a file of that name.")
    if there and not force:
        raise AirwaySegError(f"{folder} already holds {', '.join(there)}; use --force to replace it.")
    if not writable:
        raise AirwaySegError(f"{place} cannot be written.")


@contextmanager
def delivered_into(folder: Path, last: str, replaced: tuple[str, ...] = ()) -> Iterator[Path]:
    """Give a temporary folder; when the block ends well, its files become ``folder``.

    A folder that does not exist yet appears with one rename. Into one that exists the files are moved one by one:
    ``last`` is removed before and put there at the end, so a result that has ``last`` is complete. Old files of the
    names in ``replaced`` do not outlive this even if the block wrote none. Ctrl+C waits until all are moved, and when
    one cannot be moved the old ones come back. When the block fails nothing is left. What a killed run on this machine
    left behind is removed at the next start.

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
        for name in new:
            if not (unfinished / name).exists():
                (folder / name).unlink()
        for name in sorted((path.name for path in old.iterdir()), key=lambda name: name == last):
            os.replace(old / name, folder / name)
        raise


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


def remove_abandoned(place: Path) -> None:
    """Remove temporary folders of runs on this machine that are no longer alive."""
    for path in place.glob(f"{glob.escape(_prefix())}*"):
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


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Keep other runs out of ``folder``, which needs not exist, while the block works on it.

    ``what`` is the command for the sentence that others get, such as "airwayseg measure". The operating system frees
    the lock when this process ends, however it ends. This process and its child processes may lock the folder again.
    Where the file system has no locks the block runs without one. ``folder`` may also be a file to be written.

    Raises
    ------
    AirwaySegError
        If another living process holds it.
    """
    folder = Path(os.path.realpath(folder))
    path = _lock_file(folder)
    if path in _held:
        yield
        return
    made = _made_folders(path.parent)
    try:
        descriptor = _acquire(path, folder, what)
        try:
            yield
        finally:
            if descriptor is not None:
                _release(path, descriptor)
    finally:
        for empty in made:
            with suppress(OSError):  # it is no longer empty
                empty.rmdir()


def _lock_file(folder: Path) -> Path:
    """Beside the folder, which may not exist yet or be renamed; inside where all runs that share it see only that."""
    if os.path.ismount(folder) or (folder.is_dir() and not os.access(folder.parent, os.W_OK)):
        return folder / _LOCK
    return folder.with_name(f"{_LOCK}+{folder.name}")


def _made_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it as far as that can be done; what was made, the deepest first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    with suppress(OSError):  # whoever writes the results says why that cannot be done
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(path: Path, folder: Path, what: str) -> int | None:
    """The open descriptor of the lock file; None where there can be no lock, or the parent process holds it."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError:
            return None
        try:
            _lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                break
        except (BlockingIOError, PermissionError):
            _refuse_unless_parent(descriptor, folder)
            return None
        except FileNotFoundError:
            pass
        except OSError:  # such as a network drive without locks
            os.close(descriptor)
            return None
        os.close(descriptor)  # the run before removed this very file in between
    _held[path] = descriptor
    with suppress(OSError):  # a full disk; what stands there only explains
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} {socket.gethostname()} {what}".encode())
    return descriptor


def _refuse_unless_parent(descriptor: int, folder: Path) -> None:
    """Close the lock file of another process and raise, unless that is the parent of this one."""
    holder = os.read(descriptor, 300).decode(errors="replace").split(maxsplit=2)
    os.close(descriptor)
    if holder[:2] == [str(os.getppid()), socket.gethostname()]:
        return
    process, machine, what = holder if len(holder) == 3 else ("?", "?", "another run")
    raise AirwaySegError(f"{folder} is in use by {what} (process {process} on {machine}); wait until it has finished.")


def _lock(descriptor: int) -> None:
    """Take the lock at once or raise BlockingIOError or PermissionError."""
    if sys.platform == "win32":
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _release(path: Path, descriptor: int) -> None:
    """Remove the lock file and free the lock; in a forked child both are its parent's."""
    if _held.get(path) != descriptor:
        return
    del _held[path]
    if sys.platform == "win32":  # where an open file cannot be removed
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        os.close(descriptor)
    with suppress(OSError):
        path.unlink()
    if sys.platform != "win32":
        os.close(descriptor)


def _forget_locks() -> None:
    """In a forked child: a copy of the descriptor would keep the lock when the parent is killed."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_locks)
