"""`airwayseg weights`: the list of known weights, the description of one file, the import of a checkpoint."""

import json
from pathlib import Path

import pytest
import torch

from AirwaySegLib.__main__ import main
from AirwaySegLib.networks.weights import ModelInfo, find_weights, save_weights
from AirwaySegLib.networks.wingsnet import WingsNet, published_names, published_to_ours


@pytest.fixture(autouse=True)
def an_empty_user_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AIRWAYSEG_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def a_published_checkpoint(tmp_path) -> Path:
    """A checkpoint with the authors' names and random weights."""
    ours = WingsNet().state_dict()
    state = {theirs: ours[name] for theirs, name in published_names()}
    assert published_to_ours(state)[1:] == (1, 1)
    torch.save({"state_dict": state}, tmp_path / "published.ckpt")
    return tmp_path / "published.ckpt"


def test_weights_are_listed_with_their_kind_and_file(an_empty_user_folder, capsys):
    save_weights(an_empty_user_folder / "mine.safetensors", WingsNet(), ModelInfo(name="mine"))
    assert main(["weights", "list"]) == 0
    assert [line.split("\t") for line in capsys.readouterr().out.splitlines()] == [
        ["default", "wingsnet", str(find_weights("default"))],
        ["default-0.1", "wingsnet", str(find_weights("default-0.1"))],
        ["fast", "wingsnet_half", str(find_weights("fast"))],
        ["mine", "wingsnet", str(an_empty_user_folder / "mine.safetensors")],
        ["breakage", "connector", str(find_weights("breakage", "connector"))],
    ]


def test_a_weights_file_is_described_as_json(tmp_path, capsys):
    save_weights(tmp_path / "some.safetensors", WingsNet(), ModelInfo(name="some"))
    assert main(["weights", "show", str(tmp_path / "some.safetensors")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["name"] == "some" and shown["parameters"] == 1_473_186


@pytest.mark.parametrize("by_name", [True, False], ids=["by name", "by file"])
def test_weights_of_the_repair_network_are_described_too(by_name, capsys):
    file = find_weights("breakage", "connector")
    assert main(["weights", "show", "breakage" if by_name else str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == "connector"


def test_an_imported_checkpoint_has_its_own_name_or_the_given_one(a_published_checkpoint, an_empty_user_folder, capsys):
    assert main(["weights", "import", str(a_published_checkpoint)]) == 0
    assert main(["weights", "import", str(a_published_checkpoint), "--as", "other"]) == 0
    written = [str(an_empty_user_folder / f"{name}.safetensors") for name in ("published", "other")]
    assert capsys.readouterr().out.splitlines() == written


def test_weights_are_replaced_only_by_force(a_published_checkpoint, capsys):
    assert main(["weights", "import", str(a_published_checkpoint)]) == 0
    assert main(["weights", "import", str(a_published_checkpoint)]) == 2
    assert "exist; use --force" in capsys.readouterr().err
    assert main(["weights", "import", str(a_published_checkpoint), "--force"]) == 0
