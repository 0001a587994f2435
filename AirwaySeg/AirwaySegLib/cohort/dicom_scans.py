"""The DICOM series of a folder tree, found from headers: judged, and the best reconstruction of each scan chosen."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.cohort.kernels import preference
from AirwaySegLib.files.dicom import grouped
from AirwaySegLib.files.dicom_slices import PARALLEL, DicomImage, DicomSeries

SHORTEST_MM = 100.0
"""A CT that covers less along the body shows a part of the airways only."""

_CHEST = ("CHEST", "THOR", "LUNG", "PULM", "BRONCH", "BODY", "TRUNK", "HEART", "CARDIAC")
_PROJECTIONS = {"MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "AVERAGE"}
_SAME_HEIGHT_MM = 0.01
_SAME_SECOND = 1.0
_SAME_RANGE = 0.8


@dataclass(frozen=True)
class Series:
    """The images of one series that lie parallel.

    ``first`` speaks for all. ``heights_mm`` (N,) are their positions along the normal, ascending; ``slices`` counts
    frames; ``seconds`` is the time of day of the first and last image, (-1, -1) if not said.
    """

    first: DicomImage
    files: tuple[Path, ...]
    heights_mm: NDArray[np.float64]
    slices: int
    seconds: tuple[float, float]

    @staticmethod
    def of(images: Sequence[DicomImage]) -> "Series":
        """A series from its images."""
        series = DicomSeries.of(images)
        times = [image.scan.second for image in images]
        seconds = (min(times), max(times)) if min(times) >= 0 else (-1.0, -1.0)
        files = tuple(sorted(image.path for image in images))
        return Series(series.first, files, series.heights_mm, series.slice_count, seconds)

    @property
    def slice_mm(self) -> float:
        """The usual distance between slices."""
        steps = np.diff(self.heights_mm)
        steps = steps[steps > _SAME_HEIGHT_MM]
        return float(np.median(steps)) if len(steps) else float(self.first.spacing[2])

    @property
    def covered_mm(self) -> float:
        """How much of the body it covers along its normal."""
        return self.slices * self.slice_mm

    @property
    def folder(self) -> Path:
        """The folder of its first image."""
        return self.files[0].parent

    @property
    def voxels(self) -> int:
        """Voxels of the volume."""
        return self.slices * self.first.size[0] * self.first.size[1]

    def __str__(self) -> str:
        """Such as: 'LUNG 1.25', 330 slices of 1.25 mm, B46f."""
        kernel = self.first.scan.kernel.split("\\")[0]
        slices = "1 slice" if self.slices == 1 else f"{self.slices} slices of {self.slice_mm:.4g} mm"
        return ", ".join(part for part in (f'"{self.first.description}"', slices, kernel) if part)

    def is_part_of(self, other: "Series") -> bool:
        """Whether both are of one series, with the same pixels and directions."""
        one, two = self.first, other.first
        alike = np.allclose(one.direction, two.direction, rtol=0, atol=PARALLEL)
        return bool(alike) and (one.patient, one.study, one.size) == (two.patient, two.study, two.size)

    def is_copy_of(self, other: "Series") -> bool:
        """Whether all images lie at the positions of the other's."""
        same = len(self.heights_mm) == len(other.heights_mm)
        return same and bool(np.allclose(self.heights_mm, other.heights_mm, rtol=0, atol=_SAME_HEIGHT_MM))

    def with_images_of(self, other: "Series") -> "Series":
        """Both together."""
        seconds = self.seconds, other.seconds
        return Series(
            self.first,
            tuple(sorted((*self.files, *other.files))),
            np.sort(np.concatenate([self.heights_mm, other.heights_mm])),
            self.slices + other.slices,
            (min(one for one, _ in seconds), max(last for _, last in seconds)),
        )


