"""Reading one image file (NIfTI, NRRD, MetaImage) through SimpleITK, without its damaged-file surprises."""

import gzip
import math
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.guardrails import check_grid

FORMATS = {
    ".nii": ("NIfTI", "NiftiImageIO"),
    ".nii.gz": ("NIfTI", "NiftiImageIO"),
    ".nrrd": ("NRRD", "NrrdImageIO"),
    ".nhdr": ("NRRD", "NrrdImageIO"),
    ".mha": ("MetaImage", "MetaImageIO"),
    ".mhd": ("MetaImage", "MetaImageIO"),
}
_FLOATS = (sitk.sitkFloat32, sitk.sitkFloat64)
_INTEGERS = (
    sitk.sitkInt8, sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkUInt16,
    sitk.sitkInt32, sitk.sitkUInt32, sitk.sitkInt64, sitk.sitkUInt64,
)  # fmt: skip
_CHUNK_BYTES = 1 << 20


def format_extension(path: Path) -> str | None:
    """Return which of `FORMATS`' extensions the file name ends with (in any case), or None."""
    name = path.name.lower()
    return next((extension for extension in sorted(FORMATS, key=len, reverse=True) if name.endswith(extension)), None)


def case_name(path: Path) -> str:
    """The name of an input, a file or a DICOM folder, without its extension."""
    name = Path(os.path.realpath(path)).name
    extension = ".dcm" if name.lower().endswith(".dcm") else format_extension(path)
    return name[: len(name) - len(extension or "")] if not path.is_dir() else name


def not_an_image(path: Path) -> AirwaySegError:
    """Return the error for a file of none of the formats."""
    return AirwaySegError(f"{path.name} is none of the files AirwaySeg reads ({', '.join(FORMATS)} or a DICOM folder).")


def read_image_file(path: Path, as_stored: bool = False) -> sitk.Image:
    """Read a three-dimensional scalar image as int16 (clamped) or float32; everything else is refused in a sentence.

    ``as_stored`` keeps the kind of numbers that the file holds.

    A file that was cut short or whose compressed data do not match their checksum is refused too: SimpleITK reads
    most of these without a word and fills them with zeros.
    """
    extension = format_extension(path)
    if extension is None:
        raise not_an_image(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(FORMATS[extension][1])
    with silent_itk():
        _read_header(reader, path, extension)
        _check_complete(reader, path, extension)
        image = _read_voxels(reader, path, extension)
        return image if as_stored else as_plain_numbers(image)


def _read_header(reader: sitk.ImageFileReader, path: Path, extension: str) -> None:
    """Read and check everything but the voxels."""
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, extension, error) from None
    if reader.GetNumberOfComponents() > 1:
        raise AirwaySegError(
            f"{path.name} has {reader.GetNumberOfComponents()} values a voxel (colour or vectors); a CT has one."
        )
    check_grid(path.name, reader.GetSize(), reader.GetSpacing(), reader.GetDirection())
    if reader.GetPixelID() not in _FLOATS + _INTEGERS:
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        raise AirwaySegError(f"{path.name} holds voxels of the kind {kind}; a CT has plain numbers.")


def _read_voxels(reader: sitk.ImageFileReader, path: Path, extension: str) -> sitk.Image:
    if reader.GetDimension() == 4:
        reader.SetExtractSize([*reader.GetSize()[:3], 0])
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise _unreadable(path, extension, error) from None
    except MemoryError:
        raise AirwaySegError(f"{path.name} does not fit into this computer's memory.") from None


def as_plain_numbers(image: sitk.Image) -> sitk.Image:
    """Return the image as float32 if its voxels are floating point, else as int16, clamped to what int16 holds."""
    if image.GetPixelID() in (sitk.sitkInt16, sitk.sitkFloat32):
        return image
    if image.GetPixelID() == sitk.sitkFloat64:
        return sitk.Cast(image, sitk.sitkFloat32)
    limits = np.iinfo(np.int16)
    return sitk.Clamp(image, sitk.sitkInt16, limits.min, limits.max)


def _unreadable(path: Path, extension: str, error: RuntimeError) -> AirwaySegError:
    """Turn ITK's many lines into one sentence."""
    if "orthonormal" in str(error) or "direction" in str(error).lower().split("\n")[0]:
        return AirwaySegError(f"{path.name} has axis directions that are missing or not at right angles to each other.")
    return AirwaySegError(
        f"{path.name} cannot be read as {FORMATS[extension][0]}: the file is damaged, incomplete or of another format."
    )


def _check_complete(reader: sitk.ImageFileReader, path: Path, extension: str) -> None:
    """Refuse the damage that SimpleITK overlooks: short or corrupt NIfTI, corrupt compressed MetaImage."""
    try:
        if extension == ".nii":
            complete = path.stat().st_size >= _nifti_bytes(reader)
        elif extension == ".nii.gz":
            complete = _gzip_bytes(path) >= _nifti_bytes(reader)
        elif extension in (".mha", ".mhd"):
            complete = _metaimage_is_complete(path)
        else:
            complete = True
    except (OSError, EOFError, zlib.error):
        complete = False
    if not complete:
        raise AirwaySegError(f"{path.name} is incomplete or damaged: voxels are missing from the file.")


def _nifti_bytes(reader: sitk.ImageFileReader) -> int:
    """How long a complete NIfTI file is, from its header (352 bytes is where the voxels start at the earliest)."""
    voxel_count = math.prod(reader.GetSize())
    start = int(float(reader.GetMetaData("vox_offset"))) if reader.HasMetaDataKey("vox_offset") else 352
    bits = int(reader.GetMetaData("bitpix")) if reader.HasMetaDataKey("bitpix") else 8
    return max(start, 352) + voxel_count * bits // 8


def _gzip_bytes(path: Path) -> int:
    """Decompress the whole file, which checks its checksum, and count its bytes; a misnamed plain file as it is."""
    with path.open("rb") as plain:
        if plain.read(2) != b"\x1f\x8b":
            return path.stat().st_size
    count = 0
    with gzip.open(path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            count += len(chunk)
    return count


def _metaimage_is_complete(path: Path) -> bool:
    """Whether compressed voxels decompress to their end; SimpleITK itself notices missing raw voxels."""
    with path.open("rb") as stream:
        header = stream.read(_CHUNK_BYTES)
    end = re.search(rb"ElementDataFile\s*=\s*(\S+)[ \t\r]*\n?", header)
    if end is None or not re.search(rb"CompressedData\s*=\s*True", header[: end.start()]):
        return True
    local = end.group(1).upper() == b"LOCAL"
    data = path if local else path.parent / os.fsdecode(end.group(1))
    if not data.is_file():  # a list or pattern of files: left to SimpleITK
        return True
    decompressor = zlib.decompressobj(47)  # zlib or gzip
    with data.open("rb") as stream:
        stream.seek(end.end() if local else 0)
        while (chunk := stream.read(_CHUNK_BYTES)) and not decompressor.eof:
            decompressor.decompress(chunk)
    return decompressor.eof


@contextmanager
def silent_itk() -> Iterator[None]:
    """Keep what ITK and its C libraries print out of the user's console while a file is read.

    The libraries write to file descriptor 2 themselves, so it points to nowhere meanwhile. Where a program has no
    such descriptor (a window on Windows) nothing needs to be done.
    """
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        saved = os.dup(2)
    except OSError:
        saved = None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        if saved is not None:
            os.dup2(nowhere, 2)
        yield
    finally:
        if saved is not None:
            os.dup2(saved, 2)
            os.close(saved)
        os.close(nowhere)
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
