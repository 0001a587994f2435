"""The raw header of an image file: what ITK replaces by a guess (millimetres, orientation) and where the voxels are."""

import gzip
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from os import fsdecode
from pathlib import Path

import numpy as np

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.stored_voxels import NiftiVoxels, StoredVoxels
from AirwaySegLib.files.user_files import check_regular_file

_HEADER_BYTES = 1 << 20
_NIFTI_BYTES = 352
_NIFTI_KINDS = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_ANATOMICAL_SPACE = re.compile(r"(right|left)-(anterior|posterior)-(superior|inferior)(-time)?|[rl][ap][si]t?")
_MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", ""}
_ENCODINGS = {"gz": "gzip", "gzip": "gzip", "raw": "raw", "bz2": "bzip2", "bzip2": "bzip2"}


@dataclass(frozen=True)
class RawHeader:
    """What a header leaves open, each as the rest of a sentence that starts with the file's name, or empty.

    ``no_mm``: why the voxel spacing in mm is unknown. ``no_sides``: why left and right are unknown. ``contradiction``:
    what the header says twice and differently. ``voxels``: where they are stored; None if that is left to ITK.
    """

    no_mm: str = ""
    no_sides: str = ""
    contradiction: str = ""
    voxels: StoredVoxels | NiftiVoxels | None = None

    def warnings(self, name: str) -> list[str]:
        """Sentences about the file called ``name``."""
        sides = f"{self.no_sides}: left and right, front and back may be swapped, and with them the names of lobes"
        found = [sides] if self.no_sides else []
        return [f"{name} {what}." for what in [*found, self.contradiction] if what]


def read_raw_header(path: Path, extension: str) -> RawHeader:
    """Read what the file says itself; ``extension`` is one of `image_files.FORMATS`.

    Raises
    ------
    AirwaySegError
        If the header points to voxels that cannot be used.
    """
    if extension.startswith(".nii"):
        return _nifti(path)
    with path.open("rb") as stream:
        content = stream.read(_HEADER_BYTES)
    return _nrrd(path, content) if extension in (".nrrd", ".nhdr") else _metaimage(path, content)


# NIfTI: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h ----------------------------------------------------


def is_gzip(path: Path) -> bool:
    """Whether the file starts as gzip does, whatever its name says."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _nifti(path: Path) -> RawHeader:
    compressed = is_gzip(path)
    with gzip.open(path) if compressed else path.open("rb") as stream:
        header = stream.read(_NIFTI_BYTES)
    order = "<" if header[:4] == struct.pack("<i", 348) else ">"
    if len(header) < 348 or header[344:348] != b"n+1\0" or struct.unpack_from(order + "i", header)[0] != 348:
        raise AirwaySegError(f"{path.name} cannot be read: it is not a single-file NIfTI-1 image.")

    def numbers(at: int, count: int, kind: str = "f") -> tuple[float, ...]:
        return struct.unpack_from(f"{order}{count}{kind}", header, at)

    pixdim = numbers(80, 3)
    start, slope, intercept = numbers(108, 3)
    qform, sform = numbers(252, 2, "h")
    kind = int(numbers(70, 1, "h")[0])
    if not _NIFTI_BYTES <= start < 2**40:
        raise AirwaySegError(f"{path.name} is damaged: it says that its voxels start at byte {start:g}.")
    if not all(map(math.isfinite, (slope, intercept))):
        slope, intercept = 1.0, 0.0  # not in use, as 0 is
    wrong = [f"{mm:g} along {axis}" for axis, mm in zip("xyz", pixdim, strict=True) if mm == 0 or not math.isfinite(mm)]
    if kind not in _NIFTI_KINDS:
        raise AirwaySegError(f"{path.name} holds voxels of NIfTI's kind {kind}; a CT has one plain number a voxel.")
    scale = (slope, intercept) if slope else (1.0, 0.0)
    return RawHeader(
        no_mm=f"has a pixdim of {', '.join(wrong)}" if wrong else "",
        no_sides="" if qform > 0 or sform > 0 else "has neither qform nor sform (both codes are 0)",
        contradiction=_other_sform(pixdim, numbers(280, 12)) if sform > 0 and not wrong else "",
        voxels=NiftiVoxels(path, int(start), compressed, order + _NIFTI_KINDS[kind], *scale),
    )


def _other_sform(pixdim: Sequence[float], rows: Sequence[float]) -> str:
    """What to say where the lengths of the sform's columns are not pixdim's; a sform of zeros is refused elsewhere."""
    lengths = np.linalg.norm(np.reshape(rows, (3, 4))[:, :3], axis=0)
    if not np.isfinite(lengths).all() or not lengths.all() or np.allclose(lengths, np.abs(pixdim), rtol=0.01):
        return ""
    say = [" x ".join(f"{mm:.3g}" for mm in each) for each in (pixdim, lengths)]
    return f"has a spacing of {say[0]} mm in its pixdim and of {say[1]} mm in its sform; the pixdim was taken"


# NRRD: http://teem.sourceforge.net/nrrd/format.html ------------------------------------------------------------------


def _nrrd(path: Path, content: bytes) -> RawHeader:
    end = re.search(rb"\r?\n\r?\n", content)
    lines = content[: end.start() if end else len(content)].splitlines()
    fields: dict[str, bytes] = {}
    for line in lines[1:]:
        key, colon, value = line.partition(b":")
        if colon and not line.startswith(b"#") and not value.startswith(b"="):
            fields[key.decode("latin-1").strip().lower().replace(" ", "")] = value
    texts = {key: value.decode("latin-1").strip() for key, value in fields.items()}
    stored = _nrrd_voxels(path, fields, end.end() if end else len(content))
    directions = re.findall(r"none|\([^)]*\)", texts.get("spacedirections", "").lower())
    known = texts.get("space", "").lower()
    sides = bool(_ANATOMICAL_SPACE.fullmatch(known)) and len(directions) - directions.count("none") >= 3
    return RawHeader(
        no_mm=_nrrd_no_mm(texts, directions),
        no_sides=""
        if sides
        else "does not say which side of the patient is left (no space directions in a known space)",
        voxels=stored,
    )


def _nrrd_no_mm(texts: dict[str, str], directions: list[str]) -> str:
    """Why an NRRD header gives no lengths in mm."""
    for field in ("spaceunits", "units"):
        strange = [unit for unit in re.findall(r'"([^"]*)"', texts.get(field, "")) if unit.lower() not in _MILLIMETRES]
        if strange and field in texts:
            return f'gives its lengths in "{strange[0]}", not in mm'
    if len(directions) - directions.count("none") >= 3:
        return ""
    lengths = _numbers(texts.get("spacings", ""))
    usable = [mm for mm in lengths if math.isfinite(mm) and mm != 0]
    if directions or len(usable) < 3:
        return "gives no voxel spacing (no complete space directions or spacings)"
    return ""


def _nrrd_voxels(path: Path, fields: dict[str, bytes], after_header: int) -> StoredVoxels | None:
    """Where an NRRD's voxels are; None if they are written as text, which ITK counts itself."""
    encoding = _ENCODINGS.get(fields.get("encoding", b"raw").decode("latin-1").strip().lower())
    data, start = path, after_header
    name = fields.get("datafile", b"").strip()
    if name:
        data, start = _beside(path, name), 0
    lines, skipped = (_whole(fields.get(key, b"").decode("latin-1")) for key in ("lineskip", "byteskip"))
    if encoding == "bzip2":
        raise AirwaySegError(f"{path.name} is compressed with bzip2, which cannot be read; store it with gzip.")
    return None if encoding is None else StoredVoxels(data, start, encoding, lines=lines, skipped=skipped)


