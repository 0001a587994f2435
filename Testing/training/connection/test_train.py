"""Training the connection network: what a patch asks, a real small training, and that it goes on exactly."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import a_deep_tree, draw_tubes
from torch import Tensor, nn

from AirwaySegLib.errors import AirwaySegError, Cancelled
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.progress import silent
from AirwaySegLib.repair.network_bridges import load_connector
from AirwaySegTraining.__main__ import main
from AirwaySegTraining.connection.pool import (
    EMPTY,
    MISSING,
    OPEN,
    PREDICTION,
    STORED,
    BreakagePatches,
    PooledTree,
    PoolSettings,
    chosen_centres,
    drawn_patch,
    make_pool,
    states_of,
)
from AirwaySegTraining.connection.train import BreakageSettings, breakage_loss, rate_at, rejoining, train_breakage
from AirwaySegTraining.data.cases import case_folders, prepared_case

SPACING_MM = (1.5, 1.5, 1.5)
TINY = BreakageSettings(steps=3, batch=1, patches=9, validation=0, workers=0, checkpoint_every=1, device="cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def a_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One case: a tree that forks four times, air in grey tissue."""
    data = tmp_path_factory.mktemp("data")
    mask = draw_tubes(a_deep_tree(4, seed=3), (200, 174, 200), SPACING_MM)
    ct = np.where(mask, -1000, 0).astype(np.int16)
    write_case(data / "cases" / "deep", ct, mask)
    return data


def write_case(folder: Path, ct: np.ndarray, mask: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for name, array in (("ct", ct), ("label", mask.astype(np.uint8))):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING_MM)
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"), useCompression=True)
    (folder / "case.json").write_text(json.dumps({"clean": False}))


