"""The cache files of a prepared case: written, read in crops, and checked by hashes.

`.prepared`/<case>/<fingerprint> holds ct.npy, label.npy, case.npz, a file for each map, and files.json: hashes of
files that need not be read again while their size and times are the same. Nothing is unpickled.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import delivered_into, write_text

HASHES = "files.json"
STILL_NS = 2_000_000_000
"""A file written within two seconds before it was hashed may change without a new time stamp (resolution of FAT)."""

FORMAT = 1
"""Increase it when the content of case.npz changes: then everything is computed again, with the same fingerprint."""

ARRAYS: dict[str, DTypeLike] = {"ct": np.int16, "label": np.uint8}


class Unusable(Exception):
    """A cache file is missing, damaged or outdated; it has to be made again."""


@dataclass(frozen=True, eq=False)
class OnDisk:
    """An array in an .npy file of which boxes are read; the file is open only while it is read.

    A memory map that stays open would take one of the process's file descriptors, of which there may be only 256.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype

    def __getitem__(self, box: Any) -> NDArray:
        """A copy of a box, indexed with slices or `numpy.ix_`."""
        part = self._mapped()[box]
        return part if part.base is None else part.copy()

    def __eq__(self, other: Any) -> Any:
        """Elementwise, as of an array."""
        return np.asarray(self) == other

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        """The whole array; its file stays open as long as it is used, unless a copy is asked for."""
        mapped = self._mapped()
        return np.array(mapped, dtype) if copy or dtype not in (None, self.dtype) else mapped

    def _mapped(self) -> NDArray:
        try:
            mapped = np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))
        except OSError as error:
            raise AirwaySegError(f"{self.path} cannot be read: {error.strerror or error}.") from error
        except (ValueError, EOFError) as error:
            raise AirwaySegError(f"{self.path} was changed while it was used.") from error
        if mapped.shape != self.shape or mapped.dtype != self.dtype:
            raise AirwaySegError(f"{self.path} was changed while it was used.")
        return mapped


class Hashes:
    """Hashes (SHA-256, hexadecimal) of files, stored with the files' size and times."""

    def __init__(self) -> None:
        self._known: dict[str, list[Any]] = {}
        self._changed = False

    @classmethod
    def kept_in(cls, parent: Path) -> "Hashes":
        """The hashes stored in the subfolders of ``parent``; unreadable files are skipped."""
        hashes = cls()
        for path in sorted(parent.glob(f"*/{HASHES}")):
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                continue  # then the files are read again
            if isinstance(document, dict):
                hashes._known |= {name: list(entry) for name, entry in document.items() if isinstance(entry, list)}
        return hashes

    def of(self, path: Path) -> str:
        """The file's hash: the stored one if size and times are the same, else computed; raises OSError."""
        state = _state(path)
        *remembered, digest = self._known.get(path.name) or [None]
        if remembered == state and isinstance(digest, str):
            return digest
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if state == _state(path) and max(state[1], state[2]) + STILL_NS < time.time_ns():
            self.remember(path, digest)
        return digest

    def remember(self, path: Path, digest: str) -> None:
        """Store a hash that is known to be that of the file as it is now."""
        self._known[path.name] = [*_state(path), digest]
        self._changed = True

    def keep_in(self, folder: Path) -> None:
        """Write new hashes into the folder, if it can be written."""
        if self._changed:
            with suppress(AirwaySegError):
                write_text(folder / HASHES, json.dumps(self._known))
            self._changed = False


def _state(path: Path) -> list[int]:
    """Values that change when a file is written or replaced: size, modification time, change time, inode."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def write_prepared(kept: Path, arrays: Mapping[str, NDArray], numbers: Mapping[str, Any], hashes: Hashes) -> None:
    """Write the `ARRAYS` of a case and its ``numbers``, replacing older ones.

    Raises
    ------
    AirwaySegError
        If the disk is full or cannot be written.
    """
    shutil.rmtree(kept, ignore_errors=True)
    with delivered_into(kept, last="case.npz") as unfinished:
        digests = []
        for name in ARRAYS:
            path = unfinished / f"{name}.npy"
            np.save(path, arrays[name])
            with path.open("rb") as stream:
                digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
        described = {name: np.asarray(values) for name, values in numbers.items()} | {"hashes": np.array(digests)}
        numbered: dict[str, Any] = {"seal": _seal(described, kept.name), **described}
        np.savez(unfinished / "case.npz", **numbered)
    for name, digest in zip(ARRAYS, digests):
        hashes.remember(kept / f"{name}.npy", digest)


def read_prepared(kept: Path, hashes: Hashes) -> tuple[dict[str, OnDisk], dict[str, NDArray]]:
    """The `ARRAYS`, and the content of case.npz, as they were written.

    Raises
    ------
    Unusable
        If a file is missing, damaged, or not of this case.
    AirwaySegError
        If one cannot be read for another reason.
    """
    numbers = _loaded(kept / "case.npz", lambda stored: dict(stored.items()))
    seal = str(numbers.pop("seal", ""))
    if seal != _seal(numbers, kept.name):
        raise Unusable("case.npz")
    arrays = {}
    for (name, kind), digest in zip(ARRAYS.items(), numbers["hashes"]):
        path = kept / f"{name}.npy"
        shape, dtype = _loaded(path, lambda array: (array.shape, array.dtype))
        if len(shape) != 3 or dtype != kind or hashes.of(path) != digest:
            raise Unusable(path.name)
        arrays[name] = OnDisk(path, shape, dtype)
    return arrays, numbers


def _seal(numbers: Mapping[str, NDArray], fingerprint: str) -> str:
    """A hash of the content of case.npz and of the case's fingerprint."""
    total = hashlib.sha256(f"{FORMAT} {fingerprint}".encode())
    for name, values in sorted(numbers.items()):
        total.update(f"{name} {values.dtype.str} {values.shape}".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def read_map(path: Path, count: int) -> NDArray:
    """The values (N,) of a map at the airway's ``count`` voxels; raises as `read_prepared`."""
    values = _loaded(path, np.array)
    if values.shape != (count,) or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise Unusable(path.name)
    return values


def _loaded(path: Path, use: Callable[[Any], Any]) -> Any:
    """The result of ``use`` on an .npy file's array, or on the arrays of an .npz file by name."""
    wanted = np.lib.npyio.NpzFile if path.suffix == ".npz" else np.ndarray
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(stored, wanted):
            raise Unusable(path.name)
        if isinstance(stored, np.ndarray):
            return use(stored)
        with stored:
            return use(stored)
    except FileNotFoundError as error:
        raise Unusable(path.name) from error
    except OSError as error:
        if error.errno is None:  # raised by NumPy, about the file's content
            raise Unusable(path.name) from error
        raise AirwaySegError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # arbitrary bytes: the readers' exception types are not documented
        raise Unusable(path.name) from error
