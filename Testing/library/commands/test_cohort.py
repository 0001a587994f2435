"""`airwayseg cohort` as a user types it: the table, running it again, failures, lists, masks, and stops."""

import csv
import gc
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import DarkIsAirway
from source_tree import ROOT
from studies import image_of, save_study, small_chest

from AirwaySegLib.__main__ import main
from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.display import CohortDisplay, duration
from AirwaySegLib.cohort.records import FAILURE, FINISHED, Outcome
from AirwaySegLib.cohort.schedule import run_here
from AirwaySegLib.commands import cohort, dicom_out
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files import image_files
from AirwaySegLib.files.folder_lock import locked
from AirwaySegLib.networks.weights import ModelInfo
from AirwaySegLib.networks.wingsnet import WingsNet
from AirwaySegLib.pipeline import Model
from AirwaySegLib.progress import silent
from AirwaySegLib.repair.repair import RepairModel
from AirwaySegLib.settings import SegmentSettings

LONG_ENOUGH_S = 300


def dark_model(_name: str = "") -> Model:
    """Weights of which every backend is a threshold."""
    wide = {"spacing_mm_min": (0.1, 0.1, 0.1), "spacing_mm_max": (9.0, 9.0, 9.0)}
    info = ModelInfo(name="dark", window_hu=(-1000.0, 600.0), patch_zyx=(64, 64, 64), **wide)
    return Model(WingsNet(), info, "0" * 64, DarkIsAirway(), RepairModel("path", 0.5))


@pytest.fixture
def a_dark_network(monkeypatch):
    """Every case finds the dark voxels."""
    monkeypatch.setattr(cohort, "load_model", dark_model)


def run(*arguments: object) -> int:
    return main(["cohort", *map(str, arguments), "--progress", "none"])


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def without_seconds(table: Path) -> list[list[str]]:
    """The table without the columns that differ from run to run."""
    return [[value for name, value in row.items() if not name.startswith("seconds")] for row in rows(table)]


@pytest.fixture
def a_study(a_quiet_chest, tmp_path) -> Path:
    """Three CTs in two formats, the last of which is damaged, and a localiser's worth of other files."""
    save_study(tmp_path / "study", a_quiet_chest, 3, 1)
    return tmp_path / "study"


