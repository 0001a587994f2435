"""Atomic replacement and removal of the folders of cases: a kill at any moment loses neither the old nor the new one.

A case that replaces another is written completely to ``.NAME.<random>.new``; then the old one is renamed to
``.NAME.<random>.removed``, and the new one to its name. A removed case is renamed to ``.removed`` too. After a kill
between two renames, `settle`, which every command calls first, finishes the work.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import remove_abandoned
from AirwaySegLib.files.folder_lock import locked

PREPARED = ".prepared"
"""Folder beside ``cases`` with the data computed from the cases."""

LONGEST_WAIT_S = 60
_PASSING = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<state>new|removed)")


@contextmanager
def turn_at(data: Path, what: str) -> Iterator[None]:
    """Lock under which the folders of cases are renamed; another process waits for it, up to a minute.

    Raises
    ------
    AirwaySegError
        If another process takes longer.
    """
    end = time.monotonic() + LONGEST_WAIT_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(data / "cases", what))
                break
            except AirwaySegError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)
        yield


def passing(folder: Path, state: str) -> Path:
    """A temporary name for the folder of a case that is added ("new") or removed ("removed"); readers skip it."""
    return folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.{state}")


def put_in_place(new: Path, folder: Path) -> None:
    """Rename a complete case, a `passing` folder, to its name; a case of that name is removed. Needs `turn_at`.

    Raises
    ------
    AirwaySegError
        If that fails; then the old case is restored.
    """
    leaving = passing(folder, "removed")
    try:
        if folder.exists():
            os.rename(folder, leaving)
        os.rename(new, folder)
    except OSError as error:
        if leaving.exists() and not folder.exists():
            os.rename(leaving, folder)
        shutil.rmtree(new, ignore_errors=True)
        raise AirwaySegError(f"{folder} cannot be replaced: {error.strerror or error}.") from error
    shutil.rmtree(leaving, ignore_errors=True)


def take_away(folder: Path) -> None:
    """Remove a case and the data computed from it. Needs `turn_at`; raises OSError if that fails."""
    leaving = passing(folder, "removed")
    os.rename(folder, leaving)
    _remove(leaving, folder.name)


def settle(data: Path) -> None:
    """Finish what killed commands began in a data folder, and remove their leftovers.

    Raises
    ------
    AirwaySegError
        If a case that such a command was replacing cannot be restored.
    """
    cases = data / "cases"
    if not cases.is_dir():
        return
    remove_abandoned(cases)
    if not _passing(cases):
        return
    with turn_at(data, "airwayseg-train"):
        for path, name, state in _passing(cases):
            try:
                if state == "new" and not (cases / name).exists():
                    os.rename(path, cases / name)
                elif state == "new":  # otherwise it would appear again once the case is removed by hand
                    os.rename(path, passing(cases / name, "removed"))
            except OSError as error:
                if not (cases / name).exists():
                    raise AirwaySegError(
                        f"{cases / name} was being replaced when a command was stopped, and {path.name} cannot take "
                        f"its name: {error.strerror or error}."
                    ) from error
        for path, name, state in _passing(cases):
            if state == "removed":
                with suppress(OSError):
                    _remove(path, name)


def _passing(cases: Path) -> list[tuple[Path, str, str]]:
    """Temporary folders of cases, with the case's name and state; "new" ones first, and the latest first."""
    found = [(path, match) for path in cases.iterdir() if (match := _PASSING.fullmatch(path.name))]
    latest = sorted(found, key=lambda item: (item[1]["state"], -_written_ns(item[0])))
    return [(path, match["name"], match["state"]) for path, match in latest]


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # removed by another process
        return 0


def _remove(leaving: Path, name: str) -> None:
    """Remove a folder, and before it the data computed from it, unless another case has its name now."""
    if not (leaving.parent / name).exists():
        shutil.rmtree(leaving.parents[1] / PREPARED / name, ignore_errors=True)
    shutil.rmtree(leaving)
