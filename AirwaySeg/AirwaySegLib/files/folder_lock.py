"""Only one run at a time works in a folder: a lock that the operating system frees when its process ends."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCK = ".airwayseg-lock"
_LOCKED_BYTE = 2**30
"""Windows lets nobody else read what is locked: a byte far behind the few that the file holds."""


class InUse(AirwaySegError):
    """Another living process works in the folder."""


_held: dict[Path, int] = {}
"""Lock files that this process holds, with their open descriptors."""


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Keep other runs out of ``folder``, which needs not exist, while the block works on it.

    ``what`` is the command for the sentence that others get, such as "airwayseg measure". The operating system frees
    the lock when this process ends, however it ends. This process and its child processes may lock the folder again.
    Where the file system has no locks the block runs without one. ``folder`` may also be a file to be written.

    Raises
    ------
    InUse
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
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    with suppress(OSError):  # whoever writes the results says why that cannot be done
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(path: Path, folder: Path, what: str) -> int | None:
    """The open descriptor of the lock file; None where there can be no lock, or the parent process holds it."""
    while True:
        descriptor = _opened(path)
        if descriptor is None:
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


def _opened(path: Path) -> int | None:
    """The lock file, open; another user's file can be read only, which is enough to lock it. None: there is none."""
    for access in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        with suppress(OSError):
            return os.open(path, access | getattr(os, "O_NOFOLLOW", 0), 0o666)
    return None


def _refuse_unless_parent(descriptor: int, folder: Path) -> None:
    """Close the lock file of another process and raise, unless that is the parent of this one."""
    holder = os.read(descriptor, 300).decode(errors="replace").split(maxsplit=2)
    os.close(descriptor)
    if holder[:2] == [str(os.getppid()), socket.gethostname()]:
        return
    process, machine, what = holder if len(holder) == 3 else ("?", "?", "another run")
    raise InUse(f"{folder} is in use by {what} (process {process} on {machine}); wait until it has finished.")


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
