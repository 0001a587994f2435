"""Weights between two: every number in between, both origins told, other networks refused."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from AirwaySegLib.networks.weights import ModelInfo, read_info, save_weights
from AirwaySegTraining.__main__ import main


@pytest.fixture
def two_files(tmp_path):
    for seed, name in enumerate(("new", "old")):
        info = ModelInfo(name, norm="batch", provenance={"seed": seed})
        torch.manual_seed(seed)
        save_weights(tmp_path / f"{name}.safetensors", info.build(), info)
    return tmp_path / "new.safetensors", tmp_path / "old.safetensors", tmp_path / "between.safetensors"


def mixed(*arguments) -> int:
    return main(["mix", *map(str, arguments)])


def test_each_number_lies_at_its_share_between_both(two_files):
    new, old, target = two_files
    assert mixed("--weights", new, "--with", old, "--share", 0.6, "-o", target) == 0
    first, second, found = (load_file(path) for path in (new, old, target))
    for key, values in found.items():
        expected = 0.6 * first[key].astype(float) + 0.4 * second[key].astype(float)
        assert np.allclose(values, expected if values.dtype.kind == "f" else first[key], atol=1e-6)
    info, _ = read_info(target)
    assert info.name == "between"
    assert [(part["share"], part["provenance"]["seed"]) for part in info.provenance["mixed"]] == [(0.6, 0), (0.4, 1)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--share", "1"], "between 0 and 1"),
        (["-o", "{target}.txt"], "does not end in .safetensors"),
        (["-o", "{old}"], "exists"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_a_sentence(two_files, capsys, options, said):
    new, old, target = two_files
    options = [text.format(target=target, old=old) for text in options]
    assert mixed("--weights", new, "--with", old, "-o", target, *options) == 2
    assert said in capsys.readouterr().err
    assert not target.exists()


def test_other_networks_are_refused(two_files, tmp_path, capsys):
    new, _, target = two_files
    info = ModelInfo("wider", norm="batch", window_hu=(-1000.0, 400.0))
    save_weights(tmp_path / "wider.safetensors", info.build(), info)
    assert mixed("--weights", new, "--with", tmp_path / "wider.safetensors", "-o", target) == 2
    assert "not of one network" in capsys.readouterr().err
