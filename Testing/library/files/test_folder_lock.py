"""Tests of the lock: one run at a time in a folder, and nobody kept out by a run that has ended."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files import folder_lock
from AirwaySegLib.files.folder_lock import locked

LIBRARY = ROOT / "AirwaySeg"

HOLD = (
    "import sys; from pathlib import Path; from AirwaySegLib.files.folder_lock import locked\n"
    "with locked(Path(sys.argv[1]), 'airwayseg measure'):\n"
    "    print('locked', flush=True); sys.stdin.read()\n"
    "print('freed', flush=True)"
)


def _child(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
    )


@pytest.fixture
def a_holder(tmp_path):
    """Another process that works in the folder `result`."""
    with _child(HOLD, tmp_path / "result") as child:
        assert child.stdout is not None and child.stdout.readline() == "locked\n"
        yield child
        child.kill()


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_in_which_another_run_works_is_refused_until_that_ends(tmp_path, exists):
    result = tmp_path / "out" / "result"
    if exists:
        result.mkdir(parents=True)
    with _child(HOLD, result) as child:
        assert child.stdout is not None and child.stdout.readline() == "locked\n"
        with pytest.raises(AirwaySegError, match=rf"result is in use by airwayseg measure \(process {child.pid} on "):
            with locked(result, "airwayseg repair"):
                pass
        with locked(tmp_path / "out" / "other", "airwayseg repair"):
            pass
        assert child.communicate("")[0] == "freed\n"
    with locked(result, "airwayseg repair"):
        pass
    left = list(tmp_path.rglob("*"))
    assert left == ([tmp_path / "out", result] if exists else [])


def test_a_folder_is_the_same_by_any_of_its_names(a_holder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AirwaySegError, match="in use"), locked(Path("result"), "airwayseg repair"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_run_keeps_nobody_out_and_the_next_run_clears_its_lock_file(a_holder, tmp_path):
    a_holder.send_signal(signal.SIGKILL)
    a_holder.wait()
    with locked(tmp_path / "result", "airwayseg repair"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_same_process_may_lock_again_and_holds_until_the_outer_end(tmp_path):
    with locked(tmp_path / "result", "airwayseg-train finetune"):
        with locked(tmp_path / "result", "airwayseg-train fit"):
            pass
        with _child(HOLD, tmp_path / "result") as child:  # a child process counts as the same
            assert child.stdout is not None and child.stdout.readline() == "locked\n"
            child.communicate("")
        assert [path.name for path in tmp_path.iterdir()] == [".airwayseg-lock+result"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
def test_a_worker_that_outlives_a_killed_run_keeps_nobody_out(tmp_path):
    program = (
        "import os, sys, time; from pathlib import Path; from AirwaySegLib.files.folder_lock import locked\n"
        "with locked(Path(sys.argv[1]), 'airwayseg-train fit'):\n"
        "    worker = os.fork()\n"
        "    if worker == 0:\n"
        "        print('forked', flush=True); sys.stdin.read(); os._exit(0)\n"
        "    time.sleep(600)"
    )
    with _child(program, tmp_path / "result") as child:
        assert child.stdout is not None and child.stdout.readline() == "forked\n"
        with pytest.raises(AirwaySegError, match="in use"), locked(tmp_path / "result", "airwayseg-train fit"):
            pass
        child.kill()
        child.wait()
        with locked(tmp_path / "result", "airwayseg-train fit"):
            pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_does_not_stop_the_run(tmp_path, monkeypatch, number):
    def no_locks(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folder_lock, "_lock", no_locks)
    with locked(tmp_path / "result", "airwayseg measure"):
        (tmp_path / "result").mkdir()
    assert (tmp_path / "result").is_dir()


def test_a_mounted_folder_is_locked_inside_for_all_machines_that_mount_it(tmp_path, monkeypatch):
    (tmp_path / "result").mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == tmp_path / "result")
    with locked(tmp_path / "result", "airwayseg measure"):
        assert [path.name for path in (tmp_path / "result").iterdir()] == [".airwayseg-lock"]
    assert list((tmp_path / "result").iterdir()) == []


def test_a_lock_file_of_another_user_that_can_only_be_read_locks_too(tmp_path, monkeypatch):
    opened = os.open

    def not_mine(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR and ".airwayseg-lock" in str(path) and os.path.exists(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *mode)

    result = tmp_path / "result"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(result)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == "locked\n"
        monkeypatch.setattr(os, "open", not_mine)
        with pytest.raises(AirwaySegError, match="in use by airwayseg measure"), locked(result, "airwayseg repair"):
            pass
