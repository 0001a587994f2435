"""What an earlier measurement computed for parts of a scan, so that after an edit only what changed is computed again.

Each result is kept under a checksum of everything that it was computed from. So a result is taken over only where
computing it again would give the same bits, and a measurement with known parts equals one without.
"""

import hashlib
import tokenize
import zipfile
from pathlib import Path

import numpy as np
import scipy
import skimage
from numpy.typing import NDArray

import AirwaySegLib
from AirwaySegLib.errors import AirwaySegError

Arrays = tuple[NDArray, ...]

DIGEST_BYTES = 16
MAKER = f"AirwaySeg {AirwaySegLib.__version__}, " + ", ".join(
    f"{m.__name__} {m.__version__}" for m in (np, scipy, skimage)
)
"""A file of another version is not used: it may have computed otherwise."""


UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, tokenize.TokenError)
"""What NumPy and zipfile raise for a damaged file."""


class KnownParts:
    """The arrays that were computed for each part, by the part's checksum."""

    def __init__(self, before: dict[bytes, Arrays] | None = None) -> None:
        self._before = before or {}
        self.now: dict[bytes, Arrays] = {}
        """The parts that were found or kept, for the next measurement."""
        self.computed: dict[str, int] = {}
        """How many parts of each kind were computed, since they were not known."""
        self.taken: dict[str, int] = {}
        """How many of each kind were known."""

    def find(self, kind: str, part: bytes) -> Arrays | None:
        """The arrays of a part; None where they are not known. They are not to be changed."""
        key = kind.encode() + part
        found = self.now.get(key) or self._before.get(key)
        if found is not None:
            self.now[key] = found
            self.taken[kind] = self.taken.get(kind, 0) + 1
        return found

    def keep(self, kind: str, part: bytes, arrays: Arrays) -> Arrays:
        """Keep and return the arrays of a part that was not known."""
        self.now[kind.encode() + part] = arrays
        self.computed[kind] = self.computed.get(kind, 0) + 1
        return arrays

    def write(self, path: Path) -> None:
        """Write the parts that were kept or found, and no others, as a file of numpy arrays (.npz).

        One array holds the bytes of all: a file of thousands of arrays takes seconds to write and read.
        """
        rows, pieces, start = [], [], 0
        for key, arrays in self.now.items():
            for array in arrays:
                rows.append(f"{key.hex()} {array.dtype.str} {start} {' '.join(map(str, array.shape))}")
                pieces.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
                start += array.nbytes
        data = np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
        np.savez(path, maker=MAKER, rows=np.array("\n".join(rows)), data=data)

    @classmethod
    def read(cls, path: Path) -> "KnownParts":
        """The parts of a file; none where another version wrote it.

        Raises
        ------
        AirwaySegError
            If the file cannot be read or was not written by `write`.
        """
        before: dict[bytes, list[NDArray]] = {}
        try:
            with np.load(path, allow_pickle=False) as stored:
                if str(stored["maker"]) != MAKER:
                    return cls()
                rows, data = str(stored["rows"]), stored["data"]
            for row in rows.splitlines():
                key, kind, start, *shape = row.split()
                counts, dtype, first = tuple(map(int, shape)), np.dtype(kind), int(start)
                size = int(np.prod(counts, dtype=np.int64)) * dtype.itemsize
                before.setdefault(bytes.fromhex(key), []).append(data[first : first + size].view(dtype).reshape(counts))
        except UNREADABLE as error:
            raise AirwaySegError(f"{path} cannot be read as known parts of a measurement: {error}") from error
        return cls({key: tuple(arrays) for key, arrays in before.items()})


def checksum(*inputs: NDArray | bytes | float | tuple) -> bytes:
    """A checksum of arrays, with their types and shapes, and of plain values; masks are packed, as that is faster."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for one in inputs:
        if isinstance(one, np.ndarray):
            digest.update(f"{one.dtype.str}{one.shape}".encode())
            digest.update((np.packbits(one) if one.dtype == bool else np.ascontiguousarray(one)).data)
        else:
            digest.update(repr(one).encode())
    return digest.digest()
