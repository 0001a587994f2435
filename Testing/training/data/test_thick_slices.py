"""Thick slices of real cases: the mean HU, and a label that holds only what is still airway."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining.__main__ import main
from AirwaySegTraining.data.cases import read_case
from AirwaySegTraining.data.thick_slices import thick_case

SHAPE = (48, 24, 24)


@pytest.fixture
def a_folder(tmp_path):
    """A lung with a tube along z, one across that is two slices high, and a voxel that is left out."""
    hu, label = np.full(SHAPE, -850, np.int16), np.zeros(SHAPE, np.uint8)
    label[:, 4:8, 4:8] = 1
    label[20:22, 16:18] = 1
    label[41, 20, 20] = 2
    hu[label == 1] = -980
    hu[:, 4, 4] = 0
    hu[:, :3], hu[:, 23:] = 40, -1000
    folder = tmp_path / "cases" / "one"
    folder.mkdir(parents=True)
    for name, array in (("ct", hu), ("label", label)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.7, 0.7, 1.0))
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"))
    (folder / "case.json").write_text(json.dumps({"patient": "P7"}))
    return folder


@pytest.mark.parametrize(("slice_mm", "over"), [(2.0, 2), (3.2, 3), (5.0, 5)])
def test_slices_are_means_and_as_thick_as_said(a_folder, slice_mm, over):
    case = read_case(a_folder)
    thick = thick_case(case, slice_mm)
    assert thick.spacing_mm == (over * 1.0, *case.spacing_mm[1:])
    expected = np.asarray(case.ct, float)[over : 2 * over].mean(axis=0)
    assert np.abs(thick.ct[1] - expected).max() <= 0.5
    assert thick.description["patient"] == "P7"


def test_only_what_is_half_air_and_dark_stays_airway(a_folder):
    thick = thick_case(read_case(a_folder), 4.0)
    assert (thick.label[:, 5:8, 5:8] == 1).all(), "a tube along z"
    assert (thick.label[:, 4, 4] == 2).all(), "in the label, but bright"
    assert (thick.label[5, 16:18, 10] == 1).all(), "half of the slice"
    thicker = thick_case(read_case(a_folder), 6.0)
    assert (thicker.label[3, 16:18, 10] == 2).all(), "a third of the slice"
    assert thicker.label[:, 12:15].max() == 0


def test_less_than_half_airway_beside_the_lumen_is_background_where_it_is_bright(a_folder):
    case = read_case(a_folder)
    ct, label = np.array(case.ct), np.array(case.label)
    ct[20:22, 8, 4:8], label[20:22, 8, 4:8] = 200, 1
    thicker = thick_case(replace(case, ct=ct, label=label), 6.0)
    assert (thicker.label[3, 8, 4:8] == 0).all()
    label[20, 8, 4:8] = 2  # such as a plug of mucus, which a person left out
    thicker = thick_case(replace(case, ct=ct, label=label), 6.0)
    assert (thicker.label[3, 8, 4:8] == 2).all()


def test_the_command_keeps_what_is_there(a_folder, tmp_path, capsys):
    out = tmp_path / "thick"
    arguments = ["thicken", "--data", str(tmp_path), "-o", str(out), "--slices", "2", "3"]
    assert main(arguments) == 0
    written = sorted(path.name for path in (out / "cases").iterdir())
    assert written == ["one-2mm", "one-3mm"]
    first = out / "cases" / "one-2mm" / "ct.nrrd"
    before = first.stat().st_mtime_ns
    assert main(arguments) == 0 and first.stat().st_mtime_ns == before
    assert "2 cases" in capsys.readouterr().out


def test_slices_that_cannot_be_averaged_are_refused(a_folder):
    with pytest.raises(AirwaySegError, match="not twice as thick"):
        thick_case(read_case(a_folder), 1.2)
    with pytest.raises(AirwaySegError, match="too few slices"):
        thick_case(read_case(a_folder), 10.0)
