"""Bad inputs by the hundred: each is refused in one line that names the file, or read right; wrong voxels never."""

import bz2
import gzip
import json
import os
import shutil
import socket
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from rawfiles import HU, SPACING_XYZ, edit, element, meta, nifti, nrrd, saved_series, write_image, write_series

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume, read_ct, read_mask, read_on_grid

COMPRESSED = ["ct.nii.gz", "ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd"]
RAW = ["ct.nii", "ct-raw.nrrd", "ct-raw.nhdr", "ct-raw.mha", "ct-raw.mhd"]
GIVEN = (0.7, 0.8, 1.25)
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


def refused(path: Path, *pieces: str, **how: object) -> str:
    """The one line with which reading is refused; it names the file and holds the pieces."""
    with pytest.raises(AirwaySegError) as caught:
        read_ct(path, **how)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    assert path.name in sentence
    for piece in pieces:
        assert piece in sentence
    return sentence


def accepted(path: Path, *warnings: str, **how: object) -> Volume:
    """The volume, which has the voxels and the spacing that were written, with a warning for each piece of one."""
    volume, found = read_ct(path, **how)
    assert np.array_equal(volume.array, HU)
    assert volume.spacing_mm == pytest.approx(SPACING_XYZ[::-1])
    found = [warning for warning in found if "only 9 slices" not in warning]
    assert len(found) == len(warnings), found
    assert all(piece in warning for piece, warning in zip(warnings, found, strict=True)), found
    return volume


def saved(tmp_path: Path, name: str, content: bytes) -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def data_of(path: Path) -> Path:
    """The file that holds the voxels."""
    return path.parent / "voxels.bin" if path.suffix in (".nhdr", ".mhd") else path


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPRESSED + RAW)
def test_what_is_whole_is_read(tmp_path, name):
    accepted(write_image(tmp_path, name))


