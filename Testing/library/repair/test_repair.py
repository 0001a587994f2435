"""`airwayseg repair` and the repair within `airwayseg segment`: what is joined, which files, what is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import a_forked_tree, draw_tubes
from source_tree import ROOT

from AirwaySegLib.__main__ import main
from AirwaySegLib.commands import repair as repairing
from AirwaySegLib.commands.repair import FILES, MASK
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.progress import silent
from AirwaySegLib.repair.bridge import MAIN, NETWORK, PATH, Bridge
from AirwaySegLib.repair.proposal import APPLIED, PROPOSED, from_json
from AirwaySegLib.repair.repair import (
    RepairModel,
    Source,
    number_components,
    open_repair_model,
    repair,
    unrepaired,
    whole_hu,
)
from AirwaySegLib.settings import SegmentSettings

TREE = ROOT
SHAPE, SPACING_MM = (160, 64, 144), (1.25, 1.25, 1.25)
GAP = slice(50, 54)
"""Slices of the right lower lobe's tube that are missing, 5 mm."""


@pytest.fixture(scope="module")
def a_whole_tree() -> np.ndarray:
    return draw_tubes(a_forked_tree(), SHAPE, SPACING_MM)


@pytest.fixture(scope="module")
def a_broken_tree(a_whole_tree) -> np.ndarray:
    """The tree with a gap in the right lower lobe's tube, so that a fragment hangs below it."""
    broken = a_whole_tree.copy()
    broken[GAP, :, :72] = False
    assert label_components(broken).max() == 2
    return broken


def written(values: np.ndarray, path: Path, turned: bool = False) -> Path:
    """Store an array; ``turned``: upside down and from right to left, with an origin of its own."""
    image = sitk.GetImageFromArray(values.astype(np.uint8) if values.dtype == bool else values)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin((-100.0, 30.0, 12.0))
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS") if turned else image, str(path))
    return path


def ct_of(airways: np.ndarray) -> np.ndarray:
    """Dark airways in the lung's tissue, and a wall of the chest on one side; int16."""
    hu = np.where(airways, -950, -820).astype(np.int16)
    hu[:, -3:] = 40
    return hu


