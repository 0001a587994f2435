"""The images of one DICOM series: their order, and whether together they are one volume with known millimetres."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.ct_checks import Spacing, spacing_to_use

_NEXT_TO_NOTHING_MM = 0.01
_SIDEWAYS_MM = 1.0
PARALLEL = 0.005
"""Direction cosines of one series differ by no more than this (0.3 degrees)."""


@dataclass(frozen=True)
class ScanLabels:
    """What a header says of the scan and of its reconstruction; empty where it says nothing.

    ``kernel`` is the convolution kernel, ``image_type`` such as "ORIGINAL\\PRIMARY\\AXIAL", ``date`` YYYYMMDD of the
    study, ``acquisition`` the number of the scan within it, ``second`` its time of day in seconds (-1: not said),
    ``frame`` the frame of reference.
    """

    kernel: str = ""
    body_part: str = ""
    image_type: str = ""
    date: str = ""
    acquisition: str = ""
    second: float = -1.0
    frame: str = ""
    patient_id: str = ""


@dataclass(frozen=True)
class DicomImage:
    """What the header of one DICOM file says; lengths in mm, patient axes LPS.

    ``patient`` and ``study`` tell patients and studies apart. ``no_...`` is what is missing, where ITK puts a guess: no
    pixel spacing (for an image of several frames also none between them), no position, no orientation.
    ``frame_positions`` are those of the frames, if there are several, as the file has them.
    """

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
    patient: str = ""
    study: str = ""
    no_spacing: bool = False
    no_position: bool = False
    no_direction: bool = False
    frame_positions: tuple[tuple[float, ...], ...] = ()
    scan: ScanLabels = ScanLabels()

    @property
    def normal(self) -> np.ndarray:
        """Where the slices follow each other, (3,)."""
        return np.asarray(self.direction).reshape(3, 3)[:, 2]

    def is_parallel_to(self, other: "DicomImage") -> bool:
        """Whether both have the same directions but for what is rounded."""
        return bool(np.allclose(self.direction, other.direction, rtol=0, atol=PARALLEL))


@dataclass(frozen=True)
class DicomSeries:
    """Images of one series, one size and one orientation, sorted along their normal."""

    images: tuple[DicomImage, ...]

    @staticmethod
    def of(images: Sequence[DicomImage]) -> "DicomSeries":
        """Sort the images along their common normal."""
        heights = DicomSeries(tuple(images)).heights_mm
        return DicomSeries(tuple(images[index] for index in np.argsort(heights, kind="stable")))

    @property
    def first(self) -> DicomImage:
        """The image that speaks for the series."""
        return self.images[0]

    @property
    def slice_count(self) -> int:
        """Slices in all; one file may hold many (enhanced CT)."""
        return sum(image.size[2] for image in self.images)

    @property
    def positions_mm(self) -> np.ndarray:
        """The first pixel of each image, (N, 3)."""
        return np.array([image.position for image in self.images], float)

    @property
    def heights_mm(self) -> np.ndarray:
        """Where each image lies along the mean of their normals, (N,)."""
        normal = np.mean([image.normal for image in self.images], axis=0)
        return self.positions_mm @ (normal / max(float(np.linalg.norm(normal)), 1e-9))

    @property
    def steps_mm(self) -> np.ndarray:
        """Distances between neighbouring slices, float64; empty if there is one image."""
        return np.diff(self.heights_mm)

    @property
    def slice_spacing_mm(self) -> float:
        """The usual distance between slices; a lone image's own."""
        return float(np.median(self.steps_mm)) if len(self.images) > 1 else self.first.spacing[2]

    def __str__(self) -> str:
        """Describe the series in the line of a list."""
        across, down = self.first.spacing[:2]
        pixels = "unknown pixel" if self.first.no_spacing else f"{across:.2f} x {down:.2f}"
        slices = "1 slice" if self.slice_count == 1 else f"{self.slice_count} slices"
        return (
            f'"{self.first.description}", {slices}, {pixels} x {self.slice_spacing_mm:.2f} mm, '
            f"{self.first.modality}, {self.first.series_uid}"
        )


def check_slices(series: DicomSeries, path: Path) -> list[str]:
    """Refuse what is not one volume: a single image, several patients, missing or doubled or shifted slices.

    Returns warnings of uneven steps, a tilted gantry and shared identifiers.
    """
    name = path.name
    if series.slice_count == 1:
        hint = "give the folder that holds its series" if path.is_file() else "a CT volume has many"
        raise AirwaySegError(f"{name} holds a single DICOM slice of the series; {hint}.")
    _check_headers(series, name)
    if len(series.images) == 1:
        return []
    if any(image.size[2] > 1 for image in series.images):
        raise AirwaySegError(f"{name} holds several multi-slice DICOM files of one series; give one of the files.")
    warnings = _check_steps(series, name)
    if len({image.image_uid for image in series.images}) < len(series.images):
        warnings.append("Several slices share a SOP Instance UID; they were told apart by their positions.")
    return warnings + _check_sideways(series, name)


