"""Which paths of a user may be opened: named in characters that every library can pass on, and regular files."""

import stat
from pathlib import Path

from AirwaySegLib.errors import AirwaySegError


def printable(path: Path | str) -> str:
    """The path in characters that can be printed on one line; what is none of them is written as an escape."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(letter if ord(letter) >= 32 else f"\\x{ord(letter):02x}" for letter in text)


def check_name(path: Path) -> None:
    r"""Refuse a path with bytes that are not UTF-8 or with control characters, before a C++ library meets it.

    Python carries such bytes as lone surrogates (``caf\udce9.nii``); SimpleITK ends the whole process on them.
    """
    if printable(path) != str(path):
        raise AirwaySegError(f"{printable(path)} has a name that is not plain text in UTF-8; rename it.")


def check_regular_file(path: Path) -> None:
    """Refuse what is not there, a folder, and what is no file at all (a device, a pipe, a socket: reading may hang).

    Raises
    ------
    AirwaySegError
        With one sentence that names the path.
    """
    check_name(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise AirwaySegError(f"{path} does not exist.") from None
    except OSError as error:
        raise AirwaySegError(f"{path} cannot be opened: {error.strerror}.") from None
    if stat.S_ISDIR(mode):
        raise AirwaySegError(f"{path} is a folder; give a file.")
    if not stat.S_ISREG(mode):
        raise AirwaySegError(f"{path} is a device, a pipe or a socket; only regular files are read.")