@pytest.fixture(scope="module")
def a_pool(a_data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[PooledTree]:
    settings = PoolSettings(tmp_path_factory.mktemp("pool"), TINY.trees, TINY.patches, TINY.seed)
    return make_pool([a_data_folder / "cases" / "deep"], settings, 1, silent)


def a_bar(gap: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A bar along x, whole, and with a gap."""
    whole = np.zeros((40, 40, 100), bool)
    whole[18:22, 18:22, 5:95] = True
    broken = whole.copy()
    broken[:, :, slice(*gap)] = False
    return whole, broken


def test_what_joins_is_missing_and_what_the_label_leaves_open_does_not_count() -> None:
    whole, broken = a_bar((45, 52))
    broken[18, 18, 38:44] = False  # a thinned wall, not a break
    left_out = np.zeros_like(whole)
    left_out[30, 20, 48] = True
    labels, attention, states = states_of(broken, whole & ~broken, left_out, (0.7, 0.7, 0.7))
    assert labels.max() == 2 and attention[20, 20, 48] > 0.5
    assert (states[18:22, 18:22, 45:52] == MISSING).all()
    assert (states[broken] == OPEN).all() and states[18, 18, 40] == OPEN and states[30, 20, 48] == OPEN
    assert states[25, 20, 48] == EMPTY and states[20, 20, 90] == OPEN and states[0, 0, 0] == OPEN


def test_a_missing_end_is_not_asked_for() -> None:
    whole, broken = a_bar((45, 52))
    broken[:, :, 60:] = False
    broken[18:22, 26:30, 40:95] = True  # so that attention looks there
    _, attention, states = states_of(broken, whole & ~broken, np.zeros_like(whole), (0.7, 0.7, 0.7))
    assert attention[20, 20, 64] > 0.02 and (states[18:22, 18:22, 64:] == OPEN).all()


def test_a_third_of_the_centres_shows_nothing_missing_where_there_are_such() -> None:
    states = np.full((100, 100, 400), EMPTY, np.uint8)
    states[50, 50, 50] = MISSING
    centres = np.array([(50, 50, x) for x in (40, 50, 60, 65, 70, 100, 200, 300)], np.int32)
    chosen, holds = chosen_centres(centres, states, 6, np.random.default_rng(0))
    assert len(chosen) == 6 and holds.sum() == 4
    assert (np.abs(chosen[holds][:, 2] - 50) <= 24).all() and (np.abs(chosen[~holds][:, 2] - 50) > 24).all()
    few, holds = chosen_centres(centres[:5], states, 6, np.random.default_rng(0))
    assert len(few) == 5 and holds.all()
    assert len(chosen_centres(centres[:0], states, 6, np.random.default_rng(0))[0]) == 0


def test_patches_show_dark_gaps_between_what_is_left(a_pool: list[PooledTree]) -> None:
    (tree,) = a_pool
    assert tree.holds_gap.any()
    rng = np.random.default_rng(0)
    dark = []
    for number in np.flatnonzero(tree.holds_gap):
        image, state = drawn_patch(tree, int(number), rng)
        assert image.shape == (2, 64, 64, 64) and image.dtype == np.float32 and state.shape == (64, 64, 64)
        assert image.min() >= 0 and image.max() <= 1 and image[1].max() > 0.02
        if (state == MISSING).any():
            dark.append(image[0][state == MISSING].mean())
    assert dark and max(dark) < 0.6  # where the whole picture is turned as one, what is missing stays air


def test_a_patch_is_cut_where_its_attention_is(a_pool: list[PooledTree]) -> None:
    (tree,) = a_pool
    with np.load(tree.path) as stored:
        assert stored["attention_0"].shape == (STORED,) * 3
        middle = stored["attention_0"][(STORED // 2,) * 3]
    assert middle >= round(0.02 * 255)


def test_a_step_shows_the_same_patches_whenever_it_is_drawn(a_pool: list[PooledTree]) -> None:
    first, again = (BreakagePatches(a_pool, 2, seed=5)[7] for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in ("image", "state"))
    assert first["state"].shape == (2, 1, 64, 64, 64)
    assert not torch.equal(first["image"], BreakagePatches(a_pool, 2, seed=5)[8]["image"])


def test_what_a_first_stage_left_broken_is_learned_from_too(a_data_folder: Path, tmp_path: Path) -> None:
    source, folder = prepared_case(a_data_folder / "cases" / "deep"), tmp_path / "data" / "cases" / "deep"
    label = np.asarray(source.label) == 1
    write_case(folder, np.asarray(source.ct), label)
    (alone,) = make_pool([folder], PoolSettings(tmp_path / "a", 1, 12, 0), 1, silent)
    for centre in alone.centres[alone.holds_gap]:
        broken = label.copy()
        broken[tuple(slice(max(0, c - 3), c + 4) for c in centre)] = False
        if label_components(broken).max() > 1:
            break
    assert label_components(broken).max() > 1
    image = sitk.GetImageFromArray(broken.astype(np.uint8))
    image.SetSpacing(SPACING_MM)
    sitk.WriteImage(image, str(folder / PREDICTION))
    pool = make_pool([folder], PoolSettings(tmp_path / "b", 1, 12, 0), 1, silent)
    assert len(pool) == len(list((tmp_path / "b").glob("*.npz"))) == 2 and pool[1].holds_gap.any()
    np.testing.assert_array_equal(pool[0].centres, alone.centres)  # the simulated trees give what they gave before


def test_a_label_without_branches_to_break_is_refused(tmp_path: Path) -> None:
    whole, _ = a_bar((45, 52))
    write_case(tmp_path / "data" / "cases" / "bar", np.where(whole, -1000, 0).astype(np.int16), whole)
    with pytest.raises(AirwaySegError, match="no gap to train on"):
        make_pool([tmp_path / "data" / "cases" / "bar"], PoolSettings(tmp_path / "pool", 1, 4, 0), 1, silent)


def test_the_loss_is_least_where_the_answer_is_right_and_blind_where_it_does_not_count() -> None:
    state = torch.full((2, 1, 8, 8, 8), EMPTY, dtype=torch.uint8)
    state[0, 0, 2:4, 2:4] = MISSING
    state[:, :, 6:] = OPEN
    right = torch.where(state == MISSING, 20.0, -20.0)
    assert breakage_loss(right, state) == pytest.approx(0, abs=1e-3)
    elsewhere = torch.where(state == OPEN, -right, right)
    assert breakage_loss(elsewhere, state) == breakage_loss(right, state)
    assert breakage_loss(torch.full_like(right, -20.0), state) > 1
    assert breakage_loss(torch.full_like(right, 20.0), state) > 1
    nothing = torch.full_like(state, OPEN)
    assert math.isfinite(breakage_loss(right, nothing))


def test_the_rate_rises_and_falls() -> None:
    settings = BreakageSettings(steps=1000, rate=1.0)
    assert rate_at(0, settings) == pytest.approx(0.02) and rate_at(60, settings) > 0.98
    assert rate_at(999, settings) == pytest.approx(0.02, abs=1e-3)
    few = BreakageSettings(steps=12, rate=1.0)
    assert max(rate_at(step, few) for step in range(12)) > 0.95


class Knows(nn.Module):
    """Answers the darkness of the CT, or always no."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        return 20 * self.sign * (0.4 - x[:, :1].float()) - (1 - self.sign) * 50


def test_a_network_that_sees_the_air_mends_every_narrow_break_and_one_that_says_no_none(a_data_folder: Path) -> None:
    case = prepared_case(a_data_folder / "cases" / "deep")
    found = rejoining(Knows(1), case, 0, "cpu")
    assert found["breaks"] >= 2 and found["rejoined_10mm"] == 1
    assert found["false_joins"] == 0 or math.isnan(found["false_joins"])
    assert rejoining(Knows(0), case, 0, "cpu")["rejoined"] == 0


def with_pool(output: Path, pool: list[PooledTree]) -> Path:
    """A run's folder in which the trees are broken already."""
    shutil.copytree(pool[0].path.parent, output / "pool")
    return output


def test_a_training_writes_weights_that_the_library_loads(
    a_data_folder: Path, a_pool: list[PooledTree], tmp_path: Path
) -> None:
    arguments = ["--steps", "1", "--batch", "2", "--patches", "9", "--validation", "0", "--workers", "0"]
    output = with_pool(tmp_path / "run", a_pool)
    assert main(["breakage", "--data", str(a_data_folder), "-o", str(output), "--device", "cpu", *arguments]) == 0
    net, info, _ = load_connector(output / "model.safetensors")
    assert info.name == "run" and info.provenance["steps"] == 1 and info.spacing_mm_max == SPACING_MM
    with torch.no_grad():
        assert torch.isfinite(net(torch.zeros(1, 2, 16, 16, 16))).all()
    with (output / "log.csv").open() as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["1"]
    assert len(list((output / "pool").iterdir())) == 1  # what was broken already was used
    assert main(["breakage", "--data", str(a_data_folder), "-o", str(output)]) == 2


def test_a_stopped_training_goes_on_exactly(a_data_folder: Path, a_pool: list[PooledTree], tmp_path: Path) -> None:
    def stop_at_two(stage: str, done: int, _total: int) -> None:
        if stage == "train" and done == 2:
            raise Cancelled

    unbroken, cut = with_pool(tmp_path / "unbroken", a_pool), with_pool(tmp_path / "cut", a_pool)
    whole = train_breakage([a_data_folder], unbroken, TINY, silent)
    with pytest.raises(Cancelled):
        train_breakage([a_data_folder], cut, TINY, stop_at_two)
    with pytest.raises(AirwaySegError, match="--resume"):
        train_breakage([a_data_folder], cut, TINY, silent)
    with pytest.raises(AirwaySegError, match="another --rate"):
        train_breakage([a_data_folder], cut, replace(TINY, rate=1e-4), silent, resume=True)
    whole_state = (cut / "last.pt").read_bytes()
    state = torch.load(cut / "last.pt", weights_only=True)
    torch.save({name: state[name] for name in state if name != "average"}, cut / "last.pt")
    with pytest.raises(AirwaySegError, match="damaged"):
        train_breakage([a_data_folder], cut, TINY, silent, resume=True)
    (cut / "last.pt").write_bytes(whole_state)
    shutil.copytree(a_data_folder, tmp_path / "changed")
    (folder,) = case_folders(tmp_path / "changed")
    shutil.copy(folder / "label.nrrd", folder / PREDICTION)
    with pytest.raises(AirwaySegError, match="other cases"):
        train_breakage([tmp_path / "changed"], cut, TINY, silent, resume=True)
    mended = train_breakage([a_data_folder], cut, TINY, silent, resume=True)
    one, two = (load_connector(path)[0].state_dict() for path in (whole, mended))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_finished_training_gets_more_steps_and_an_occupied_folder_is_kept(
    a_data_folder: Path, a_pool: list[PooledTree], tmp_path: Path
) -> None:
    output = with_pool(tmp_path / "run", a_pool)
    (output / "log.csv").write_text("of another day")
    with pytest.raises(AirwaySegError, match=r"holds log\.csv of a run"):
        train_breakage([a_data_folder], output, TINY, silent)
    assert (output / "log.csv").read_text() == "of another day"
    (output / "log.csv").unlink()
    train_breakage([a_data_folder], output, replace(TINY, steps=1), silent)
    target = train_breakage([a_data_folder], output, replace(TINY, steps=2), silent, resume=True)
    _, info, _ = load_connector(target)
    assert info.provenance["steps"] == 2 and info.provenance["settings"]["precision"] in ("bfloat16", "float32")
    with pytest.raises(AirwaySegError, match="another --steps"):
        train_breakage([a_data_folder], output, replace(TINY, steps=1), silent, resume=True)
    said = (output / "run.log").read_text()
    assert said.startswith("step 0: Begun in ") and "step 1: Continued in " in said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 0}, "--steps is 0"),
        ({"checkpoint_every": 0}, "--checkpoint-every is 0"),
        ({"rate": 0.0}, "--rate"),
        ({"validation": 1.0}, "--validation"),
        ({"precision": "half"}, "--precision"),
    ],
)
def test_settings_that_no_training_can_use_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(AirwaySegError, match=sentence):
        replace(TINY, **changes)
