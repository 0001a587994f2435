"""Reading a DICOM folder: which series it holds, which one is meant, and its slices in order."""

import filecmp
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.ct_checks import Spacing, check_grid
from AirwaySegLib.files.dicom_header import read_header
from AirwaySegLib.files.dicom_slices import DicomImage, DicomSeries, check_frames, check_slices, series_spacing
from AirwaySegLib.files.image_files import as_plain_numbers, format_extension, open_reader, silent_itk
from AirwaySegLib.files.user_files import check_name, printable

_SUFFIXES_OF_DICOM = ("", ".dcm", ".ima", ".dicom")
_SOP_CLASS = b"\2\0\2\0UI"  # what kind of object a file holds
_CT_STORAGE = b"1.2.840.10008.5.1.4.1.1.2"  # SOP class of CT images, and the start of the enhanced ones


def read_dicom(
    path: Path, series: str | None = None, spacing_mm: Spacing | None = None, files: Sequence[Path] = ()
) -> tuple[sitk.Image, str, list[str]]:
    """Read one CT series of a folder (searched with its sub-folders) or one multi-slice DICOM file.

    Returns the image (int16, or float32 where the rescale slope is not whole), the series' UID and the warnings.
    ``series`` is a UID, a number in the list that the refusal prints, or a unique part of the description. Without it a
    folder is refused if it holds several volumes; series of one slice (localizers) do not count as volumes, but are
    listed. A single slice is refused, also where it is chosen. ``spacing_mm`` (x, y, z) is for images without one.
    With ``files``, the folder is not searched: only these are looked at.
    """
    with silent_itk():
        chosen = choose_series(list_series(path, files), path, series)
        warnings = check_slices(chosen, path)
        spacing, about = series_spacing(chosen, path.name, spacing_mm)
        return _read_slices(chosen, path, spacing), chosen.first.series_uid, warnings + about


def list_series(path: Path, files: Sequence[Path] = ()) -> list[DicomSeries]:
    """Return the series below a folder (or in one file), by series number; an unreadable CT image is refused.

    With ``files``, only these are looked at.
    """
    images, damaged = read_headers(files or _candidates(path))
    if damaged:
        raise _damaged(damaged, path)
    if not images:
        raise AirwaySegError(_no_dicom(path))
    found = [DicomSeries.of(_without_copies(group, path)) for group in grouped(images)]
    return sorted(found, key=lambda one: (one.first.number, one.first.series_uid, -one.slice_count))


def read_headers(files: Iterable[Path]) -> tuple[list[DicomImage], list[Path]]:
    """The headers of DICOM images, and the files that are CT images but cannot be read; others are passed over."""
    images, damaged = [], []
    for file in files:
        image = read_header(file)
        if image is not None:
            images.append(image)
        elif _is_lost(file):
            damaged.append(file)
    return images, damaged


def grouped(images: Sequence[DicomImage]) -> list[list[DicomImage]]:
    """Images of the same series, size and orientation; a localizer in two orientations is two series."""
    groups: dict[tuple, list[list[DicomImage]]] = defaultdict(list)
    for image in images:
        alike = groups[image.series_uid, image.size]
        group = next((group for group in alike if image.is_parallel_to(group[0])), None)
        if group is None:
            alike.append([image])
        else:
            group.append(image)
    return [group for alike in groups.values() for group in alike]


def _without_copies(group: Sequence[DicomImage], path: Path) -> list[DicomImage]:
    """The same image stored twice counts once; different images with one identifier at one position are refused."""
    kept: dict[tuple, DicomImage] = {}
    for image in group:
        other = kept.setdefault((image.image_uid, image.position, image.no_position), image)
        if other is not image and not _same_pixels(image, other, path):
            raise AirwaySegError(
                f"{path.name} holds different images with the same SOP Instance UID at the same position: "
                f"{other.path.name} and {image.path.name}."
            )
    return list(kept.values())


def _same_pixels(one: DicomImage, other: DicomImage, path: Path) -> bool:
    if filecmp.cmp(one.path, other.path, shallow=False):
        return True
    first, second = (sitk.GetArrayFromImage(_read_pixels(image.path, path)) for image in (one, other))
    return np.array_equal(first, second)


def _no_dicom(path: Path) -> str:
    """What to say of a folder, or a file, without DICOM images."""
    names = sorted(file.name for file in path.rglob("*") if format_extension(file)) if path.is_dir() else []
    if not names:
        return f"{path.name} holds no DICOM images."
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{path.name} holds no DICOM images, but {printable(names[0])}{others}; give such a file, or several."