# MetaImage: https://itk.org/Wiki/ITK/MetaIO/Documentation ------------------------------------------------------------


def _metaimage(path: Path, content: bytes) -> RawHeader:
    end = re.search(rb"ElementDataFile[ \t]*=[ \t]*([^\r\n]*)\r?\n?", content)
    if end is None:
        raise AirwaySegError(f"{path.name} is incomplete or damaged: it does not say where its voxels are.")
    fields = {}
    for line in content[: end.start()].splitlines():
        key, _, value = line.decode("latin-1").partition("=")
        fields[key.strip()] = value.strip()
    spacing = fields.get("ElementSpacing") or fields.get("ElementSize", "")
    usable = [mm for mm in _numbers(spacing) if math.isfinite(mm) and mm != 0]
    if spacing and len(usable) != _whole(fields.get("NDims", "")):
        raise AirwaySegError(
            f"{path.name} has an ElementSpacing of {spacing}, which is not a length in mm for each axis."
        )
    known = any(key in fields for key in ("TransformMatrix", "Rotation", "Orientation"))
    name = end.group(1).strip()
    local = name.upper() == b"LOCAL"
    binary, compressed = (fields.get(key, "")[:1] in ("T", "t", "1") for key in ("BinaryData", "CompressedData"))
    data, start = (path, end.end()) if local else (_beside(path, name), 0)
    size = _whole(fields.get("HeaderSize", ""))
    stored = StoredVoxels(data, start + max(size, 0), "zlib" if compressed else "raw", skipped=min(size, 0))
    return RawHeader(
        no_mm="" if spacing else "gives no voxel spacing (no ElementSpacing)",
        no_sides="" if known else "does not say which side of the patient is left (no TransformMatrix)",
        voxels=stored if binary or compressed else None,
    )


# Shared --------------------------------------------------------------------------------------------------------------


def _numbers(text: str) -> list[float]:
    """The numbers of a text; NaN for a word that is none."""
    found = []
    for word in text.split():
        try:
            found.append(float(word))
        except ValueError:
            found.append(math.nan)
    return found


def _whole(text: str) -> int:
    """The whole number of a field; 0 if it is missing or something else."""
    try:
        return int(text)
    except ValueError:
        return 0


def _beside(path: Path, name: bytes) -> Path:
    """The one data file that a header names; several are not read, because their sum cannot be checked."""
    if name.upper().startswith(b"LIST") or b"%" in name:
        raise AirwaySegError(f"{path.name} keeps its voxels in several files; store it as one file.")
    data = path.parent / fsdecode(name)
    try:
        check_regular_file(data)
    except AirwaySegError as error:
        raise AirwaySegError(f"{path.name} points to voxels that cannot be read: {error}") from None
    return data
