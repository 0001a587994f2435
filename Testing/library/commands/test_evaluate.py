"""Protocols and the evaluation of files: known answers, refusals in one sentence, whole files or none."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import published_parse
import pytest
import SimpleITK as sitk
from phantoms import Tube, a_deep_tree, a_forked_tree, draw_tubes

from AirwaySegLib.__main__ import main
from AirwaySegLib.commands import segment as batch
from AirwaySegLib.commands.evaluate import (
    SEGMENTATION,
    EvaluationRequest,
    as_numbers,
    evaluate_folders,
    evaluate_pair,
    run_evaluation,
)
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.evaluation.metrics import Metrics
from AirwaySegLib.evaluation.protocols import AXES, PROTOCOLS, central_branches, compare
from AirwaySegLib.evaluation.reference_parse import parse_branches
from AirwaySegLib.progress import silent

SHAPE, SPACING_MM = (100, 45, 95), (2.0, 2.0, 2.0)
TUBES = a_forked_tree()


def drawn(*missing: int) -> np.ndarray:
    """The forked tree without some of its seven tubes: 0 trachea, 1 and 4 main bronchi, 2, 3 and 5, 6 beyond them."""
    return draw_tubes([tube for number, tube in enumerate(TUBES) if number not in missing], SHAPE, SPACING_MM)


@pytest.fixture(scope="module")
def a_tree() -> np.ndarray:
    return drawn()


@pytest.fixture(scope="module")
def a_broken_tree() -> np.ndarray:
    """Without the left main bronchus: what lies beyond is loose. And a speck beside the trachea."""
    broken = drawn(4)
    broken[85, 5:7, 45] = True
    return broken


def write(path: Path, mask: np.ndarray, origin_mm=(1.0, 2.0, 3.0)) -> Path:
    """A mask file with a spacing of 2 mm, its non-zero voxels 3."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8) * 3)
    image.SetSpacing((2.0, 2.0, 2.0))
    image.SetOrigin(origin_mm)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


# Protocols -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_tree_agrees_with_itself(a_tree, name):
    metrics = compare(a_tree, a_tree, SPACING_MM, PROTOCOLS[name])
    numbers = as_numbers(metrics)
    assert {numbers[key] for key in ("tld", "bd", "dsc", "precision", "iou", "cl_dice", "atm22_score")} == {1.0}
    assert numbers["leakage"] == numbers["betti0_error"] == 0
    assert metrics.detection.branches == {"atm22": 7, "aiib23": 7, "deeptree": 4}[name]


def test_only_the_largest_component_detects_but_atm22_counts_all_voxels(a_tree, a_broken_tree):
    atm22, aiib23 = (compare(a_broken_tree, a_tree, SPACING_MM, PROTOCOLS[name]) for name in ("atm22", "aiib23"))
    expected = published_parse.evaluate(a_broken_tree.T, a_tree.T)
    assert atm22.detection.skeleton_voxels_detected == expected.skeleton_detected
    assert (atm22.detection.branches, atm22.detection.branches_detected) == (7, expected.branches_detected) == (7, 4)
    assert aiib23.detection == atm22.detection and aiib23.cl_dice < atm22.cl_dice < 1
    assert atm22.overlap.false_positive == 2 and aiib23.overlap.false_positive == 0
    assert aiib23.overlap.false_negative == (a_tree & ~drawn(4, 5, 6)).sum()
    assert atm22.overlap.false_negative == (a_tree & ~a_broken_tree).sum()
    assert atm22.prediction_components == aiib23.prediction_components == 3 and atm22.betti0_error == 2


def test_what_hangs_by_an_edge_is_missed_even_by_the_mask_itself_as_in_the_published_programs():
    mask = np.zeros((60, 20, 40), bool)
    mask[5:45, 8:11, 5:8] = True
    mask[42:45, 8:11, 5:20] = True
    mask[45:55, 8:11, 20:23] = True  # shares an edge with the bar before
    metrics, expected = compare(mask, mask, SPACING_MM, PROTOCOLS["atm22"]), published_parse.evaluate(mask.T, mask.T)
    found = metrics.detection
    assert (found.skeleton_voxels, found.skeleton_voxels_detected) == (
        expected.skeleton_voxels,
        expected.skeleton_detected,
    )
    assert 0.7 < found.tree_length < 0.95 and metrics.overlap.dice == 1 and metrics.prediction_components == 1


