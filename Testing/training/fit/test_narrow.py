"""The narrow network that a wide one becomes: its blocks are fitted to the wide ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch.nn import functional

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.weights import ModelInfo, load_weights, save_weights
from AirwaySegLib.networks.wingsnet import ENCODER, ConvBlock, WingsNet, narrowed
from AirwaySegLib.progress import silent
from AirwaySegTraining.__main__ import main
from AirwaySegTraining.fit import narrow as module
from AirwaySegTraining.fit.narrow import Sampler, chosen_channels, fit_block, least_squares, narrow

pytestmark = pytest.mark.usefixtures("one_thread")

INFO = ModelInfo(name="wide", norm="batch")


@pytest.fixture(autouse=True)
def small_patches(monkeypatch):
    monkeypatch.setattr(module, "SIDE", 32)
    monkeypatch.setattr(module, "VOXELS", 600)


@pytest.fixture
def a_data_folder(tmp_path):
    """A case with a dark tube along z in grey tissue."""
    rng = np.random.default_rng(0)
    ct = rng.normal(-300, 200, (32, 32, 32)).astype(np.int16)
    label = np.zeros(ct.shape, np.uint8)
    label[:, 10:16, 10:16] = 1
    ct[label == 1] -= 600
    folder = tmp_path / "data" / "cases" / "case-0"
    folder.mkdir(parents=True)
    sitk.WriteImage(sitk.GetImageFromArray(ct), str(folder / "ct.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / "label.nrrd"))
    (folder / "case.json").write_text(json.dumps({"clean": True}))
    return tmp_path / "data"


def a_wide_net():
    """Random weights whose statistics are those of random windows, so that every block passes something on."""
    torch.manual_seed(1)
    net = WingsNet(norm="batch", dropout=0).train()
    with torch.no_grad():
        for _ in range(6):
            net(torch.rand(1, 1, 32, 32, 32))
    return net.eval()


def test_the_surroundings_are_what_a_convolution_sees():
    near = np.zeros((2, 32, 32, 32), bool)
    near[:, 5:9, 5:9] = True
    sampler, x = Sampler(near, 0), torch.rand(2, 3, 16, 16, 16)
    for dilation in (1, 2):
        weight = torch.rand(4, 3, 3, 3, 3)
        convolved = functional.conv3d(x, weight, padding=dilation, dilation=dilation)
        found = sampler.surroundings(x, dilation) @ weight.flatten(1).T
        assert torch.allclose(found, sampler.values(convolved), atol=1e-4)


def test_half_of_the_sampled_voxels_are_beside_airways():
    near = np.zeros((1, 32, 32, 32), bool)
    near[0, 10, 10:20] = True
    (flat,) = Sampler(near, 0).indices(32)
    assert near[0].ravel()[flat].sum() >= 300 and len(flat) <= 600


def test_channels_that_others_tell_are_not_kept():
    random = torch.Generator().manual_seed(0)
    own = torch.randn(500, 3, generator=random)
    values = torch.stack([own[:, 0], 0.5 * own[:, 0], own[:, 1], own[:, 2], 0.1 * own[:, 1] - 0.1 * own[:, 2]], dim=1)
    assert chosen_channels(values, 3).tolist() == [0, 2, 3]


def test_least_squares_finds_weight_and_bias():
    random = torch.Generator().manual_seed(0)
    inputs, weight, bias = torch.randn(400, 6, generator=random), torch.randn(2, 6, generator=random), torch.rand(2)
    found, offset = least_squares(inputs, inputs @ weight.T + bias)
    assert torch.allclose(found, weight, atol=1e-3) and torch.allclose(offset, bias, atol=1e-3)
    assert least_squares(inputs, inputs @ weight.T, centred=False)[1].abs().max() == 0


def test_a_block_whose_channels_are_doubled_is_fitted_exactly():
    torch.manual_seed(2)
    plan, half = ENCODER[1], narrowed(ENCODER, 0.5)[1]
    wide, mine = ConvBlock(plan, "batch").eval(), ConvBlock(half, "batch").eval()
    y = torch.rand(1, half.in_channels, 32, 32, 32)
    x = torch.cat([y, y], dim=1)
    with torch.no_grad():
        wide.norm.running_mean.normal_()
        raw = wide.convolution.weight
        raw[half.out_channels :] = 0.5 * raw[: half.out_channels]  # one half of the channels tells the other
        wide.convolution.bias.zero_()
        wide.norm.running_mean.zero_()
        expected, found = fit_block(wide, mine, x, y, Sampler(np.ones((1, 32, 32, 32), bool), 0))
    kept = expected[:, : half.out_channels]
    assert found.shape == kept.shape and torch.allclose(found, kept, atol=0.02)


def test_the_narrow_network_follows_the_wide_one(a_data_folder, tmp_path):
    save_weights(tmp_path / "wide.safetensors", a_wide_net(), INFO)
    target = tmp_path / "narrow.safetensors"
    narrow(tmp_path / "wide.safetensors", [a_data_folder], target, silent, patches=2)
    wide, _, digest = load_weights(tmp_path / "wide.safetensors")
    pupil, info, _ = load_weights(target)
    assert (info.name, info.architecture, info.provenance["narrowed"]) == ("narrow", "wingsnet_half", digest)
    images, _ = module.drawn_patches([a_data_folder], INFO, 1, 9, silent)
    untaught = replace(info, provenance={}).build().eval()
    with torch.no_grad():
        truth, found, random = (net(images)[-1].flatten() for net in (wide, pupil, untaught))
    assert torch.corrcoef(torch.stack([truth, found]))[0, 1] > 0.8
    assert abs(torch.corrcoef(torch.stack([truth, random]))[0, 1]) < 0.6


def test_the_command_refuses_other_networks_and_existing_files(a_data_folder, tmp_path, capsys):
    wide, target = tmp_path / "wide.safetensors", tmp_path / "narrow.safetensors"
    save_weights(wide, a_wide_net(), INFO)
    words = ["narrow", "--weights", str(wide), "--data", str(a_data_folder), "--patches", "1", "-o"]
    assert main([*words, str(target)]) == 0 and capsys.readouterr().out == f"Weights: {target}\n"
    before = target.read_bytes()
    assert main([*words, str(target)]) == 2 and "--force" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "narrow.pt")]) == 2
    assert "narrow.pt does not end in .safetensors" in capsys.readouterr().err
    words[2] = str(target)
    assert main([*words, str(tmp_path / "again.safetensors")]) == 2
    assert "is no WingsNet with batch normalisation" in capsys.readouterr().err
    with pytest.raises(AirwaySegError, match="No case found"):
        narrow(wide, [tmp_path], tmp_path / "other.safetensors", silent)
    assert target.read_bytes() == before and not (tmp_path / "other.safetensors").exists()