@pytest.mark.parametrize("percent", range(2, 100, 3))
@pytest.mark.parametrize("name", COMPRESSED)
def test_a_flipped_bit_in_compressed_voxels_never_gives_wrong_voxels(tmp_path, name, percent):
    path = write_image(tmp_path, name)
    content = bytearray(data_of(path).read_bytes())
    start = content.find(b"\x1f\x8b" if b"\x1f\x8b" in content else b"\x78\x9c") + 10
    content[start + (len(content) - start) * percent // 100] ^= 1 << percent % 8
    data_of(path).write_bytes(content)
    try:
        read_ct(path)
    except AirwaySegError as error:
        assert str(error).startswith(path.name) and "\n" not in str(error)
    else:
        accepted(path)  # a bit that means nothing


@pytest.mark.parametrize("byte", range(-4, 0))
@pytest.mark.parametrize("name", COMPRESSED)
def test_a_wrong_byte_at_the_end_of_compressed_voxels_is_refused(tmp_path, name, byte):
    path = write_image(tmp_path, name)
    content = bytearray(data_of(path).read_bytes())
    content[byte] ^= 0x55
    data_of(path).write_bytes(content)
    refused(path)


@pytest.mark.parametrize("left", [1, 60, 200, 347, 360, "half", "all but 9", "all but 4", "all but 1"])
@pytest.mark.parametrize("name", COMPRESSED + RAW)
def test_a_file_that_was_cut_short_is_refused(tmp_path, name, left):
    path = write_image(tmp_path, name)
    content = data_of(path).read_bytes()
    kept = len(content) // 2 if left == "half" else len(content) - int(left[8:]) if isinstance(left, str) else left
    data_of(path).write_bytes(content[:kept])
    refused(path)


@pytest.mark.parametrize("name", COMPRESSED + RAW)
def test_voxels_that_are_not_there_are_refused(tmp_path, name):
    path = write_image(tmp_path, name)
    data_of(path).write_bytes(b"")
    refused(path)


@pytest.mark.parametrize("size", ["10 10 9", "11 9 9", "11 10 8", "12 10 9", "11 10 10", "22 10 9"])
@pytest.mark.parametrize("encoding", ["packed", "raw"])
def test_sizes_that_do_not_fit_the_voxels_are_refused(tmp_path, size, encoding):
    raw = HU.tobytes() if encoding == "raw" else None
    x, y, z = (int(count) for count in size.split())
    shown = nifti(dim=(3, x, y, z, 1, 1, 1, 1))
    name = "s.nii" if raw else "s.nii.gz"
    refused(saved(tmp_path, name, shown if raw else gzip.compress(shown)))
    refused(saved(tmp_path, "s.nrrd", nrrd(raw, sizes=size, encoding="raw" if raw else "gzip")))
    refused(saved(tmp_path, "s.mha", meta(raw, DimSize=size, CompressedData=str(raw is None))))


@pytest.mark.parametrize("name", RAW)
def test_a_few_bytes_of_padding_are_no_damage(tmp_path, name):
    path = write_image(tmp_path, name)
    data_of(path).write_bytes(data_of(path).read_bytes() + bytes(6))
    accepted(path)


def test_streams_in_a_row_and_skipped_bytes_are_read(tmp_path):
    raw = HU.tobytes()
    parts = gzip.compress(raw[:500]) + gzip.compress(raw[500:])
    accepted(saved(tmp_path, "parts.nrrd", nrrd(parts)))
    accepted(saved(tmp_path, "parts.nii.gz", gzip.compress(nifti()[:999]) + gzip.compress(nifti()[999:])))
    accepted(saved(tmp_path, "skip.nrrd", nrrd(gzip.compress(b"junk" + raw), byte_skip="4")))
    accepted(saved(tmp_path, "line.nrrd", nrrd(b"junk\n" + raw, line_skip="1", encoding="raw")))
    accepted(saved(tmp_path, "end.nrrd", nrrd(b"junk" + raw, byte_skip="-1", encoding="raw")))
    accepted(saved(tmp_path, "crlf.nrrd", nrrd(b"", encoding="raw").replace(b"\n", b"\r\n") + raw))
    accepted(saved(tmp_path, "text.nrrd", nrrd(" ".join(map(str, HU.ravel())).encode(), encoding="ascii")))
    accepted(saved(tmp_path, "true.mha", meta(CompressedData="true")))
    flipped = bytearray(gzip.compress(b"junk" + raw))
    flipped[-6] ^= 1
    refused(saved(tmp_path, "skip.nrrd", nrrd(bytes(flipped), byte_skip="4")))
    flipped = bytearray(zlib.compress(raw))
    flipped[-1] ^= 1
    refused(saved(tmp_path, "true.mha", meta(bytes(flipped), CompressedData="true")), "checksum")


def test_a_plain_nifti_beside_a_compressed_one_of_the_same_name_is_not_read_instead(tmp_path):
    path = write_image(tmp_path, "ct.nii.gz")
    saved(tmp_path, "ct.nii", nifti((HU + 7).tobytes()))
    accepted(path)


# Kinds of numbers -----------------------------------------------------------------------------------------------------

KINDS = {  # kind of numpy: NRRD, MetaImage, NIfTI
    "i2": ("short", "MET_SHORT", 4),
    "i4": ("int", "MET_INT", 8),
    "i8": ("longlong", "MET_LONG_LONG", 1024),
    "f4": ("float", "MET_FLOAT", 16),
    "f8": ("double", "MET_DOUBLE", 64),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
def test_every_kind_of_numbers_gives_the_same_voxels(tmp_path, kind, order, packed):
    of_nrrd, of_meta, of_nifti = KINDS[kind]
    stored = HU.astype(order + kind)
    raw, endian = stored.tobytes(), "big" if order == ">" else "little"
    shown = nifti(raw, order, datatype=(of_nifti,), bitpix=(8 * stored.itemsize,))
    accepted(saved(tmp_path, "n.nii.gz" if packed else "n.nii", gzip.compress(shown) if packed else shown))
    data, encoding = (gzip.compress(raw), "gzip") if packed else (raw, "raw")
    accepted(saved(tmp_path, "n.nrrd", nrrd(data, type=of_nrrd, endian=endian, encoding=encoding)))
    data = zlib.compress(raw) if packed else raw
    msb = str(order == ">")
    accepted(
        saved(
            tmp_path, "n.mha", meta(data, ElementType=of_meta, BinaryDataByteOrderMSB=msb, CompressedData=str(packed))
        )
    )


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
@pytest.mark.parametrize("name", ["f.nii", "f.nrrd", "f.mha"])
def test_what_is_not_a_number_becomes_air_in_every_format(tmp_path, name, packed):
    values = HU.astype(np.float32)
    values[3, 4, 5], values[6, 7, 8] = np.nan, np.inf
    raw = values.tobytes()
    content = {
        "f.nii": nifti(raw, datatype=(16,), bitpix=(32,)),
        "f.nrrd": nrrd(gzip.compress(raw) if packed else raw, type="float", encoding="gzip" if packed else "raw"),
        "f.mha": meta(zlib.compress(raw) if packed else raw, ElementType="MET_FLOAT", CompressedData=str(packed)),
    }[name]
    if name == "f.nii" and packed:
        name, content = "f.nii.gz", gzip.compress(content)
    volume, warnings = read_ct(saved(tmp_path, name, content))
    assert volume.array[3, 4, 5] == volume.array[6, 7, 8] == -1024
    assert "2 voxels" in warnings[0]


@pytest.mark.parametrize(
    ("slope", "intercept"), [(1, 0), (0, 0), (0, 5), (np.nan, 0), (np.nan, np.nan), (1, np.nan), (np.inf, 0)], ids=str
)
def test_a_scale_that_is_not_in_use_changes_nothing(tmp_path, slope, intercept):
    accepted(saved(tmp_path, "n.nii", nifti(scl_slope=(slope,), scl_inter=(intercept,))))


@pytest.mark.parametrize(("slope", "intercept"), [(2, -1000), (0.5, 3), (1, 8)])
def test_a_scale_is_applied(tmp_path, slope, intercept):
    stored = ((HU.astype(float) - intercept) / slope).astype("f8")
    content = nifti(stored.tobytes(), datatype=(64,), bitpix=(64,), scl_slope=(slope,), scl_inter=(intercept,))
    accepted(saved(tmp_path, "n.nii", content))
    whole = nifti((HU // 2).tobytes(), scl_slope=(2,), scl_inter=(1,))
    assert np.array_equal(read_ct(saved(tmp_path, "whole.nii", whole))[0].array, HU // 2 * 2 + 1)


# Headers --------------------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("fields", "piece"),
    [
        ({"sizeof_hdr": (0,)}, "not a single-file NIfTI-1 image"),
        ({"magic": (b"ni1\0",)}, "not a single-file NIfTI-1 image"),
        ({"magic": (b"n+9\0",)}, "not a single-file NIfTI-1 image"),
        ({"magic": (bytes(4),)}, "not a single-file NIfTI-1 image"),
        ({"vox_offset": (0,)}, "start at byte 0"),
        ({"vox_offset": (-352,)}, "start at byte -352"),
        ({"vox_offset": (NAN,)}, "start at byte nan"),
        ({"vox_offset": (INF,)}, "start at byte inf"),
        ({"vox_offset": (1e30,)}, "start at byte 1e+30"),
        ({"vox_offset": (2000,)}, "voxels are missing"),
        ({"datatype": (0,)}, "NIfTI's kind 0"),
        ({"datatype": (32,), "bitpix": (64,)}, "n.nii"),
        ({"datatype": (128,), "bitpix": (24,)}, "n.nii"),
        ({"datatype": (1,), "bitpix": (1,)}, "n.nii"),
        ({"datatype": (64,), "bitpix": (64,)}, "voxels are missing"),
        ({"datatype": (2,), "bitpix": (8,)}, "more voxels than its header says"),
        ({"dim": (0, 11, 10, 9, 1, 1, 1, 1)}, "n.nii"),
        ({"dim": (9, 11, 10, 9, 1, 1, 1, 1)}, "n.nii"),
        ({"dim": (2, 11, 90, 1, 1, 1, 1, 1)}, "2-D image"),
        ({"dim": (3, 11, 10, -9, 1, 1, 1, 1)}, "n.nii"),
        ({"dim": (3, 11, 10, 0, 1, 1, 1, 1)}, "n.nii"),
        ({"dim": (3, 30000, 30000, 30000, 1, 1, 1, 1)}, "more than the"),
        ({"dim": (4, 11, 10, 9, 2, 1, 1, 1)}, "holds 2 volumes"),
        ({"srow": (NAN,) * 12}, "axis directions"),
        ({"srow": (0,) * 12}, "axis directions"),
        ({"srow": (0.7, 0, 0, 0, 0.7, 0, 0, 0, 0, 0, 1, 0)}, "axis directions"),
        ({"xyzt_units": (1,)}, "spacing of 700 mm"),
        ({"xyzt_units": (3,)}, "spacing of 0.0007 mm"),
        ({"pixdim": (1, -0.7, 0.8, 1.25, 0, 0, 0, 0)}, "spacing of -0.7 mm"),
    ],
    ids=str,
)
def test_a_wrong_nifti_header_is_refused(tmp_path, fields, piece):
    refused(saved(tmp_path, "n.nii", nifti(**fields)), piece)
    refused(saved(tmp_path, "n.nii.gz", gzip.compress(nifti(**fields))), piece.replace("n.nii", "n.nii.gz"))


@pytest.mark.parametrize(
    ("fields", "piece"),
    [
        ({"type": None}, "cannot be read as NRRD"),
        ({"type": "quadruple"}, "cannot be read as NRRD"),
        ({"type": "double"}, "n.nrrd"),
        ({"type": "uchar"}, "n.nrrd"),
        (
            {
                "dimension": "2",
                "sizes": "11 90",
                "kinds": None,
                "space_directions": None,
                "space": None,
                "space_origin": None,
            },
            "2-D image",
        ),
        ({"dimension": "4"}, "cannot be read as NRRD"),
        ({"sizes": None}, "cannot be read as NRRD"),
        ({"sizes": "11 10"}, "cannot be read as NRRD"),
        ({"sizes": "11 10 0"}, "cannot be read as NRRD"),
        ({"sizes": "11 10 -9"}, "n.nrrd"),
        ({"sizes": "3 33 10"}, "3 voxels along x"),
        ({"sizes": "90000 90000 90000"}, "more than the"),
        ({"endian": None}, "cannot be read as NRRD"),
        ({"encoding": "lzma"}, "cannot be read as NRRD"),
        ({"encoding": "bzip2"}, "bzip2"),
        ({"encoding": "hex"}, "n.nrrd"),
        ({"encoding": "ascii"}, "n.nrrd"),
        ({"encoding": "raw"}, "n.nrrd"),
        ({"space_directions": "(0.7,0,0) (0.7,0,0) (0,0,1)"}, "axis directions"),
        ({"space_directions": "(0,0,0) (0,0.8,0) (0,0,1)"}, "n.nrrd"),
        ({"space_directions": "(nan,0,0) (0,0.8,0) (0,0,1)"}, "cannot be read as NRRD"),
        ({"space_directions": "(0.7,0,0) (0,0.8,0)"}, "cannot be read as NRRD"),
        ({"space_directions": "(70,0,0) (0,80,0) (0,0,100)"}, "spacing of 70 mm"),
        ({"kinds": "vector domain domain"}, "n.nrrd"),
        ({"data_file": "missing.raw"}, "points to voxels that cannot be read"),
        ({"data_file": "."}, "is a folder"),
        ({"data_file": "LIST"}, "several files"),
        ({"data_file": "slice%03d.raw 1 9 1"}, "several files"),
        ({"byte_skip": "100000"}, "n.nrrd"),
        ({"line_skip": "100000"}, "n.nrrd"),
    ],
    ids=str,
)
def test_a_wrong_nrrd_header_is_refused(tmp_path, fields, piece):
    voxels = bz2.compress(HU.tobytes()) if fields.get("encoding") == "bzip2" else None
    refused(saved(tmp_path, "n.nrrd", nrrd(voxels, **fields)), piece)


@pytest.mark.parametrize(
    ("fields", "piece"),
    [
        ({"NDims": None}, "n.mha"),
        ({"NDims": "2", "DimSize": "11 90"}, "n.mha"),
        ({"NDims": "4", "DimSize": "11 10 9 2"}, "n.mha"),
        ({"DimSize": None}, "n.mha"),
        ({"DimSize": "11 10"}, "n.mha"),
        ({"DimSize": "11 10 0"}, "n.mha"),
        ({"DimSize": "11 10 -9"}, "n.mha"),
        ({"DimSize": "90000 90000 90000"}, "n.mha"),
        ({"ElementType": None}, "n.mha"),
        ({"ElementType": "MET_OTHER"}, "n.mha"),
        ({"ElementType": "MET_DOUBLE"}, "n.mha"),
        ({"ElementType": "MET_UCHAR"}, "n.mha"),
        ({"ElementNumberOfChannels": "3", "DimSize": "11 10 3"}, "n.mha"),
        ({"CompressedData": "False"}, "n.mha"),
        ({"ElementSpacing": "-0.7 0.8 1"}, "spacing of -0.7 mm"),
        ({"ElementSpacing": "0 0.8 1.25"}, "not a length in mm for each axis"),
        ({"ElementSpacing": "0.7 0.8 nan"}, "not a length in mm for each axis"),
        ({"ElementSpacing": "0.7 0.8"}, "not a length in mm for each axis"),
        ({"ElementSpacing": "a b c"}, "not a length in mm for each axis"),
        ({"CompressedDataSize": "20"}, "n.mha"),
        ({"CompressedDataSize": None}, "n.mha"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "axis directions"),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, "axis directions"),
        ({"ElementDataFile": "missing.raw"}, "points to voxels that cannot be read"),
        ({"ElementDataFile": "LIST"}, "several files"),
        ({"ElementDataFile": "slice%03d.raw 1 9 1"}, "several files"),
        ({"HeaderSize": "100000"}, "n.mha"),
    ],
    ids=str,
)
def test_a_wrong_metaimage_header_is_refused(tmp_path, fields, piece):
    refused(saved(tmp_path, "n.mha", meta(**fields)), piece)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.nrrd", "x.nhdr", "x.mha", "x.mhd"])
@pytest.mark.parametrize(
    "content",
    [b"", b"no image", bytes(4096), b"\xff" * 4096, b"NRRD0004\n", b"\x1f\x8b", gzip.compress(b"no image"), b"{}"],
    ids=["empty", "text", "zeros", "ones", "NRRD's first line", "gzip's first bytes", "packed text", "JSON"],
)
def test_another_content_under_the_name_of_an_image_is_refused(tmp_path, name, content):
    refused(saved(tmp_path, name, content))


# Millimetres and sides ------------------------------------------------------------------------------------------------

WITHOUT_MM = {
    "NIfTI, pixdim 0": ("n.nii", nifti(pixdim=(1, 0, 0.8, 1.25, 0, 0, 0, 0))),
    "NIfTI, all pixdim 0": ("n.nii", nifti(pixdim=(1, 0, 0, 0, 0, 0, 0, 0))),
    "NIfTI, pixdim NaN": ("n.nii", nifti(pixdim=(1, 0.7, NAN, 1.25, 0, 0, 0, 0))),
    "NIfTI, pixdim infinite": ("n.nii", nifti(pixdim=(1, 0.7, 0.8, INF, 0, 0, 0, 0))),
    "packed NIfTI, pixdim 0": ("n.nii.gz", gzip.compress(nifti(pixdim=(1, 0.7, 0.8, 0, 0, 0, 0, 0)))),
    "NRRD, no directions": ("n.nrrd", nrrd(space_directions=None)),
    "NRRD, one direction is none": ("n.nrrd", nrrd(space_directions="none (0,0.8,0) (0,0,1.25)")),
    "NRRD, no space": ("n.nrrd", nrrd(space=None, space_directions=None, space_origin=None)),
    "NRRD, spacing NaN": ("n.nrrd", nrrd(space=None, space_directions=None, space_origin=None, spacings="0.7 0.8 nan")),
    "NRRD, in cm": ("n.nrrd", nrrd(space_units='"cm" "cm" "cm"')),
    "MetaImage, no spacing": ("n.mha", meta(ElementSpacing=None)),
}


@pytest.mark.parametrize("what", WITHOUT_MM)
def test_a_file_without_millimetres_is_refused_and_read_with_those_that_are_given(tmp_path, what):
    path = saved(tmp_path, *WITHOUT_MM[what])
    refused(path, "size in mm is unknown", "--spacing X,Y,Z")
    with pytest.raises(AirwaySegError, match="size in mm is unknown"):
        read_mask(path)
    volume, warnings = read_ct(path, spacing_mm=GIVEN)
    assert np.array_equal(volume.array, HU)
    assert volume.spacing_mm == pytest.approx(GIVEN[::-1])
    assert any("0.7 x 0.8 x 1.25 mm (x, y, z) were taken" in warning for warning in warnings)


@pytest.mark.parametrize("name", COMPRESSED + RAW)
def test_a_given_spacing_must_not_contradict_the_file(tmp_path, name):
    path = write_image(tmp_path, name)
    accepted(path, spacing_mm=GIVEN)
    refused(path, "not the 0.7 x 0.8 x 2.5 mm that were given", spacing_mm=(0.7, 0.8, 2.5))


WITHOUT_SIDES = {
    "NIfTI, both codes 0": ("n.nii", nifti(sform_code=(0,))),
    "packed NIfTI, both codes 0": ("n.nii.gz", gzip.compress(nifti(sform_code=(0,)))),
    "NRRD, spacings only": (
        "n.nrrd",
        nrrd(space=None, space_directions=None, space_origin=None, spacings="0.7 0.8 1.25"),
    ),
    "NRRD, a space that is no patient": ("n.nrrd", nrrd(space="3D-right-handed")),
    "MetaImage, no matrix": ("n.mha", meta(TransformMatrix=None)),
}


@pytest.mark.parametrize("what", WITHOUT_SIDES)
def test_a_file_without_sides_is_read_with_a_warning(tmp_path, caplog, what):
    path = saved(tmp_path, *WITHOUT_SIDES[what])
    accepted(path, "left and right, front and back may be swapped")
    with pytest.raises(AirwaySegError, match="below 0"):
        read_mask(path)
    assert "may be swapped" in caplog.text


@pytest.mark.parametrize("space", ["right-anterior-superior", "RAS", "LPS", "left-anterior-superior"])
def test_every_space_of_a_patient_is_known(tmp_path, space):
    accepted(saved(tmp_path, "n.nrrd", nrrd(space=space)))


def test_a_nifti_that_says_two_spacings_is_read_with_a_warning(tmp_path):
    rows = (-1.4, 0, 0, 0, 0, -0.8, 0, 0, 0, 0, 1.25, 0)
    accepted(saved(tmp_path, "n.nii", nifti(srow=rows)), "1.4 x 0.8 x 1.25 mm in its sform; the pixdim was taken")


# Names and files that are none ----------------------------------------------------------------------------------------

NAMES = {"Latin-1": "caf\udce9", "a line break": "two\nlines", "an escape": "red\x1b[31m", "zero": "nu\0ll"}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mhd", ".dcm", ""])
@pytest.mark.parametrize("what", NAMES)
def test_a_name_that_is_no_text_is_refused_and_printable(tmp_path, what, suffix):
    path = tmp_path / f"{NAMES[what]}{suffix}"
    try:
        shutil.copy(write_image(tmp_path, "ct.nrrd"), path)
    except (OSError, ValueError):
        pass  # not every system has such names; the refusal does not look at the file
    for read in (read_ct, read_mask):
        with pytest.raises(AirwaySegError) as caught:
            read(path)
        sentence = str(caught.value)
        assert "has a name that is not plain text in UTF-8; rename it." in sentence
        assert sentence.isprintable() and sentence.encode("utf-8")


@needs_posix
@pytest.mark.parametrize("place", ["an image", "without an ending", "a folder", "any file"])
def test_such_a_name_in_a_dicom_folder_loses_no_slice_silently(tmp_path, place):
    folder = tmp_path / "ct"
    files = write_series(folder)
    names = {"an image": "\udce9.dcm", "without an ending": "\udce9", "a folder": "\udce9", "any file": "\udce9.pdf"}
    target = folder / names[place]
    try:
        if place == "a folder":
            target.mkdir()
            target = target / "IM.dcm"
        if place == "any file":
            target.write_text("a letter")
        else:
            files[-1].rename(target)
    except OSError:
        pytest.skip("this file system has no such names")
    if place == "any file":
        accepted(folder)
        return
    with pytest.raises(AirwaySegError, match="not plain text in UTF-8; rename it"):
        read_ct(folder)


def special(path: Path, kind: str) -> Path:
    """A file that never ends or never begins."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            here = Path.cwd()
            os.chdir(path.parent)  # a socket's path has a small limit
            try:
                one.bind(path.name)
            finally:
                os.chdir(here)
    else:
        path.symlink_to("/dev/zero")
    return path


@needs_posix
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha", "ct.dcm", "ct"])
def test_what_is_no_regular_file_is_refused(tmp_path, name, kind):
    path = special(tmp_path / name, kind)
    refused(path, "only regular files are read")
    with pytest.raises(AirwaySegError, match="only regular files are read"):
        read_mask(path)
    with pytest.raises(AirwaySegError, match="only regular files are read"):
        read_on_grid(path, Volume(HU, GIVEN))


@needs_posix
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_special_files_behind_a_header_or_in_a_dicom_folder_are_not_opened(tmp_path, kind):
    special(tmp_path / "voxels.bin", kind)
    header = nrrd(b"", encoding="raw", data_file="voxels.bin")
    refused(saved(tmp_path, "ct.nhdr", header), "only regular files are read")
    header = meta(b"", CompressedData="False", ElementDataFile="voxels.bin")
    refused(saved(tmp_path, "ct.mhd", header), "only regular files are read")
    write_series(tmp_path / "series")
    special(tmp_path / "series" / "IM", kind)
    accepted(tmp_path / "series")


@needs_posix
def test_a_dead_link_in_a_dicom_folder_is_refused(tmp_path):
    files = write_series(tmp_path / "ct")
    files[-1].unlink()
    files[-1].symlink_to(tmp_path / "gone.dcm")
    with pytest.raises(AirwaySegError, match=r"cannot be opened: No such file or directory"):
        read_ct(tmp_path / "ct")


def test_paths_that_are_no_file_are_refused_with_what_helps(tmp_path):
    write_image(tmp_path, "b.nii.gz")
    write_image(tmp_path, "a.nrrd")
    refused(tmp_path, "holds no DICOM images, but a.nrrd and 1 more; give such a file, or several")
    refused(tmp_path / ("x" * 300), "cannot be opened")
    with pytest.raises(AirwaySegError, match="cannot be opened"):
        read_mask(tmp_path / ("x" * 300))
    refused(tmp_path / "a.nrrd" / "ct.nrrd", "does not exist")
    with pytest.raises(AirwaySegError, match=r"is a folder without airways\.nrrd; give the file of the mask\."):
        read_mask(tmp_path)
    with pytest.raises(AirwaySegError, match="is a folder; give a file"):
        read_on_grid(tmp_path, Volume(HU, GIVEN))


def test_a_result_folder_stands_for_the_mask_in_it(tmp_path):
    mask = (HU > -500).astype(np.uint8)
    image = sitk.GetImageFromArray(mask)
    sitk.WriteImage(image, str(tmp_path / "airways.nrrd"))
    assert np.array_equal(read_mask(tmp_path).array, mask != 0)


# DICOM ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "", "0\\0", "0\\0.7", "abc\\0.7", "nan\\0.7", "0.7", "inf\\inf"], ids=str)
@pytest.mark.parametrize("slices", [slice(None), slice(4, 5)], ids=["all slices", "one slice"])
def test_dicom_without_pixel_spacing_is_refused(tmp_path, value, slices):
    for file in write_series(tmp_path / "ct")[slices]:
        edit(file, "0028|0030", value)
    sentence = refused(tmp_path / "ct")
    assert "PixelSpacing" in sentence


def test_dicom_without_pixel_spacing_is_read_with_one_that_fits_its_positions(tmp_path):
    for file in write_series(tmp_path / "ct"):
        edit(file, "0028|0030", None)
    accepted(tmp_path / "ct", "0.7 x 0.8 x 1.25 mm (x, y, z) were taken", spacing_mm=GIVEN)
    refused(tmp_path / "ct", "not the 0.7 x 0.8 x 5 mm that were given", spacing_mm=(0.7, 0.8, 5))


def test_pixel_spacing_that_changes_within_a_series_is_refused(tmp_path):
    for file in write_series(tmp_path / "ct")[5:]:
        edit(file, "0028|0030", "0.8\\0.75")
    refused(tmp_path / "ct", "changes its PixelSpacing within series 1.2.3")


@pytest.mark.parametrize("value", [None, "", "nan\\0\\0", "1\\2", "a\\b\\c"], ids=str)
@pytest.mark.parametrize("slices", [slice(None), slice(4, 5)], ids=["all slices", "one slice"])
def test_slices_without_a_position_are_refused_as_such(tmp_path, value, slices):
    for file in write_series(tmp_path / "ct")[slices]:
        edit(file, "0020|0032", value)
    refused(tmp_path / "ct", "does not say where its slices lie", "ImagePositionPatient")


@pytest.mark.parametrize("value", [None, "", "1\\0\\0\\1\\0\\0", "0\\0\\0\\0\\0\\0", "nan\\0\\0\\0\\1\\0"], ids=str)
def test_slices_without_an_orientation_are_refused(tmp_path, value):
    for file in write_series(tmp_path / "ct"):
        edit(file, "0020|0037", value)
    refused(tmp_path / "ct", "ImageOrientationPatient")


def test_slices_that_share_an_identifier_are_all_read(tmp_path):
    files = write_series(tmp_path / "ct")
    for file in files:
        edit(file, "0008|0018", f"1.2.3.{int(element(file.read_bytes(), '0020|0013')) // 2}")
    accepted(tmp_path / "ct", "share a SOP Instance UID")


def test_different_images_with_one_identifier_at_one_place_are_refused(tmp_path):
    files = write_series(tmp_path / "ct")
    copy = tmp_path / "ct" / "copy.dcm"
    shutil.copy(files[4], copy)
    edit(copy, "0020|0011", "9")  # the same pixels under another header are a copy still
    accepted(tmp_path / "ct")
    content = bytearray(copy.read_bytes())
    content[-50] ^= 0x40
    copy.write_bytes(content)
    refused(tmp_path / "ct", "different images with the same SOP Instance UID at the same position")


@pytest.mark.parametrize("jitter", [0.0004, 0.0006, 0.002])
def test_directions_that_are_rounded_differently_stay_one_series(tmp_path, jitter):
    for number, file in enumerate(write_series(tmp_path / "ct")):
        edit(file, "0020|0037", f"1\\{jitter * (number % 2)}\\0\\{-jitter * (number % 2)}\\1\\0")
    accepted(tmp_path / "ct")


@pytest.mark.parametrize("shift", [3, 20, 40, -40])
@pytest.mark.parametrize("slices", [slice(4, 5), slice(4, None), slice(8, None)], ids=["one", "half", "the last"])
def test_slices_that_are_shifted_sideways_are_refused(tmp_path, shift, slices):
    for file in write_series(tmp_path / "ct")[slices]:
        x, y, z = element(file.read_bytes(), "0020|0032").decode().split("\\")
        edit(file, "0020|0032", f"{float(x) + shift}\\{y}\\{z}")
    refused(tmp_path / "ct", "mm sideways of the line through the others")


def test_a_tilted_gantry_is_still_read_with_a_warning(tmp_path):
    write_series(tmp_path / "ct", tilt=20)
    accepted(tmp_path / "ct", "tilted by 20 degrees")


@pytest.mark.parametrize(
    ("tag", "value", "piece"),
    [("0010|0020", "P2", "2 patients"), ("0010|0010", "Doe^John", "2 patients"), ("0020|000d", "1.9", "2 studies")],
)
def test_images_of_two_patients_or_studies_in_one_series_are_refused(tmp_path, tag, value, piece):
    for file in write_series(tmp_path / "ct")[4:]:
        edit(file, tag, value)
    refused(tmp_path / "ct", piece)


@pytest.mark.parametrize("number", [0, 4, 8])
@pytest.mark.parametrize("left", [0, 100, 140, 400, "all but 40"])
def test_a_dicom_slice_that_was_cut_short_is_refused_by_name(tmp_path, number, left):
    victim = write_series(tmp_path / "ct")[number]
    content = victim.read_bytes()
    victim.write_bytes(content[: left if isinstance(left, int) else -40])
    with pytest.raises(AirwaySegError, match=f"{victim.name} in ct cannot be read"):
        read_ct(tmp_path / "ct")


@pytest.mark.parametrize("number", [1, 4, 7])
def test_a_slice_that_is_missing_is_refused(tmp_path, number):
    write_series(tmp_path / "ct")[number].unlink()
    refused(tmp_path / "ct", "lacks slices")


def enhanced(tmp_path: Path, bottom_mm: float = 0) -> Path:
    """The volume as one file of many frames."""
    image = sitk.GetImageFromArray(HU)
    image.SetSpacing(SPACING_XYZ)
    image.SetOrigin((0, 0, bottom_mm))
    image.SetMetaData("0008|0016", "1.2.840.10008.5.1.4.1.1.2.1")
    image.SetMetaData("0008|0060", "CT")
    sitk.WriteImage(image, str(tmp_path / "frames.dcm"))
    return tmp_path / "frames.dcm"


@pytest.mark.parametrize(
    ("tag", "piece"),
    [
        ((0x28, 0x30), "PixelSpacing"),
        ((0x20, 0x32), "ImagePositionPatient"),
        ((0x20, 0x37), "frames.dcm"),
    ],
)
def test_frames_without_their_geometry_are_refused(tmp_path, tag, piece):
    path = enhanced(tmp_path)
    accepted(path)
    group, number = tag
    content = path.read_bytes().replace(struct.pack("<HH", *tag), struct.pack("<HH", group, number + 0x1000))
    path.write_bytes(content)
    refused(path, piece)


@pytest.mark.parametrize("places", [("50", "60"), ("55", "60")], ids=["ends swapped", "two swapped"])
def test_frames_that_are_out_of_order_are_refused(tmp_path, places):
    path = enhanced(tmp_path, bottom_mm=50)
    accepted(path)
    one, other = (f"0\\0\\{place}".encode() for place in places)
    content = path.read_bytes().replace(one, b"<one>").replace(other, one).replace(b"<one>", other)
    path.write_bytes(content)
    refused(path, "out of order, missing or not evenly spaced")


def test_what_macos_adds_to_every_file_is_left_out(tmp_path):
    for file in write_series(tmp_path / "ct"):
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7" + bytes(4092))
    accepted(tmp_path / "ct")


def test_a_tilt_with_rounded_positions_is_no_shift(tmp_path):
    folder = saved_series(tmp_path / "ct", np.tile(HU, (40, 1, 1)))
    for file in folder.iterdir():
        x, _, z = element(file.read_bytes(), "0020|0032").decode().split("\\")
        edit(file, "0020|0032", f"{x}\\{round((float(z) - 30) * 0.1):d}\\{z}")
    _, warnings = read_ct(folder)
    assert len(warnings) == 1 and "tilted by 6 degrees" in warnings[0]


# The command ----------------------------------------------------------------------------------------------------------


@needs_posix
@pytest.mark.parametrize("command", ["measure", "repair"])
def test_a_command_given_a_latin_1_name_says_so(tmp_path, capsys, command):
    from AirwaySegLib.__main__ import main

    assert main([command, str(tmp_path / "caf\udce9.nii.gz"), "-o", str(tmp_path / "out")]) == 2
    assert "rename it" in capsys.readouterr().err
    write_image(tmp_path, "ct.nrrd")
    assert main([command, str(tmp_path / "ct.nrrd"), "-o", str(tmp_path / "caf\udce9")]) == 2
    assert "rename it" in capsys.readouterr().err


def test_measure_takes_the_spacing_that_a_mask_lacks(tmp_path, capsys):
    from AirwaySegLib.__main__ import main

    mask = np.zeros((9, 10, 11), np.int16)
    mask[:, 4:7, 4:7] = 1
    path = saved(tmp_path, "mask.nii", nifti(mask.tobytes(), pixdim=(1, 0, 0, 0, 0, 0, 0, 0)))
    arguments = ["measure", str(path), "-o", str(tmp_path / "out"), "--progress", "none"]
    assert main(arguments) == 2
    assert "--spacing X,Y,Z" in capsys.readouterr().err
    for wrong in ("0.7", "0.7,0.8", "0,0.8,1.25", "a,b,c", "nan,1,1", "0.7,0.8,1.25,1"):
        assert main([*arguments, "--spacing", wrong]) == 2
        assert "The spacing" in capsys.readouterr().err
    assert main([*arguments, "--spacing", "0.7,0.8,1.25"]) == 0
    written = sitk.ReadImage(str(tmp_path / "out" / "branches.nrrd"))
    assert written.GetSpacing() == pytest.approx(SPACING_XYZ)


# Documents and weights ------------------------------------------------------------------------------------------------


def weights_file(path: Path, description: str) -> Path:
    header = json.dumps({"__metadata__": {"airwayseg": description}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


@pytest.mark.parametrize(
    "description",
    [
        '{"name": "x", "in_channels": 1e999}',
        '{"name": "x", "in_channels": NaN}',
        '{"name": "x", "provenance": ' + '{"a": ' * 900 + "1" + "}" * 901,
        "[" * 100_000,
        "[]",
        '{"name": "x", "patch_zyx": [1e400, 128, 128]}',
    ],
    ids=["infinite", "NaN", "deep", "very deep", "a list", "infinite side"],
)
def test_a_description_of_weights_that_is_wrong_is_refused(tmp_path, description):
    from AirwaySegLib.networks.weights import load_weights

    path = weights_file(tmp_path / "w.safetensors", description)
    with pytest.raises(AirwaySegError, match=r"w\.safetensors") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


@needs_posix
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_weights_that_are_no_regular_file_are_refused(tmp_path, kind):
    from AirwaySegLib.networks.published_checkpoints import import_published
    from AirwaySegLib.networks.weights import architecture_of, load_weights

    path = special(tmp_path / "w.safetensors", kind)
    for use in (load_weights, lambda path: import_published(path, "x")):
        with pytest.raises(AirwaySegError, match="only regular files are read"):
            use(path)
    assert architecture_of(path) == "wingsnet"