class SeriesOfTree:
    """Series collected folder by folder: one that lies in several folders is put together, a copy is set aside."""

    def __init__(self) -> None:
        self._by_uid: dict[str, list[Series]] = defaultdict(list)
        self.copies: list[tuple[Series, Series]] = []
        """Pairs of a copy and what it is a copy of."""

    def add(self, images: Sequence[DicomImage]) -> None:
        """Take in the images of one folder."""
        for group in grouped(images):
            for one in _of_each_patient(group):
                self._add(Series.of(one))

    def _add(self, new: Series) -> None:
        known = self._by_uid[new.first.series_uid]
        for index, other in enumerate(known):
            if new.is_part_of(other):
                if new.is_copy_of(other) and new.slices > 1:
                    self.copies.append((new, other))
                else:
                    known[index] = other.with_images_of(new)
                return
        known.append(new)

    def all(self) -> list[Series]:
        """Every series, by its first file."""
        every = [series for known in self._by_uid.values() for series in known]
        return sorted(every, key=lambda one: (one.files[0], one.first.number))


def _of_each_patient(images: Sequence[DicomImage]) -> list[list[DicomImage]]:
    """Anonymised data may give several patients one series UID."""
    parts: dict[tuple[str, str], list[DicomImage]] = defaultdict(list)
    for image in images:
        parts[image.patient, image.study].append(image)
    return list(parts.values())


def why_left_out(series: Series, thickest_mm: float) -> str:
    """Why a series is no CT of the chest in which airways can be seen; empty if it may be one."""
    first, scan = series.first, series.first.scan
    image_type = scan.image_type.split("\\")
    if first.modality != "CT":
        return f"modality {first.modality}, not CT"
    if series.slices == 1 or "LOCALIZER" in image_type:
        return "a localiser or a single slice"
    projection = _PROJECTIONS.intersection(image_type)
    if projection:
        return f"a projection ({min(projection)})"
    if scan.body_part and not any(word in f"{scan.body_part} {first.description.upper()}" for word in _CHEST):
        return f"not the chest, its header says: {scan.body_part.lower()}"
    if abs(first.normal[2]) < 0.7:
        return "not axial: slices of another direction are reformatted"
    return why_too_coarse(series.slice_mm, series.covered_mm, thickest_mm)


def why_too_coarse(slice_mm: float, covered_mm: float, thickest_mm: float) -> str:
    """Why slices so far apart, or so little of the body, are left out; empty if they are not."""
    if slice_mm > thickest_mm + 0.005:
        return f"slices {slice_mm:.4g} mm apart, more than {thickest_mm:g} mm (--thickest)"
    if covered_mm < SHORTEST_MM:
        return f"covers {covered_mm:.0f} mm of the body, less than {SHORTEST_MM:.0f} mm"
    return ""


def is_same_scan(one: Series, other: Series) -> bool:
    """Whether two series are reconstructions of one scan (and not, say, inspiration and expiration).

    The images of one scan have the same range of times. Where no times are said, another kernel or slice distance over
    the same range counts as another reconstruction.
    """
    a, b = one.first, other.first
    if (a.patient, a.study, a.scan.frame, a.scan.acquisition) != (b.patient, b.study, b.scan.frame, b.scan.acquisition):
        return False
    low = max(one.heights_mm[0], other.heights_mm[0])
    high = min(one.heights_mm[-1], other.heights_mm[-1])
    shorter = min(np.ptp(one.heights_mm), np.ptp(other.heights_mm))
    if high - low < _SAME_RANGE * shorter:
        return False
    if min(one.seconds[0], other.seconds[0]) >= 0:
        latest_start = max(one.seconds[0], other.seconds[0])
        return latest_start <= min(one.seconds[1], other.seconds[1]) + _SAME_SECOND
    return a.scan.kernel != b.scan.kernel or abs(one.slice_mm - other.slice_mm) > _SAME_HEIGHT_MM


def best_of_each_scan(found: Sequence[Series]) -> tuple[list[Series], list[tuple[Series, Series]]]:
    """The reconstruction of each scan that suits airways best, and pairs of another one and the chosen one."""
    ranked = sorted(found, key=lambda one: (preference(one.slice_mm, one.first.scan.kernel), -one.slices))
    chosen: list[Series] = []
    others = []
    for series in ranked:
        better = next((one for one in chosen if is_same_scan(one, series)), None)
        if better is None:
            chosen.append(series)
        else:
            others.append((series, better))
    places = {id(series): place for place, series in enumerate(found)}
    return sorted(chosen, key=lambda one: places[id(one)]), sorted(others, key=lambda pair: places[id(pair[0])])
