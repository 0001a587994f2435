"""A case of a cohort, an input that was left out, and the names of the cases."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from AirwaySegLib.files.volume import Volume, read_ct

LONGEST_ID = 120
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
"""Names that Windows gives no file."""


@dataclass(frozen=True)
class Case:
    """One CT to be segmented.

    ``id`` names its result folder. ``series`` is the UID of a DICOM series in the folder ``path``, and ``files`` are
    its images if the folder holds others, too. With ``mask`` this airway mask is measured instead of one by the
    network. ``about`` says in a few words what the input is; ``voxels`` is their number, 0 if unknown.
    """

    id: str
    path: Path
    series: str = ""
    files: tuple[Path, ...] = ()
    mask: Path | None = None
    patient: str = ""
    date: str = ""
    group: str = ""
    about: str = ""
    voxels: int = 0

    def read(self) -> tuple[Volume, list[str]]:
        """The CT and the warnings about it, as `read_ct`."""
        return read_ct(self.path, self.series or None, None, self.files)


@dataclass(frozen=True)
class LeftOut:
    """An input that is no case, and why."""

    path: Path
    what: str
    reason: str


@dataclass(frozen=True)
class Found:
    """The cases of a cohort, in order, and what was left out."""

    cases: tuple[Case, ...]
    left_out: tuple[LeftOut, ...] = ()


def id_of(parts: Sequence[str]) -> str:
    """A name for a folder on any system, from the parts of a path: letters, digits, "-", "_" and "." only."""
    text = unicodedata.normalize("NFC", "_".join(parts))  # macOS gives file names with accents of their own
    text = re.sub(r"[^\w.-]+", "-", text).strip(".-_ ") or "ct"
    if text.split(".")[0].lower() in _RESERVED:
        text = f"ct_{text}"
    if len(text.encode()) > LONGEST_ID:
        mark = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = text.encode()[: LONGEST_ID - 9].decode(errors="ignore") + "-" + mark
    return text


def distinct(names: Sequence[str]) -> list[str]:
    """The names, the second of two that differ in case at most with "-2" at its end, and so on."""
    taken: set[str] = set()
    result = []
    for name in names:
        free, number = name, 2
        while free.lower() in taken:
            free, number = f"{name}-{number}", number + 1
        taken.add(free.lower())
        result.append(free)
    return result


def parts_below(path: Path, root: Path) -> list[str]:
    """The names of the folders from ``root`` (left out) down to ``path``; its own name for the root itself."""
    relative = os.path.relpath(path, root)
    return [path.name or "ct"] if relative == "." else list(Path(relative).parts)
