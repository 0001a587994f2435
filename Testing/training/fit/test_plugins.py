"""A network and a loss that are plugged in: the example of the documentation is trained and segments."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from source_tree import ROOT
from torch import nn

from AirwaySegLib.__main__ import main as airwayseg
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.architectures import NETWORKS, register_network
from AirwaySegLib.networks.device_plan import Plan, choose_cpu_backend
from AirwaySegLib.networks.plugins import load_plugins
from AirwaySegLib.networks.sliding_window import open_backend
from AirwaySegLib.networks.weights import ModelInfo, load_weights, save_weights
from AirwaySegTraining.__main__ import main as airwayseg_train
from AirwaySegTraining.fit.recipes import load_recipe
from AirwaySegTraining.losses.terms import LOSSES, Loss, register_loss

NETWORK, LOSS, RECIPE = (
    ROOT / "docs/examples" / name for name in ("plain_unet.py", "log_cosh_dice.py", "plain_unet.toml")
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def as_before():
    """What a test registers is gone after it."""
    tables = [(table, dict(table)) for table in (NETWORKS, LOSSES)]
    yield
    for table, before in tables:
        table.clear()
        table.update(before)


@pytest.fixture
def a_case(tmp_path, a_chest) -> Path:
    """A data folder with the drawn chest; its CT is a file that can be segmented."""
    folder = tmp_path / "data/cases/chest"
    folder.mkdir(parents=True)
    label = (a_chest.trachea | a_chest.bronchi).astype(np.uint8)
    for name, array in (("ct", a_chest.hu), ("label", label)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(a_chest.spacing_mm[::-1])
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"))
    return folder


@pytest.mark.slow
def test_the_example_is_trained_and_segments_by_the_commands(tmp_path, a_case, a_chest, capsys):
    run, result = tmp_path / "run", tmp_path / "result"
    fitting = ["fit", "--plugin", NETWORK, "--plugin", LOSS, "--recipe", RECIPE, "--data", a_case.parents[1], "-o", run]
    tiny = ["--steps", 40, "--patch", 32, "--batch", 2, "--rate", 0.01, "--validation", 0]
    assert airwayseg_train([*map(str, [*fitting, *tiny, "--workers", 0, "--device", "cpu"])]) == 0
    weights = run / "model.safetensors"
    net, info, _ = load_weights(weights)
    assert type(net).__name__ == "PlainUNet" and info.architecture == "plain_unet"
    segmenting = ["segment", a_case / "ct.nrrd", "-o", result, "--weights", weights, "--device", "cpu"]
    segmenting += ["--no-measure", "--repair", "none", "--open-lumen", "no", "--progress", "none"]
    NETWORKS.pop("plain_unet")
    capsys.readouterr()
    assert airwayseg([*map(str, segmenting)]) == 2  # the file names its network, and brings no code
    assert capsys.readouterr().err == (
        f"airwayseg: {weights}: The network 'plain_unet' is unknown: there are {', '.join(NETWORKS)}, "
        "and --plugin FILE adds others.\n"
    )
    assert airwayseg([*map(str, [*segmenting, "--plugin", NETWORK])]) == 0
    report = json.loads((result / "report.json").read_text("utf-8"))
    assert report["decisions"]["backend"] == "torch"
    probability = sitk.GetArrayFromImage(sitk.ReadImage(str(result / "probability.nrrd")))
    airway = a_chest.trachea | a_chest.bronchi
    assert probability[airway].mean() > probability[a_chest.lungs].mean() + 50
    assert probability[a_chest.body & ~airway & ~a_chest.lungs].mean() < 50


def test_a_network_without_a_fast_form_runs_as_it_is_by_its_last_head():
    load_plugins([NETWORK])
    plain = NETWORKS["plain_unet"].build

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = plain(1, 1, "batch"), plain(1, 1, "batch")

        def forward(self, x):
            return self.one(x), self.other(x)

    register_network("two_heads", lambda *shape: TwoHeads())
    info = ModelInfo("mine", norm="batch", patch_zyx=(32, 32, 32), architecture="two_heads")
    net, windows = info.build().eval(), np.random.default_rng(0).random((1, 1, 32, 32, 32), np.float32)
    opened = open_backend(net, info, Plan("cpu", choose_cpu_backend("auto", "two_heads"), "float32", 1, 0), print)
    with torch.no_grad():
        expected = net.other(torch.from_numpy(windows)).sigmoid().numpy()
    assert np.allclose(opened.run(windows), expected, atol=1e-6)
    with pytest.raises(AirwaySegError, match="OpenVINO does not run the network 'two_heads'"):
        choose_cpu_backend("openvino", "two_heads")


def test_a_network_that_gives_no_logits_of_its_window_is_named(tmp_path):
    register_network("halved", lambda in_channels, classes, norm: nn.Conv3d(in_channels, classes, 2, stride=2))
    info = ModelInfo("mine", patch_zyx=(32, 32, 32), architecture="halved")
    opened = open_backend(info.build(), info, Plan("cpu", "torch", "float32", 1, 0), print)
    with pytest.raises(AirwaySegError, match=r"'halved' answers a tensor of \(1, 1, 32, 32, 32\) with one of"):
        opened.run(np.zeros((1, 1, 32, 32, 32), np.float32))
    with pytest.raises(AirwaySegError, match="does not fit"):
        save_weights(tmp_path / "x.safetensors", nn.Conv3d(1, 1, 3), info)


def test_windows_and_patches_have_sides_that_the_network_can_take(tmp_path):
    load_plugins([NETWORK, LOSS])
    register_network("plain_unet", NETWORKS["plain_unet"].build, side_multiple=16)
    with pytest.raises(AirwaySegError, match=r"stage 1 \(fit\): patch is 72; plain_unet needs a multiple of 16"):
        load_recipe(str(RECIPE))
    with pytest.raises(AirwaySegError, match="are not multiples of 16"):
        ModelInfo("mine", patch_zyx=(72, 72, 72), architecture="plain_unet")


def test_a_recipe_with_an_unknown_network_or_loss_is_refused_by_its_name():
    load_plugins([LOSS])
    with pytest.raises(
        AirwaySegError, match=r"\[network\]: The network 'plain_unet' is unknown: there are wingsnet, .*, and"
    ):
        load_recipe(str(RECIPE))
    LOSSES.pop("log_cosh_dice")
    load_plugins([NETWORK])
    with pytest.raises(AirwaySegError, match="loss 'log_cosh_dice' is unknown; there are dice, "):
        load_recipe(str(RECIPE))


def test_what_the_package_has_cannot_be_replaced():
    for name in ("wingsnet", "connector", "my-net"):
        with pytest.raises(AirwaySegError, match=f"cannot be registered as '{name}'"):
            register_network(name, lambda *shape: nn.Identity())
    with pytest.raises(ValueError, match="there is a loss 'dice' already"):
        register_loss("dice", Loss("weighted_dice"))


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("absent.py", None, "is no Python file"),
        ("notes.txt", "", "is no Python file"),
        ("wrong.py", "1 / 0", r"cannot be run \(ZeroDivisionError: division by zero\)"),
        ("broken.py", "def", r"cannot be run \(SyntaxError: "),
    ],
)
def test_a_plugin_that_cannot_be_run_is_one_sentence(tmp_path, name, text, sentence):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(AirwaySegError, match=sentence) as caught:
        load_plugins([tmp_path / name])
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
