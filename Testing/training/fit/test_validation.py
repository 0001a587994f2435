"""`airwayseg-train evaluate`: weights on a folder of cases, with the product's own segmentation and metrics."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import DarkIsAirway

from AirwaySegLib.networks.weights import ModelInfo
from AirwaySegLib.networks.wingsnet import WingsNet
from AirwaySegLib.pipeline import Model
from AirwaySegTraining.__main__ import main
from AirwaySegTraining.fit import validation


@pytest.fixture
def some_cases(a_chest, a_quiet_chest, tmp_path) -> Path:
    """Two cases of the drawn chest; the second label has a stretch of trachea more, which is not in the CT."""
    for name in ("whole", "more"):
        label = (a_chest.trachea | a_chest.bronchi).astype(np.uint8)
        if name == "more":
            label[50:70, 60:64, 100:104] = 1
        folder = tmp_path / "data" / "cases" / name
        folder.mkdir(parents=True)
        for array, file in ((a_quiet_chest, "ct.nrrd"), (label, "label.nrrd")):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(tuple(reversed(a_chest.spacing_mm)))
            sitk.WriteImage(image, str(folder / file), True)
    return tmp_path / "data"


@pytest.fixture
def a_network_that_sees_dark(monkeypatch):
    wide = {"spacing_mm_min": (0.1, 0.1, 0.1), "spacing_mm_max": (9.0, 9.0, 9.0)}
    info = ModelInfo(name="dark", patch_zyx=(64, 64, 64), **wide)
    monkeypatch.setattr(validation, "load_model", lambda _name: Model(WingsNet(), info, "", DarkIsAirway()))


def test_the_table_has_a_row_a_case_and_the_figures_are_those_of_the_product(
    some_cases, a_network_that_sees_dark, tmp_path, capsys
):
    table = tmp_path / "table.csv"
    assert main(["evaluate", "--weights", "dark", "--data", str(some_cases), "--csv", str(table)]) == 0
    rows = {row["case"]: row for row in csv.DictReader(table.open())}
    assert {"whole", "more"} <= set(rows)
    assert float(rows["whole"]["tld"]) > 0.95 and float(rows["whole"]["precision"]) > 0.9
    assert float(rows["more"]["sensitivity"]) < float(rows["whole"]["sensitivity"]) - 0.005
    printed = capsys.readouterr().out
    assert "whole" in printed and "more" in printed and "TLD" in printed


def test_files_are_not_replaced_without_force(some_cases, a_network_that_sees_dark, tmp_path, capsys):
    table = tmp_path / "table.csv"
    table.write_text("mine")
    assert main(["evaluate", "--data", str(some_cases), "--csv", str(table)]) == 2
    assert "--force" in capsys.readouterr().err and table.read_text() == "mine"


def test_a_folder_without_cases_and_unknown_weights_are_refused(some_cases, tmp_path, capsys):
    assert main(["evaluate", "--data", str(tmp_path / "nothing")]) == 2
    assert "No case found" in capsys.readouterr().err
    assert main(["evaluate", "--weights", "nobody", "--data", str(some_cases)]) == 2
    assert "nobody" in capsys.readouterr().err
