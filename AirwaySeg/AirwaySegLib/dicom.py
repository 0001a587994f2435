"""Reading a DICOM folder: which series it holds, which one is meant, and its slices in order."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.guardrails import check_grid
from AirwaySegLib.imagefile import as_plain_numbers, silent_itk

_SUFFIXES_OF_DICOM = ("", ".dcm", ".ima", ".dicom")
_CT_STORAGE = b"1.2.840.10008.5.1.4.1.1.2"  # SOP class of CT images, and the start of the enhanced ones
_NEXT_TO_NOTHING_MM = 0.01


@dataclass(frozen=True)
class DicomImage:
    """What the header of one DICOM file says; lengths in mm, patient axes LPS."""

    path: Path
    series_uid: str
    image_uid: str
    description: str
    modality: str
    number: int
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    position: tuple[float, ...]
    direction: tuple[float, ...]

    @property
    def height_mm(self) -> float:
        """Where the image lies along its own normal."""
        return float(np.dot(self.position, np.asarray(self.direction).reshape(3, 3)[:, 2]))


@dataclass(frozen=True)
class DicomSeries:
    """Images of one series, one size and one orientation, sorted along their normal."""

    images: tuple[DicomImage, ...]

    @property
    def first(self) -> DicomImage:
        """The image that speaks for the series."""
        return self.images[0]

    @property
    def slice_count(self) -> int:
        """Slices in all; one file may hold many (enhanced CT)."""
        return sum(image.size[2] for image in self.images)

    @property
    def steps_mm(self) -> np.ndarray:
        """Distances between neighbouring slices, float64; empty if there is one image."""
        return np.diff([image.height_mm for image in self.images])

    @property
    def slice_spacing_mm(self) -> float:
        """The usual distance between slices; a lone image's own."""
        return float(np.median(self.steps_mm)) if len(self.images) > 1 else self.first.spacing[2]

    def __str__(self) -> str:
        """Describe the series in the line of a list."""
        across, down = self.first.spacing[:2]
        slices = "1 slice" if self.slice_count == 1 else f"{self.slice_count} slices"
        return (
            f'"{self.first.description}", {slices}, {across:.2f} x {down:.2f} x {self.slice_spacing_mm:.2f} mm, '
            f"{self.first.modality}, {self.first.series_uid}"
        )


def read_dicom(path: Path, series: str | None = None) -> tuple[sitk.Image, str, list[str]]:
    """Read one CT series of a folder (searched with its sub-folders) or one multi-slice DICOM file.

    Returns the image (int16, or float32 where the rescale slope is not whole), the series' UID and the warnings.
    ``series`` is a UID, a number in the list that the refusal prints, or a unique part of the description. Without it a
    folder is refused if it holds several volumes; series of one slice (localizers) do not count as volumes, but are
    listed. A single slice is refused, also where it is chosen.
    """
    with silent_itk():
        chosen = choose_series(list_series(path), path, series)
        warnings = _check_slices(chosen, path)
        return _read_slices(chosen, path), chosen.first.series_uid, warnings


def list_series(path: Path) -> list[DicomSeries]:
    """Return the series below a folder (or in one file), by series number; an unreadable CT image is refused."""
    groups: dict[tuple, dict[str, DicomImage]] = defaultdict(dict)
    damaged = []
    for file in _candidates(path):
        image = _read_header(file)
        if image is not None:
            orientation = tuple(np.round(image.direction, 3) + 0.0)
            # the same image stored twice counts once; a localizer in two orientations is two series
            groups[image.series_uid, image.size, orientation][image.image_uid] = image
        elif _claims_to_be_ct(file):
            damaged.append(file)
    if damaged:
        others = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise AirwaySegError(f"{damaged[0].name}{others} in {path.name} cannot be read: damaged or cut short.")
    if not groups:
        raise AirwaySegError(f"{path.name} holds no DICOM images.")
    found = [DicomSeries(tuple(sorted(group.values(), key=lambda image: image.height_mm))) for group in groups.values()]
    return sorted(found, key=lambda one: (one.first.number, one.first.series_uid, -one.slice_count))


