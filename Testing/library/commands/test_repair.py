"""`airwayseg repair` on masks with diagonal contacts, and on masks that hold several trees."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import Tube, draw_tubes
from scipy import ndimage

from AirwaySegLib.commands.repair import RepairRequest, likelihood, run_repair
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.progress import silent
from AirwaySegLib.repair.repair import Source

SHAPE, SPACING_MM = (90, 50, 80), (0.6, 0.5, 0.5)


def written(values: np.ndarray, path: Path) -> Path:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(SPACING_MM[::-1])
    sitk.WriteImage(image, str(path))
    return path


def repaired(folder: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "airways.nrrd")))


@pytest.fixture
def a_diagonal_contact() -> np.ndarray:
    """A bar that goes on one voxel aside: both parts touch by edges, from z = 40 to 41 and y = 20 to 21."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:41, 18:21, 28:33] = 1
    mask[41:70, 21:24, 28:33] = 1
    return mask


@pytest.mark.parametrize("evidence", ["nothing", "ct", "probability"])
def test_the_result_hangs_together_by_faces_by_the_likelier_voxel(a_diagonal_contact, tmp_path, evidence):
    assert ndimage.label(a_diagonal_contact)[1] == 2
    hu, probability = np.full(SHAPE, 40, np.int16), np.zeros(SHAPE, np.uint8)
    hu[:, :15] = -850  # lung
    hu[a_diagonal_contact > 0], probability[a_diagonal_contact > 0] = -950, 250
    hu[41, 20, 31], probability[41, 20, 29] = -600, 90
    given = {
        "nothing": {},
        "ct": {"ct": written(hu, tmp_path / "ct.nrrd")},
        "probability": {
            "ct": written(hu, tmp_path / "ct.nrrd"),
            "probability": written(probability, tmp_path / "probability.nrrd"),
        },
    }[evidence]
    mask = written(a_diagonal_contact, tmp_path / "mask.nrrd")
    run_repair(RepairRequest(mask, tmp_path / "r", method="path", **given), silent)
    result = repaired(tmp_path / "r")
    assert ndimage.label(result)[1] == 1 and not (a_diagonal_contact > result).any()
    added = np.argwhere(result > a_diagonal_contact).tolist()
    assert len(added) == 1
    if evidence != "nothing":
        assert added == [[41, 20, 31 if evidence == "ct" else 29]]


def test_without_evidence_a_voxel_is_as_likely_as_another_and_a_dark_one_likelier_than_a_bright_one():
    mask = Volume(np.ones((1, 1, 4), bool), SPACING_MM)
    assert likelihood(Source(mask)) is None
    hu = np.array([[[-2048, -950, -100, 900]]], np.int16)
    values = likelihood(Source(mask, hu)).ravel().tolist()
    assert values[0] == 255 and values == sorted(values, reverse=True) and values[-1] == 0


def test_trees_that_the_scans_edge_cuts_are_no_fragments_and_a_broken_one_is_joined(tmp_path):
    tubes = [
        Tube((60.0, 12.0, 10.0), (20.0, 12.0, 10.0), 2.5, 2.0),
        Tube((60.0, 12.0, 30.0), (25.0, 12.0, 30.0), 1.8, 1.6),
    ]
    drawn = draw_tubes(tubes, SHAPE, SPACING_MM)
    values = drawn.astype(np.uint8) * 250
    drawn[58:61, :, 45:] = False  # 1.8 mm of the second tree, in which the network is in doubt
    values[58:61, :, 45:] //= 3
    mask, probability = written(drawn.astype(np.uint8), tmp_path / "m.nrrd"), written(values, tmp_path / "p.nrrd")
    said = run_repair(RepairRequest(mask, tmp_path / "r", probability=probability, method="path"), silent)
    assert said.startswith("fragments: 1   ") and "fragments joined: 1" in said
    assert ndimage.label(repaired(tmp_path / "r"))[1] == 2
    assert json.loads((tmp_path / "r" / "repairs.json").read_text())["summary"]["fragments"] == 1


@pytest.mark.parametrize("turned", [False, True], ids=["canonical axes", "turned axes"])
def test_of_every_proposal_bridge_and_piece_are_in_the_document_joined_or_not(tmp_path, turned):
    """A broken tube whose far half is joined, and a speck that is not: every fragment's voxels, in the patient."""
    tubes = [
        Tube((52.0, 12.0, 20.0), (30.0, 12.0, 20.0), 2.5, 2.4),
        Tube((22.0, 12.0, 20.0), (8.0, 12.0, 20.0), 2.3, 2.0),
    ]
    mask = draw_tubes(tubes, SHAPE, SPACING_MM)
    mask = mask.astype(np.uint8)
    mask[3:5, 44:46, 70:72] = 1
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing(SPACING_MM[::-1])
    if turned:
        image = sitk.PermuteAxes(image[:, ::-1], [2, 0, 1])
    sitk.WriteImage(image, str(tmp_path / "mask.nrrd"))
    run_repair(RepairRequest(tmp_path / "mask.nrrd", tmp_path / "r", method="path", threshold=0.0), silent)
    document = json.loads((tmp_path / "r/repairs.json").read_text())
    to_lps, before = np.array(document["ijk_to_lps"]), sitk.GetArrayFromImage(image)
    after = repaired(tmp_path / "r")

    def found(runs: list) -> np.ndarray:
        voxels = [(x + step, y, z, 1) for z, y, x, count in runs for step in range(count)]
        points = (np.array(voxels) @ to_lps.T)[:, :3]
        indices = [image.TransformPhysicalPointToIndex(point) for point in points.tolist()]
        return tuple(np.array(indices).T[::-1])

    pieces = {piece["number"]: piece for piece in document["fragments"]}
    assert [piece["joined"] for piece in pieces.values()] == [True, False]
    assert [len(found(piece["voxel_runs"])[0]) for piece in pieces.values()][1] == 8
    for piece in pieces.values():
        where = found(piece["voxel_runs"])
        assert before[where].all() and after[where].all() == piece["joined"]
    bridge = next(repair for repair in document["repairs"] if repair["state"] == "applied")
    where = found(bridge["voxel_runs"])
    assert not before[where].any() and after[where].all()
