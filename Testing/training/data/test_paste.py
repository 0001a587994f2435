"""Pasted airways: exact labels on a real scan's own noise, and nothing changed elsewhere."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import binary_erosion

from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining.__main__ import main
from AirwaySegTraining.data import paste as pasting
from AirwaySegTraining.data.cases import read_case
from AirwaySegTraining.data.paste import look_at, pasted_case, place_trees

LUNG_HU, AIR_HU, NOISE_HU = -850, -980, 12
SHAPE = (70, 110, 130)


@pytest.fixture(scope="module")
def a_case_folder(tmp_path_factory):
    """A chest of tissue with two noisy lungs and a trachea between them; a corner of a lung is left out."""
    rng = np.random.default_rng(0)
    hu, label = np.full(SHAPE, -1000.0), np.zeros(SHAPE, np.uint8)
    hu[:, 10:100, 8:122] = 40
    for x in (slice(14, 54), slice(76, 116)):
        hu[4:66, 18:92, x] = LUNG_HU
    label[:, 50:60, 60:70] = 1
    label[4:30, 18:30, 14:30] = 2
    hu[label == 1] = AIR_HU
    folder = tmp_path_factory.mktemp("real") / "cases" / "chest"
    folder.mkdir(parents=True)
    arrays = {"ct": np.rint(hu + rng.normal(scale=NOISE_HU, size=SHAPE)).astype(np.int16), "label": label}
    for name, array in arrays.items():
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.9, 0.9, 1.0))
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"))
    (folder / "case.json").write_text(json.dumps({"patient": "P1"}))
    return folder


@pytest.fixture(scope="module")
def a_case(a_case_folder):
    return read_case(a_case_folder)


@pytest.fixture(scope="module")
def pasted(a_case):
    return pasted_case(a_case, look_at(a_case), 3)


def test_air_noise_and_free_lung_are_measured(a_case):
    lung = look_at(a_case)
    assert lung.air_hu == pytest.approx(AIR_HU, abs=3) and lung.noise_hu == pytest.approx(NOISE_HU, rel=0.1)
    assert np.median(lung.around_hu[lung.free]) == pytest.approx(LUNG_HU, abs=5)
    free = np.argwhere(lung.free)
    assert len(free) > 20_000 and (np.asarray(a_case.ct)[lung.free] < -700).all()
    assert not lung.free[4:30, 18:30, 14:30].any(), "what was left out may be an airway"


def test_trees_lie_in_free_lung_and_apart(a_case):
    lung = look_at(a_case)
    trees = place_trees(a_case, lung, np.random.default_rng(1))
    assert 3 <= len(trees) <= pasting.TREES
    lines = [np.vstack([branch.points_mm for branch in tree]) / a_case.spacing_mm for tree in trees]
    for line in lines:
        assert lung.free[tuple(np.rint(line).astype(int).T)].mean() > pasting.LEAST_FREE
    for one, line in enumerate(lines):
        assert all(np.linalg.norm(line[:, None] - other[None], axis=2).min() > 2 for other in lines[one + 1 :])


def test_a_pasted_lumen_is_dark(a_case, pasted):
    new = (pasted.label == 1) & (np.asarray(a_case.label) != 1)
    inner = binary_erosion(new)
    assert new.sum() > 300 and inner.sum() > 20
    assert AIR_HU - 10 < np.median(pasted.ct[inner]) < LUNG_HU - 40, "air, blurred with the wall beside it"


def test_the_scans_own_noise_lies_over_what_is_pasted(a_case, pasted):
    # A chequered grain of 3 HU vanishes in what is measured of the lung, so the same trees are drawn over it.
    grain = np.where(np.indices(SHAPE).sum(axis=0) % 2, 3, -3).astype(np.int16)
    grained = replace(a_case, ct=np.asarray(a_case.ct) + grain)
    other = pasted_case(grained, look_at(grained), 3)
    assert np.array_equal(other.label, pasted.label)
    new = (pasted.label == 1) & (np.asarray(a_case.label) != 1)
    difference = other.ct.astype(int) - pasted.ct
    assert np.mean(np.abs(difference - grain)[new] <= 1) > 0.99


def test_nothing_changes_far_from_what_was_pasted_and_the_label_stays(a_case, pasted):
    changed = pasted.ct != np.asarray(a_case.ct)
    z, y, x = np.nonzero(changed)
    assert 0 < changed.mean() < 0.35
    assert not changed[:, :16].any() and not changed[:, 50:60, 60:70].any()
    before = np.asarray(a_case.label)
    assert (pasted.label[before == 1] == 1).all()
    assert pasted.description["patient"] == "P1" and pasted.description["clean"] is False


def test_the_same_seed_pastes_the_same_and_another_does_not(a_case, pasted):
    again, other = pasted_case(a_case, look_at(a_case), 3), pasted_case(a_case, look_at(a_case), 4)
    assert np.array_equal(again.ct, pasted.ct) and np.array_equal(again.label, pasted.label)
    assert not np.array_equal(other.label, pasted.label)


def test_a_case_without_airway_or_lung_is_refused_by_name(a_case):
    for wrong, said in (
        (replace(a_case, label=np.zeros(SHAPE, np.uint8)), "no airway wide enough"),
        (replace(a_case, ct=np.full(SHAPE, 40, np.int16)), "no free lung"),
    ):
        with pytest.raises(AirwaySegError, match=f"Case chest has {said}"):
            pasted_case(wrong, look_at(wrong), 0)


def test_the_command_writes_cases_of_the_same_patient(a_case_folder, tmp_path, capsys):
    command = ["paste", "--data", str(a_case_folder.parents[1]), "-o", str(tmp_path / "out"), "--cases", "2"]
    assert main(command) == 0 and "2 cases" in capsys.readouterr().out
    folders = sorted((tmp_path / "out" / "cases").iterdir())
    assert [folder.name for folder in folders] == ["chest-pasted-00", "chest-pasted-01"]
    assert {read_case(folder).patient for folder in folders} == {"P1"}
