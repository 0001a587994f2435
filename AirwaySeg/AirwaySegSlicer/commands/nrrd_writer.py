"""Writes volumes to NRRD files piece by piece, so that the window stays responsive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import vtk

Array = Any
PIECE = 1 << 24
"""Bytes per piece, which takes some hundredths of a second."""


def write_pieces(array: Array, ijk_to_ras: vtk.vtkMatrix4x4, path: str) -> Iterator[None]:
    """Write an array (Z, Y, X), uncompressed, with the matrix of its grid; pauses after each piece but the last.

    Bool becomes uint8. The file is complete when the iteration has ended.
    """
    import numpy as np

    array = array.view(np.uint8) if array.dtype == bool else array
    planes = max(1, PIECE // max(1, array[:1].nbytes))
    with open(path, "wb") as stream:
        stream.write(nrrd_header(array.shape, array.dtype, ijk_to_ras).encode())
        for first in range(0, len(array), planes):
            stream.write(np.ascontiguousarray(array[first : first + planes]).reshape(-1).view(np.uint8).data)
            if first + planes < len(array):
                yield


def nrrd_header(shape: tuple[int, int, int], dtype: Any, ijk_to_ras: vtk.vtkMatrix4x4) -> str:
    """The header of a raw NRRD file of an array (Z, Y, X) of numbers; NRRD's space is LPS."""
    kinds = {"float32": "float", "float64": "double"}
    # RAS to LPS: the first two axes are reversed.
    signs = (-1.0, -1.0, 1.0)
    vectors = [
        f"({','.join(repr(sign * ijk_to_ras.GetElement(row, column)) for row, sign in enumerate(signs))})"
        for column in range(4)
    ]
    lines = [
        "NRRD0004",
        f"type: {kinds.get(dtype.name, dtype.name)}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, shape[::-1]))}",
        f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain",
        f"endian: {'big' if dtype.byteorder == '>' else 'little'}",
        "encoding: raw",
        f"space origin: {vectors[3]}",
    ]
    return "\n".join(lines) + "\n\n"