@pytest.mark.parametrize("name", ["atm22", "aiib23"])
def test_branches_are_parsed_in_the_order_of_axes_that_is_asked_for_and_the_challenges_x_y_z_by_default(name):
    """The published programs read NIfTI with nibabel, whose arrays are (X, Y, Z)."""
    shape = (90, 100, 130)
    tubes = a_deep_tree(5, seed=4)
    tree = draw_tubes(tubes, shape, (3.0, 3.0, 3.0))
    cut = draw_tubes(tubes[: len(tubes) * 3 // 4], shape, (3.0, 3.0, 3.0))
    rules, found = PROTOCOLS[name], {}
    for axes, (ours, reference) in {"xyz": (cut.T, tree.T), "zyx": (cut, tree)}.items():
        expected = published_parse.evaluate(ours, reference, rules.refined)
        metrics = compare(cut, tree, (3.0, 2.0, 1.0), rules, axes)
        found[axes] = metrics.detection
        counts = (expected.skeleton_voxels, expected.skeleton_detected, expected.branches, expected.branches_detected)
        detection = metrics.detection
        assert counts == (
            detection.skeleton_voxels,
            detection.skeleton_voxels_detected,
            detection.branches,
            detection.branches_detected,
        )
    assert found["xyz"] != found["zyx"] and compare(cut, tree, (3.0, 2.0, 1.0), rules).detection == found["xyz"]


def test_a_length_is_in_mm_along_its_own_axis_whatever_the_order_of_the_axes():
    bar = np.zeros((40, 12, 14), bool)
    bar[4:36, 4:7, 5:8] = True  # 32 voxels along z, which are 3 mm high
    found = [compare(bar, bar, (3.0, 1.0, 2.0), PROTOCOLS["atm22"], axes).detection for axes in AXES]
    assert [detection.length_mm for detection in found] == pytest.approx([3 * 31] * 2, abs=3 * 3)  # thinned at its ends


def test_aiib23_does_not_refine_the_parse():
    """A stem whose side branch is too short for a segment: two segments in a line, which refining joins."""
    mask = np.zeros((60, 30, 30), bool)
    mask[5:55, 13:16, 13:16] = True
    mask[30, 14, 16:20] = True
    counts = [compare(mask, mask, SPACING_MM, PROTOCOLS[name]).detection.branches for name in ("atm22", "aiib23")]
    assert counts == [1, 2]


def test_deeptree_leaves_trachea_and_main_bronchi_out_of_everything(a_tree):
    rules = PROTOCOLS["deeptree"]
    parse = parse_branches(a_tree)
    central = np.isin(parse.labels, central_branches(parse))
    assert central[90, 20, 45] and central[50, 20, 55] and central[50, 20, 35]  # trachea, both main bronchi
    ends = [tuple(int(mm // 2) for mm in TUBES[number].end_mm) for number in (2, 3, 5, 6)]
    assert not any(central[end] for end in ends)
    leak = a_tree.copy()
    leak[80:95, 20, 50:60] = True  # beside the trachea
    metrics = compare(leak, a_tree, SPACING_MM, rules, "zyx")  # as `parse`
    assert metrics.overlap.precision == 1 and metrics.overlap.true_positive == (a_tree & ~central).sum()
    assert compare(leak, a_tree, SPACING_MM, PROTOCOLS["atm22"]).overlap.false_positive == (leak & ~a_tree).sum() > 100
    # One branch of four is missing, and with it about a quarter of what counts.
    missing = compare(drawn(6), a_tree, SPACING_MM, rules)
    assert (missing.detection.branches, missing.detection.branches_detected) == (4, 3)
    assert (
        missing.detection.skeleton_voxels
        < 0.75 * compare(a_tree, a_tree, SPACING_MM, PROTOCOLS["atm22"]).detection.skeleton_voxels
    )


def test_a_bronchus_that_leaves_the_trachea_itself_is_no_main_bronchus():
    tracheal = Tube((140.0, 40.0, 90.0), (145.0, 40.0, 150.0), 3.0, 2.5)
    parse = parse_branches(draw_tubes([*TUBES, tracheal], SHAPE, SPACING_MM))
    central = central_branches(parse)
    assert parse.labels[72, 20, 70] not in central and parse.labels[72, 20, 70] in parse.children(parse.trachea)
    above, below, right, left = (parse.labels[z, 20, x] for z, x in ((90, 45), (62, 45), (50, 35), (50, 55)))
    assert above != below and sorted({above, below, right, left}) == sorted(central)


def test_a_tree_without_a_carina_loses_its_trachea_alone():
    parse = parse_branches(draw_tubes(TUBES[:1], SHAPE, SPACING_MM))
    assert central_branches(parse) == (parse.trachea,) == (1,)
    assert central_branches(parse_branches(np.zeros((9, 9, 9), bool))) == ()


def test_doubled_spacing_doubles_lengths_and_leaves_rates(a_tree, a_broken_tree):
    fine = compare(a_broken_tree, a_tree, SPACING_MM, PROTOCOLS["atm22"])
    coarse = compare(a_broken_tree, a_tree, (4.0, 4.0, 4.0), PROTOCOLS["atm22"])
    assert coarse.detection.length_mm == pytest.approx(2 * fine.detection.length_mm)
    assert coarse.detection.tree_length_mm == pytest.approx(fine.detection.tree_length_mm)
    assert coarse.overlap == fine.overlap
    drawn_mm = sum(tube.length_mm for tube in TUBES)
    assert fine.detection.length_mm == pytest.approx(drawn_mm, rel=0.1)


def test_an_empty_prediction_scores_nothing(a_tree):
    numbers = as_numbers(compare(np.zeros_like(a_tree), a_tree, SPACING_MM, PROTOCOLS["atm22"]))
    zero = ("tld", "bd", "dsc", "sensitivity", "iou", "leakage", "cl_dice", "atm22_score", "branches_detected")
    assert {numbers[key] for key in zero} == {0} and math.isnan(numbers["precision"])
    assert numbers["betti0_error"] == 1 and numbers["voxels_in_reference_only"] == a_tree.sum()


# Files -----------------------------------------------------------------------------------------------------------


def test_two_files_of_different_formats_are_compared(tmp_path, a_tree, a_broken_tree):
    prediction, reference = write(tmp_path / "p.nii.gz", a_broken_tree), write(tmp_path / "r.mha", a_tree)
    expected = compare(a_broken_tree, a_tree, SPACING_MM, PROTOCOLS["atm22"])
    assert isinstance(expected, Metrics)
    assert as_numbers(evaluate_pair(prediction, reference)) == pytest.approx(as_numbers(expected))
    text, failed = run_evaluation(EvaluationRequest(prediction, reference), silent)
    assert not failed
    assert (
        f"{'BD':<14}{57.1:>8}  4 of 7 branches" in text
        and "only per 100 voxels of the reference" in text
        and "Betti-0 error" in text
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda path, mask: write(path, mask[1:]), "voxels"),
        (lambda path, mask: write(path, mask, (1.0, 2.0, 9.0)), "origin"),
        (lambda path, mask: path, "does not exist"),
        (lambda path, mask: path.write_text("no image") and path, "cannot be read"),
    ],
    ids=["other size", "other place", "missing", "damaged"],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(tmp_path, a_tree, change, sentence):
    reference = write(tmp_path / "reference.nii.gz", a_tree)
    prediction = change(tmp_path / "prediction.nii.gz", a_tree) or tmp_path / "prediction.nii.gz"
    with pytest.raises(AirwaySegError, match=sentence) as refusal:
        run_evaluation(EvaluationRequest(tmp_path / "prediction.nii.gz", reference), silent)
    assert "\n" not in str(refusal.value) and prediction.name in str(refusal.value)


def test_an_empty_reference_and_an_unknown_protocol_are_refused(tmp_path, a_tree):
    full, empty = write(tmp_path / "full.nrrd", a_tree), write(tmp_path / "empty.nrrd", np.zeros_like(a_tree))
    with pytest.raises(AirwaySegError, match="empty.nrrd is empty"):
        evaluate_pair(full, empty)
    assert evaluate_pair(empty, full).detection.tree_length == 0
    with pytest.raises(AirwaySegError, match="'atm23'.*atm22, aiib23, deeptree"):
        evaluate_pair(full, full, "atm23")
    with pytest.raises(AirwaySegError, match="order of the axes is 'yxz'; it must be one of xyz, zyx"):
        run_evaluation(EvaluationRequest(full, full, axes="yxz"), silent)
    with pytest.raises(AirwaySegError, match="folder of masks"):
        run_evaluation(EvaluationRequest(full, tmp_path), silent)


@pytest.fixture
def two_folders(tmp_path, a_tree, a_broken_tree) -> tuple[Path, Path]:
    """Cases 0 (nothing found), 1 (a file), 2 (a result folder), 3 (no reference), 4 (no prediction), 5 (other grid)."""
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    write(predictions / "case0.mha", np.zeros_like(a_tree))
    write(predictions / "case1.nii.gz", a_broken_tree)
    write(predictions / "case2" / SEGMENTATION, a_tree)
    write(predictions / "case3.nrrd", a_tree)
    write(predictions / "case5.nrrd", a_tree[1:])
    for case in (0, 1, 2, 4, 5):
        write(references / f"case{case}.nii.gz", a_tree)
    (predictions / "notes.txt").write_text("not a mask")
    return predictions, references


def test_cases_of_two_folders_are_paired_by_name_and_partners_that_miss_are_named(two_folders):
    report = evaluate_folders(*two_folders, "atm22", silent)
    assert list(report.cases) == ["case0", "case1", "case2"]
    assert report.cases["case2"]["dsc"] == 1 and report.cases["case1"]["bd"] == pytest.approx(4 / 7)
    assert [note.split(" ")[0] for note in report.notes] == ["case3", "case4", "case5:"]
    assert "no reference" in report.notes[0] and "no prediction" in report.notes[1] and "grid" in report.notes[2]


def test_mean_and_deviation_are_in_json_csv_and_text(two_folders, tmp_path):
    files = tmp_path / "out" / "results.json", tmp_path / "out" / "results.csv"
    seen = []
    text, failed = run_evaluation(EvaluationRequest(*two_folders, "atm22", *files), lambda *step: seen.append(step))
    assert failed == 1
    content = json.loads(files[0].read_text())
    bds = [0.0, 4 / 7, 1.0]
    assert content["mean"]["bd"] == pytest.approx(np.mean(bds))
    assert content["standard_deviation"]["bd"] == pytest.approx(np.std(bds, ddof=1))
    assert (content["protocol"], content["axes"]) == ("atm22", "xyz") and len(content["notes"]) == 3
    assert content["cases"]["case0"]["precision"] is None and content["cases"]["case1"]["precision"] > 0.9
    rows = {row["case"]: row for row in csv.DictReader(files[1].open())}
    assert list(rows) == ["case0", "case1", "case2", "mean", "standard_deviation"]
    assert float(rows["mean"]["bd"]) == pytest.approx(np.mean(bds)) and rows["case0"]["precision"] == ""
    lines = text.splitlines()
    assert "mean of 3" in text and lines[3].split()[:3] == [
        "case1",
        f"{100 * content['cases']['case1']['tld']:.1f}",
        "57.1",
    ]
    assert lines[-1].startswith("case5:") and seen[-1] == ("evaluate", 4, 4)


def test_the_exit_code_tells_of_pairs_that_could_not_be_compared(two_folders, capsys):
    folders = [str(folder) for folder in two_folders]
    assert main(["evaluate", *folders]) == 2
    assert "mean of 3" in capsys.readouterr().out
    (two_folders[0] / "case5.nrrd").unlink()
    assert main(["evaluate", *folders]) == 0


def test_a_folder_without_a_common_name_and_a_name_twice_are_refused(two_folders, tmp_path, a_tree):
    predictions, references = two_folders
    with pytest.raises(AirwaySegError, match="No mask in"):
        evaluate_folders(predictions / "case2", references, "atm22", silent)
    write(predictions / "case1.nrrd", a_tree)
    with pytest.raises(AirwaySegError, match="the case case1 twice"):
        evaluate_folders(predictions, references, "atm22", silent)


def test_files_that_exist_stay_unless_forced_and_nothing_is_left_of_a_failure(two_folders, tmp_path, a_tree):
    predictions, references = two_folders
    kept = tmp_path / "kept.json"
    kept.write_text("mine")
    request = EvaluationRequest(predictions, references, json_file=kept)
    with pytest.raises(AirwaySegError, match=r"kept.json; use --force"):
        run_evaluation(request, silent)
    assert kept.read_text() == "mine"
    run_evaluation(EvaluationRequest(predictions, references, json_file=kept, force=True), silent)
    assert "case1" in kept.read_text()
    fresh = tmp_path / "fresh" / "results.json"
    with pytest.raises(AirwaySegError):
        run_evaluation(EvaluationRequest(tmp_path / "none", references, json_file=fresh), silent)
    assert not fresh.parent.exists()
    with pytest.raises(AirwaySegError, match="at once"):
        run_evaluation(EvaluationRequest(predictions, references, "atm22", fresh, fresh), silent)


def test_result_folders_are_those_of_the_segmentation():
    assert SEGMENTATION == batch.MASK
