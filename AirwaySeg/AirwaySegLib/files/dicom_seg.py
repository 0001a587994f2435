"""A mask as a DICOM Segmentation that refers to the CT it was made from; patient and study are copied, not made up."""

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib import __version__
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import written_whole
from AirwaySegLib.files.dicom import choose_series, list_series
from AirwaySegLib.files.image_files import silent_itk

Code = tuple[str, str, str]
"""Value, coding scheme and meaning."""

ANATOMY: Code = ("123037004", "SCT", "Anatomical Structure")
AIRWAYS: Code = ("110726009", "SCT", "Trachea and bronchus")
BRONCHUS: Code = ("955009", "SCT", "Bronchus")
LOBE_CODES: dict[str, Code] = {
    "right upper lobe": ("42400003", "SCT", "Upper lobe of right lung"),
    "right middle lobe": ("72481006", "SCT", "Middle lobe of right lung"),
    "right lower lobe": ("266005", "SCT", "Lower lobe of right lung"),
    "left upper lobe": ("44714003", "SCT", "Upper lobe of left lung"),
    "left lower lobe": ("41224006", "SCT", "Lower lobe of left lung"),
}
MANUFACTURER, MODEL = "AirwaySeg", "AirwaySeg"
_SERIES_NUMBER = 9001


@dataclass(frozen=True)
class Segment:
    """One segment: its label, its mask (bool, on the CT's grid), and the lobe in which its bronchi lie, or none."""

    label: str
    mask: NDArray[np.bool_]
    lobe: str = ""


def write_dicom_seg(path: Path, segments: Sequence[Segment], source: Path, series: str, files: Sequence[Path]) -> None:
    """Write segments on the grid of a CT series as one DICOM Segmentation object.

    ``source``, ``series`` and ``files`` are what the CT was read from, as in `volume.read_ct`. Patient, study and frame
    of reference are those of its headers. The same segments of the same series get the same UIDs.

    Raises
    ------
    AirwaySegError
        If highdicom is not installed, the CT is not DICOM or differs in its size, or the file cannot be written.
    """
    highdicom, pydicom = import_highdicom()
    with silent_itk():
        chosen = choose_series(list_series(source, files), source, series or None)
    images = chosen.images
    headers = [pydicom.dcmread(image.path, stop_before_pixels=True) for image in images]
    for header in headers:
        if len(images) > 1 and not header.get("SliceThickness"):  # which a segmentation must give
            header.SliceThickness = f"{chosen.slice_spacing_mm:.6g}"
    array = np.stack([segment.mask for segment in segments], axis=-1)
    frames = sum(image.size[2] for image in images)
    if array.shape[:3] != (frames, images[0].size[1], images[0].size[0]):
        raise AirwaySegError(f"The mask for {path.name} has not the size of the DICOM series in {source}.")
    made = highdicom.seg.Segmentation(
        source_images=headers,
        pixel_array=array.astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(highdicom, number, one) for number, one in enumerate(segments, start=1)],
        series_instance_uid=_uid(pydicom, "series", images[0].series_uid, array),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=_uid(pydicom, "object", images[0].series_uid, array),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=__version__,
        device_serial_number=__version__,
        series_description="Airways (AirwaySeg)",
        content_label="AIRWAYS",
    )
    with written_whole(path) as unfinished:
        made.save_as(unfinished)


def import_highdicom() -> tuple[Any, Any]:
    """The packages highdicom and pydicom.

    Raises
    ------
    AirwaySegError
        If they are not installed.
    """
    try:
        return importlib.import_module("highdicom"), importlib.import_module("pydicom")
    except ImportError:
        raise AirwaySegError(
            "DICOM Segmentation needs highdicom; `pip install airwayseg[dicom-seg]` brings it."
        ) from None


def _description(highdicom: Any, number: int, segment: Segment) -> Any:
    """A segment's description in codes of SNOMED CT."""
    coded = highdicom.sr.CodedConcept
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=MODEL,
        version=__version__,
        family=coded("123109", "DCM", "Artificial Intelligence"),
    )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=coded(*ANATOMY),
        segmented_property_type=coded(*(BRONCHUS if segment.lobe else AIRWAYS)),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=[coded(*LOBE_CODES[segment.lobe])] if segment.lobe else None,
    )


def _uid(pydicom: Any, what: str, series: str, array: NDArray) -> str:
    """A UID that follows from the CT's series and the segments."""
    content = hashlib.sha256(np.packbits(array).tobytes()).hexdigest()
    return str(pydicom.uid.generate_uid(entropy_srcs=[what, series, content, __version__]))