def choose_series(found: Sequence[DicomSeries], path: Path, wanted: str | None) -> DicomSeries:
    """Return the one volume, or the one that ``wanted`` names; else refuse with the numbered list."""
    if wanted is not None:
        matches = _matches(found, wanted.strip())
        if len(matches) != 1:
            how_many = "several series" if matches else "no series"
            raise AirwaySegError(f'"{wanted}" names {how_many} of {path.name}; choose one of:\n{_listed(found)}')
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
    """Yield the files that may be DICOM images, in a stable order."""
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if file.name != "DICOMDIR" and (file.suffix.lower() in _SUFFIXES_OF_DICOM or is_dicom(file)):
                yield file


def is_dicom(file: Path) -> bool:
    """Whether the file carries DICOM's mark after its preamble of 128 bytes."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _claims_to_be_ct(file: Path) -> bool:
    """Whether a file that cannot be read says that it is a CT image, so that its absence would leave a hole."""
    if not is_dicom(file):
        return False
    with file.open("rb") as stream:
        return _CT_STORAGE in stream.read(1024)


def _read_header(file: Path) -> DicomImage | None:
    """Read one file's header; None if it is no image (a report, a structure set, a text)."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.SetImageIO("GDCMImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() > 1:
        return None

    def text(tag: str) -> str:
        value = reader.GetMetaData(tag) if reader.HasMetaDataKey(tag) else ""
        return value.encode("utf-8", "replace").decode("utf-8").strip(" \0")

    number = text("0020|0011")
    return DicomImage(
        path=file,
        series_uid=text("0020|000e") or "unnamed series",
        image_uid=text("0008|0018") or str(file),
        description=text("0008|103e") or "no description",
        modality=text("0008|0060") or "unknown modality",
        number=int(number) if number.isdigit() else 0,
        size=reader.GetSize(),
        spacing=reader.GetSpacing(),
        position=reader.GetOrigin(),
        direction=reader.GetDirection(),
    )


def _check_slices(series: DicomSeries, path: Path) -> list[str]:
    """Refuse missing or doubled slices and single images; warn of uneven steps and a tilted gantry."""
    name, steps = path.name, series.steps_mm
    if series.slice_count == 1:
        hint = "give the folder that holds its series" if path.is_file() else "a CT volume has many"
        raise AirwaySegError(f"{name} holds a single DICOM slice of the series; {hint}.")
    if not steps.size:
        return []
    if any(image.size[2] > 1 for image in series.images):
        raise AirwaySegError(f"{name} holds several multi-slice DICOM files of one series; give one of the files.")
    if steps.min() < _NEXT_TO_NOTHING_MM:
        raise AirwaySegError(f"{name} holds several images at the same place in series {series.first.series_uid}.")
    usual = series.slice_spacing_mm
    widest = int(np.argmax(steps))
    if steps[widest] > 1.5 * usual:
        place = series.images[widest].height_mm
        raise AirwaySegError(
            f"{name} lacks slices: a gap of {steps[widest]:.2f} mm follows the slice at {place:.2f} mm, while the "
            f"slices are {usual:.2f} mm apart."
        )
    warnings = []
    if max(usual - steps.min(), steps.max() - usual) > 0.1 * usual:
        warnings.append(f"The slices lie {steps.min():.2f} to {steps.max():.2f} mm apart; taken as evenly spaced.")
    if (tilt := _tilt_degrees(series)) > 1:
        warnings.append(f"The gantry was tilted by {tilt:.0f} degrees; lengths are taken as if it were upright.")
    return warnings


def _tilt_degrees(series: DicomSeries) -> float:
    """Angle between the slices' normal and the line through their first pixels."""
    first, last = series.images[0], series.images[-1]
    along = last.height_mm - first.height_mm
    across = math.sqrt(max(math.dist(first.position, last.position) ** 2 - along**2, 0))
    return math.degrees(math.atan2(across, along))


def _read_slices(series: DicomSeries, path: Path) -> sitk.Image:
    """Read slice after slice into one array, so that an unreadable slice is named."""
    first = series.first
    if len(series.images) == 1:
        check_grid(path.name, first.size, first.spacing, first.direction)
        return as_plain_numbers(_read_pixels(first.path, path))
    spacing = (*first.spacing[:2], float(series.steps_mm.mean()))
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
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        reader.SetImageIO("GDCMImageIO")
        return reader.Execute()
    except RuntimeError:
        raise AirwaySegError(f"{file.name} in {path.name} cannot be read: damaged or cut short.") from None
