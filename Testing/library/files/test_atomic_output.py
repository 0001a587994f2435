"""Results arrive whole or not at all, also after kill -9, and overwrite nothing unasked."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files import atomic_output
from AirwaySegLib.files.atomic_output import check_free, delivered_into

LIBRARY = ROOT / "AirwaySeg"


def test_a_new_folder_appears_with_all_its_files(tmp_path):
    with delivered_into(tmp_path / "a" / "result", last="report") as unfinished:
        (unfinished / "mask").write_text("1")
        assert not (tmp_path / "a" / "result").exists()
        (unfinished / "report").write_text("2")
    assert {path.name for path in (tmp_path / "a" / "result").iterdir()} == {"mask", "report"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), delivered_into(tmp_path / "result", last="report") as unfinished:
        (unfinished / "mask").write_text("1")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_other_files_in_the_folder_stay_and_the_old_result_is_replaced(tmp_path):
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "mask").write_text("old")
    with delivered_into(tmp_path, last="report") as unfinished:
        (unfinished / "mask").write_text("new")
        (unfinished / "report").write_text("r")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"notes": "mine", "mask": "new", "report": "r"}


def test_old_files_that_the_new_result_lacks_do_not_stay_beside_it(tmp_path):
    for name in ("mask", "tree", "notes"):
        (tmp_path / name).write_text("old")
    with delivered_into(tmp_path, last="report", replaced=("mask", "tree", "report")) as unfinished:
        (unfinished / "mask").write_text("new")
        (unfinished / "report").write_text("r")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"notes": "old", "mask": "new", "report": "r"}


@pytest.mark.parametrize("failing", range(6))
def test_when_a_file_cannot_be_moved_the_old_result_comes_back(tmp_path, monkeypatch, failing):
    old = dict.fromkeys(("a", "b", "report", "notes"), "old")
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    replace, moves = os.replace, iter(range(100))

    def replace_or_fail(source: Path, target: Path) -> None:
        if next(moves) == failing:
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(source, target)

    with pytest.raises(AirwaySegError, match="cannot be written into .*Permission denied"):
        with delivered_into(tmp_path, last="report", replaced=("a", "b", "report")) as unfinished:
            for name in ("a", "b", "report"):
                (unfinished / name).write_text("new")
            monkeypatch.setattr(os, "replace", replace_or_fail)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == old


def test_a_folder_that_has_the_name_of_a_result_is_never_replaced(tmp_path):
    (tmp_path / "mask").mkdir()
    with pytest.raises(AirwaySegError, match="mask is a folder; the results need a file of that name"):
        check_free(tmp_path, ("mask", "report"), force=True)


def test_what_only_looks_like_a_killed_runs_remains_is_left_alone(tmp_path):
    strange = [tmp_path / f"{atomic_output._prefix()}{process}-0" for process in ("²", "9" * 30, "-1", "")]
    for path in strange:
        path.mkdir()
    with delivered_into(tmp_path, last="report") as unfinished:
        (unfinished / "report").write_text("r")
    assert set(tmp_path.iterdir()) == {*strange, tmp_path / "report"}


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_to_an_empty_folder_is_filled_and_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "result").symlink_to(tmp_path / "disk")
    with delivered_into(tmp_path / "result", last="report") as unfinished:
        (unfinished / "report").write_text("r")
    assert (tmp_path / "result").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["report"]


def test_the_folder_is_as_private_as_the_user_wants_it(tmp_path):
    (tmp_path / "usual").mkdir()
    with delivered_into(tmp_path / "result", last="report") as unfinished:
        (unfinished / "report").write_text("r")
    assert (tmp_path / "result").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_full_disk_is_one_sentence(tmp_path):
    with pytest.raises(AirwaySegError, match="cannot be written into .*No space left"):
        with delivered_into(tmp_path / "result", last="report"):
            raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_results_that_are_there_are_not_overwritten_unasked(tmp_path):
    (tmp_path / "mask").write_text("old")
    with pytest.raises(AirwaySegError, match="already holds mask; use --force"):
        check_free(tmp_path, ("mask", "report"), force=False)
    check_free(tmp_path, ("mask", "report"), force=True)
    check_free(tmp_path, ("report",), force=False)
    with pytest.raises(AirwaySegError, match="is a file"):
        check_free(tmp_path / "mask", ("report",), force=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_after_kill_9_there_is_no_result_and_the_next_run_clears_the_remains(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from AirwaySegLib.files.atomic_output import delivered_into\n"
        "with delivered_into(Path(sys.argv[1]) / 'result', last='report') as folder:\n"
        "    (folder / 'mask').write_text('1'); print('written', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
    )
    assert child.stdout is not None and child.stdout.readline() == "written\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not (tmp_path / "result").exists()
    assert len(list(tmp_path.iterdir())) == 1
    with delivered_into(tmp_path / "result", last="report") as unfinished:
        (unfinished / "report").write_text("r")
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_old_files_that_cannot_come_back_are_kept_in_a_folder_of_their_own(tmp_path, monkeypatch):
    for name in ("a", "report"):
        (tmp_path / name).write_text("old")
    replace = os.replace

    def no_report_any_more(source: Path, target: Path) -> None:
        if Path(target) == tmp_path / "report":
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(source, target)

    with pytest.raises(AirwaySegError, match=f"{tmp_path} could not get its old report back; they are in .*previous-"):
        with delivered_into(tmp_path, last="report", replaced=("a", "report")) as unfinished:
            for name in ("a", "report"):
                (unfinished / name).write_text("new")
            monkeypatch.setattr(os, "replace", no_report_any_more)
    [kept] = tmp_path.glob("previous-*")
    assert (tmp_path / "a").read_text() == "old" and (kept / "report").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"a", kept.name}