def read(path: Path) -> np.ndarray:
    """The array of a file turned to LPS."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"))


def airwayseg(*arguments: object) -> int:
    return main([*map(str, arguments), "--progress", "none"])


@pytest.fixture(scope="module")
def a_result(a_broken_tree, a_whole_tree, tmp_path_factory) -> Path:
    """What the command makes of a broken tree that is stored in other axes, with its CT, along paths."""
    folder = tmp_path_factory.mktemp("repair")
    mask = written(a_broken_tree, folder / "broken.nii.gz", turned=True)
    ct = written(ct_of(a_whole_tree), folder / "ct.nrrd", turned=True)
    assert airwayseg("repair", mask, "--ct", ct, "--repair", "path", "-o", folder / "r") == 0
    return folder / "r"


def test_a_broken_branch_is_joined_and_nothing_of_the_tree_is_lost(a_result, a_broken_tree, a_whole_tree):
    mask = read(a_result / MASK) > 0
    assert label_components(mask).max() == 1
    assert mask[a_broken_tree].all()
    added = mask & ~a_broken_tree
    assert added.any() and added[GAP].sum() > 0.7 * added.sum()
    assert (added & a_whole_tree).sum() > 0.7 * added.sum()


def test_everything_promised_is_there_on_the_masks_own_grid(a_result):
    assert {path.name for path in a_result.iterdir()} == {MASK, *FILES}
    own = sitk.ReadImage(str(a_result.parent / "broken.nii.gz"))
    kinds = {MASK: sitk.sitkUInt8, repairing.REPAIRS: sitk.sitkUInt16, repairing.LOOSE: sitk.sitkUInt16}
    for name, kind in kinds.items():
        image = sitk.ReadImage(str(a_result / name))
        assert image.GetPixelID() == kind and image.GetSize() == own.GetSize()
        assert image.GetOrigin() == pytest.approx(own.GetOrigin())
        assert image.GetDirection() == pytest.approx(own.GetDirection())


def test_map_and_list_tell_of_the_same_voxels_and_place(a_result, a_broken_tree):
    proposals = from_json((a_result / repairing.PROPOSALS).read_text())
    numbers = read(a_result / repairing.REPAIRS)
    mask = read(a_result / MASK) > 0
    applied = [proposal for proposal in proposals if proposal.state == APPLIED]
    assert len(applied) == 1
    of_bridge = numbers == applied[0].number
    assert np.array_equal(of_bridge, mask & ~a_broken_tree)
    assert {tuple(voxel) for voxel in np.argwhere(of_bridge)} == {tuple(voxel) for voxel in applied[0].bridge.voxels}
    told = json.loads((a_result / repairing.PROPOSALS).read_text())["summary"]
    assert told["method"] == "path" and told["applied"] == 1
    assert told["voxels_added"] == mask.sum() - (label_components(a_broken_tree) == 1).sum()
    assert told["voxels_left_out"] == np.count_nonzero(a_broken_tree & ~mask)
    image = sitk.ReadImage(str(a_result / repairing.REPAIRS))
    assert image[image.TransformPhysicalPointToIndex(applied[0].place_mm)] == applied[0].number


def test_without_repair_the_fragment_is_set_aside(a_broken_tree, tmp_path):
    mask = written(a_broken_tree, tmp_path / "broken.nrrd")
    assert airwayseg("repair", mask, "--repair", "none", "-o", tmp_path / "r") == 0
    kept, loose = read(tmp_path / "r" / MASK) > 0, read(tmp_path / "r" / repairing.LOOSE)
    assert np.array_equal(kept | (loose > 0), a_broken_tree) and not (kept & (loose > 0)).any()
    assert set(np.unique(loose)) == {0, 2}
    assert from_json((tmp_path / "r" / repairing.PROPOSALS).read_text()) == []


def test_below_the_threshold_it_is_only_proposed(a_broken_tree, tmp_path, capsys):
    mask = written(a_broken_tree, tmp_path / "broken.nrrd")
    assert airwayseg("repair", mask, "--repair", "path", "--repair-threshold", 1, "-o", tmp_path / "r") == 0
    proposals = from_json((tmp_path / "r" / repairing.PROPOSALS).read_text())
    assert PROPOSED in [proposal.state for proposal in proposals]
    assert "proposed" in capsys.readouterr().out
    assert np.array_equal(read(tmp_path / "r" / MASK) > 0, label_components(a_broken_tree) == 1)


# Which bridges are looked for ----------------------------------------------------------------------------------------


def a_bridge(*joins: int, method: str = PATH) -> Bridge:
    return Bridge(joins, np.array([[0, 0, sum(joins)]], np.int32), 0.9, method, 2.0)


def test_the_component_that_holds_the_tree_is_the_main_one_even_if_it_is_smaller():
    mask = np.zeros((5, 5, 30), bool)
    mask[2, 2, 0:4] = mask[2, 2, 6:20] = mask[2, 2, 22:24] = True
    labels = number_components(mask, None)
    assert [int(labels[2, 2, x]) for x in (0, 6, 22)] == [2, 1, 3]
    tree = np.zeros_like(mask)
    tree[2, 2, 22:24] = True
    assert [int(number_components(mask, tree)[2, 2, x]) for x in (0, 6, 22)] == [3, 2, MAIN]
    assert np.array_equal(number_components(mask, np.zeros_like(mask)), labels)


def test_where_the_tree_is_several_components_all_of_them_are_the_main_one():
    mask = np.zeros((5, 5, 30), bool)
    mask[2, 2, 0:4] = mask[2, 2, 6:20] = mask[2, 2, 22:24] = True
    tree = np.zeros_like(mask)
    tree[2, 2, 0:4] = tree[2, 2, 22:24] = True
    labels = number_components(mask, tree)
    assert [int(labels[2, 2, x]) for x in (0, 6, 22, 5)] == [MAIN, 2, MAIN, 0]


def test_what_is_brighter_than_int16_holds_stays_bright():
    hu = np.array([[[-1024, 0, 32767]]], np.int16)
    assert whole_hu(hu) is hu
    assert whole_hu(hu, 24.4).tolist() == [[[-1000, 24, 32767]]]
    assert whole_hu(np.array([[[-999.6, 1e6]]], np.float32)).tolist() == [[[-1000, 32767]]]


def test_where_nothing_was_looked_for_nothing_is_loose():
    for voxels in (0, 9):
        mask = np.zeros((20, 20, 20), bool)
        mask[5 : 5 + voxels, 5, 5] = mask[5 : 5 + voxels, 15, 15] = True
        told = unrepaired(Volume(mask, SPACING_MM))
        assert not told.loose().any() and told.proposals == [] and told.summary()["fragments"] == 0
        assert np.array_equal(told.whole_mask(mask.shape), mask)


def test_without_the_networks_weights_both_become_paths_and_the_network_alone_is_refused(monkeypatch):
    def missing(name):
        raise AirwaySegError(f"There are no weights {name!r}.")

    monkeypatch.setattr("AirwaySegLib.repair.network_bridges.load_connector", missing)
    repair_model = open_repair_model(SegmentSettings(repair="both"))
    assert repair_model.method == "path" and repair_model.network is None
    assert "no weights" in repair_model.warnings[0] and "paths alone" in repair_model.warnings[0]
    for plain in ("path", "none"):
        assert open_repair_model(SegmentSettings(repair=plain)).warnings == ()
    with pytest.raises(AirwaySegError, match="no weights 'breakage'"):
        open_repair_model(SegmentSettings(repair="network"))
    # whoever names weights wants these
    with pytest.raises(AirwaySegError, match="no weights 'mine'"):
        open_repair_model(SegmentSettings(repair="both", repair_weights="mine"))


@pytest.fixture
def a_connector(tmp_path) -> Path:
    """Untrained weights of the repair network."""
    from AirwaySegLib.networks.connection_net import Connector
    from AirwaySegLib.networks.weights import ModelInfo, save_weights
    from AirwaySegLib.repair.network_bridges import BREAKAGE_WINDOW_HU

    window = BREAKAGE_WINDOW_HU
    info = ModelInfo("mine", 2, 1, "batch", window, None, (64, 64, 64), architecture="connector")
    save_weights(tmp_path / "mine.safetensors", Connector(), info)
    return tmp_path / "mine.safetensors"


def test_with_weights_the_network_runs_and_the_list_names_them(
    a_connector, a_broken_tree, a_whole_tree, tmp_path, one_thread
):
    mask, ct = written(a_broken_tree, tmp_path / "m.nrrd"), written(ct_of(a_whole_tree), tmp_path / "ct.nrrd")
    command = ["repair", mask, "--ct", ct, "--repair-weights", a_connector, "--device", "cpu", "-o", tmp_path / "r"]
    assert airwayseg(*command) == 0
    told = json.loads((tmp_path / "r" / repairing.PROPOSALS).read_text())["summary"]
    assert told["method"] == "both" and told["weights"]["name"] == "mine" and len(told["weights"]["sha256"]) == 64


def test_without_a_ct_the_network_is_refused_in_a_sentence(a_broken_tree, tmp_path, capsys):
    mask = written(a_broken_tree, tmp_path / "broken.nrrd")
    assert airwayseg("repair", mask, "--repair", "network", "-o", tmp_path / "r") == 2
    said = capsys.readouterr().err
    assert "needs the CT" in said and said.count("\n") == 1
    assert not (tmp_path / "r").exists()
    assert airwayseg("repair", mask, "-o", tmp_path / "r") == 0
    assert json.loads((tmp_path / "r" / repairing.PROPOSALS).read_text())["summary"]["method"] == "path"


def test_the_network_sees_the_part_around_the_tree_and_its_bridges_come_first(a_broken_tree, a_whole_tree):
    seen = {}

    def network(hu, labels, spacing_mm, progress):
        seen.update(hu=hu, labels=labels, spacing_mm=spacing_mm)
        gap = np.argwhere((hu < -900) & (labels == 0)).astype(np.int32)
        return [Bridge((1, 2), gap, 0.95, NETWORK, 5.0)]

    wide = [(50, 50)] * 3
    mask = Volume(np.pad(a_broken_tree, wide), SPACING_MM)
    source = Source(mask, np.pad(ct_of(a_whole_tree), wide, constant_values=-820))
    result = repair(source, RepairModel("both", 0.5, network), silent)
    assert seen["hu"].shape == seen["labels"].shape < mask.array.shape and seen["spacing_mm"] == SPACING_MM
    assert [proposal.bridge.method for proposal in result.proposals] == [NETWORK]
    assert np.array_equal(result.whole_mask(mask.array.shape), np.pad(a_whole_tree, wide))


def test_a_path_takes_the_place_of_a_bridge_that_would_close_a_loop(a_broken_tree, a_whole_tree):
    gap = a_whole_tree & ~a_broken_tree
    _, y, x = np.argwhere(gap).mean(axis=0).round().astype(int)
    with_handle = gap.copy()
    with_handle[GAP.start - 4 : GAP.stop + 4, y + 8, x] = True
    for end in (GAP.start - 4, GAP.stop + 3):
        with_handle[end, y : y + 9, x] = True
    handle = np.argwhere(with_handle & ~a_broken_tree).astype(np.int32)

    def network(hu, labels, spacing_mm, progress):
        assert labels.shape == a_broken_tree.shape
        return [Bridge((1, 2), handle, 0.99, NETWORK, 5.0)]

    source = Source(Volume(a_broken_tree, SPACING_MM), ct_of(a_whole_tree))
    result = repair(source, RepairModel("both", 0.5, network), silent)
    assert [(proposal.bridge.method, proposal.state) for proposal in result.proposals] == [(PATH, APPLIED)]
    assert label_components(result.whole_mask(a_broken_tree.shape)).max() == 1


# What may be asked of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.zeros((9, 9, 9), np.uint8), "empty"),
        (np.full((9, 9, 9), -1000, np.int16), "it is a CT"),
        (np.full((9, 9, 9), 0.5, np.float32), "fractions"),
        (np.ones((9, 9), np.uint8), "three axes"),
        (np.ones((101, 100, 100), np.uint8), "1010 ml"),
    ],
    ids=["empty", "CT", "fractions", "flat", "lungs"],
)
def test_what_is_no_mask_is_refused_in_a_sentence_and_leaves_nothing(values, sentence, tmp_path, capsys):
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "mask.nrrd"))
    assert airwayseg("repair", tmp_path / "mask.nrrd", "--repair", "path", "-o", tmp_path / "r") == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nrrd"]


@pytest.mark.parametrize("option", ["--ct", "--probability"])
def test_another_grid_is_refused(option, a_broken_tree, tmp_path, capsys):
    mask = written(a_broken_tree, tmp_path / "mask.nrrd")
    values = np.arange(1728, dtype=np.int16).reshape(12, 12, 12)
    other = written(values - 900 if option == "--ct" else values % 200, tmp_path / "other.nrrd")
    assert airwayseg("repair", mask, option, other, "--repair", "path", "-o", tmp_path / "r") == 2
    said = capsys.readouterr().err
    assert "grid" in said and said.count("\n") == 1 and not (tmp_path / "r").exists()


@pytest.mark.parametrize(("flag", "value"), [("--repair-threshold", 1.5), ("--repair-threshold", "nan")])
def test_a_threshold_outside_its_limits_is_refused(flag, value, a_broken_tree, tmp_path, capsys):
    mask = written(a_broken_tree, tmp_path / "mask.nrrd")
    assert airwayseg("repair", mask, flag, value, "-o", tmp_path / "r") == 2
    assert "repair_threshold" in capsys.readouterr().err


def test_results_are_not_replaced_without_force(a_broken_tree, tmp_path, capsys):
    mask = written(a_broken_tree, tmp_path / "mask.nrrd")
    command = ("repair", mask, "--repair", "path", "-o", tmp_path / "r")
    assert airwayseg(*command) == 0
    before = (tmp_path / "r" / repairing.REPAIRS).read_bytes()
    assert airwayseg(*command) == 2 and "--force" in capsys.readouterr().err
    assert airwayseg(*command, "--force") == 0
    assert (tmp_path / "r" / repairing.REPAIRS).read_bytes() == before


def specks(count: int) -> np.ndarray:
    """Single voxels that touch neither each other nor the rod beside them."""
    mask = np.zeros((80, 80, 80), bool)
    places = np.argwhere(np.ones((26, 26, 26), bool)) * 3 + 1
    mask[tuple(np.random.default_rng(0).permutation(places)[:count].T)] = True
    mask[:, 39:42, 39:42] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "fragments"),
    [
        (np.pad(np.ones((1, 1, 1), bool), 4), 0),
        (np.pad(np.ones((20, 4, 4), bool), 4), 0),
        (specks(2000), 1800),
    ],
    ids=["one voxel", "one component", "2 000 specks"],
)
def test_with_nothing_to_join_the_tree_stays_as_it_is(mask, fragments, tmp_path):
    path = written(mask, tmp_path / "mask.nrrd")
    assert airwayseg("repair", path, "--repair", "path", "-o", tmp_path / "r") == 0
    assert np.array_equal(read(tmp_path / "r" / MASK) > 0, label_components(mask) == 1)
    assert len(np.unique(read(tmp_path / "r" / repairing.LOOSE))) > fragments


# What interrupts it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["read", "repair", "write"])
def test_cancelling_leaves_nothing(stage, a_broken_tree, tmp_path):
    mask = written(a_broken_tree, tmp_path / "mask.nrrd")

    def cancel(now: str, done: int, _total: int) -> None:
        if now == stage and done == 1 - (stage == "write"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repairing.run_repair(repairing.RepairRequest(mask, tmp_path / "out/r", method="path"), cancel)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != mask]


@pytest.fixture
def a_child_at_work(a_broken_tree, tmp_path):
    """The command in a process of its own, as far as its first line of progress; its folder is tmp_path/out/r."""
    mask = written(a_broken_tree, tmp_path / "mask.nrrd")
    command = [sys.executable, "-m", "AirwaySegLib", "repair", mask, "-o", tmp_path / "out/r", "--repair", "path"]
    child = subprocess.Popen(
        [*command, "--progress", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TREE / "AirwaySeg")},
    )
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["stage"] == "read"
    yield child
    child.kill()
    child.wait()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL and SIGTERM")
@pytest.mark.parametrize(("kind", "code"), [("SIGKILL", -9), ("SIGTERM", 130)])
def test_a_killed_run_leaves_no_result(a_child_at_work, kind, code, tmp_path):
    a_child_at_work.send_signal(getattr(signal, kind))
    a_child_at_work.communicate(timeout=60)
    assert a_child_at_work.returncode == code
    assert not (tmp_path / "out" / "r").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of a file's size")
def test_a_full_disk_is_a_sentence_and_leaves_nothing(a_broken_tree, tmp_path):
    mask = written(a_broken_tree, tmp_path / "mask.nrrd")
    limit = 2048  # bytes that a file may have

    def small_files_only() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ran = subprocess.run(
        [sys.executable, "-m", "AirwaySegLib", "repair", mask, "-o", tmp_path / "r", "--repair", "path"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TREE / "AirwaySeg")},
        preexec_fn=small_files_only,
        check=False,
    )
    assert ran.returncode == 2 and "cannot be written" in ran.stderr and "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nrrd"]
