"""Checks of a CT: which grids and voxel values are refused, which are corrected, and which lead to a warning."""

from collections.abc import Sequence

import numpy as np

from AirwaySegLib.errors import AirwaySegError

Spacing = tuple[float, float, float]

FLOOR_HU = -1024
"""Nothing is darker than air: scanners pad the outside of their field of view with -2048 or -3024."""

MINIMUM_VOXELS = 8
MAXIMUM_SPACING_MM = 10.0
MINIMUM_SPACING_MM = 0.05
MAXIMUM_VOXEL_COUNT = 2**31
THICK_SLICE_MM = 2.0
THICK_FIGURES = (
    "at 2.5 and 3 mm 43 to 54 branches and 0.8 to 1.3 m were found, at 1 to 1.25 mm 91 to 196 and 1.3 to 2.4 m"
)
"""Of three CTs each, by `Testing/benchmarks/real.py --cts CTS --sets now=SET`; those with most have no pneumonia."""
COARSE_PIXEL_MM = 1.2
FEW_SLICES = 64
_STORED_OFFSET = 1024
_MAXIMUM_NOT_FINITE = 0.01


def check_grid(name: str, size_xyz: Sequence[int], spacing_xyz: Sequence[float], direction: Sequence[float]) -> None:
    """Refuse a grid that cannot be a CT volume, in one sentence that starts with the file's ``name``.

    ``size_xyz``, ``spacing_xyz`` (mm) and ``direction`` (row-major) are ITK's, with two to four axes. A fourth axis
    of one volume is accepted.
    """
    check_size(name, size_xyz)
    for axis, spacing in zip("xyz", spacing_xyz[:3], strict=True):
        if not MINIMUM_SPACING_MM <= spacing <= MAXIMUM_SPACING_MM:
            raise AirwaySegError(
                f"{name} has a voxel spacing of {spacing:g} mm along {axis}; between {MINIMUM_SPACING_MM:g} and "
                f"{MAXIMUM_SPACING_MM:g} mm is possible for a CT."
            )
    _check_direction(name, np.asarray(direction, float).reshape(len(size_xyz), -1)[:3, :3])


def check_size(name: str, size_xyz: Sequence[int]) -> None:
    """Refuse what has not three real axes, or more voxels than can be handled."""
    if len(size_xyz) < 3:
        raise AirwaySegError(f"{name} is a 2-D image; a CT volume has three axes.")
    if any(count > 1 for count in size_xyz[3:]):
        raise AirwaySegError(f"{name} holds {size_xyz[3]} volumes (4-D); AirwaySeg needs a single CT volume.")
    for axis, count in zip("xyz", size_xyz[:3], strict=True):
        if count < MINIMUM_VOXELS:
            voxels = "1 voxel" if count == 1 else f"{count} voxels"
            raise AirwaySegError(f"{name} has only {voxels} along {axis}; a CT volume has three real axes.")
    if np.prod([float(count) for count in size_xyz[:3]]) > MAXIMUM_VOXEL_COUNT:
        size = " x ".join(str(count) for count in size_xyz[:3])
        raise AirwaySegError(f"{name} has {size} voxels, more than the {MAXIMUM_VOXEL_COUNT} that can be handled.")


def parse_spacing(text: str | None) -> Spacing | None:
    """Three lengths in mm, "0.7,0.7,1.25" for x, y and z; None stays None."""
    if text is None:
        return None
    try:
        x_mm, y_mm, z_mm = (float(part) for part in text.split(","))
    except ValueError:
        raise AirwaySegError(f"The spacing {text!r} is not of the form X,Y,Z in mm, such as 0.7,0.7,1.25.") from None
    if not all(MINIMUM_SPACING_MM <= mm <= MAXIMUM_SPACING_MM for mm in (x_mm, y_mm, z_mm)):
        limits = f"{MINIMUM_SPACING_MM:g} and {MAXIMUM_SPACING_MM:g}"
        raise AirwaySegError(f"The spacing {text!r} is impossible for a CT: it must be between {limits} mm.")
    return x_mm, y_mm, z_mm


def spacing_to_use(
    name: str, own: Sequence[float] | None, given: Spacing | None, why: str = ""
) -> tuple[Spacing, list[str]]:
    """The voxel spacing (x, y, z) in mm of a file, and a warning if it is the one that the user gave.

    ``own`` is what the file says, None if it says nothing usable; ``why`` is then the rest of a sentence that starts
    with its ``name``. A spacing that is given must not contradict the file.
    """
    if own is not None:
        x_mm, y_mm, z_mm = own
        if given is not None and not np.allclose(own, given, rtol=0.005, atol=0):
            said = [" x ".join(f"{mm:.4g}" for mm in each) for each in (own, given)]
            raise AirwaySegError(
                f"{name} has a voxel spacing of {said[0]} mm, not the {said[1]} mm that were given; "
                "--spacing is for files without one."
            )
        return (x_mm, y_mm, z_mm), []
    if given is None:
        raise AirwaySegError(
            f"{name} {why}, so its size in mm is unknown; segment, repair and measure take --spacing X,Y,Z."
        )
    return given, [f"{name} {why}; the given {' x '.join(f'{mm:g}' for mm in given)} mm (x, y, z) were taken."]