def choose_series(found: Sequence[DicomSeries], path: Path, wanted: str | None) -> DicomSeries:
    """Return the one volume, or the one that ``wanted`` names; else refuse with the numbered list."""
    if wanted is not None:
        matches = _matches(found, wanted.strip())
        if len(matches) != 1:
            how_many = "several series" if matches else "no series"
            raise AirwaySegError(f'"{wanted}" matches {how_many} of {path.name}; choose one of:\n{_listed(found)}')
        return matches[0]
    volumes = [one for one in found if one.slice_count > 1]
    if len(found) == 1 or len(volumes) == 1:
        return (volumes or list(found))[0]
    raise AirwaySegError(f"{path.name} holds {len(found)} series; choose one (--series):\n{_listed(found)}")


def _matches(found: Sequence[DicomSeries], wanted: str) -> list[DicomSeries]:
    """Try the UID, then the number in the list, then the description, then a part of it (in any case)."""
    by_uid = [one for one in found if one.first.series_uid == wanted]
    if by_uid:
        return _volumes_first(by_uid)
    if wanted.isdigit() and 1 <= int(wanted) <= len(found):
        return [found[int(wanted) - 1]]
    words = wanted.lower()
    exact = [one for one in found if one.first.description.lower() == words]
    return _volumes_first(exact or [one for one in found if words and words in one.first.description.lower()])


def _volumes_first(matches: list[DicomSeries]) -> list[DicomSeries]:
    """Leave out one-slice series where a real volume matches as well."""
    return [one for one in matches if one.slice_count > 1] or matches


def _listed(found: Sequence[DicomSeries]) -> str:
    return "\n".join(f"  {number}: {one}" for number, one in enumerate(found, start=1))


def _candidates(path: Path) -> Iterable[Path]:
    """Yield the files that may be DICOM images, in a stable order; those that cannot be opened are an error."""
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path, onerror=_stop):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if name.startswith("._"):  # what macOS adds to every file on a foreign disk
                continue
            special = file.exists() and not file.is_file()
            if not special and may_be_dicom(file):
                check_name(file)
                yield file


def may_be_dicom(file: Path) -> bool:
    """Whether a regular file may hold a DICOM image, by its name or its first bytes."""
    return file.name != "DICOMDIR" and (file.suffix.lower() in _SUFFIXES_OF_DICOM or is_dicom(file))


def _stop(error: OSError) -> None:
    raise error


def is_dicom(file: Path) -> bool:
    """Whether the file carries DICOM's mark after its preamble of 128 bytes; False for a link that leads nowhere."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except FileNotFoundError:
        return False


def _is_lost(file: Path) -> bool:
    """Whether a file that is no image to read would leave a hole: a CT image by what it says, or by its name."""
    with file.open("rb") as stream:
        start = stream.read(1024)
    if start[128:132] == b"DICM":
        return _CT_STORAGE in start or _SOP_CLASS not in start
    return file.suffix != "" and file.suffix.lower() in _SUFFIXES_OF_DICOM


def _read_slices(series: DicomSeries, path: Path, spacing: Spacing) -> sitk.Image:
    """Read slice after slice into one array, so that an unreadable slice is named."""
    first = series.first
    if len(series.images) == 1:
        check_grid(path.name, first.size, spacing, first.direction)
        check_frames(first, path.name, spacing[2])
        volume = as_plain_numbers(_read_pixels(first.path, path))
        volume.SetSpacing(spacing)
        return volume
    size = (*first.size[:2], len(series.images))
    check_grid(path.name, size, spacing, first.direction)
    slices = (_read_pixels(image.path, path) for image in series.images)
    volume = sitk.GetImageFromArray(_stacked(slices, size[::-1]))
    volume.SetSpacing(spacing)
    volume.SetOrigin(first.position)
    volume.SetDirection(first.direction)
    return volume


def _stacked(slices: Iterable[sitk.Image], shape: tuple[int, ...]) -> np.ndarray:
    """Return (Z, Y, X) in int16 (clamped), or in float32 from the first slice on that is not in whole numbers."""
    volume = np.empty(shape, np.int16)
    limits = np.iinfo(np.int16)
    for number, one in enumerate(slices):
        plane = sitk.GetArrayViewFromImage(one)[0]
        if plane.dtype.kind == "f" and volume.dtype == np.int16:
            volume = volume.astype(np.float32)
        volume[number] = plane if plane.dtype.kind == "f" else np.clip(plane, limits.min, limits.max)
    return volume


def _read_pixels(file: Path, path: Path) -> sitk.Image:
    try:
        return open_reader(file, "GDCMImageIO").Execute()
    except RuntimeError:
        raise _damaged([file], path) from None


def _damaged(files: Sequence[Path], path: Path) -> AirwaySegError:
    others = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return AirwaySegError(f"{files[0].name}{others} in {path.name} cannot be read: damaged or cut short.")
