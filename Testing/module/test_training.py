"""A real fine-tuning through the panel: cases of drawn trees, the bundled weights, a few steps."""

import json
import os

import module_scenes as scenes
import numpy as np
import pytest
import slicer

LIMIT_S = 3600
"""A training on a busy computer; what can bring it no further is heard of before."""

QUICKLY = "--steps 2 --patch 32 --batch 1"

LIMIT_S = 1200
"""A minute of one processor's work, beside whatever else the machine does."""


@pytest.fixture
def a_real_desk(slicer_host, tmp_path, monkeypatch):
    """The panel beside a drawn CT; every command is real, but a training takes two steps."""
    from module_desk import Desk

    folder = tmp_path / "bin"
    folder.mkdir()
    path = scenes.python_slicer(folder)
    script = folder / "PythonSlicer"
    script.write_text(script.read_text().replace("exec", f'[ "$3" = finetune ] && set -- "$@" {QUICKLY}\nexec', 1))
    monkeypatch.setenv("PATH", path, prepend=os.pathsep)
    monkeypatch.setenv("AIRWAYSEG_MODELS", str(tmp_path / "weights"))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    return Desk(slicer_host, *scenes.a_ct("First"))


@pytest.mark.slow
def test_two_corrected_cases_are_added_and_trained_on(a_real_desk, tmp_path):
    second, _mask = scenes.a_ct("Second")
    slicer.util.arrayFromVolume(second)[0] += 10  # another scan
    a_real_desk.open("trainTab")
    a_real_desk.ui.trainingFolderEdit.currentPath = str(tmp_path / "data")
    for ct in (a_real_desk.ct, second):
        a_real_desk.ct = ct
        mine = a_real_desk.draw(f"{ct.GetName()} airways", airways=a_real_desk.mask)
        a_real_desk.choose("inputSelector", ct)
        a_real_desk.choose("airwaysSelector", mine)
        a_real_desk.click("addCaseButton")
        a_real_desk.wait(limit_s=LIMIT_S)
    assert not a_real_desk.host.messages and a_real_desk.ui.casesList.count == 2
    a_real_desk.ui.newModelEdit.text = "ours"
    a_real_desk.click("finetuneButton")
    stages = set()
    a_real_desk.host.pump(
        lambda: stages.add(a_real_desk.ui.finetuneLabel.text.split(":")[0]) or stages >= {"Training"}, LIMIT_S
    )
    a_real_desk.wait(limit_s=LIMIT_S)
    assert not a_real_desk.host.messages
    about = json.loads((tmp_path / "data/runs/ours/finetune.json").read_text())
    [held_out] = about["after"]
    assert held_out.split("-")[0] in ("First", "Second")
    table = a_real_desk.ui.outcomeTable
    texts = [[table.item(row, column).text() for column in range(3)] for row in range(table.rowCount)]
    assert [
        f"{held_out}: tree length",
        *(f"{100 * about[when][held_out]['tld']:.1f}" for when in ("before", "after")),
    ] in texts
    assert np.isfinite([float(text) for row in texts for text in row[1:]]).all()
    said = a_real_desk.ui.finetuneLabel.text
    assert said.startswith("Better, and listed as ours" if about["better"] else "Not better, and not listed")
