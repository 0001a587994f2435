"""Fast gzip of volumes that are mostly empty: pieces are compressed at the same time, and empty ones only once."""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 16
"""Bytes compressed at a time. Pieces share no history, which costs a few bytes each."""

AT_A_TIME = 16
"""Pieces that one thread takes."""

LEVEL = 2

_HEADER = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 0, 0, 0, 255)  # no name, no time: same input, same bytes
_END = b"\x03\x00"  # an empty last block


def gzipped(array: NDArray) -> Iterator[bytes]:
    """The bytes of one gzip stream (RFC 1952, a single member) that holds an array's elements in C order."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

    def piece(number: int) -> memoryview | None:
        part = data[number * PIECE : (number + 1) * PIECE]
        return part if len(part) < PIECE or np.frombuffer(part, np.uint64).any() else None

    return _stream(piece, len(data))


def gzipped_sparse(count: int, where: NDArray[np.integer], values: NDArray) -> Iterator[bytes]:
    """The stream of an array of ``count`` elements that is 0 but for ``values`` (N,) at the indices ``where`` (N,)."""
    order = np.argsort(where, kind="stable")
    where, values = where[order], values[order]
    elements = PIECE // values.itemsize
    borders = np.searchsorted(where, np.arange(0, count + elements, elements))

    def piece(number: int) -> memoryview | None:
        start, length = number * elements, min(elements, count - number * elements)
        here = slice(borders[number], borders[number + 1])
        if here.start == here.stop and length == elements:
            return None
        part = np.zeros(length, values.dtype)
        part[where[here] - start] = values[here]
        return part.view(np.uint8).data

    return _stream(piece, count * values.itemsize)


def _stream(piece: Callable[[int], memoryview | None], length: int) -> Iterator[bytes]:
    """Header, compressed pieces, end; ``piece`` gives the content of each, None for one of zeros.

    The pieces end on byte boundaries with an empty block (Z_SYNC_FLUSH), so that they can be written one after the
    other; every reader of gzip reads them.
    """
    zeros = memoryview(bytes(PIECE))
    of_zeros, skip = _deflated(zeros), _ChecksumOfZeros(zeros)

    def packed(numbers: range) -> list[tuple[memoryview | None, bytes]]:
        contents = [piece(number) for number in numbers]
        return [(part, of_zeros if part is None else _deflated(part)) for part in contents]

    count = -(-length // PIECE)
    batches = [range(first, min(first + AT_A_TIME, count)) for first in range(0, count, AT_A_TIME)]
    checksum = 0
    yield _HEADER
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for batch in pool.map(packed, batches):
            for part, deflated in batch:
                checksum = skip.after(checksum) if part is None else zlib.crc32(part, checksum)
                yield deflated
    yield _END + struct.pack("<II", checksum, length & 0xFFFFFFFF)


def _deflated(piece: memoryview) -> bytes:
    """The piece as raw deflate blocks."""
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(piece) + deflater.flush(zlib.Z_SYNC_FLUSH)


class _ChecksumOfZeros:
    """Carries a CRC-32 over a piece of zeros without reading it.

    The sum after the piece is an affine function, over bits, of the sum before it: that of each bit is found once.
    """

    def __init__(self, zeros: memoryview) -> None:
        self._constant = zlib.crc32(zeros, 0)
        self._of_bit = [zlib.crc32(zeros, 1 << bit) ^ self._constant for bit in range(32)]

    def after(self, checksum: int) -> int:
        """The sum of what had ``checksum`` with the piece appended."""
        result = self._constant
        for bit, change in enumerate(self._of_bit):
            if checksum >> bit & 1:
                result ^= change
        return result
