"""Reading one image file (NIfTI, NRRD, MetaImage) through SimpleITK, without its damaged-file surprises."""

import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.ct_checks import Spacing, check_grid, check_size, spacing_to_use
from AirwaySegLib.files.raw_headers import RawHeader, read_raw_header
from AirwaySegLib.files.stored_voxels import Damaged, NiftiVoxels, check_voxels, read_nifti_voxels
from AirwaySegLib.files.user_files import check_name, check_regular_file

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


def format_extension(path: Path) -> str | None:
    """Return which of `FORMATS`' extensions the file name ends with (in any case), or None."""
    name = path.name.lower()
    return next((extension for extension in sorted(FORMATS, key=len, reverse=True) if name.endswith(extension)), None)


def case_name(path: Path) -> str:
    """The name of an input, a file or a DICOM folder, without its extension; of a link its own, not the target's."""
    name = Path(os.path.abspath(path)).name
    extension = ".dcm" if name.lower().endswith(".dcm") else format_extension(path)
    return name[: len(name) - len(extension or "")] if not path.is_dir() else name


def not_an_image(path: Path) -> AirwaySegError:
    """Return the error for a file of none of the formats."""
    return AirwaySegError(f"{path.name} is none of the files AirwaySeg reads ({', '.join(FORMATS)} or a DICOM folder).")


