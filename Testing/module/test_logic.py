"""Tests of AirwaySegLogic without a panel, as Slicer's Python console and batch scripts use it."""

import os

import module_scenes as scenes
import numpy as np
import pytest

from AirwaySegSlicer.scene import nodes, overlays, segments


@pytest.fixture
def a_logic(slicer_host, tmp_path, monkeypatch):
    """The logic; segmenting is a stand-in, measuring is real."""
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path, stand_ins=True), prepend=os.pathsep)
    monkeypatch.setenv("AIRWAYSEG_KEPT", str(tmp_path / "kept"))
    import AirwaySeg as module

    logic = module.AirwaySegLogic()
    yield logic
    logic.close()


def test_a_ct_is_segmented_measured_coloured_and_exported_in_four_lines(a_logic, tmp_path):
    ct, mask = scenes.a_ct()
    airways = a_logic.segment(ct)
    a_logic.showOverlay(airways, "diameter")
    written = a_logic.export(airways, str(tmp_path / "mask.nii.gz"))
    folder = a_logic.exportCase(airways, str(tmp_path / "case"))
    assert np.array_equal(segments.mask_on_ct(airways, ct), mask)
    assert nodes.companion(airways, nodes.CENTERLINE) is not None
    assert overlays.shown_overlay(airways) == "diameter"
    assert all(os.path.exists(path) for path in written) and "tree.json" in os.listdir(folder)
    a_logic.showOverlay(airways, "")
    assert not overlays.shown_overlay(airways)


def test_a_failure_raises_its_sentence_and_the_next_ct_can_be_segmented(a_logic, monkeypatch):
    ct, _mask = scenes.a_ct()
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "fail")
    with pytest.raises(RuntimeError, match="The scan shows no chest"):
        a_logic.segment(ct)
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "")
    assert a_logic.segment(ct, measure=False).GetName() == "CT airways"


def test_the_installation_can_be_looked_at(a_logic):
    found = a_logic.checkInstallation()
    assert found.models == ["default", "mine"] and len(found.findings) == 5
