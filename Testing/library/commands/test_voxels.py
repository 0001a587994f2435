"""`--voxels`: one file of the airways' voxels instead of the four maps, with the same values."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import a_forked_tree, draw_tubes

from AirwaySegLib.__main__ import main
from AirwaySegLib.commands import measure as measuring

SPACING_MM = (1.2, 0.9, 0.7)


@pytest.fixture(scope="module", params=["straight", "oblique"])
def a_mask_file(request, tmp_path_factory) -> Path:
    """A drawn tree without an empty plane around it, on axes that are not the patient's."""
    drawn = draw_tubes(a_forked_tree(0.5), (85, 80, 128), SPACING_MM).astype(np.uint8).transpose(0, 2, 1)
    low, high = np.argwhere(drawn).min(axis=0), np.argwhere(drawn).max(axis=0) + 1
    image = sitk.GetImageFromArray(np.ascontiguousarray(drawn[tuple(map(slice, low, high))]))
    image.SetSpacing((SPACING_MM[1], SPACING_MM[2], SPACING_MM[0]))
    image.SetOrigin((-100.0, 30.0, 12.0))
    turn = np.radians(7 if request.param == "oblique" else 0)
    image.SetDirection((np.sin(turn), np.cos(turn), 0, np.cos(turn), -np.sin(turn), 0, 0, 0, 1))
    path = tmp_path_factory.mktemp("mask") / "box.nrrd"
    sitk.WriteImage(image, str(path))
    return path


def measure(mask: Path, folder: Path, *options: str) -> Path:
    assert main(["measure", str(mask), "-o", str(folder), "--progress", "none", *options]) == 0
    return folder


def from_maps(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of `voxels.npz` from the four maps, whose grid is the box of the airways."""
    arrays: dict[str, np.ndarray] = {}
    for name in measuring.MAPS:
        image = sitk.ReadImage(str(folder / name))
        values = sitk.GetArrayFromImage(image).reshape(-1)
        if not arrays:
            matrix = np.eye(4)
            matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
            matrix[:3, 3] = image.GetOrigin()
            matrix[:2] *= -1
            arrays = {"where": np.flatnonzero(values), "shape": np.array(image.GetSize()[::-1]), "ijk_to_ras": matrix}
        arrays[name] = values[arrays["where"]]
    return arrays


def test_the_voxels_are_those_of_the_maps_bit_for_bit(a_mask_file, tmp_path):
    maps, folder = measure(a_mask_file, tmp_path / "maps"), measure(a_mask_file, tmp_path / "voxels", "--voxels")
    assert {path.name for path in folder.iterdir()} == set(measuring.result_files(voxels=True))
    expected = from_maps(maps)
    with np.load(folder / measuring.VOXELS) as found:
        assert found.files == list(expected)
        # A map's file holds the product of direction and spacing: reading an oblique one rounds its last bit.
        assert np.allclose(found["ijk_to_ras"], expected.pop("ijk_to_ras"), rtol=1e-15, atol=1e-15)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype and found[name].tobytes() == array.tobytes(), name
    for name in set(measuring.result_files(voxels=True)) & set(measuring.FILES):
        assert (folder / name).read_bytes() == (maps / name).read_bytes(), name


def test_of_a_mask_with_empty_planes_around_it_the_box_is_kept_in_its_place(a_mask_file, tmp_path):
    image = sitk.ReadImage(str(a_mask_file))
    sitk.WriteImage(sitk.ConstantPad(image, (3, 2, 1), (0, 4, 5)), str(tmp_path / "wide.nrrd"))
    tight = measure(a_mask_file, tmp_path / "tight", "--voxels")
    wide = measure(tmp_path / "wide.nrrd", tmp_path / "wide", "--voxels")
    with np.load(tight / measuring.VOXELS) as one, np.load(wide / measuring.VOXELS) as other:
        assert np.allclose(one["ijk_to_ras"], other["ijk_to_ras"], atol=1e-9)
        for name in ("where", "shape", "branches.nrrd"):
            assert np.array_equal(one[name], other[name]), name


def test_neither_kind_of_file_outlives_the_mask_that_it_was_made_of(a_mask_file, tmp_path):
    folder = measure(a_mask_file, tmp_path / "result")
    measure(a_mask_file, folder, "--voxels", "--force")
    assert not [name for name in measuring.MAPS if (folder / name).exists()]
    measure(a_mask_file, folder, "--force")
    assert {path.name for path in folder.iterdir()} == set(measuring.FILES)


def test_voxels_of_what_is_not_measured_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["segment", "ct.nrrd", "-o", str(tmp_path / "out"), "--no-measure", "--voxels"])
    assert end.value.code == 2 and "not allowed with" in capsys.readouterr().err


def test_known_parts_of_an_earlier_result_give_the_same_one(a_mask_file, tmp_path):
    folder = measure(a_mask_file, tmp_path / "first", "--voxels")
    known = str(folder / measuring.PARTS)
    again = measure(a_mask_file, tmp_path / "again", "--voxels", "--known", known)
    for name in set(measuring.result_files(voxels=True)) - {measuring.VOXELS, measuring.PARTS}:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    with np.load(folder / measuring.VOXELS) as one, np.load(again / measuring.VOXELS) as other:
        assert all(np.array_equal(one[name], other[name]) for name in one.files)


def test_known_parts_that_are_none_are_refused_in_a_sentence(a_mask_file, tmp_path, capsys):
    (tmp_path / "parts.npz").write_text("nothing")
    arguments = ["measure", str(a_mask_file), "-o", str(tmp_path / "out"), "--known", str(tmp_path / "parts.npz")]
    assert main(arguments) == 2
    assert "parts.npz cannot be read as known parts of a measurement" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
