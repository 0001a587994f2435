"""The whole way on a drawn chest: a stand-in for the network takes all that is dark, the pipeline finds the airways."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import DarkIsAirway
from scipy import ndimage

from AirwaySegLib import pipeline
from AirwaySegLib.errors import AirwaySegError, Cancelled
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.networks.weights import ModelInfo
from AirwaySegLib.networks.wingsnet import WingsNet
from AirwaySegLib.pipeline import Model, RunReport, segment
from AirwaySegLib.progress import silent
from AirwaySegLib.repair.bridge import MAIN, NETWORK, Bridge
from AirwaySegLib.repair.network_bridges import touched_by
from AirwaySegLib.repair.repair import RepairModel
from AirwaySegLib.settings import SegmentSettings

WINDOW_HU = (-1000.0, 600.0)


def _model(**changes) -> Model:
    wide = {"spacing_mm_min": (0.1, 0.1, 0.1), "spacing_mm_max": (9.0, 9.0, 9.0)}
    info = ModelInfo(name="dark", window_hu=WINDOW_HU, patch_zyx=(64, 64, 64), **{**wide, **changes})
    return Model(WingsNet(), info, "0" * 64, DarkIsAirway(), RepairModel("path", 0.5))


def _dice(one: np.ndarray, two: np.ndarray) -> float:
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


def test_the_airways_are_found_and_outside_air_and_stomach_are_not(a_chest, a_quiet_chest):
    run_report = RunReport()
    volume = Volume(a_quiet_chest, a_chest.spacing_mm)
    airways = segment(volume, _model(), SegmentSettings(), run_report, silent)
    expected = a_chest.trachea | a_chest.bronchi
    assert _dice(airways.mask, expected) > 0.97
    assert airways.probability.dtype == np.uint8 and airways.probability.shape == a_chest.hu.shape
    assert run_report.warnings == []
    assert run_report.decisions["threshold"] == 0.35 and run_report.decisions["calibration_hu"] == 0
    assert set(run_report.seconds) == {"prepare", "infer", "select", "repair"}


def test_the_time_of_the_network_is_told_before_it_runs(a_chest, a_quiet_chest, monkeypatch):
    said = []
    model = _model()
    monkeypatch.setattr(pipeline, "search", lambda *_: said.append("the network runs") or 1 / 0)
    for window_seconds in (0.0, 2.0):  # 0: of a backend that was given
        model.window_seconds = window_seconds
        with pytest.raises(ZeroDivisionError):
            segment(
                Volume(a_quiet_chest, a_chest.spacing_mm), model, SegmentSettings(), RunReport(tell=said.append), silent
            )
    assert said[0] == said[2] == "the network runs" and len(said) == 3
    assert said[1].startswith("The network runs up to ") and said[1].endswith(" on this computer, or less.")


def test_a_mirrored_and_turned_scan_gives_the_mirrored_and_turned_airways(a_chest, a_quiet_chest):
    hu = a_quiet_chest
    plain = segment(Volume(hu, a_chest.spacing_mm), _model(), SegmentSettings(), RunReport(), silent).mask
    # Stored feet first and with rows from left to right: axes y, z (downwards), x (to the right).
    turned = np.ascontiguousarray(hu[::-1, :, ::-1].transpose(1, 0, 2))
    spacing = (a_chest.spacing_mm[1], a_chest.spacing_mm[0], a_chest.spacing_mm[2])
    direction = (-1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0)
    volume = Volume(turned, spacing, (0.0, 0.0, 0.0), direction)
    mask = segment(volume, _model(), SegmentSettings(), RunReport(), silent).mask
    assert np.array_equal(mask, plain[::-1, :, ::-1].transpose(1, 0, 2))


def test_a_spacing_that_the_network_does_not_know_is_resampled_there_and_back(a_chest, a_quiet_chest):
    run_report = RunReport()
    model = _model(spacing_mm_max=(2.0, 1.2, 1.2))
    airways = segment(Volume(a_quiet_chest, a_chest.spacing_mm), model, SegmentSettings(), run_report, silent)
    assert run_report.decisions["network_spacing_mm"] == [2.0, 1.2, 1.2]
    assert airways.mask.shape == a_chest.hu.shape
    expected = a_chest.trachea | a_chest.bronchi
    # Interpolation brightens the lumen's rim, which the stand-in then misses; the place must be right all the same.
    assert _dice(airways.mask, expected) > 0.85 and (airways.mask & ~expected).sum() < 0.02 * expected.sum()
    for axis in range(3):
        for step in (-1, 1):
            assert _dice(np.roll(airways.mask, step, axis), expected) < _dice(airways.mask, expected)


def test_a_part_of_the_trachea_that_the_network_missed_is_filled_from_the_ct(a_chest, a_quiet_chest, monkeypatch):
    slices = slice(70, 80)
    beside = a_chest.trachea & (np.indices(a_chest.hu.shape)[2] > 86)  # the half that the network takes for oesophagus
    found = pipeline.airway_probability

    def doubtful(*arguments):
        probability = found(*arguments)
        whole = np.zeros(a_chest.hu.shape, bool)
        whole[slices] = beside[slices]
        probability[whole[box]] = 0
        return probability

    volume = Volume(a_quiet_chest, a_chest.spacing_mm)
    box = pipeline.survey(volume, RunReport(), silent).box
    monkeypatch.setattr(pipeline, "airway_probability", doubtful)
    airways = segment(volume, _model(), SegmentSettings(), RunReport(), silent)
    assert airways.mask[slices][a_chest.trachea[slices]].all()
    assert not airways.probability[slices][beside[slices]].any()


def test_a_scan_without_a_trachea_says_so_and_keeps_what_may_be_airway(a_chest, a_quiet_chest):
    run_report = RunReport()
    below = slice(0, 46)  # ends 7.5 mm below the carina
    airways = segment(Volume(a_quiet_chest[below], a_chest.spacing_mm), _model(), SegmentSettings(), run_report, silent)
    assert any("No trachea was found" in warning for warning in run_report.warnings)
    assert airways.mask[a_chest.bronchi[below]].mean() > 0.9


def test_an_open_bronchus_that_the_network_does_not_see_is_grown_and_leads_to_the_fragment_behind_it(
    a_chest, a_quiet_chest, monkeypatch
):
    right = a_chest.bronchi.copy()
    right[:, :, 88:] = False
    blind = right.copy()
    blind[:36] = False  # below it the network sees the bronchus again
    airways = a_chest.trachea | a_chest.bronchi
    hu = a_quiet_chest.copy()
    hu[ndimage.binary_dilation(airways, np.ones((3, 3, 3))) & ~airways] = 0  # a wall, also where they lie in lung
    volume = Volume(hu, a_chest.spacing_mm)
    box = pipeline.survey(volume, RunReport(), silent).box
    found = pipeline.airway_probability

    def half_blind(*arguments):
        probability = found(*arguments)
        probability[blind[box]] = 0
        return probability

    monkeypatch.setattr(pipeline, "airway_probability", half_blind)
    run_report, plain_report = RunReport(), RunReport()
    grown = segment(volume, _model(), SegmentSettings(repair="none"), run_report, silent)
    plain = segment(volume, _model(), SegmentSettings(repair="none", open_lumen="no"), plain_report, silent)
    assert plain.open_lumen is None and "open_lumen" not in plain_report.decisions
    assert not plain.mask[right][: right[:40].sum()].any()
    assert grown.mask[blind].mean() > 0.8 and grown.mask[right & ~blind].all()
    assert (grown.open_lumen & ~airways).sum() < 0.02 * grown.open_lumen.sum()
    assert (grown.open_lumen & right).sum() > 0.9 * grown.open_lumen.sum() > 0
    assert np.array_equal(grown.probability, plain.probability)
    told = run_report.decisions["open_lumen"]
    assert told["voxels_added"] == grown.open_lumen.sum() and told["fragments_reached"] == 1
    assert told["voxels_of_fragments"] > 0 and 20 < told["length_mm_added"] < 80
    assert not (plain.mask & ~grown.mask).any()


def test_cancelling_ends_it(a_chest, a_quiet_chest):
    def cancel(stage: str, _done: int, _total: int) -> None:
        if stage == "infer":
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        segment(Volume(a_quiet_chest, a_chest.spacing_mm), _model(), SegmentSettings(), RunReport(), cancel)


# Repair --------------------------------------------------------------------------------------------------------------


MUCUS_HU = -397


def _sees_mucus(hu, labels, _spacing_mm, _progress) -> list[Bridge]:
    """A stand-in for the repair network: one bridge of all that is mucus, between what it touches."""
    voxels = np.argwhere((hu == MUCUS_HU) & (labels == 0)).astype(np.int32)
    joins = sorted({number for _, number in touched_by(voxels, np.zeros(len(voxels), int), labels).tolist()})
    return [Bridge(tuple(joins), voxels, 0.9, NETWORK, 3.0)]


@pytest.fixture
def a_broken_chest(a_chest, a_quiet_chest) -> tuple[Volume, np.ndarray]:
    """A chest whose right main bronchus is full of something over two slices, and what hangs below it."""
    hu = a_quiet_chest.copy()
    gap = slice(38, 40)
    hu[gap, :, :88][a_chest.bronchi[gap, :, :88]] = MUCUS_HU
    behind = a_chest.bronchi.copy()
    behind[gap.start :], behind[:, :, 88:] = False, False
    return Volume(hu, a_chest.spacing_mm, (5.0, 6.0, 7.0)), behind


def test_what_hangs_behind_a_breakage_is_joined_and_the_report_says_so(a_broken_chest):
    volume, behind = a_broken_chest
    assert behind.sum() > 500
    run_report, whole = RunReport(), RunReport()
    without = segment(volume, _model(), SegmentSettings(repair="none"), whole, silent)
    assert without.repaired is None and not without.mask[behind].any() and "repair" not in whole.seconds
    stages = []
    model = replace(_model(), repair_model=RepairModel("network", 0.5, _sees_mucus))
    joined = segment(volume, model, SegmentSettings(), run_report, lambda stage, *_: stages.append(stage))
    assert joined.mask[without.mask].all() and joined.mask[behind].all()
    assert np.array_equal(joined.probability, without.probability)
    told = run_report.decisions["repair"]
    assert told["applied"] == told["fragments_joined"] == 1 and told["method"] == "network"
    assert told["voxels_added"] == (joined.mask & ~without.mask).sum()
    assert "repair" in stages and run_report.seconds["repair"] >= 0 and run_report.warnings == []
    place = (np.array(joined.repaired.proposals[0].place_mm) - volume.origin_mm) / volume.spacing_mm[::-1]
    assert 37 <= place[2] <= 40 and joined.mask[tuple(np.rint(place[::-1]).astype(int))]


@pytest.mark.parametrize(
    ("error", "words"),
    [(AirwaySegError("It is too much."), "It is too much."), (RuntimeError("the GPU is full"), "the GPU is full")],
)
def test_a_repair_that_fails_costs_a_warning_and_not_the_tree(a_broken_chest, monkeypatch, error, words):
    def fails(*_arguments):
        raise error

    volume, _ = a_broken_chest
    run_report = RunReport()
    monkeypatch.setattr(pipeline, "repair", fails)
    airways = segment(volume, _model(), SegmentSettings(), run_report, silent)
    assert airways.mask.any() and airways.repaired is None
    assert len(run_report.warnings) == 1 and run_report.warnings[0].startswith("Nothing was repaired")
    assert words in run_report.warnings[0]


def test_cancelling_the_repair_ends_it(a_broken_chest):
    def cancel(stage: str, _done: int, _total: int) -> None:
        if stage == "repair":
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        segment(a_broken_chest[0], _model(), SegmentSettings(), RunReport(), cancel)


def test_without_a_trachea_fragments_are_joined_to_any_of_the_trees(a_chest, a_quiet_chest):
    volume, run_report = Volume(a_quiet_chest[:46], a_chest.spacing_mm), RunReport()
    airways = segment(volume, _model(), SegmentSettings(), run_report, silent)
    assert airways.repaired is not None
    main = airways.repaired.grid.array == MAIN
    assert label_components(main).max() == run_report.decisions["trees"] >= 1