def test_a_study_becomes_a_table_and_a_page(a_study, a_dark_network, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(a_study, "-o", out) == 0
    table = rows(out / "cohort.csv")
    assert [(row["id"], row["status"]) for row in table] == [
        ("site0_ct00", "finished"),
        ("site1_deep_er_ct01", "finished"),
        ("site2_ct02", "failed"),
    ]
    assert "ct02.mha cannot be read" in table[2]["error"] and table[2]["volume_ml"] == ""
    first, result = table[0], out / "cases" / "site0_ct00"
    report = json.loads((result / "report.json").read_text())
    assert float(first["volume_ml"]) == report["result"]["millilitres"] > 20
    assert int(first["warnings"]) == len(report["warnings"]) and first["weights_sha256"] == "0" * 64
    branches = [row for row in rows(out / "branches.csv") if row["case"] == "site0_ct00"]
    own = rows(result / "branches.csv")
    assert [row["branch"] for row in branches] == [row["id"] for row in own]
    assert float(first["length_mm"]) == pytest.approx(sum(float(row["length_mm"]) for row in own), abs=0.01)
    diameter, area = float(branches[0]["mean_diameter_mm"]), float(branches[0]["mean_lumen_area_mm2"])
    assert area >= np.pi / 4 * diameter**2 * 0.999  # the mean of squares is no less than the square of the mean
    assert area == pytest.approx(np.pi / 4 * diameter**2, rel=0.1)
    generations = [row for row in rows(out / "generations.csv") if row["case"] == "site0_ct00"]
    for row in generations:
        assert row["length_mm"] == first[f"length_generation_{row['generation']}_mm"]
        assert row["mean_lumen_area_mm2"] == first[f"lumen_area_generation_{row['generation']}_mm2"]
    page = (out / "cohort.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 2 and "site2_ct02: failed: ct02.mha cannot be read" in page
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    said = capsys.readouterr().out
    assert "3 CTs: 3 to be run." in said and "2 of 3 CTs finished, 1 failed." in said


def test_a_second_run_does_what_is_not_done_and_gives_the_same_table(a_study, a_dark_network, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert run(a_study, "-o", out) == 0
    before = without_seconds(out / "cohort.csv")
    done = []
    case = cohort.segmenting.run_case
    monkeypatch.setattr(cohort.segmenting, "run_case", lambda path, *rest: (done.append(path.name), case(path, *rest)))
    assert run(a_study, "-o", out) == 0
    assert done == ["ct02.mha"] * 2 and without_seconds(out / "cohort.csv") == before
    shutil.copy(next(a_study.rglob("ct01.nrrd")), next(a_study.rglob("ct02.mha")).with_suffix(".nrrd"))
    next(a_study.rglob("ct02.mha")).unlink()
    assert run(a_study, "-o", out) == 0
    assert done[2:] == []  # the copy was left out
    assert [row["status"] for row in rows(out / "cohort.csv")] == ["finished", "finished"]


def test_a_failure_that_passes_is_tried_again_and_forgotten(a_study, a_dark_network, tmp_path, monkeypatch, capsys):
    case, tried = cohort.segmenting.run_case, []

    def fails_once(path: Path, *rest: object) -> None:
        tried.append(path.name)
        if tried.count(path.name) == 1:
            raise OSError("the network drive is away")
        case(path, *rest)

    monkeypatch.setattr(cohort.segmenting, "run_case", fails_once)
    out = tmp_path / "out"
    assert run(a_study / "site0", "-o", out) == 0
    assert tried == ["ct00.nii.gz"] * 2 and rows(out / "cohort.csv")[0]["status"] == "finished"
    assert not (out / "failed").exists()
    assert "failed, will be tried again: unexpected OSError" in (out / "cohort.log").read_text("utf-8")


def test_nothing_finished_is_a_failure_and_so_is_a_result_of_other_settings(a_study, a_dark_network, tmp_path, capsys):
    assert run(a_study / "site2", "-o", tmp_path / "none") == 2
    assert "None of 1 cases could be finished" in capsys.readouterr().err
    out = tmp_path / "out"
    assert run(a_study / "site0", "-o", out) == 0
    assert run(a_study / "site0", "-o", out, "--threshold", "0.4") == 2
    assert "holds a result that differs in its settings; use --force to replace it." in capsys.readouterr().out
    assert run(a_study / "site0", "-o", out, "--threshold", "0.4", "--force") == 0
    assert rows(out / "cohort.csv")[0]["threshold"] == "0.4"


def test_with_force_only_what_differs_is_made_again_so_that_it_can_be_stopped_too(
    a_study, a_dark_network, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    assert run(a_study / "site0", "-o", out) == 0
    assert run(a_study / "site0", "-o", out, "--threshold", "0.4", "--force") == 0
    monkeypatch.setattr(cohort.segmenting, "run_case", None)  # nothing is segmented again
    assert run(a_study / "site0", "-o", out, "--threshold", "0.4", "--force") == 0
    assert rows(out / "cohort.csv")[0]["threshold"] == "0.4"


def test_a_report_that_was_lost_with_the_computer_is_made_again(a_study, a_dark_network, tmp_path):
    out = tmp_path / "out"
    assert run(a_study / "site0", "-o", out) == 0
    (out / "cases" / "ct00" / "report.json").write_bytes(b"")  # as after a loss of power
    (out / ".cohort.csv.123456.part").write_text("id,")
    (out / ".branches.parquet.123456.part").write_bytes(b"PAR1")
    assert run(a_study / "site0", "-o", out) == 0
    assert not list(out.glob(".*.part"))
    assert rows(out / "cohort.csv")[0]["status"] == "finished" and not (out / ".cohort.csv.123456.part").exists()


@pytest.mark.parametrize(("name", "said"), [("branches.csv", "without branches.csv"), ("tree.json", "JSONDecodeError")])
def test_a_damaged_result_is_a_row_that_says_so_and_the_others_get_theirs(
    a_study, a_dark_network, tmp_path, capsys, name, said
):
    out = tmp_path / "out"
    assert run(a_study, "-o", out) == 0
    damaged = out / "cases" / "site0_ct00" / name
    damaged.unlink() if name == "branches.csv" else damaged.write_text("{")
    assert run(a_study, "-o", out) == (2 if name == "branches.csv" else 0)
    closing = capsys.readouterr().out
    assert "3 of 3 CTs finished" not in closing and "finished" in closing
    first, second, _ = rows(out / "cohort.csv")
    assert first["status"] == "failed" and "does not hold a valid result" in first["error"]
    assert second["status"] == "finished" and {row["case"] for row in rows(out / "branches.csv")} == {second["id"]}
    assert said in closing + first["error"]
    shutil.rmtree(damaged.parent)
    assert run(a_study, "-o", out) == 0 and rows(out / "cohort.csv")[0]["status"] == "finished"


def test_what_kills_a_worker_stands_in_the_table(a_study, a_dark_network, tmp_path, monkeypatch):
    dead = Outcome("ct00", FAILURE, "Its worker process died 3 times; memory may be short.")
    monkeypatch.setattr(cohort, "run_all", lambda *_: iter([dead]))
    assert run(a_study / "site0", "-o", tmp_path / "out") == 2
    row = rows(tmp_path / "out" / "cohort.csv")[0]
    assert (row["status"], row["error"]) == ("failed", dead.sentence)


def test_a_dicom_segmentation_that_fails_is_named_beside_the_result(
    a_quiet_chest, a_dark_network, tmp_path, monkeypatch
):
    save_study(tmp_path / "study", a_quiet_chest, 4, 0)

    def fails(*_: object) -> None:
        raise AirwaySegError("It needs highdicom.")

    monkeypatch.setattr(cohort, "import_highdicom", lambda: None)
    monkeypatch.setattr(cohort, "write_result_as_dicom", fails)
    out = tmp_path / "out"
    assert run(next((tmp_path / "study").rglob("ct03")), "-o", out, "--dicom-seg", "airways") == 0
    row = rows(out / "cohort.csv")[0]
    assert (row["status"], row["error"]) == ("finished", "It needs highdicom.")
    assert "ct03</a>: It needs highdicom." in (out / "cohort.html").read_text("utf-8")
    assert run(next((tmp_path / "study").rglob("ct03")), "-o", out) == 0
    assert rows(out / "cohort.csv")[0]["error"] == ""


def test_a_name_that_the_terminal_cannot_print_is_escaped(a_study, a_dark_network, tmp_path, monkeypatch):
    (a_study / "site0" / "ct00.nii.gz").rename(a_study / "site0" / "größe.nii.gz")
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    assert run(a_study / "site0", "-o", tmp_path / "out", "--list") == 0
    shown.flush()
    assert b"gr\\xf6\\xdfe  NIfTI" in shown.buffer.getvalue()


def test_a_ct_that_was_changed_is_not_taken_for_done(a_study, a_dark_network, tmp_path, capsys):
    out, file = tmp_path / "out", a_study / "site0" / "ct00.nii.gz"
    assert run(a_study / "site0", "-o", out) == 0
    future = (out / "cases" / "ct00" / "report.json").stat().st_mtime + 100
    os.utime(file, (future, future))
    assert run(a_study / "site0", "-o", out) == 0  # touched only
    sitk.WriteImage(sitk.ReadImage(str(file)) + 1, str(file))
    os.utime(file, (future, future))
    assert run(a_study / "site0", "-o", out) == 2
    assert "differs in its CT" in capsys.readouterr().out


def test_a_dry_run_shows_what_would_be_done_and_writes_only_the_lists(a_study, a_dark_network, tmp_path, capsys):
    sitk.WriteImage(image_of(np.full((100, 9, 9), 5, np.uint8)), str(a_study / "picture.nii"))
    assert run(a_study, "-o", tmp_path / "out", "--list") == 0
    said = capsys.readouterr().out
    assert "site0_ct00  NIfTI, 100 slices of 2.5 mm  to be run" in said
    assert "picture.nii  NIfTI, 100 slices of 2.5 mm: its voxels are no CT's" in said
    assert "3 CTs: 3 to be run. 1 input left out (1 its voxels are no CT's (8-bit unsigned integer): a mask" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cases.csv", "left-out.csv"}
    assert run(tmp_path / "out" / "cases.csv", "-o", tmp_path / "out") == 0
    assert [row["status"] for row in rows(tmp_path / "out" / "cohort.csv")] == ["finished", "finished", "failed"]


def test_a_mask_of_the_list_is_measured_instead(a_chest, a_study, a_dark_network, tmp_path, monkeypatch):
    monkeypatch.setattr(cohort.segmenting, "run_case", None)  # no network may be run
    mask = (a_chest.trachea | a_chest.bronchi)[:, ::2, ::2].astype(np.uint8)
    sitk.WriteImage(image_of(mask), str(tmp_path / "mask.nrrd"))
    (tmp_path / "list.csv").write_text("id,ct,mask,patient\none,study/site0/ct00.nii.gz,mask.nrrd,P1\n")
    for _ in range(2):  # the second run finds it finished
        assert run(tmp_path / "list.csv", "-o", tmp_path / "out") == 0
        row = rows(tmp_path / "out" / "cohort.csv")[0]
    assert (row["status"], row["patient"], row["weights"]) == ("finished", "P1", "mask mask.nrrd")
    assert float(row["volume_ml"]) == pytest.approx(mask.sum() * 2.5 * 3.2 * 3.2 / 1000, abs=0.001)


def test_shards_share_the_cases_out_and_a_last_run_makes_the_tables(a_study, a_dark_network, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        assert run(a_study, "-o", out, "--shard", shard) == 0
        assert not (out / "cohort.csv").exists()
    assert {path.name for path in (out / "cases").iterdir()} == {"site0_ct00", "site1_deep_er_ct01"}
    assert run(a_study, "-o", out) == 0
    assert [row["status"] for row in rows(out / "cohort.csv")] == ["finished", "finished", "failed"]


def test_a_case_that_another_run_holds_is_no_failure_but_not_done(a_study, a_dark_network, tmp_path, capsys):
    hold = (
        "import sys; from pathlib import Path; from AirwaySegLib.files.folder_lock import locked\n"
        "with locked(Path(sys.argv[1]), 'airwayseg cohort'):\n    print('locked', flush=True); sys.stdin.read()"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", hold, str(out / "cases" / "site0_ct00")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        assert run(a_study, "-o", out) == 2
        other.communicate("")
    assert "1 of 3 CTs finished, 1 failed, 1 in use by another run." in capsys.readouterr().out
    assert [row["status"] for row in rows(out / "cohort.csv")] == ["not run", "finished", "failed"]
    assert run(a_study, "-o", out) == 0


def test_progress_for_programs_is_one_object_a_line(a_study, a_dark_network, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["cohort", str(a_study), "-o", str(out), "--progress", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == {"result": str(out)}
    ended = [line for line in lines if line.get("event") == "case"]
    assert [(line["number"], line["status"], line["try_again"]) for line in ended] == [
        (1, "finished", False),
        (2, "finished", False),
        (2, "failed", True),
        (3, "failed", False),
    ]
    assert all(line["of"] == 3 for line in ended) and ended[0]["seconds_left"] > 0 and ended[-1]["seconds_left"] == 0
    assert {"read", "infer", "measure"} <= {line["stage"] for line in lines if line.get("event") == "stage"}


def holds_the_mask(made: Path) -> bool:
    """Whether another reader finds the mask beside it in a DICOM Segmentation."""
    mask = sitk.ReadImage(str(made.with_suffix(".nrrd")))
    frames = sitk.ReadImage(str(made))
    voxels = sitk.GetArrayFromImage(frames) == 255
    voxels.reshape(-1)[voxels.size - voxels.size % 8 :] = False  # ITK does not fill what the last byte holds in part
    airways = sitk.GetImageFromArray(voxels.astype(np.uint8))
    airways.CopyInformation(frames)
    read = sitk.Resample(airways, mask, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(mask))


def test_dicom_gets_a_segmentation_also_when_the_result_was_finished_before(
    a_quiet_chest, a_dark_network, tmp_path, monkeypatch
):
    pytest.importorskip("highdicom")
    import pydicom

    save_study(tmp_path / "study", a_quiet_chest, 4, 0)
    folder, out = tmp_path / "study" / "site0", tmp_path / "out"
    shutil.rmtree(tmp_path / "study" / "site1")
    assert run(folder, "-o", out) == 0
    monkeypatch.setattr(cohort.segmenting, "run_case", None)  # nothing is segmented again
    assert run(folder, "-o", out, "--dicom-seg", "lobes") == 0
    made = out / "cases" / "deep_er_ct03" / "airways.dcm"
    assert holds_the_mask(made)
    assert not (out / "cases" / "ct00" / "airways.dcm").exists()
    before = made.read_bytes()
    assert run(folder, "-o", out, "--dicom-seg", "lobes") == 0 and made.read_bytes() == before
    monkeypatch.setattr(dicom_out, "_lobes_of", lambda tree: {"left upper lobe": [1]})
    for kind, segments in (("airways", 1), ("lobes", 2), ("lobes", 2), ("airways", 1)):
        assert run(folder, "-o", out, "--dicom-seg", kind) == 0
        assert len(pydicom.dcmread(made).SegmentSequence) == segments


def test_segment_writes_a_dicom_segmentation_too(a_quiet_chest, tmp_path, monkeypatch):
    pytest.importorskip("highdicom")
    monkeypatch.setattr(cohort.segmenting, "load_model", dark_model)
    save_study(tmp_path / "study", a_quiet_chest, 8, 0)
    folder, out = next((tmp_path / "study").rglob("ct03")), tmp_path / "out"
    command = ["segment", str(folder), "-o", str(out), "--progress", "none", "--dicom-seg", "lobes"]
    assert main(command) == 0
    assert holds_the_mask(out / "airways.dcm")
    (out / "airways.dcm").unlink()
    assert main([*command, "--skip-finished"]) == 0 and (out / "airways.dcm").exists()
    other = next((tmp_path / "study").rglob("ct07"))
    (out / "airways.dcm").unlink()
    assert main([*command[:1], str(other), *command[2:], "--skip-finished"]) == 2  # another patient's airways
    assert not (out / "airways.dcm").exists()
    assert main([*command[:-2], "--force"]) == 0 and not (out / "airways.dcm").exists()  # that of the result before


def test_what_a_dicom_segmentation_of_segment_lacks_is_said_before_the_work(
    a_quiet_chest, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cohort.segmenting, "load_model", dark_model)
    monkeypatch.setattr(cohort.segmenting, "run_case", None)  # nothing is segmented
    sitk.WriteImage(image_of(small_chest(a_quiet_chest)), str(tmp_path / "ct.nrrd"))
    command = ["segment", str(tmp_path / "ct.nrrd"), "-o", str(tmp_path / "out"), "--progress", "none", "--dicom-seg"]
    monkeypatch.setattr(cohort.segmenting, "import_highdicom", lambda: None)
    assert main([*command, "airways"]) == 2 and "is not DICOM: a DICOM Segm" in capsys.readouterr().err
    assert main([*command, "lobes", "--no-measure"]) == 2 and "needs branches.nrrd" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert main([*command, "airways"]) == 2 and "needs highdicom" in capsys.readouterr().err


# Progress and scheduling ---------------------------------------------------------------------------------------------


def test_the_time_left_follows_the_voxels_of_what_is_left(capsys):
    display = CohortDisplay("bar", {"a": 100, "b": 300, "c": 200}, before=2)
    assert display.seconds_left() is None
    display.case(Outcome("a", FINISHED, seconds=10, branches=7, millilitres=40.0, warnings=1))
    assert display.seconds_left() == 50.0
    display.workers = 2
    assert display.seconds_left() == 25.0
    display.case(Outcome("b", FAILURE, "It is damaged."), again=True)
    display.case(Outcome("b", FAILURE, "It is damaged."))
    assert capsys.readouterr().out.splitlines() == [
        "3/5  a  finished in 10 s: 7 branches, 40.0 ml, 1 warning (50 s left)",
        "3/5  b  failed, will be tried again: It is damaged. (25 s left)",
        "4/5  b  failed: It is damaged. (10 s left)",
    ]
    assert [duration(seconds) for seconds in (3, 99, 100, 5400, 11100)] == [
        "3 s",
        "99 s",
        "2 min",
        "90 min",
        "3 h 05 min",
    ]


class Counted(Case):
    """A case whose reading is noted."""

    reading: list[str] = []
    may_read = threading.Event()

    def read(self):
        self.reading.append(self.id)
        self.may_read.set()
        return self.id, []


def test_the_next_ct_is_read_while_one_is_computed_and_no_further(tmp_path):
    Counted.reading, seen = [], []
    cases = [Counted(name, tmp_path) for name in "abcd"]

    def work(case, read):
        assert read()[0] == case.id
        Counted.may_read.clear() if case.id == "d" else Counted.may_read.wait(LONG_ENOUGH_S)
        if case.id != "d":
            while len(Counted.reading) < len(seen) + 2:
                Counted.may_read.wait(0.01)
        seen.append(case.id)
        assert len(Counted.reading) <= len(seen) + 1
        return Outcome(case.id, FINISHED)

    assert [outcome.id for outcome in run_here(cases, work)] == list("abcd")
    assert Counted.reading == list("abcd")


def test_a_ct_is_out_of_memory_when_its_case_has_ended(a_dark_network, a_study, tmp_path):
    case = Case("one", a_study / "site0" / "ct00.nii.gz")
    kept = []

    def read():
        volume, warnings = case.read()
        circle: list[object] = [volume]
        circle.append(circle)  # as a figure or the frame of an error that refers to itself
        kept.append(weakref.ref(volume.array))
        return volume, warnings

    gc.disable()
    try:
        outcome = cohort.run_one(case, cohort.How(tmp_path, SegmentSettings()), dark_model(), read, silent)
        assert outcome.status == FINISHED and kept[0]() is None
    finally:
        gc.enable()


def test_two_threads_that_read_leave_the_standard_error_as_it_was(capfd):
    inside, leave = threading.Barrier(2), threading.Event()

    def read_long():
        with image_files.silent_itk():
            inside.wait(LONG_ENOUGH_S)
            leave.wait(LONG_ENOUGH_S)

    thread = threading.Thread(target=read_long)
    thread.start()
    with image_files.silent_itk():
        inside.wait(LONG_ENOUGH_S)
        os.write(2, b"hidden")
    os.write(2, b"hidden")
    leave.set()
    thread.join()
    os.write(2, b"seen")
    assert capfd.readouterr().err == "seen"


# Stops ---------------------------------------------------------------------------------------------------------------

STAND_IN = """
import json, shutil, sys
sys.path[:0] = sys.argv[1:3]
from test_cohort import dark_model
from AirwaySegLib.__main__ import main
from AirwaySegLib.commands import cohort
from AirwaySegLib.commands.provenance import make_report
from AirwaySegLib.files.atomic_output import delivered_into
from pathlib import Path
template = Path(sys.argv[3])
def copy_result(path, folder, batch, model, settings, progress, read):
    ct, _ = read()
    report = json.loads((template / "report.json").read_text())
    with delivered_into(folder, "report.json") as unfinished:
        for file in template.iterdir():
            shutil.copy(file, unfinished)
        report["input"] |= {"path": str(path), "series_uid": ct.series_uid}
        report["result"]["millilitres"] = float(ct.array[0, 0, :91].sum() + 91000) / 100
        (unfinished / "report.json").write_text(json.dumps(report))
cohort.load_model = dark_model
cohort.segmenting.run_case = copy_result
sys.exit(main(sys.argv[4:]))
"""
"""`airwayseg` that reads each CT, and instead of segmenting it copies a result made once."""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "AirwaySeg"), str(ROOT / "Training")])}


def started(template: Path, *arguments: object) -> "subprocess.Popen[str]":
    """The command in a process of its own, with `STAND_IN` for the engine."""
    own = [str(ROOT / "Testing" / "support"), str(Path(__file__).parent), str(template)]
    command = [sys.executable, "-c", STAND_IN, *own, "cohort", *map(str, arguments), "--progress", "json"]
    path = os.pathsep.join([str(ROOT / "Testing"), environment()["PYTHONPATH"]])
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def cases_of(child: "subprocess.Popen[str]") -> Iterator[dict[str, object]]:
    assert child.stdout is not None
    for line in child.stdout:
        event = json.loads(line)
        if event.get("event") == "case":
            yield event


@pytest.fixture
def a_template(a_quiet_chest, a_dark_network, tmp_path) -> Path:
    """A result to be copied."""
    (tmp_path / "one").mkdir()
    sitk.WriteImage(image_of(small_chest(a_quiet_chest)), str(tmp_path / "one" / "ct.nrrd"))
    assert run(tmp_path / "one", "-o", tmp_path / "template") == 0
    return tmp_path / "template" / "cases" / "ct"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL and SIGTERM")
def test_sixty_cases_that_are_stopped_three_times_give_the_table_of_an_undisturbed_run(
    a_quiet_chest, a_template, tmp_path
):
    save_study(tmp_path / "study", a_quiet_chest, 60, 5)
    out, calm = tmp_path / "out", tmp_path / "calm"
    for kind, after in ((signal.SIGTERM, 9), (signal.SIGKILL, 17), (signal.SIGKILL, 11)):
        with started(a_template, tmp_path / "study", "-o", out) as child:
            for number, _ in enumerate(cases_of(child), start=1):
                if number == after:
                    child.send_signal(kind)
                    break
            child.communicate(timeout=LONG_ENOUGH_S)
        assert child.returncode == (130 if kind == signal.SIGTERM else -9)
        assert not (out / "cohort.csv").exists()
    for folder in (out, calm):
        with started(a_template, tmp_path / "study", "-o", folder) as child:
            tried = [event["case"] for event in cases_of(child)]
            child.communicate(timeout=LONG_ENOUGH_S)
        assert child.returncode == 0
    assert len(tried) == 55 + 2 * 5
    table = rows(out / "cohort.csv")
    assert [row["status"] for row in table].count("finished") == 55
    sentences = [row["error"] for row in table if row["status"] == "failed"]
    assert sorted(re.findall("ct5[0-9]", " ".join(sentences))) == ["ct55", "ct56", "ct57", "ct58", "ct59"]
    assert len(sentences) == 5
    assert without_seconds(out / "cohort.csv") == without_seconds(calm / "cohort.csv")
    for name in ("branches.csv", "generations.csv"):
        assert (out / name).read_bytes() == (calm / name).read_bytes()
    left = [path for path in out.rglob(".*") if not path.name.startswith(".airwayseg-lock")]
    assert not [path for path in left if path.parent != out / "cases"]


def test_a_second_run_into_the_same_folder_is_refused(a_study, a_dark_network, tmp_path, capsys):
    hold = (
        "import sys; from pathlib import Path; from AirwaySegLib.files.folder_lock import locked\n"
        "with locked(Path(sys.argv[1]), 'airwayseg cohort'):\n    print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "out")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        assert run(a_study, "-o", tmp_path / "out") == 2
        assert "is in use by airwayseg cohort" in capsys.readouterr().err
        assert not (tmp_path / "out" / "cases.csv").exists()  # the other run's lists stay as they are
        other.communicate("")
    with locked(tmp_path / "out", "this test"):
        pass


def test_a_worker_runs_the_plug_ins_once_and_before_it_reads_weights(tmp_path):
    plugin, runs = tmp_path / "network.py", tmp_path / "runs"
    plugin.write_text(f"open({str(runs)!r}, 'a').write('x')\n")
    how = cohort.How(tmp_path, SegmentSettings(weights=str(tmp_path / "no.safetensors")), plugins=(plugin,))
    for _ in range(2):
        with pytest.raises(AirwaySegError, match=r"no\.safetensors"):
            cohort.run_in_worker(how, Case("one", tmp_path / "ct.nrrd"))
    assert runs.read_text() == "x"


def test_plug_ins_of_a_cohort_reach_its_workers(a_dark_network, a_study, tmp_path, monkeypatch):
    plugin, asked = tmp_path / "network.py", []
    plugin.write_text("")
    monkeypatch.setattr(cohort, "run_all", lambda cases, how, display, cluster: asked.append(how.plugins) or [])
    assert run(a_study, "-o", tmp_path / "out", "--plugin", plugin) == 2
    assert asked == [(plugin,)]
