"""A CT or mask with its position in the patient: reading, canonical axes and back, writing NRRD. RAS/LPS lives here."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import written_whole
from AirwaySegLib.files.ct_checks import Spacing, sampling_warnings, usable_hounsfield
from AirwaySegLib.files.dicom import is_dicom, read_dicom
from AirwaySegLib.files.gzip_stream import gzipped, gzipped_sparse
from AirwaySegLib.files.image_files import format_extension, not_an_image, read_image_file
from AirwaySegLib.files.user_files import check_name, check_regular_file, printable

log = logging.getLogger("airwayseg")

SEGMENTATION = "airways.nrrd"
"""The mask in a result folder of `airwayseg segment`."""

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
MOST_LABELS = {1: 100, 2: 1000}
"""The most values of a label image, by the bytes of a value (2: or more). A CT or a probability map has more."""

_NRRD_TYPES = {"uint8": "uchar", "int8": "signed char", "int16": "short", "uint16": "ushort", "float32": "float"}


@dataclass(frozen=True)
class Volume:
    """An array on a grid in the patient.

    ``array`` is (Z, Y, X); ``spacing_mm`` in the same order (z, y, x). ``origin_mm`` is the centre of voxel (0, 0, 0)
    in LPS (x, y, z), and ``direction`` ITK's row-major matrix whose columns are the LPS directions of the x, y and z
    axes. ``path`` is the file or folder it was read from and ``series_uid`` its DICOM series, if any.
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = _IDENTITY
    path: Path | None = None
    series_uid: str = ""


def read_ct(
    path: str | Path, series: str | None = None, spacing_mm: Spacing | None = None, files: Sequence[Path] = ()
) -> tuple[Volume, list[str]]:
    """Read a CT on its own grid in Hounsfield units, and the warnings about it (one sentence each).

    ``path`` is a NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file, a DICOM folder (searched
    with its sub-folders) or a multi-slice DICOM file; ``series`` chooses one of several DICOM series (see
    `read_dicom`), and ``spacing_mm`` (x, y, z) is the voxel spacing of a file that gives none; it must not contradict
    one that does. With ``files``, the images of a DICOM series, the folder is not searched. The array is int16, or
    float32 where the file holds fractions; nothing in it is below -1024.
    Whatever cannot be segmented is refused with an `AirwaySegError` that names the file and says what is wrong.
    """
    path = Path(path)
    try:
        image, series_uid, warnings = _read_image(path, series, spacing_mm, files)
    except OSError as error:
        culprit = printable(error.filename or path)
        raise AirwaySegError(f"{culprit} cannot be opened: {error.strerror or error}.") from None
    grid = _volume_of(image, path, series_uid)
    del image
    array, about_values = usable_hounsfield(grid.array, path.name)
    volume = replace(grid, array=array)
    canonical = to_canonical(volume)
    return volume, warnings + about_values + sampling_warnings(canonical.array.shape, canonical.spacing_mm)


def _read_image(
    path: Path, series: str | None, spacing_mm: Spacing | None, files: Sequence[Path]
) -> tuple[sitk.Image, str, list[str]]:
    """Tell the kinds of input apart; the text is the DICOM series' UID."""
    check_name(path)
    if path.is_dir():
        if not any(path.iterdir()):
            raise AirwaySegError(f"{path} is an empty folder.")
        return read_dicom(path, series, spacing_mm, files)
    check_regular_file(path)
    if path.stat().st_size == 0:
        raise AirwaySegError(f"{path.name} is an empty file.")
    if format_extension(path) is not None:
        image, warnings = read_image_file(path, spacing_mm=spacing_mm)
        return image, "", warnings
    if is_dicom(path):
        return read_dicom(path, series, spacing_mm)
    raise not_an_image(path)


def _volume_of(image: sitk.Image, path: Path, series_uid: str, array: np.ndarray | None = None) -> Volume:
    """Take the grid and the array (a copy, unless one is given) out of a three-dimensional SimpleITK image."""
    x_mm, y_mm, z_mm = image.GetSpacing()
    return Volume(
        array=sitk.GetArrayFromImage(image) if array is None else array,
        spacing_mm=(z_mm, y_mm, x_mm),
        origin_mm=image.GetOrigin(),
        direction=image.GetDirection(),
        path=path,
        series_uid=series_uid,
    )


def _axes_of(direction: tuple[float, ...]) -> tuple[list[int], list[bool]]:
    """Return which axis of the file (0 = x) runs most along patient x, y and z, and which of them run backwards.

    Of the six assignments the one with the largest sum of direction cosines is taken, so that two axes never
    claim the same patient axis, even at 45 degrees.
    """
    matrix = np.asarray(direction, float).reshape(3, 3)  # matrix[patient axis, file axis]
    orders = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    sums = [round(sum(abs(matrix[row, column]) for row, column in enumerate(order)), 9) for order in orders]
    best = orders[int(np.argmax(sums))]
    return list(best), [bool(matrix[row, column] < 0) for row, column in enumerate(best)]


