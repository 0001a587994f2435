"""What the header of one DICOM file says, and what it does not say though ITK answers."""

import math
import re
import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from AirwaySegLib.files.dicom_slices import DicomImage, ScanLabels
from AirwaySegLib.files.image_files import open_reader

_PIXEL_SPACING, _POSITION, _ORIENTATION = "0028|0030", "0020|0032", "0020|0037"
_BETWEEN_SLICES = "0018|0088"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"


def read_header(file: Path) -> DicomImage | None:
    """Read one file's header; None if it is no image (a report, a structure set, a text)."""
    reader = open_reader(file, "GDCMImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() > 1:
        return None
    said = _Said(reader, file)
    number = said.text("0020|0011")
    return DicomImage(
        path=file,
        series_uid=said.text("0020|000e") or "unnamed series",
        image_uid=said.text("0008|0018") or str(file),
        description=said.text("0008|103e") or "no description",
        modality=said.text("0008|0060") or "unknown modality",
        number=int(number) if number.isdecimal() else 0,
        size=reader.GetSize(),
        spacing=reader.GetSpacing(),
        position=reader.GetOrigin(),
        direction=reader.GetDirection(),
        patient=(said.text("0010|0020") or said.text("0010|0010")).casefold(),
        study=said.text("0020|000d"),
        no_spacing=not _is_spacing(said, reader.GetSize()[2]),
        no_position=not all(len(each) == 3 for each in said.numbers(_POSITION)),
        frame_positions=tuple(map(tuple, said.numbers(_POSITION))) if reader.GetSize()[2] > 1 else (),
        no_direction=not all(_is_orientation(each) for each in said.numbers(_ORIENTATION)),
        scan=_scan_labels(said),
    )


def _scan_labels(said: "_Said") -> ScanLabels:
    return ScanLabels(
        kernel=said.text("0018|1210"),
        body_part=said.text("0018|0015").upper(),
        image_type=said.text("0008|0008").upper(),
        date=said.text("0008|0020"),
        acquisition=said.text("0020|0012"),
        second=_second_of_day(said.text("0008|0032")),
        frame=said.text("0020|0052"),
        patient_id=said.text("0010|0020"),
    )


def _second_of_day(time: str) -> float:
    """Seconds since midnight of DICOM's "HHMMSS.FFFFFF"; -1 if it is none."""
    parts = re.fullmatch(r"([0-9]{2})([0-9]{2})([0-9]{2}(?:\.[0-9]{1,6})?)", time)
    return int(parts[1]) * 3600 + int(parts[2]) * 60 + float(parts[3]) if parts else -1.0


class _Said:
    """The values of a file; those that an image of several frames keeps in sequences, which ITK does not show, too."""

    def __init__(self, reader: sitk.ImageFileReader, file: Path) -> None:
        self._reader = reader
        self._header = b""
        if reader.GetSize()[2] > 1:
            self._header = file.read_bytes().partition(_PIXEL_DATA)[0]

    def text(self, tag: str) -> str:
        """The value of a tag on one line; empty if it is missing."""
        value = self._reader.GetMetaData(tag) if self._reader.HasMetaDataKey(tag) else ""
        return " ".join(value.encode("utf-8", "replace").decode("utf-8").replace("\0", " ").split())

    def numbers(self, tag: str) -> list[list[float]]:
        """The finite numbers of every value of a tag; one empty list if there is none."""
        texts = [self.text(tag)]
        if self._header:
            texts = _values(self._header, tag)
        return [_finite(text) for text in texts] or [[]]


def _values(header: bytes, tag: str) -> list[str]:
    """Every value of a tag of decimal text, at any depth, little endian with or without its kind (DS)."""
    group, element = (int(part, 16) for part in tag.split("|"))
    found = []
    for match in re.finditer(re.escape(struct.pack("<HH", group, element)), header):
        at = match.end()
        explicit = header[at : at + 2] == b"DS"
        length = struct.unpack_from("<H", header, at + 2)[0] if explicit else struct.unpack_from("<I", header, at)[0]
        value = header[at + 4 : at + 4 + length]
        if length <= 256 and re.fullmatch(rb"[0-9eE+\-.\\ \0naN]*", value):
            found.append(value.decode("ascii").strip(" \0"))
    return found


def _finite(text: str) -> list[float]:
    """The numbers of "1\\2\\3"; an empty list if one of them is none."""
    try:
        numbers = [float(part) for part in text.split("\\")]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _is_spacing(said: _Said, frames: int) -> bool:
    """Whether the header itself gives the size of a pixel, and of several frames also how far apart they are."""
    pixels = said.numbers(_PIXEL_SPACING)
    if not all(len(each) == 2 and all(pixels_mm != 0 for pixels_mm in each) for each in pixels):
        return False
    apart = said.numbers(_BETWEEN_SLICES)[0]
    return frames == 1 or len(said.numbers(_POSITION)) > 1 or (len(apart) == 1 and apart[0] != 0)


def _is_orientation(cosines: list[float]) -> bool:
    """Two unit vectors at right angles; ITK takes others for an upright patient."""
    if len(cosines) != 6:
        return False
    row, column = np.reshape(cosines, (2, 3))
    return bool(np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], rtol=0, atol=0.01))
