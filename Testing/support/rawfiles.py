"""Image files made by hand, byte by byte, so that each field of a header can be wrong; small edits of DICOM files."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SPACING_XYZ = (0.7, 0.8, 1.25)


def draw_hu() -> np.ndarray:
    """9 x 10 x 11 voxels, int16: a lung in water in air, and noise that makes every voxel traceable."""
    hu = np.full((9, 10, 11), -1000, np.int16)
    hu[:, 1:-1, 1:-1] = 30
    hu[2:7, 3:7, 3:8] = -850
    return hu + np.random.default_rng(7).integers(-9, 10, hu.shape, dtype=np.int16)


HU = draw_hu()
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "11 10 9",
    "space directions": "(0.7,0,0) (0,0.8,0) (0,0,1.25)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "gzip",
    "space origin": "(-10,-20,30)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "True",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-10 -20 30",
    "ElementSpacing": "0.7 0.8 1.25",
    "DimSize": "11 10 9",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
NIFTI_FIELDS = {  # where each field is, and its kind for struct
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "b"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "srow": (280, "12f"),
    "magic": (344, "4s"),
}
NIFTI = {
    "sizeof_hdr": (348,),
    "dim": (3, 11, 10, 9, 1, 1, 1, 1),
    "datatype": (4,),
    "bitpix": (16,),
    "pixdim": (1, *SPACING_XYZ, 0, 0, 0, 0),
    "vox_offset": (352,),
    "scl_slope": (1,),
    "scl_inter": (0,),
    "xyzt_units": (2,),
    "sform_code": (1,),
    "srow": (-0.7, 0, 0, 10, 0, -0.8, 0, 20, 0, 0, 1.25, 30),
    "magic": (b"n+1\0",),
}


def nrrd(voxels: bytes | None = None, **changes: str | None) -> bytes:
    """An NRRD file around ``voxels`` (stored as they are); a field that is None is left out, "_" stands for " "."""
    fields = NRRD | {key.replace("_", " "): value for key, value in changes.items()}
    lines = ["NRRD0004", *(f"{key}: {value}" for key, value in fields.items() if value is not None)]
    return "\n".join(lines).encode() + b"\n\n" + (gzip.compress(HU.tobytes()) if voxels is None else voxels)


def meta(voxels: bytes | None = None, **changes: str | None) -> bytes:
    """A MetaImage file around ``voxels``; a field that is None is left out."""
    voxels = zlib.compress(HU.tobytes()) if voxels is None else voxels
    size = str(len(voxels)) if changes.get("CompressedData", "True").lower() == "true" else None
    fields = {"CompressedDataSize": size} | META | changes
    fields = {key: value for key, value in fields.items() if value is not None}
    fields["ElementDataFile"] = fields.pop("ElementDataFile")  # always last
    return "".join(f"{key} = {value}\n" for key, value in fields.items()).encode() + voxels


def nifti(voxels: bytes | None = None, order: str = "<", **changes: tuple) -> bytes:
    """A plain NIfTI-1 file around ``voxels``; every field is a tuple of numbers."""
    header = bytearray(352)
    for key, values in (NIFTI | changes).items():
        at, kind = NIFTI_FIELDS[key]
        struct.pack_into(order + kind, header, at, *values)
    return bytes(header) + (HU.tobytes() if voxels is None else voxels)


def write_image(folder: Path, name: str) -> Path:
    """The same volume in the format of a name; "-raw" in it means that nothing is compressed."""
    path, raw = folder / name, HU.tobytes()
    packed = "raw" not in name
    if name.endswith(".nii"):
        path.write_bytes(nifti())
    elif name.endswith(".nii.gz"):
        path.write_bytes(gzip.compress(nifti()))
    elif name.endswith(".nrrd"):
        path.write_bytes(nrrd() if packed else nrrd(raw, encoding="raw"))
    elif name.endswith(".mha"):
        path.write_bytes(meta() if packed else meta(raw, CompressedData="False"))
    elif name.endswith(".nhdr"):
        path.write_bytes(nrrd(b"", encoding="gzip" if packed else "raw", data_file="voxels.bin"))
        (folder / "voxels.bin").write_bytes(gzip.compress(raw) if packed else raw)
    else:
        path.write_bytes(meta(b"", CompressedData=str(packed), ElementDataFile="voxels.bin"))
        (folder / "voxels.bin").write_bytes(zlib.compress(raw) if packed else raw)
    return path


def write_series(folder: Path, **more: object) -> list[Path]:
    """The volume as a DICOM series; its files from the lowest slice to the highest."""
    saved_series(folder, HU, **more)
    return sorted(folder.iterdir(), key=lambda file: int(element(file.read_bytes(), "0020|0013")))


def _find(content: bytes, tag: str) -> tuple[int, int]:
    """From where to where a file in implicit little endian keeps the element."""
    group, number = (int(part, 16) for part in tag.split("|"))
    at = content.index(struct.pack("<HH", group, number), 132)
    return at, at + 8 + struct.unpack_from("<I", content, at + 4)[0]


def element(content: bytes, tag: str) -> bytes:
    """The value of an element of a file that `write_series` wrote."""
    start, end = _find(content, tag)
    return content[start + 8 : end].strip()


def edit(file: Path, tag: str, value: str | None) -> None:
    """Give an element another value; None takes it out."""
    content = file.read_bytes()
    start, end = _find(content, tag)
    new = b"" if value is None else value.encode() + b" " * (len(value) % 2)
    head = b"" if value is None else content[start : start + 4] + struct.pack("<I", len(new))
    file.write_bytes(content[:start] + head + new + content[end:])


def saved_series(
    folder: Path, hu: np.ndarray, uid: str = "1.2.3", description: str = "LUNG 1.25", **more: object
) -> Path:
    """Write an array as DICOM slices 1.25 mm apart; ``skip`` leaves some out, ``suffix`` names the files."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    for number in set(range(len(hu))) - set(more.get("skip", ())):
        image = sitk.GetImageFromArray(hu[number][None])
        image.SetSpacing(SPACING_XYZ)
        shift_mm = number * math.tan(math.radians(more.get("tilt", 0))) * SPACING_XYZ[2]
        tags = {
            "0008|0060": "CT",
            "0008|0018": f"{more.get('image_uid', uid)}.{number}",
            "0008|103e": description,
            "0020|000d": "1.2",
            "0020|000e": uid,
            "0020|0011": str(more.get("series_number", 2)),
            "0020|0013": str(number),
            "0020|0032": f"-10\\{-20 + shift_mm}\\{30 + SPACING_XYZ[2] * number}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        # names in another order than the slices
        writer.SetFileName(str(folder / f"{uid}_{(number * 37) % 101:03d}{more.get('suffix', '.dcm')}"))
        writer.Execute(image)
    return folder
