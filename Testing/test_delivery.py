"""Results arrive whole or not at all, also after kill -9, and overwrite nothing unasked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from AirwaySegLib.delivery import check_free, delivered_into
from AirwaySegLib.errors import AirwaySegError

LIBRARY = Path(__file__).parents[1] / "AirwaySeg"


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
        "import sys, time; from pathlib import Path; from AirwaySegLib.delivery import delivered_into\n"
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
    time.sleep(0.05)
    assert not (tmp_path / "result").exists()
    assert len(list(tmp_path.iterdir())) == 1
    with delivered_into(tmp_path / "result", last="report") as unfinished:
        (unfinished / "report").write_text("r")
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
