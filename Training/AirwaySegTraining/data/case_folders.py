"""The folders of the cases: one takes the place of another, or goes away, and a kill at any moment loses neither.

A case that replaces another is complete as ``.NAME.<random>.new`` before the old one leaves to
``.NAME.<random>.removed`` and it takes the name; a case that is removed leaves there too. All that happens between two
renames is made good by `settle`, which every command calls first.
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
"""Beside ``cases``: what is worked out of the cases."""

LONGEST_WAIT_S = 60
_PASSING = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<state>new|removed)")


@contextmanager
def turn_at(data: Path, what: str) -> Iterator[None]:
    """One process after the other renames cases of a data folder: others wait, up to a minute.

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
    """A name for a case's folder while it comes ("new") or goes ("removed"), which no reader looks at."""
    return folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.{state}")


def put_in_place(new: Path, folder: Path) -> None:
    """Give a complete case, a `passing` folder, its name; the case that has it goes. For `turn_at`.

    Raises
    ------
    AirwaySegError
        If that cannot be done; then the case that was there is there again.
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
    """Remove a case with what was worked out of it. For `turn_at`; raises OSError where that cannot be done."""
    leaving = passing(folder, "removed")
    os.rename(folder, leaving)
    _remove(leaving, folder.name)


def settle(data: Path) -> None:
    """Finish what killed commands have begun in a data folder, and remove what they left.

    Raises
    ------
    AirwaySegError
        If a case that such a command was replacing cannot be brought back.
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
                elif state == "new":  # left so, it would come back when the case is removed by hand
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
    """Folders of cases that come or go, with the case's name and state; those that come first, and the latest first."""
    found = [(path, match) for path in cases.iterdir() if (match := _PASSING.fullmatch(path.name))]
    latest = sorted(found, key=lambda item: (item[1]["state"], -_written_ns(item[0])))
    return [(path, match["name"], match["state"]) for path, match in latest]


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # gone by now
        return 0


def _remove(leaving: Path, name: str) -> None:
    """Remove a folder that goes, and before it what was worked out of it unless another case has its name now."""
    if not (leaving.parent / name).exists():
        shutil.rmtree(leaving.parents[1] / PREPARED / name, ignore_errors=True)
    shutil.rmtree(leaving)