def _check_headers(series: DicomSeries, name: str) -> None:
    """Refuse images of several patients or studies, and those that do not say where they lie."""
    uid = series.first.series_uid
    for what in ("patient", "study"):
        count = len({getattr(image, what) for image in series.images})
        if count > 1:
            plural = {"patient": "patients", "study": "studies"}[what]
            raise AirwaySegError(f"{name} holds images of {count} {plural} in series {uid}; separate them.")
    for missing, tag in (("no_position", "ImagePositionPatient"), ("no_direction", "ImageOrientationPatient")):
        without = [image for image in series.images if getattr(image, missing)]
        if without:
            raise AirwaySegError(
                f"{name} does not say where its slices lie: {len(without)} of {len(series.images)} images of series "
                f"{uid} have no valid {tag}, for example {without[0].path.name}."
            )


def check_frames(image: DicomImage, name: str, frame_mm: float) -> None:
    """Refuse frames that do not follow each other every ``frame_mm``; one position for all of them is no sign of it."""
    if len(image.frame_positions) != image.size[2]:
        return
    positions = np.asarray(image.position) + np.outer(np.arange(image.size[2]) * frame_mm, image.normal)
    if np.abs(positions - image.frame_positions).max() > 0.1 * frame_mm:
        raise AirwaySegError(f"{name} holds frames that are out of order, missing or not evenly spaced.")


def _check_steps(series: DicomSeries, name: str) -> list[str]:
    """Refuse doubled and missing slices; warn of uneven steps."""
    steps = series.steps_mm
    if steps.min() < _NEXT_TO_NOTHING_MM:
        raise AirwaySegError(f"{name} holds several images at the same position in series {series.first.series_uid}.")
    usual = series.slice_spacing_mm
    widest = int(np.argmax(steps))
    if steps[widest] > 1.5 * usual:
        raise AirwaySegError(
            f"{name} lacks slices: a gap of {steps[widest]:.2f} mm follows the slice at "
            f"{series.heights_mm[widest]:.2f} mm, while the slices are {usual:.2f} mm apart."
        )
    if max(usual - steps.min(), steps.max() - usual) > 0.1 * usual:
        return [f"The slices lie {steps.min():.2f} to {steps.max():.2f} mm apart; taken as evenly spaced."]
    return []


def _check_sideways(series: DicomSeries, name: str) -> list[str]:
    """Refuse slices that are shifted against the others; warn where all follow one slanted line (a tilted gantry)."""
    heights = series.heights_mm - series.heights_mm[0]
    normal = np.mean([image.normal for image in series.images], axis=0)
    offsets = series.positions_mm - series.positions_mm[0]
    sideways = offsets - np.outer(heights, normal / np.linalg.norm(normal))
    slope, start = np.polyfit(heights, sideways, 1)
    shifted = np.linalg.norm(sideways - np.outer(heights, slope) - start, axis=1)
    if shifted.max() > _SIDEWAYS_MM:
        jump = np.linalg.norm(np.diff(sideways, axis=0) - np.outer(np.diff(heights), slope), axis=1)
        worst = series.images[int(np.argmax(jump)) + 1]
        raise AirwaySegError(
            f"{name} holds slices that lie up to {shifted.max():.1f} mm sideways of the line through the others in "
            f"series {series.first.series_uid}; the largest jump is at {worst.path.name}."
        )
    tilt = math.degrees(math.atan(float(np.linalg.norm(slope))))
    if tilt > 1:
        return [f"The gantry was tilted by {tilt:.0f} degrees; lengths are taken as if it were upright."]
    return []


def series_spacing(series: DicomSeries, name: str, given: Spacing | None) -> tuple[Spacing, list[str]]:
    """The voxel spacing (x, y, z) in mm: pixels as the headers say, slices as their positions; and warnings.

    Raises
    ------
    AirwaySegError
        If the pixels have no spacing and none is given, or the spacing changes within the series.
    """
    pixels = np.array([image.spacing[:2] for image in series.images])
    if not np.allclose(pixels, pixels[0], rtol=0.001, atol=0):
        low, high = pixels.min(), pixels.max()
        raise AirwaySegError(
            f"{name} changes its PixelSpacing within series {series.first.series_uid} ({low:.3f} to {high:.3f} mm)."
        )
    slices_mm = float(series.steps_mm.mean()) if len(series.images) > 1 else series.first.spacing[2]
    unknown = [image.path.name for image in series.images if image.no_spacing]
    if not unknown:
        return spacing_to_use(name, (*pixels[0], slices_mm), given)
    if len(series.images) > 1 and given is not None:  # the positions are millimetres too
        spacing_to_use(name, (*given[:2], slices_mm), given)
    return spacing_to_use(name, None, given, f"has no valid PixelSpacing ({unknown[0]})")
