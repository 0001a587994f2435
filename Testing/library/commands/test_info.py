"""`airwayseg info`: what is in a CT and what would be done, without running a network or writing anything."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from studies import image_of, save_study

from AirwaySegLib.__main__ import main
from AirwaySegLib.networks.sliding_window import predict
from AirwaySegLib.networks.windows import Sliding, count_windows


def info(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    before = sorted(path.parent.rglob("*"))
    assert main(["info", str(path)]) == 0
    assert sorted(path.parent.rglob("*")) == before
    return capsys.readouterr().out


def test_a_ct_is_described_with_what_would_be_done(a_chest, tmp_path, capsys):
    sitk.WriteImage(image_of(a_chest.hu, a_chest.spacing_mm), str(tmp_path / "ct.nrrd"))
    said = info(tmp_path / "ct.nrrd", capsys)
    assert "ct.nrrd: NRRD, 100 slices of 2.5 mm" in said
    assert "size: 180 x 110 x 100 voxels of 1.6 x 1.6 x 2.5 mm" in said
    assert "trachea: found, with the carina" in said
    assert "warning: The slices are 2.50 mm apart" in said and " windows" in said


def test_what_cannot_be_segmented_is_said_with_the_reason(tmp_path, capsys):
    sitk.WriteImage(image_of(np.full((100, 20, 20), 7, np.int16)), str(tmp_path / "flat.nii"))
    assert "cannot be segmented: flat.nii has the value 7 in every voxel." in info(tmp_path / "flat.nii", capsys)
    assert main(["info", str(tmp_path / "nothing")]) == 2
    assert "nothing does not exist" in capsys.readouterr().err


def test_of_a_folder_with_several_each_is_listed(a_quiet_chest, tmp_path, capsys):
    names = save_study(tmp_path / "study", a_quiet_chest, 4, 0)
    said = info(tmp_path / "study", capsys)
    assert all(f"{name}: " in said for name in names) and "4 CTs; `airwayseg cohort` runs all of them" in said


@pytest.mark.parametrize("some", [False, True])
def test_the_windows_that_are_counted_are_those_that_are_run(some):
    region = np.zeros((40, 100, 70), bool)
    region[:, :20] = True
    seen = []

    class Counting:
        batch = 1

        def run(self, windows: np.ndarray) -> np.ndarray:
            seen.append(len(windows))
            return windows

    sliding, wanted = Sliding((32, 32, 32), 0.25, "gaussian"), region if some else None
    predict(np.zeros((1, *region.shape), np.float32), Counting(), sliding, wanted, lambda *_: None)
    assert sum(seen) == count_windows(region.shape, sliding, wanted) > 1