def mask_in(path: Path) -> Path:
    """The mask of a result folder, or the path itself."""
    inside = path / SEGMENTATION
    return inside if os.path.isfile(inside) else path


def read_mask(path: str | Path, spacing_mm: Spacing | None = None) -> Volume:
    """Read a mask or label image on its own grid; the array is bool, True where the file is not 0.

    A result folder stands for the mask in it. ``spacing_mm`` (x, y, z) is as in `read_ct`; warnings are logged.

    Raises
    ------
    AirwaySegError
        If the file cannot be read, is not three-dimensional, or does not hold whole numbers.
    """
    path = mask_in(Path(path))
    if os.path.isdir(path):
        raise AirwaySegError(f"{path} is a folder without {SEGMENTATION}; give the file of the mask.")
    image = _read_as_stored(path, spacing_mm)
    values = sitk.GetArrayViewFromImage(image)
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise AirwaySegError(f"{path} holds fractions: it is a CT or a probability, not a mask.")
    if values.min(initial=0) < 0:
        raise AirwaySegError(f"{path} holds values below 0: it is a CT, not a mask.")
    some = values[:: max(1, len(values) // 32)]
    most = MOST_LABELS[min(values.dtype.itemsize, 2)]
    if len(np.unique(some[some > 0])) > most:
        raise AirwaySegError(f"{path} holds more than {most} values: it is an image, not a mask.")
    return _volume_of(image, path, "", values != 0)


def _read_as_stored(path: Path, spacing_mm: Spacing | None) -> sitk.Image:
    """A file's image in the kind of numbers that it holds; what deserves a warning is logged."""
    check_regular_file(path)
    image, warnings = read_image_file(path, as_stored=True, spacing_mm=spacing_mm)
    for warning in warnings:
        log.warning("%s", warning)
    return image


def read_on_grid(path: str | Path, ct: Volume, spacing_mm: Spacing | None = None) -> Volume:
    """Read a mask or label (integers) that lies on the CT's grid; ``spacing_mm`` (x, y, z) is as in `read_ct`.

    Raises
    ------
    AirwaySegError
        If the file cannot be read, or its size, spacing, origin or direction are not the CT's.
    """
    path = Path(path)
    grid = _volume_of(_read_as_stored(path, spacing_mm), path, "")
    check_same_grid(grid, ct, str(path))
    return grid


def check_same_grid(volume: Volume, ct: Volume, name: str) -> None:
    """Raise AirwaySegError if a volume, called ``name``, is not on the grid of ``ct``."""
    if volume.array.shape != ct.array.shape:
        shapes = f"it has {volume.array.shape} voxels, not {ct.array.shape}"
        raise AirwaySegError(f"{name} is not on the grid of {ct.path or 'the CT'}: {shapes}.")
    for aspect, tolerance in (("spacing_mm", 0.01), ("origin_mm", 0.5), ("direction", 0.01)):
        if not np.allclose(getattr(volume, aspect), getattr(ct, aspect), atol=tolerance):
            raise AirwaySegError(f"{name} is not on the grid of {ct.path or 'the CT'}: its {aspect} differs.")


def points_to_lps(points_mm: np.ndarray, grid: Volume) -> np.ndarray:
    """Points (N, 3) as (z, y, x) in mm along the grid's axes from voxel (0, 0, 0) -> (x, y, z) in LPS mm."""
    matrix = np.asarray(grid.direction, float).reshape(3, 3)
    return np.asarray(grid.origin_mm) + points_mm[:, ::-1] @ matrix.T


def lps_to_voxels(points_mm: np.ndarray, grid: Volume) -> NDArray[np.float64]:
    """Points (N, 3) as (x, y, z) in LPS mm -> voxels (N, 3) as (z, y, x) of the grid, with fractions."""
    matrix = np.asarray(grid.direction, float).reshape(3, 3) * np.asarray(grid.spacing_mm[::-1])
    return np.linalg.solve(matrix, (points_mm - np.asarray(grid.origin_mm)).T).T[:, ::-1]


def ijk_to_ras(grid: Volume) -> NDArray[np.float64]:
    """The matrix (4, 4) from voxel indices (i, j, k), that is (x, y, z), to RAS mm, the axes of 3D Slicer."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(grid.direction, (3, 3)) * np.asarray(grid.spacing_mm[::-1])
    matrix[:3, 3] = grid.origin_mm
    matrix[:2] *= -1  # from LPS
    return matrix


def to_canonical(volume: Volume) -> Volume:
    """Permute and flip the array's axes so that z runs upwards, y backwards and x from the patient's right to the left.

    That is ITK's orientation 'LPS'; an oblique grid takes the nearest axes, and nothing is interpolated. The array is
    contiguous: the same one if nothing moves, else a copy. Voxels stay where they are in the patient, because origin,
    spacing and direction move along.
    """
    columns, backwards = _axes_of(volume.direction)
    array = np.transpose(volume.array, [2 - column for column in columns[::-1]])
    array = array[tuple(slice(None, None, -1 if back else 1) for back in backwards[::-1])]
    matrix = np.asarray(volume.direction, float).reshape(3, 3)
    spacing_xyz = np.asarray(volume.spacing_mm[::-1])
    last = np.asarray(volume.array.shape[::-1]) - 1
    start = np.zeros(3)
    for column, back in zip(columns, backwards, strict=True):
        start[column] = last[column] if back else 0
    signs = np.where(backwards, -1.0, 1.0)
    z_mm, y_mm, x_mm = (float(spacing_xyz[column]) for column in columns[::-1])
    origin = np.asarray(volume.origin_mm) + matrix @ (start * spacing_xyz)
    return replace(
        volume,
        array=np.ascontiguousarray(array),
        spacing_mm=(z_mm, y_mm, x_mm),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(cosine) for cosine in (matrix[:, columns] * signs).ravel()),
    )


def from_canonical(array: np.ndarray, original: Volume) -> np.ndarray:
    """Bring an array (Z, Y, X) on the grid of ``to_canonical(original)`` back onto ``original``'s own grid, exactly."""
    columns, backwards = _axes_of(original.direction)
    array = array[tuple(slice(None, None, -1 if back else 1) for back in backwards[::-1])]
    order = np.argsort([2 - column for column in columns[::-1]])
    return np.ascontiguousarray(np.transpose(array, order))


def voxels_from_canonical(voxels: np.ndarray, original: Volume) -> np.ndarray:
    """Voxels (N, 3) of the grid of ``to_canonical(original)`` -> the same voxels on ``original``'s own grid."""
    columns, backwards = _axes_of(original.direction)
    turned = np.empty_like(voxels)
    for axis, (column, back) in enumerate(zip(columns[::-1], backwards[::-1], strict=True)):
        own_axis = 2 - column
        turned[:, own_axis] = original.array.shape[own_axis] - 1 - voxels[:, axis] if back else voxels[:, axis]
    return turned


def write_nrrd(path: str | Path, array: np.ndarray, like: Volume) -> None:
    """Write an array (Z, Y, X; bool, uint8, int8, int16, uint16 or float32) as gzip-compressed NRRD on ``like``'s grid.

    The file appears under its name only when it is complete. It is written here and not by SimpleITK, which does
    not notice a disk that is full. Same input, same bytes.
    """
    if array.shape != like.array.shape:
        raise ValueError(f"array has shape {array.shape}, the grid {like.array.shape}")
    voxels = array.view(np.uint8) if array.dtype == bool else array
    stream = gzipped(voxels.astype(voxels.dtype.newbyteorder("<"), copy=False))
    _write_nrrd(Path(path), _nrrd_header(voxels.dtype, like), stream)


def write_sparse_nrrd(path: str | Path, voxels: np.ndarray, values: np.ndarray, like: Volume) -> None:
    """Write an array that is 0 but for ``values`` (N,) at ``voxels`` (N, 3), on ``like``'s grid, as `write_nrrd` would.

    The array itself is never made: of an airway tree nearly all of it is empty.
    """
    where = np.ravel_multi_index(tuple(voxels.T), like.array.shape)
    stream = gzipped_sparse(like.array.size, where, values.astype(values.dtype.newbyteorder("<"), copy=False))
    _write_nrrd(Path(path), _nrrd_header(values.dtype, like), stream)


def _write_nrrd(path: Path, header: str, stream: Iterator[bytes]) -> None:
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        file.write(header.encode("ascii"))
        for piece in stream:
            file.write(piece)


def _nrrd_header(dtype: np.dtype, like: Volume) -> str:
    """NRRD 4 header: http://teem.sourceforge.net/nrrd/format.html; vectors in LPS, one for each axis x, y, z."""
    columns = np.asarray(like.direction, float).reshape(3, 3).T * np.asarray(like.spacing_mm[::-1])[:, None]
    lines = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(count) for count in like.array.shape[::-1]),
        "space directions: " + " ".join(_vector(column) for column in columns),
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        "space origin: " + _vector(like.origin_mm),
    ]
    return "\n".join(lines) + "\n\n"


def _vector(numbers: np.ndarray | tuple[float, ...]) -> str:
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"


def part_of(whole: Volume, box: tuple[slice, slice, slice], array: NDArray) -> Volume:
    """A box of a grid with another array in it, at its position in the patient."""
    corner_mm = np.array([[part.start for part in box]]) * np.asarray(whole.spacing_mm)
    x_mm, y_mm, z_mm = (float(value) for value in points_to_lps(corner_mm, whole)[0])
    return replace(whole, array=array, origin_mm=(x_mm, y_mm, z_mm))


def read_probability(path: Path, mask: Volume, spacing_mm: Spacing | None = None) -> NDArray[np.uint8]:
    """Read a probability map (Z, Y, X), 0..255, on the mask's grid.

    Raises
    ------
    AirwaySegError
        If the file cannot be read, lies on another grid, or holds other values.
    """
    values = read_on_grid(path, mask, spacing_mm).array
    if values.min(initial=0) < 0 or values.max(initial=0) > 255 or values.dtype.kind == "f":
        raise AirwaySegError(f"{path} is not a probability map: its values must be whole numbers from 0 to 255.")
    return values.astype(np.uint8)
