"""A command that is started before its input is written: `python -m AirwaySegLib.early`."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from phantoms import a_forked_tree, draw_tubes

from AirwaySegLib.early import LOADED, arguments_in, run_early


def test_the_command_waits_for_its_arguments_and_measures(tmp_path):
    arguments = tmp_path / "arguments.json"
    child = subprocess.Popen([sys.executable, "-m", "AirwaySegLib.early", "measure", str(arguments)])
    mask = draw_tubes(a_forked_tree(), (100, 45, 95), (2.0, 2.0, 2.0)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / "mask.nrrd"))
    unfinished = tmp_path / "unfinished"
    given = [str(tmp_path / "mask.nrrd"), "-o", str(tmp_path / "result"), "--voxels", "--progress", "none"]
    unfinished.write_text(json.dumps(given))
    unfinished.rename(arguments)
    assert child.wait(timeout=600) == 0
    assert (tmp_path / "result" / "tree.json").exists()


def test_it_ends_when_the_folder_goes_or_nothing_comes(tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    assert arguments_in(folder / "arguments.json", longest_s=0.05) is None
    threading.Timer(0.1, folder.rmdir).start()
    begun = time.monotonic()
    assert arguments_in(folder / "arguments.json") is None
    assert time.monotonic() - begun < 300


def test_other_commands_are_refused(capsys):
    assert run_early("segment", Path("none")) == 2
    assert "can start early" in capsys.readouterr().err
    assert set(LOADED) == {"measure"}
