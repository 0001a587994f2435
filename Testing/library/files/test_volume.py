"""Reading CTs of every kind, refusing what is none, canonical axes and back, writing NRRD."""

import gzip
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from rawfiles import saved_series
from source_tree import ROOT

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.image_files import case_name
from AirwaySegLib.files.volume import Volume, from_canonical, read_ct, to_canonical, write_nrrd

SPACING_XYZ = (0.7, 0.8, 1.25)


@pytest.fixture
def some_hounsfield() -> np.ndarray:
    """70 x 20 x 24 voxels, int16: air around water with a lung in it, and noise that makes every voxel traceable."""
    hu = np.full((70, 20, 24), -1000, np.int16)
    hu[:, 2:-2, 2:-2] = 30
    hu[10:60, 6:14, 6:18] = -850
    return hu + np.random.default_rng(7).integers(-9, 10, hu.shape, dtype=np.int16)


def saved(path: Path, array: np.ndarray, **geometry: tuple) -> Path:
    """Write an array with SimpleITK, compressed where the format can, and return its path."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.get("spacing", SPACING_XYZ[: image.GetDimension()]))
    if "direction" in geometry:
        image.SetDirection(geometry["direction"])
    image.SetOrigin(geometry.get("origin", (-10.0, -20.0, 30.0)[: image.GetDimension()]))
    sitk.WriteImage(image, str(path), True)
    return path


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd", "CT.NII.GZ"])
def test_every_file_format_gives_the_same_volume(tmp_path, some_hounsfield, name):
    saved(tmp_path / name.lower(), some_hounsfield).rename(tmp_path / name)
    volume, warnings = read_ct(tmp_path / name)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, np.maximum(some_hounsfield, -1024))
    assert volume.spacing_mm == pytest.approx((1.25, 0.8, 0.7))
    assert volume.origin_mm == pytest.approx((-10, -20, 30))
    assert volume.path == tmp_path / name
    assert warnings == []


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float32, np.float64])
def test_whole_numbers_become_int16_whatever_stores_them(tmp_path, some_hounsfield, kind):
    volume, _ = read_ct(saved(tmp_path / "ct.nrrd", some_hounsfield.astype(kind)))
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, some_hounsfield)


def test_fractions_stay_float32(tmp_path, some_hounsfield):
    volume, _ = read_ct(saved(tmp_path / "ct.nii.gz", some_hounsfield + np.float64(0.25)))
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, some_hounsfield + np.float32(0.25))


def test_padding_is_floored_at_minus_1024_without_a_warning(tmp_path, some_hounsfield):
    some_hounsfield[:, 0] = -3024
    volume, warnings = read_ct(saved(tmp_path / "ct.nrrd", some_hounsfield))
    assert (volume.array[:, 0] == -1024).all()
    assert volume.array.min() == -1024
    assert warnings == []


def test_a_stored_offset_of_1024_is_subtracted_with_a_warning(tmp_path, some_hounsfield):
    stored = (some_hounsfield + 1024).astype(np.uint16)
    volume, warnings = read_ct(saved(tmp_path / "ct.nrrd", stored))
    assert np.array_equal(volume.array, some_hounsfield)
    assert len(warnings) == 1
    assert "offset of 1024" in warnings[0]


def test_an_offset_under_negative_padding_is_found_too(tmp_path, some_hounsfield):
    stored = some_hounsfield + np.int16(1024)
    stored[:, 0] = -2000
    volume, warnings = read_ct(saved(tmp_path / "ct.nrrd", stored))
    assert np.array_equal(volume.array[:, 1:], some_hounsfield[:, 1:])
    assert (volume.array[:, 0] == -1024).all()
    assert "offset" in warnings[0]


def test_a_few_voxels_that_are_not_numbers_become_air_with_a_warning(tmp_path, some_hounsfield):
    hu = some_hounsfield.astype(np.float32)
    hu[3, 4, 5], hu[6, 7, 8] = np.nan, np.inf
    volume, warnings = read_ct(saved(tmp_path / "ct.nrrd", hu))
    assert volume.array[3, 4, 5] == volume.array[6, 7, 8] == -1024
    assert "2 voxels" in warnings[0]


def refusal(path: Path, series: str | None = None) -> str:
    """Return the sentence with which reading is refused."""
    with pytest.raises(AirwaySegError) as caught:
        read_ct(path, series)
    return str(caught.value)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 255), (0, 1), (-1, 1), (0, 4000), (-150, 250), (-1000, 30000)],
)
def test_values_that_are_not_hounsfield_units_are_refused(tmp_path, low, high):
    values = np.random.default_rng(0).uniform(low, high, (20, 20, 20)).astype(np.float32)
    sentence = refusal(saved(tmp_path / "mr.nrrd", values))
    assert sentence.startswith("mr.nrrd does not hold Hounsfield units")


def test_values_without_meaning_are_refused(tmp_path, some_hounsfield):
    hu = some_hounsfield.astype(np.float32)
    hu[:30] = np.nan
    assert refusal(saved(tmp_path / "nan.nrrd", hu)) == "nan.nrrd has 43 % voxels that are infinite or not a number."
    constant = np.full((20, 20, 20), -1000, np.int16)
    assert refusal(saved(tmp_path / "same.nrrd", constant)) == "same.nrrd has the value -1000 in every voxel."


def test_images_that_are_not_one_volume_are_refused(tmp_path, some_hounsfield):
    image = sitk.GetImageFromArray(some_hounsfield)
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(tmp_path / "time.nii.gz"))
    sitk.WriteImage(sitk.Compose(image, image, image), str(tmp_path / "colour.nrrd"))
    assert refusal(tmp_path / "time.nii.gz").startswith("time.nii.gz holds 2 volumes")
    assert refusal(tmp_path / "colour.nrrd").startswith("colour.nrrd has 3 values a voxel")
    assert refusal(saved(tmp_path / "flat.nii.gz", some_hounsfield[0])).startswith("flat.nii.gz is a 2-D image")
    assert "only 5 voxels along z" in refusal(saved(tmp_path / "thin.nrrd", some_hounsfield[:5]))


def test_a_fourth_axis_of_one_volume_is_read(tmp_path, some_hounsfield):
    image = sitk.JoinSeries([sitk.GetImageFromArray(some_hounsfield)])
    sitk.WriteImage(image, str(tmp_path / "one.nrrd"))
    volume, _ = read_ct(tmp_path / "one.nrrd")
    assert np.array_equal(volume.array, some_hounsfield)


def test_impossible_grids_are_refused(tmp_path, some_hounsfield):
    assert "spacing of 12 mm along z" in refusal(saved(tmp_path / "far.nrrd", some_hounsfield, spacing=(0.7, 0.7, 12)))
    header = saved(tmp_path / "ct.mha", some_hounsfield).read_bytes()
    (tmp_path / "zero.mha").write_bytes(header.replace(b"ElementSpacing = 0.6", b"ElementSpacing = 0 #", 1))
    assert "zero.mha" in refusal(tmp_path / "zero.mha")
    (tmp_path / "singular.mha").write_bytes(header.replace(b"TransformMatrix = 1 0 0", b"TransformMatrix = 0 0 0"))
    assert "axis directions" in refusal(tmp_path / "singular.mha")
    nifti = bytearray(gzip.decompress(saved(tmp_path / "ct.nii.gz", some_hounsfield).read_bytes()))
    nifti[252:256], nifti[280:328] = b"\0\0\1\0", bytes(48)  # sform in use, and all of it zero
    (tmp_path / "zero.nii").write_bytes(nifti)
    assert "axis directions" in refusal(tmp_path / "zero.nii")


def test_coarse_grids_give_one_warning_each(tmp_path, some_hounsfield):
    _, warnings = read_ct(saved(tmp_path / "ct.nrrd", some_hounsfield[:40], spacing=(1.5, 1.3, 3.0)))
    assert len(warnings) == 3
    assert "3.00 mm apart" in warnings[0]
    assert "1.50 mm wide" in warnings[1]
    assert "only 40 slices" in warnings[2]


@pytest.mark.parametrize(("slice_mm", "count"), [(1.99, 0), (2.0, 1), (2.5, 1)])
def test_from_2_mm_slices_on_a_warning_says_what_to_expect(tmp_path, some_hounsfield, slice_mm, count):
    hu = np.concatenate([some_hounsfield[:40], some_hounsfield[:40]])
    _, warnings = read_ct(saved(tmp_path / "ct.nrrd", hu, spacing=(0.7, 0.7, slice_mm)))
    assert ["43 to 54 branches" in warning for warning in warnings] == [True] * count


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha"])
@pytest.mark.parametrize("damage", ["half", "tail", "header", "text"])
def test_damaged_files_are_refused_in_one_line_and_nothing_is_printed(tmp_path, capfd, some_hounsfield, name, damage):
    whole = saved(tmp_path / name, some_hounsfield).read_bytes()
    parts = {"half": whole[: len(whole) // 2], "tail": whole[:-40], "header": whole[:90], "text": b"no image at all"}
    (tmp_path / name).write_bytes(parts[damage])
    sentence = refusal(tmp_path / name)
    assert sentence.startswith(name)
    assert "\n" not in sentence
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nrrd", "ct.mha"])
def test_a_wrong_byte_in_compressed_voxels_is_noticed(tmp_path, some_hounsfield, name):
    content = bytearray(saved(tmp_path / name, some_hounsfield).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(name)


def test_paths_that_lead_nowhere_are_refused(tmp_path):
    assert refusal(tmp_path / "missing.nrrd").endswith("missing.nrrd does not exist.")
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty").endswith("empty is an empty folder.")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no image")
    assert refusal(tmp_path / "texts") == "texts holds no DICOM images."
    assert refusal(tmp_path / "texts" / "notes.txt").startswith("notes.txt is none of the files AirwaySeg reads")
    (tmp_path / "nothing.nii.gz").touch()
    assert refusal(tmp_path / "nothing.nii.gz") == "nothing.nii.gz is an empty file."


@pytest.mark.parametrize("suffix", [".dcm", "", ".1.2.840"])
def test_a_dicom_series_reads_as_simpleitk_reads_it(tmp_path, some_hounsfield, suffix):
    folder = saved_series(tmp_path / "a" / "patient", some_hounsfield, suffix=suffix)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), "1.2.3"))
    oracle = reader.Execute()
    volume, warnings = read_ct(tmp_path / "a")
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(oracle))
    assert np.array_equal(volume.array, some_hounsfield)
    assert volume.array.dtype == np.int16
    assert volume.spacing_mm[::-1] == pytest.approx(oracle.GetSpacing())
    assert volume.origin_mm == pytest.approx(oracle.GetOrigin())
    assert volume.direction == pytest.approx(oracle.GetDirection())
    assert volume.series_uid == "1.2.3"
    assert warnings == []


def test_several_series_are_refused_with_the_list_and_one_can_be_chosen(tmp_path, some_hounsfield):
    saved_series(tmp_path, some_hounsfield, "1.2.3", "LUNG 1.25", series_number=3)
    saved_series(tmp_path, some_hounsfield[:66] + 5, "1.2.4", "SOFT 1.25", series_number=2)
    saved_series(tmp_path, some_hounsfield[:1], "1.2.5", "Scout", series_number=1)
    sentence = refusal(tmp_path)
    assert sentence.count("\n") == 3
    assert '2: "SOFT 1.25", 66 slices, 0.70 x 0.80 x 1.25 mm, CT, 1.2.4' in sentence
    for wanted in ("1.2.3", "3", "lung", "LUNG 1.25"):
        assert np.array_equal(read_ct(tmp_path, wanted)[0].array, some_hounsfield)
    assert read_ct(tmp_path, "2")[0].series_uid == "1.2.4"
    assert '"1.25" matches several series' in refusal(tmp_path, "1.25")
    assert '"MR" matches no series' in refusal(tmp_path, "MR")
    assert "single DICOM slice" in refusal(tmp_path, "Scout")


def test_a_localizer_beside_one_volume_needs_no_choice(tmp_path, some_hounsfield):
    saved_series(tmp_path, some_hounsfield, "1.2.3", series_number=3)
    saved_series(tmp_path, some_hounsfield[:1], "1.2.5", "Scout", series_number=1)
    assert read_ct(tmp_path)[0].series_uid == "1.2.3"


def test_a_missing_slice_is_refused_with_its_place(tmp_path, some_hounsfield):
    folder = saved_series(tmp_path / "ct", some_hounsfield, skip=[20])
    assert "a gap of 2.50 mm follows the slice at 53.75 mm" in refusal(folder)  # 30 + 19 * 1.25


def test_a_damaged_slice_is_refused_by_name(tmp_path, some_hounsfield):
    folder = saved_series(tmp_path / "ct", some_hounsfield)
    victim = folder / "1.2.3_037.dcm"
    victim.write_bytes(victim.read_bytes()[:-100])
    assert refusal(folder).startswith("1.2.3_037.dcm in ct cannot be read")


def test_a_copied_slice_counts_once_and_a_second_phase_is_refused(tmp_path, some_hounsfield):
    folder = saved_series(tmp_path / "ct", some_hounsfield)
    (folder / "copy").mkdir()
    shutil.copy(folder / "1.2.3_037.dcm", folder / "copy")
    assert np.array_equal(read_ct(folder)[0].array, some_hounsfield)
    saved_series(folder / "second phase", some_hounsfield, image_uid="1.2.9")
    assert "several images at the same position" in refusal(folder)


def test_a_multi_slice_dicom_file_is_a_volume_by_itself(tmp_path, some_hounsfield):
    image = sitk.GetImageFromArray(some_hounsfield)
    image.SetSpacing(SPACING_XYZ)
    image.SetMetaData("0008|0016", "1.2.840.10008.5.1.4.1.1.2.1")  # enhanced CT
    image.SetMetaData("0008|0060", "CT")
    sitk.WriteImage(image, str(tmp_path / "enhanced.dcm"))
    for path in (tmp_path, tmp_path / "enhanced.dcm"):
        volume, _ = read_ct(path)
        assert np.array_equal(volume.array, some_hounsfield)
        assert volume.spacing_mm == pytest.approx((1.25, 0.8, 0.7))


def test_a_plain_nifti_with_the_name_of_a_compressed_one_is_read(tmp_path, some_hounsfield):
    content = gzip.decompress(saved(tmp_path / "ct.nii.gz", some_hounsfield).read_bytes())
    (tmp_path / "plain.nii.gz").write_bytes(content)
    assert np.array_equal(read_ct(tmp_path / "plain.nii.gz")[0].array, some_hounsfield)
    (tmp_path / "plain.nii.gz").write_bytes(content[:-50])
    assert "incomplete" in refusal(tmp_path / "plain.nii.gz")


def test_a_single_slice_file_asks_for_its_folder(tmp_path, some_hounsfield):
    saved_series(tmp_path, some_hounsfield)
    assert "give the folder that holds its series" in refusal(tmp_path / "1.2.3_037.dcm")


def test_a_fractional_rescale_slope_gives_float32(tmp_path, some_hounsfield):
    folder = saved_series(tmp_path / "ct", some_hounsfield)
    for file in folder.iterdir():  # GDCM writes no such slope, scanners do
        file.write_bytes(file.read_bytes().replace(b"\x28\x00\x53\x10\2\0\0\x001 ", b"\x28\x00\x53\x10\4\0\0\x000.9 "))
    volume, _ = read_ct(folder)
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array, (some_hounsfield + 1024) * 0.9 - 1024, atol=0.001)


def test_a_tilted_gantry_gives_a_warning(tmp_path, some_hounsfield):
    _, warnings = read_ct(saved_series(tmp_path / "ct", some_hounsfield, tilt=12))
    assert len(warnings) == 1
    assert "tilted by 12 degrees" in warnings[0]


FLIPPED = (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)
CORONAL = (1.0, 0, 0, 0, 0, 1.0, 0, -1.0, 0)
SAGITTAL = (0, 0, -1.0, 1.0, 0, 0, 0, -1.0, 0)
OBLIQUE = tuple(
    np.asarray([[math.cos(0.4), -math.sin(0.4), 0], [math.sin(0.4), math.cos(0.4), 0], [0, 0, 1]])
    .dot([[0, 0, 1], [0, -1, 0], [1, 0, 0]])
    .ravel()
)


@pytest.mark.parametrize("direction", [(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), FLIPPED, CORONAL, SAGITTAL, OBLIQUE])
def test_canonical_axes_are_itks_lps_and_the_way_back_is_exact(some_hounsfield, direction):
    volume = Volume(some_hounsfield, (1.25, 0.8, 0.7), (-10.0, -20.0, 30.0), direction)
    image = sitk.GetImageFromArray(some_hounsfield)
    image.SetSpacing(SPACING_XYZ)
    image.SetOrigin((-10.0, -20.0, 30.0))
    image.SetDirection(direction)
    oracle = sitk.DICOMOrient(image, "LPS")
    canonical = to_canonical(volume)
    assert np.array_equal(canonical.array, sitk.GetArrayFromImage(oracle))
    assert canonical.spacing_mm[::-1] == pytest.approx(oracle.GetSpacing())
    assert canonical.origin_mm == pytest.approx(oracle.GetOrigin())
    assert canonical.direction == pytest.approx(oracle.GetDirection())
    assert np.array_equal(from_canonical(canonical.array, volume), some_hounsfield)


def test_two_axes_at_45_degrees_never_claim_the_same_patient_axis(some_hounsfield):
    half = math.sqrt(0.5)
    volume = Volume(some_hounsfield, (1.25, 0.8, 0.7), direction=(half, -half, 0, half, half, 0, 0, 0, 1))
    canonical = to_canonical(volume)
    assert np.array_equal(from_canonical(canonical.array, volume), some_hounsfield)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16, np.float32])
def test_a_written_nrrd_is_read_back_by_simpleitk_on_the_same_grid(tmp_path, some_hounsfield, kind):
    array = (some_hounsfield > 0).astype(kind) if kind in (bool, np.uint8) else some_hounsfield.astype(kind)
    like = Volume(some_hounsfield, (1.25, 0.8, 0.7), (-10.5, -20.25, 30.0), OBLIQUE)
    write_nrrd(tmp_path / "out.nrrd", array, like)
    image = sitk.ReadImage(str(tmp_path / "out.nrrd"))
    back = sitk.GetArrayFromImage(image)
    assert np.array_equal(back, array)
    assert back.dtype == (np.uint8 if kind is bool else kind)
    assert image.GetSpacing() == pytest.approx(SPACING_XYZ)
    assert image.GetOrigin() == pytest.approx(like.origin_mm)
    assert image.GetDirection() == pytest.approx(OBLIQUE)
    assert [file.name for file in tmp_path.iterdir()] == ["out.nrrd"]


def test_the_transposed_view_of_an_array_is_written_right(tmp_path, some_hounsfield):
    array = np.asfortranarray(some_hounsfield)[:, ::-1]
    write_nrrd(tmp_path / "out.nrrd", array, Volume(some_hounsfield, (1, 1, 1)))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.nrrd"))), array)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are set with the resource module")
def test_a_full_disk_gives_one_sentence_and_leaves_nothing(tmp_path):
    program = (
        "import resource, signal, numpy as np\n"
        "from AirwaySegLib.errors import AirwaySegError\n"
        "from AirwaySegLib.files.volume import Volume, write_nrrd\n"
        "noise = np.random.default_rng(0).integers(0, 255, (64, 64, 64), dtype=np.uint8)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        f"    write_nrrd({str(tmp_path / 'out.nrrd')!r}, noise, Volume(noise, (1, 1, 1)))\n"
        "except AirwaySegError as error:\n"
        "    print(error)\n"
    )
    library = ROOT / "AirwaySeg"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(library)}
    )
    assert "out.nrrd cannot be written: File too large." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_made_and_one_that_cannot_be_made_gives_one_sentence(tmp_path, some_hounsfield):
    volume = Volume(some_hounsfield, (1, 1, 1))
    path = tmp_path / "new" / "out.nrrd"
    write_nrrd(path, some_hounsfield, volume)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), some_hounsfield)
    with pytest.raises(AirwaySegError, match=r"out.nrrd cannot be written: (Not a directory|File exists)"):
        write_nrrd(path / "out.nrrd", some_hounsfield, volume)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_case_is_called_as_its_link_and_not_as_the_file_behind_it(tmp_path, monkeypatch):
    store, study = tmp_path / "store", tmp_path / "study"
    store.mkdir(), study.mkdir()
    (store / "MD5E-s7--0cc175b9.nii.gz").touch()
    (study / "patient-3.nii.gz").symlink_to(store / "MD5E-s7--0cc175b9.nii.gz")
    (study / "dicom").symlink_to(store)
    monkeypatch.chdir(study)
    names = [case_name(Path(text)) for text in ("patient-3.nii.gz", "dicom", ".")]
    assert names == ["patient-3", "dicom", "study"]
