"""Parallel gzip: what comes out is what went in, for every reader."""

import gzip
from io import BytesIO

import numpy as np
import pytest

from AirwaySegLib.files.gzip_stream import PIECE, gzipped, gzipped_sparse


def sparse(count: int, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An array with a few values, where they are, and what they are."""
    rng = np.random.default_rng(0)
    where = rng.choice(count, min(count, 50), replace=False)
    values = rng.integers(1, 200, len(where)).astype(dtype)
    whole = np.zeros(count, dtype)
    whole[where] = values
    return whole, where, values


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("count", [1, 7, PIECE // 4, PIECE, 3 * PIECE + 5])
def test_dense_and_sparse_streams_unpack_to_the_array(count, dtype):
    whole, where, values = sparse(count, dtype)
    # gzip checks length and checksum.
    assert gzip.decompress(b"".join(gzipped(whole))) == whole.tobytes()
    assert gzip.decompress(b"".join(gzipped_sparse(count, where, values))) == whole.tobytes()


def test_noise_survives():
    noise = np.random.default_rng(1).integers(-1000, 1000, (3, 177, 201)).astype(np.int16)
    assert gzip.decompress(b"".join(gzipped(noise))) == noise.tobytes()


def test_an_array_without_elements_is_a_valid_stream():
    assert gzip.decompress(b"".join(gzipped(np.zeros(0, np.uint8)))) == b""


def test_it_is_one_member_and_the_same_every_time():
    whole, where, values = sparse(5 * PIECE, np.uint8)
    stream = b"".join(gzipped(whole))
    assert stream == b"".join(gzipped_sparse(5 * PIECE, where, values))
    with gzip.GzipFile(fileobj=BytesIO(stream)) as file:
        assert len(file.read()) == 5 * PIECE
    assert stream[4:8] == bytes(4)  # no time of writing