def open_reader(path: Path, image_io: str) -> sitk.ImageFileReader:
    """SimpleITK's reader of one file, its header not read yet. A name that would end the process is refused."""
    check_name(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(image_io)
    return reader


def read_image_file(
    path: Path, as_stored: bool = False, spacing_mm: Spacing | None = None
) -> tuple[sitk.Image, list[str]]:
    """Read a three-dimensional scalar image as int16 (clamped) or float32; everything else is refused in a sentence.

    ``as_stored`` keeps the kind of numbers that the file holds. ``spacing_mm`` (x, y, z) is for a file that gives no
    millimetres. The second value are the warnings.

    A file that was cut short or whose compressed data do not match their checksum is refused too: SimpleITK reads
    most of these without a word. So is one without a voxel spacing, which SimpleITK takes for 1 mm.
    """
    extension = format_extension(path)
    if extension is None:
        raise not_an_image(path)
    check_regular_file(path)
    reader = open_reader(path, FORMATS[extension][1])
    with silent_itk():
        header, spacing, warnings = _read_header(reader, path, extension, spacing_mm)
        image = _read_voxels(reader, path, extension, header)
    image.SetSpacing(spacing)
    return image if as_stored else as_plain_numbers(image), warnings


def _read_header(
    reader: sitk.ImageFileReader, path: Path, extension: str, spacing_mm: Spacing | None
) -> tuple[RawHeader, Spacing, list[str]]:
    """Read and check everything but the voxels; also the spacing (x, y, z) to use, and the warnings."""
    try:
        header = read_raw_header(path, extension)  # first: ITK opens whatever it points to
        reader.ReadImageInformation()
    except (RuntimeError, EOFError, OSError, zlib.error) as error:
        raise _unreadable(path, extension, error) from None
    if reader.GetNumberOfComponents() > 1:
        raise AirwaySegError(
            f"{path.name} has {reader.GetNumberOfComponents()} values a voxel (colour or vectors); a CT has one."
        )
    check_size(path.name, reader.GetSize())
    own = None if header.no_mm else reader.GetSpacing()[:3]
    spacing, about = spacing_to_use(path.name, own, spacing_mm, header.no_mm)
    check_grid(path.name, reader.GetSize(), spacing, reader.GetDirection())
    if reader.GetPixelID() not in _FLOATS + _INTEGERS:
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        raise AirwaySegError(f"{path.name} holds voxels of the kind {kind}; a CT has plain numbers.")
    return header, spacing, about + header.warnings(path.name)


def _read_voxels(reader: sitk.ImageFileReader, path: Path, extension: str, header: RawHeader) -> sitk.Image:
    """The image on ITK's grid, with the voxels that are in the file and no others."""
    if reader.GetDimension() == 4:
        reader.SetExtractSize([*reader.GetSize()[:3], 0])
    try:
        if isinstance(header.voxels, NiftiVoxels):
            return _nifti_image(reader, header.voxels)
        image = reader.Execute()
        if header.voxels is not None:
            check_voxels(header.voxels, sitk.GetArrayViewFromImage(image))
        return image
    except Damaged as damage:
        raise AirwaySegError(f"{path.name} is incomplete or damaged: {damage}.") from None
    except RuntimeError as error:
        raise _unreadable(path, extension, error) from None
    except MemoryError:
        raise AirwaySegError(f"{path.name} does not fit into this computer's memory.") from None


def _nifti_image(reader: sitk.ImageFileReader, voxels: NiftiVoxels) -> sitk.Image:
    image = sitk.GetImageFromArray(read_nifti_voxels(voxels, reader.GetSize()[2::-1]))
    image.SetOrigin(reader.GetOrigin()[:3])
    axes = reader.GetDimension()
    image.SetDirection(np.reshape(reader.GetDirection(), (axes, axes))[:3, :3].ravel().tolist())
    return image


def as_plain_numbers(image: sitk.Image) -> sitk.Image:
    """Return the image as float32 if its voxels are floating point, else as int16, clamped to what int16 holds."""
    if image.GetPixelID() in (sitk.sitkInt16, sitk.sitkFloat32):
        return image
    if image.GetPixelID() == sitk.sitkFloat64:
        return sitk.Cast(image, sitk.sitkFloat32)
    limits = np.iinfo(np.int16)
    return sitk.Clamp(image, sitk.sitkInt16, limits.min, limits.max)


def _unreadable(path: Path, extension: str, error: Exception) -> AirwaySegError:
    """Turn ITK's many lines into one sentence."""
    if "orthonormal" in str(error) or "direction" in str(error).lower().split("\n")[0]:
        return AirwaySegError(f"{path.name} has axis directions that are missing or not at right angles to each other.")
    return AirwaySegError(
        f"{path.name} cannot be read as {FORMATS[extension][0]}: the file is damaged, incomplete or of another format."
    )


@contextmanager
def silent_itk() -> Iterator[None]:
    """Keep what ITK and its C libraries print out of the user's console while a file is read.

    The libraries write to file descriptor 2 themselves, so it points to nowhere meanwhile. Where a program has no
    such descriptor (a window on Windows) nothing needs to be done. Several threads may read at once: the first to
    start redirects it, the last to end puts it back.
    """
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()


class _Silence:
    """File descriptor 2 and ITK's warnings, off while at least one thread is inside."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._saved: int | None = None
        self._shown = True

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._shown = sitk.ProcessObject.GetGlobalWarningDisplay()
            sitk.ProcessObject.SetGlobalWarningDisplay(False)
            try:
                self._saved = os.dup(2)
            except OSError:
                self._saved = None
                return
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            if self._saved is not None:
                os.dup2(self._saved, 2)
                os.close(self._saved)
            sitk.ProcessObject.SetGlobalWarningDisplay(self._shown)


_silence = _Silence()


@dataclass(frozen=True)
class FileHeader:
    """What an image file's header says: voxels and spacing (mm) along its axes x, y, z, and the kind of voxel."""

    size_xyz: tuple[int, ...]
    spacing_xyz_mm: tuple[float, ...]
    direction: tuple[float, ...]
    voxel: str


def read_file_header(path: Path) -> FileHeader:
    """Read what the header of an image file says, without its voxels and without judging it.

    Raises
    ------
    AirwaySegError
        If the header cannot be read.
    """
    extension = format_extension(path)
    if extension is None:
        raise not_an_image(path)
    check_regular_file(path)
    reader = open_reader(path, FORMATS[extension][1])
    try:
        with silent_itk():
            read_raw_header(path, extension)  # first: ITK opens whatever it points to
            reader.ReadImageInformation()
    except (RuntimeError, EOFError, OSError, zlib.error) as error:
        raise _unreadable(path, extension, error) from None
    voxel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    return FileHeader(reader.GetSize(), reader.GetSpacing(), reader.GetDirection(), voxel)
