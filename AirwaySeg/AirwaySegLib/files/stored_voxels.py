"""Voxels as a file stores them: none missing, none too many, and as their checksum says."""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 20


@dataclass(frozen=True)
class StoredVoxels:
    """Where the voxels of a file lie, and how.

    They start at byte ``start`` of ``path``, after ``lines`` more lines, and are ``raw``, or a stream of ``gzip`` or
    ``zlib``. ``skipped`` bytes come before them in the unpacked content; -1 means that they are at the end.
    """

    path: Path
    start: int
    encoding: str
    lines: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class NiftiVoxels:
    """Where the voxels of a NIfTI file start, in unpacked bytes, and what they mean.

    ``kind`` is numpy's, with the byte order ("<i2"); the value is slope * stored + intercept.
    """

    path: Path
    start: int
    compressed: bool
    kind: str
    slope: float
    intercept: float


class Damaged(Exception):
    """What is wrong with the voxels, as the rest of a sentence."""


def check_voxels(stored: StoredVoxels, array: NDArray[Any]) -> None:
    """Raise `Damaged` unless ``array`` (Z, Y, X), as a library read it, is what the file holds, whole and undamaged.

    The checksum of a stream is compared with that of the voxels that were read, which is many times faster than to
    unpack the stream again. Only where this does not settle it (another byte order, several streams in a row, damage)
    everything is unpacked once more.
    """
    if stored.encoding == "raw":
        there = stored.path.stat().st_size - stored.start
        _check_count(there - max(stored.skipped, 0) if stored.skipped >= 0 else min(there, array.nbytes), array)
    elif not _sum_agrees(stored, array):
        _check_unpacked(stored, array)


def _sum_agrees(stored: StoredVoxels, array: NDArray[Any]) -> bool:
    """Whether the file ends with the checksum of these very voxels."""
    with stored.path.open("rb") as stream:
        stream.seek(max(stored.start, stored.path.stat().st_size - 8))
        end = stream.read()
    if len(end) < 8 or stored.lines or stored.skipped:
        return False
    if stored.encoding == "zlib":
        return struct.unpack(">I", end[4:])[0] == zlib.adler32(array.data)
    return struct.unpack("<II", end) == (zlib.crc32(array.data), array.nbytes & 0xFFFFFFFF)


def _check_unpacked(stored: StoredVoxels, array: NDArray[Any]) -> None:
    """Unpack the stream, which checks its checksum, count its bytes and compare them with the array's."""
    count = checksum = 0
    try:
        for chunk in _unpacked(stored):
            count += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    except (OSError, EOFError, zlib.error):
        raise Damaged("voxels are missing, or do not match their checksum") from None
    _check_count(count - max(stored.skipped, 0) if stored.skipped >= 0 else min(count, array.nbytes), array)
    swapped = array.byteswap()
    if count == array.nbytes and checksum not in (zlib.crc32(array.data), zlib.crc32(swapped.data)):
        raise Damaged("its voxels cannot be unpacked")


def _unpacked(stored: StoredVoxels) -> Iterator[bytes]:
    with stored.path.open("rb") as stream:
        stream.seek(stored.start)
        for _ in range(stored.lines):
            stream.readline()
        if stored.encoding == "zlib":
            yield from _inflated(stream)
            return
        with gzip.GzipFile(fileobj=stream) as unpacked:
            while chunk := unpacked.read(_CHUNK):
                yield chunk


def _inflated(stream: BufferedReader) -> Iterator[bytes]:
    """The content of a zlib stream, or of one of gzip under that name; EOFError if it does not end."""
    inflater = zlib.decompressobj(47)
    while not inflater.eof:
        chunk = stream.read(_CHUNK)
        if not chunk:
            raise EOFError
        yield inflater.decompress(chunk)


def _check_count(bytes_there: int, array: NDArray[Any]) -> None:
    """A few bytes more are padding; a slice more (along any axis) means that the header's size is wrong."""
    if bytes_there < array.nbytes:
        raise Damaged("voxels are missing from the file")
    if bytes_there - array.nbytes >= array.nbytes // max(array.shape):
        raise Damaged("it holds more voxels than its header says")


def read_nifti_voxels(stored: NiftiVoxels, shape: tuple[int, ...]) -> NDArray[Any]:
    """The voxels (Z, Y, X) of a NIfTI file in the machine's byte order: as stored, or scaled and then floating point.

    ITK is not asked: of ``ct.nii.gz`` beside ``ct.nii`` it takes the header of the one and the voxels of the other,
    and what is not a number it sets to 0, which is water.

    Raises
    ------
    Damaged
        If voxels are missing or do not match their checksum.
    """
    kind = np.dtype(stored.kind)
    array = np.empty(math.prod(shape), kind)
    try:
        with gzip.open(stored.path) if stored.compressed else stored.path.open("rb") as stream:
            _skip(stream, stored.start)
            count = _fill(stream, array.view(np.uint8))
    except (OSError, EOFError, zlib.error):
        raise Damaged("voxels are missing, or do not match their checksum") from None
    array = array.reshape(shape)
    _check_count(count, array)
    array = array.astype(kind.newbyteorder("="), copy=False)
    if (stored.slope, stored.intercept) == (1.0, 0.0):
        return array
    scaled = array.astype(np.float32 if kind.itemsize <= 2 or kind.kind == "f" else np.float64)
    np.multiply(scaled, stored.slope, out=scaled)
    return np.add(scaled, stored.intercept, out=scaled)


def _skip(stream: gzip.GzipFile | BufferedReader, count: int) -> None:
    while count > 0 and (chunk := stream.read(min(count, _CHUNK))):
        count -= len(chunk)


def _fill(stream: gzip.GzipFile | BufferedReader, target: NDArray[np.uint8]) -> int:
    """Fill the array and go on to the stream's end, where its checksum is; the number of bytes there are."""
    count = 0
    while chunk := stream.read(_CHUNK):
        part = np.frombuffer(chunk, np.uint8)[: max(len(target) - count, 0)]
        target[count : count + len(part)] = part
        count += len(chunk)
    return count