def _check_direction(name: str, matrix: np.ndarray) -> None:
    """Refuse axes that are missing, parallel or sheared by more than half a degree or so."""
    if not np.allclose(matrix.T @ matrix, np.eye(3), atol=0.01):
        raise AirwaySegError(f"{name} has axis directions that are missing or not at right angles to each other.")


def sampling_warnings(size_zyx: Sequence[int], spacing_mm: Sequence[float]) -> list[str]:
    """One sentence for each way in which a canonical grid (z, y, x) is coarser than small airways need."""
    warnings, slice_mm, pixel_mm = [], spacing_mm[0], max(spacing_mm[1:])
    missed = "small airways will be missed"
    if slice_mm >= THICK_SLICE_MM:
        warnings.append(f"The slices are {slice_mm:.2f} mm apart: {missed} ({THICK_FIGURES}).")
    if pixel_mm > COARSE_PIXEL_MM:
        warnings.append(f"The pixels are {pixel_mm:.2f} mm wide (more than {COARSE_PIXEL_MM} mm): {missed}.")
    if size_zyx[0] < FEW_SLICES:
        warnings.append(f"There are only {size_zyx[0]} slices (fewer than {FEW_SLICES}): lung may be missing.")
    return warnings


def usable_hounsfield(values: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """Turn stored values into Hounsfield units with nothing below -1024, or refuse them.

    ``values`` is int16 or float32 (Z, Y, X) and may be changed in place; the result has the same type, but int16
    where a float array holds whole numbers only. At most 1 % voxels that are infinite or not a number become -1024,
    and values stored with an offset of 1024 (air 0) are shifted, each with a warning. Refused: one value everywhere,
    more non-numbers, and values that cannot be Hounsfield units (for example 0 to 1, or 0 to 255).
    """
    warnings = _fill_not_finite(values, name)
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise AirwaySegError(f"{name} has the value {low:g} in every voxel.")
    sample = values[::3, ::3, ::3]
    if _is_stored_with_offset(sample):
        warnings.append(f"{name} stores its values with an offset of {_STORED_OFFSET}; it was subtracted.")
        np.maximum(values, np.asarray(0, values.dtype), out=values)  # first, so that int16 padding cannot wrap around
        values -= np.asarray(_STORED_OFFSET, values.dtype)
    elif not _looks_like_hounsfield(sample, low, high):
        raise AirwaySegError(
            f"{name} does not hold Hounsfield units: its values run from {low:g} to {high:g}, while a chest CT runs "
            "from about -1000 (air) over 0 (water) to 1000 and more (bone)."
        )
    if low < FLOOR_HU:
        np.maximum(values, np.asarray(FLOOR_HU, values.dtype), out=values)
    return _whole_numbers(values), warnings


def _fill_not_finite(values: np.ndarray, name: str) -> list[str]:
    """Set the few infinite or undefined voxels to -1024 in place; refuse many."""
    if values.dtype.kind != "f":
        return []
    count = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in values)
    if count == 0:
        return []
    if count > _MAXIMUM_NOT_FINITE * values.size:
        raise AirwaySegError(f"{name} has {100 * count / values.size:.0f} % voxels that are infinite or not a number.")
    for plane in values:
        plane[~np.isfinite(plane)] = FLOOR_HU
    return [f"{name} had {count} voxels that are infinite or not a number; they were set to {FLOOR_HU} HU."]


def _looks_like_hounsfield(sample: np.ndarray, low: float, high: float) -> bool:
    """Whether there is gas, something denser than fat, a wide enough range, and next to nothing above 4000 HU."""
    return (
        low <= -400
        and high - low >= 500
        and bool(np.mean((sample > -200) & (sample < 400)) >= 0.01)
        and bool(np.mean(sample > 4000) <= 0.01)
    )


def _is_stored_with_offset(sample: np.ndarray) -> bool:
    """Whether air lies at 0 and soft tissue at 1024: no voxel is negative but for one padding value.

    Half of what is not gas must lie within 200 HU of water, which hardly happens in another modality.
    """
    inside = sample[sample > sample.min()] if sample.min() < -1 else sample
    if inside.size == 0 or np.mean(inside < -1) > 0.001 or np.mean(inside > 5120) > 0.01:
        return False
    gas = np.mean(inside < _STORED_OFFSET - 600)
    dense = inside[inside >= _STORED_OFFSET - 400]
    if gas < 0.03 or dense.size < 0.03 * inside.size:
        return False
    return bool(np.mean(np.abs(dense.astype(np.float32) - _STORED_OFFSET) < 200) >= 0.5)


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    """Return int16 where every value is a whole number that fits, which halves the memory; else the array itself."""
    if values.dtype.kind != "f" or values.max() > np.iinfo(np.int16).max:
        return values
    if any(not np.array_equal(plane, np.rint(plane)) for plane in values):
        return values
    return values.astype(np.int16)
