"""`airwayseg grow`, `join` and `cut`: files in, an edited mask out, and what is refused."""

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import Tube, draw_tubes
from scipy.ndimage import binary_dilation, gaussian_filter, label

from AirwaySegLib.__main__ import main
from AirwaySegLib.commands import edit
from AirwaySegLib.files.volume import read_mask

SPACING_MM = (0.8, 0.7, 0.7)
SHAPE = (80, 60, 90)
ORIGIN_MM = (10.0, -20.0, 30.0)
TRUNK = Tube((58.0, 20.0, 15.0), (8.0, 20.0, 15.0), 4.0, 3.5)
BRANCH = Tube((30.0, 20.0, 15.0), (40.0, 20.0, 45.0), 1.6, 1.4)
TIP_ZYX = (39.2, 20.0, 43.0)


@pytest.fixture
def files(tmp_path):
    """A mask without the branch, the whole one and the CT, with columns that run to the patient's right and back."""
    part = draw_tubes([TRUNK], SHAPE, SPACING_MM)
    whole = draw_tubes([TRUNK, BRANCH], SHAPE, SPACING_MM)
    hu = np.where(binary_dilation(whole, iterations=2), -450.0, -860.0)
    hu[whole] = -980
    hu = gaussian_filter(hu, 0.6) + np.random.default_rng(1).normal(0, 20, SHAPE)
    hu[:, :10] = 300
    for name, array in (("part", part), ("whole", whole), ("ct", hu.astype(np.int16))):
        image = sitk.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else array)
        image.SetSpacing(SPACING_MM[::-1])
        image.SetOrigin(ORIGIN_MM)
        image.SetDirection((-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nrrd"))
    return tmp_path


def lps(point_zyx: tuple[float, float, float]) -> str:
    z, y, x = point_zyx
    return ",".join(str(mm) for mm in (ORIGIN_MM[0] - x, ORIGIN_MM[1] + y, ORIGIN_MM[2] + z))


def voxel(point_zyx: tuple[float, float, float]) -> str:
    return ",".join(str(mm / step) for mm, step in zip(point_zyx[::-1], SPACING_MM[::-1], strict=True))


def array(path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0


def test_a_point_in_mm_or_voxels_adds_the_missed_branch(files, capsys):
    mask, ct = str(files / "part.nrrd"), str(files / "ct.nrrd")
    assert main(["grow", mask, "--ct", ct, f"--at={lps(TIP_ZYX)}", "-o", str(files / "mm.nrrd")]) == 0
    assert "Added: " in capsys.readouterr().out
    assert main(["grow", mask, "--ct", ct, "--voxel", f"--at={voxel(TIP_ZYX)}", "-o", str(files / "voxel.nrrd")]) == 0
    grown, whole, part = (array(files / f"{name}.nrrd") for name in ("mm", "whole", "part"))
    assert np.array_equal(grown, array(files / "voxel.nrrd"))
    assert grown[part].all() and grown[whole & ~part].mean() > 0.7
    assert sitk.ReadImage(str(files / "mm.nrrd")).GetDirection()[0] == -1


def test_a_point_cuts_what_lies_beyond_it(files):
    middle = (35.0, 20.0, 30.0)
    assert main(["cut", str(files / "whole.nrrd"), f"--at={lps(middle)}", "-o", str(files / "cut.nrrd")]) == 0
    left, whole, part = (array(files / f"{name}.nrrd") for name in ("cut", "whole", "part"))
    assert left[part].all() and not left[~whole].any()
    assert 0.3 < left[whole & ~part].mean() < 0.6
    out = ["-o", str(files / "kept.nrrd")]
    assert main(["cut", str(files / "whole.nrrd"), f"--at={lps(middle)}", f"--keep={lps(TIP_ZYX)}", *out]) == 0
    assert not array(files / "kept.nrrd")[part].all()


def loose(files, name: str, first_mm: float, last_mm: float) -> None:
    """A mask with the trunk and that part of the branch, by its columns."""
    whole, part = (array(files / f"{each}.nrrd") for each in ("whole", "part"))
    columns = slice(*(round(mm / SPACING_MM[2]) for mm in (first_mm, last_mm)))
    kept = np.zeros(whole.shape, bool)
    kept[:, :, columns] = whole[:, :, columns]
    for file, mask in ((name, part | kept), (f"{name}-pieces", kept & ~part)):
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.CopyInformation(sitk.ReadImage(str(files / "whole.nrrd")))
        sitk.WriteImage(image, str(files / f"{file}.nrrd"))


@pytest.mark.parametrize("parent", [[], [f"--parent={lps((30.0, 20.0, 16.0))}"]])
def test_a_loose_piece_is_joined_to_the_tree(files, capsys, parent):
    loose(files, "loose", 28, 60)
    options = ["--ct", str(files / "ct.nrrd"), f"--at={lps(TIP_ZYX)}", *parent]
    assert main(["join", str(files / "loose.nrrd"), *options, "-o", str(files / "in.nrrd")]) == 0
    assert "Joined by " in capsys.readouterr().out
    pieces = ["--pieces", str(files / "loose-pieces.nrrd")]
    assert main(["join", str(files / "part.nrrd"), *pieces, *options, "-o", str(files / "beside.nrrd")]) == 0
    joined, before, whole = (array(files / f"{name}.nrrd") for name in ("in", "loose", "whole"))
    assert np.array_equal(joined, array(files / "beside.nrrd"))
    assert label(before, np.ones((3, 3, 3)))[1] == 2 and label(joined)[1] == 1 and joined[before].all()
    assert joined[whole].mean() > 0.95 and (joined & ~whole).sum() < 0.2 * (joined & ~before).sum()


def test_a_subtree_is_cut_at_its_joint_and_joined_to_the_parent_that_is_given(files, capsys):
    """A false joint leads from the trunk, farther down, to a branch without its own beginning."""
    loose(files, "loose", 28, 60)
    false = draw_tubes([Tube((50.0, 20.0, 16.0), (35.0, 20.0, 30.0), 1.4, 1.4)], SHAPE, SPACING_MM)
    image = sitk.GetImageFromArray((array(files / "loose.nrrd") | false).astype(np.uint8))
    image.CopyInformation(sitk.ReadImage(str(files / "whole.nrrd")))
    sitk.WriteImage(image, str(files / "wrong.nrrd"))
    call = ["join", str(files / "wrong.nrrd"), "--ct", str(files / "ct.nrrd"), f"--at={lps((40.0, 20.0, 25.3))}"]
    assert main([*call, "-o", str(files / "no.nrrd")]) == 2
    assert "give with --parent" in capsys.readouterr().err and not (files / "no.nrrd").exists()
    assert main([*call, f"--parent={lps((30.0, 20.0, 15.0))}", "-o", str(files / "right.nrrd")]) == 0
    assert "of its former joint were removed" in capsys.readouterr().out
    right, whole = array(files / "right.nrrd"), array(files / "whole.nrrd")
    assert label(right, np.ones((3, 3, 3)))[1] == 1
    assert right[whole].mean() > 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--at=1,1,1"], "The point lies"),
        ([f"--at={lps(TIP_ZYX)}", f"--at={lps(TIP_ZYX)}"], "joined by one point"),
        ([f"--at={lps(TIP_ZYX)}", "--parent=1,1,1"], "The new parent lies"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_one_sentence(files, capsys, options, words):
    call = ["join", str(files / "whole.nrrd"), "--ct", str(files / "ct.nrrd"), "-o", str(files / "out.nrrd")]
    assert main([*call, *options]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not (files / "out.nrrd").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--at=1,2"], "not of the form X,Y,Z"),
        (["--at=nan,1,1"], "not of the form X,Y,Z"),
        (["--at=500,500,500"], "outside the scan"),
        (["--at=1e300,1,1"], "outside the scan"),
        (["--voxel", "--at=21,28,40"], "in the airways already"),
    ],
)
def test_refusals_are_one_sentence_and_write_nothing(files, capsys, options, words):
    out = files / "out.nrrd"
    call = ["grow", str(files / "part.nrrd"), "--ct", str(files / "ct.nrrd"), "-o", str(out), *options]
    assert main(call) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not out.exists()


def test_without_ct_and_probability_nothing_is_grown(files, capsys):
    assert main(["grow", str(files / "part.nrrd"), f"--at={lps(TIP_ZYX)}", "-o", str(files / "o.nrrd")]) == 2
    assert "neither is given" in capsys.readouterr().err


def test_a_file_is_replaced_only_with_force(files, capsys):
    call = ["cut", str(files / "whole.nrrd"), f"--at={lps((35.0, 20.0, 30.0))}", "-o", str(files / "part.nrrd")]
    before = (files / "part.nrrd").read_bytes()
    assert main(call) == 2 and "--force" in capsys.readouterr().err
    assert (files / "part.nrrd").read_bytes() == before
    assert main([*call, "--force"]) == 0
    assert main(["cut", str(files / "whole.nrrd"), "--at=1,1,1", "-o", str(files / "x.nii")]) == 2
    assert ".nrrd" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "words"), [("whole.nrrd/cut.nrrd", "is a file"), ("folder.nrrd", "give a file"), ("none/cut.nrrd", "")]
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(files, capsys, monkeypatch, place, words):
    (files / "folder.nrrd").mkdir(exist_ok=True)
    read = []
    monkeypatch.setattr(edit, "read_mask", lambda *given: read.append(given) or read_mask(*given))
    call = ["cut", str(files / "whole.nrrd"), f"--at={lps((35.0, 20.0, 30.0))}", "-o", str(files / place), "--force"]
    if words:
        assert main(call) == 2 and not read
        assert words in capsys.readouterr().err
    else:
        assert main(call) == 0 and (files / place).is_file()
