"""Weights files: a round trip, the places they are found in, and one sentence for every wrong file."""

import argparse
import dataclasses
import hashlib
import json
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from published_wingsnet import PublishedWingsNet

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks import weights
from AirwaySegLib.networks.connection_net import Connector
from AirwaySegLib.networks.published_checkpoints import import_published
from AirwaySegLib.networks.weights import ModelInfo, load_weights, save_weights
from AirwaySegLib.networks.wingsnet import WingsNet


@pytest.fixture(autouse=True)
def a_user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "user"
    monkeypatch.setenv("AIRWAYSEG_MODELS", str(folder))
    return folder


def a_file(folder: Path) -> Path:
    path = folder / "mine.safetensors"
    save_weights(path, WingsNet(), ModelInfo("mine"))
    return path


def a_checkpoint(path: Path, **extra: object) -> PublishedWingsNet:
    published = PublishedWingsNet(2, 3).eval()
    torch.save({"state_dict": published.state_dict(), **extra}, path)
    return published


def test_a_file_rebuilds_network_and_description(tmp_path: Path) -> None:
    info = ModelInfo(
        "two", 2, 3, "batch", (-1024, 600), (-625, 125), (96, 128, 64), (0.5, 0.4, 0.4), (2, 1, 1), True, {"steps": 9}
    )
    net = WingsNet(2, 3, "batch")
    net(torch.rand(1, 2, 16, 16, 16))
    save_weights(tmp_path / "new folder" / "two.safetensors", net, info)
    again, info_again, sha256 = load_weights(tmp_path / "new folder" / "two.safetensors")
    assert info_again == info
    assert not again.training
    assert sha256 == hashlib.sha256((tmp_path / "new folder" / "two.safetensors").read_bytes()).hexdigest()
    assert weights.read_info(tmp_path / "new folder" / "two.safetensors") == (info, sha256)
    assert again.state_dict().keys() == net.state_dict().keys()
    for key, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    before = path.read_bytes()
    with pytest.raises(AirwaySegError, match="--force"):
        save_weights(path, WingsNet(), ModelInfo("mine"))
    assert path.read_bytes() == before
    save_weights(path, WingsNet(), ModelInfo("mine"), force=True)
    assert path.read_bytes() != before


def test_a_failed_write_keeps_the_old_file_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_file(tmp_path)
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(AirwaySegError, match="No space left"):
        save_weights(path, WingsNet(), ModelInfo("mine"), force=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_file_has_the_permissions_that_the_user_gives_to_new_files(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    assert a_file(tmp_path).stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_description_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(AirwaySegError, match="does not fit"):
        save_weights(tmp_path / "x.safetensors", WingsNet(norm="batch"), ModelInfo("x"))
    assert list(tmp_path.iterdir()) == []


def test_names_are_found_in_the_user_folder_before_the_bundled_ones(
    tmp_path: Path, a_user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = tmp_path / "bundled"
    monkeypatch.setattr(weights, "bundled_folders", lambda: [bundled])
    for folder, name in ((bundled, "default"), (bundled, "other"), (a_user_folder, "other"), (a_user_folder, "mine")):
        save_weights(folder / f"{name}.safetensors", WingsNet(), ModelInfo(name))
    assert weights.list_weights() == {
        "default": bundled / "default.safetensors",
        "mine": a_user_folder / "mine.safetensors",
        "other": a_user_folder / "other.safetensors",
    }
    assert load_weights()[1].name == "default"
    with pytest.raises(AirwaySegError, match=r"'absent'.*default, mine, other"):
        load_weights("absent")


CONNECTOR = ModelInfo("breakage", 2, 1, "batch", (-1000, 200), patch_zyx=(64, 64, 64), architecture="connector")


def test_a_connector_makes_the_round_trip(tmp_path: Path) -> None:
    net = Connector()
    net(torch.rand(2, 2, 16, 16, 16))  # so that the running statistics are not the usual ones
    save_weights(tmp_path / "breakage.safetensors", net, CONNECTOR)
    again, info, _ = load_weights(tmp_path / "breakage.safetensors", "connector")
    assert info == CONNECTOR and not again.training
    x = torch.rand(1, 2, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(x), net.eval()(x))


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "breakage.safetensors", Connector(), CONNECTOR)
    with pytest.raises(AirwaySegError, match="holds a connector, but a network that segments is needed here"):
        load_weights(tmp_path / "breakage.safetensors")
    with pytest.raises(AirwaySegError, match="holds a wingsnet, but a connector is needed here"):
        load_weights(a_file(tmp_path), "connector")
    with pytest.raises(AirwaySegError, match="does not fit"):
        save_weights(
            tmp_path / "x.safetensors",
            Connector(),
            dataclasses.replace(CONNECTOR, architecture="wingsnet", second_window_hu=(0, 1)),
        )
    with pytest.raises(AirwaySegError, match="a connector has 2 channels"):
        dataclasses.replace(CONNECTOR, norm="instance")


def test_weights_found_by_a_name_are_described_with_it() -> None:
    assert load_weights("default-0.1")[1].name == weights.read_info("default-0.1")[0].name == "default-0.1"
    assert load_weights(weights.find_weights("default-0.1"))[1].name == "default"  # as it was called in its training


def test_each_kind_has_its_own_names(tmp_path: Path, a_user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = tmp_path / "bundled"
    monkeypatch.setattr(weights, "bundled_folders", lambda: [bundled])
    save_weights(bundled / "default.safetensors", WingsNet(), ModelInfo("default"))
    save_weights(bundled / "breakage.safetensors", Connector(), CONNECTOR)
    save_weights(a_user_folder / "breakage.safetensors", WingsNet(), ModelInfo("breakage"))
    (a_user_folder / "cut.safetensors").write_bytes(b"\xff" * 100)
    assert list(weights.list_weights()) == ["breakage", "cut", "default"]
    assert weights.list_weights("connector") == {"breakage": bundled / "breakage.safetensors"}
    assert list(weights.list_weights(None)) == ["breakage", "cut", "default"]
    assert load_weights("breakage", "connector")[1] == dataclasses.replace(CONNECTOR, name="breakage")
    assert load_weights("breakage")[1].architecture == "wingsnet"
    with pytest.raises(AirwaySegError, match=r"'absent'.*\(breakage\)"):
        load_weights("absent", "connector")


@pytest.mark.parametrize(
    ("library", "models"),
    [
        ("repository/AirwaySeg/AirwaySegLib", "repository/Resources/Models"),
        ("site-packages/AirwaySegLib", "site-packages/AirwaySegLib/Models"),
        ("qt-scripted-modules/AirwaySegLib", "qt-scripted-modules/Resources/Models"),
    ],
)
def test_bundled_weights_are_found_in_each_kind_of_installation(tmp_path: Path, library: str, models: str) -> None:
    (tmp_path / library).mkdir(parents=True)
    (tmp_path / models).mkdir(parents=True)
    assert weights.bundled_folders(tmp_path / library) == [tmp_path / models]


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 100, pickle.dumps({"state_dict": {}}), b"{}" * 50])
def test_a_file_that_is_not_safetensors_gives_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(content)
    with pytest.raises(AirwaySegError, match="not a complete safetensors file") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [4, 200, 5000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = a_file(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(AirwaySegError, match=r"mine\.safetensors is (not a complete|damaged)"):
        load_weights(path)


def test_a_file_without_our_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(WingsNet().state_dict(), path)
    with pytest.raises(AirwaySegError, match="no AirwaySeg header"):
        load_weights(path)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path, header = tmp_path / "x.safetensors", {weights.HEADER_KEY: ModelInfo("x").to_json()}
    state = WingsNet().state_dict()
    bias = "decoder.2.convolution.bias"
    for changed, sentence in (
        ({key: value for key, value in state.items() if key != bias}, f"lacks the tensor {bias}"),
        ({**state, bias: torch.zeros(3)}, rf"{bias} is \(3,\), not \(64,\)"),
        ({**state, bias: torch.full((64,), torch.nan)}, f"{bias} holds values that are not finite"),
        ({**state, "extra": torch.zeros(1)}, "unknown tensor extra"),
    ):
        safetensors.torch.save_file(changed, path, metadata=header)
        with pytest.raises(AirwaySegError, match=sentence):
            load_weights(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"architecture": "unet"},
            "The network 'unet' is unknown: there are wingsnet, .*, and --plugin FILE adds other",
        ),
        ({"format_version": 99}, "newer"),
        ({"norm": "layer"}, "norm 'layer'"),
        ({"in_channels": 100_000_000}, "in_channels"),
        ({"in_channels": 2}, "second_window_hu"),
        ({"window_hu": [600, -1000]}, "window_hu"),
        ({"window_hu": "wide"}, "not readable"),
        ({"window_hu": [1, 2, 3]}, "2 finite numbers"),
        ({"patch_zyx": [100, 128, 128]}, "patch_zyx"),
        ({"window_hu": [600, -1000]}, "window_hu"),
        ({"colour": "red"}, "'colour' is unknown"),
    ],
)
def test_a_wrong_description_is_named(changes: dict[str, object], sentence: str) -> None:
    values = {**dataclasses.asdict(ModelInfo("x")), **changes}
    with pytest.raises(AirwaySegError, match=sentence):
        ModelInfo.from_json(json.dumps(values))


def test_a_published_checkpoint_becomes_named_weights_with_the_same_output(tmp_path: Path, a_user_folder: Path) -> None:
    published = a_checkpoint(tmp_path / "theirs.ckpt", epoch=3, args=argparse.Namespace(lr=0.1))
    out = import_published(tmp_path / "theirs.ckpt", "theirs")
    assert out == a_user_folder / "theirs.safetensors"
    net, info, _ = load_weights("theirs")
    assert (info.in_channels, info.classes, info.second_window_hu) == (2, 3, (-625, 125))
    assert info.provenance["sha256"] == hashlib.sha256((tmp_path / "theirs.ckpt").read_bytes()).hexdigest()
    x = torch.rand(1, 2, 16, 24, 16)
    with torch.no_grad():
        assert torch.allclose(net(x)[1], published(x)[1], rtol=0, atol=1e-5)
    with pytest.raises(AirwaySegError, match="--force"):
        import_published(tmp_path / "theirs.ckpt", "theirs")


@pytest.mark.parametrize(("channels", "second"), [(2, (-1000, 500)), (1, None)], ids=["ATM'22", "AIIB23"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_layouts_of_the_challenges_winners_are_imported_with_their_windows(
    tmp_path: Path, channels: int, second: tuple[float, float] | None, prefix: str
) -> None:
    published = PublishedWingsNet(channels, 1).eval()
    state = {prefix + re.sub(r"^(dc0_.)\.0\.", r"\1.", key): value for key, value in published.state_dict().items()}
    assert f"{prefix}dc0_1.weight" in state and f"{prefix}dc0_0.bias" in state
    torch.save(state, tmp_path / "theirs.pth")
    import_published(tmp_path / "theirs.pth", "winner")
    net, info, _ = load_weights("winner")
    assert (info.in_channels, info.window_hu, info.second_window_hu) == (channels, (-1024, 1024), second)
    x = torch.rand(1, channels, 16, 24, 16)
    with torch.no_grad():
        for ours, theirs in zip(net(x), published(x), strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("core", ["numpy._core.multiarray", "numpy.core.multiarray"], ids=["numpy 2", "numpy 1"])
def test_arrays_of_numpy_beside_the_weights_are_left_out_and_never_made(tmp_path: Path, core: str) -> None:
    kept = {"loss": np.arange(6.0).reshape(2, 3), "best": np.float64(0.5), "names": np.array(["a", None], object)}
    published = a_checkpoint(tmp_path / "plain.ckpt", **kept)
    with zipfile.ZipFile(tmp_path / "plain.ckpt") as old, zipfile.ZipFile(tmp_path / "theirs.ckpt", "w") as new:
        assert any(b"numpy._core.multiarray" in old.read(name) for name in old.namelist())
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"numpy._core.multiarray", core.encode()))
    import_published(tmp_path / "theirs.ckpt", "theirs")
    x = torch.rand(1, 2, 16, 24, 16)
    with torch.no_grad():
        assert torch.allclose(load_weights("theirs")[0](x)[1], published(x)[1], rtol=0, atol=1e-5)


def test_weights_that_are_arrays_of_numpy_are_refused_by_name(tmp_path: Path) -> None:
    state = PublishedWingsNet(2, 3).state_dict()
    torch.save({**state, "ec2.conv1.bias": state["ec2.conv1.bias"].numpy()}, tmp_path / "theirs.ckpt")
    with pytest.raises(AirwaySegError, match=r"ec2\.conv1\.bias is no tensor, WingsNet needs \(16,\)"):
        import_published(tmp_path / "theirs.ckpt", "theirs")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_what_is_no_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(AirwaySegError, match=f"^{path} is a (folder|device)"):
            import_published(path, str(tmp_path / "out.safetensors"))


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.filterwarnings("error")
def test_a_checkpoint_of_another_pickle_protocol_is_imported_without_a_warning(tmp_path: Path, protocol: int) -> None:
    state = PublishedWingsNet(2, 3).state_dict()
    torch.save({"state_dict": state}, tmp_path / "theirs.ckpt", pickle_protocol=protocol)
    assert import_published(tmp_path / "theirs.ckpt", str(tmp_path / "out.safetensors")).exists()


def test_other_warnings_about_a_checkpoint_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_and_warn(*_: object, **__: object) -> dict[str, object]:
        warnings.warn("the disk is slow", UserWarning, stacklevel=2)
        return {"state_dict": PublishedWingsNet(2, 3).state_dict()}

    monkeypatch.setattr(torch, "load", load_and_warn)
    (tmp_path / "theirs.ckpt").write_bytes(b"any")
    with pytest.warns(UserWarning, match="the disk is slow"):
        import_published(tmp_path / "theirs.ckpt", str(tmp_path / "out.safetensors"))


def test_an_import_can_go_to_a_path_but_not_out_of_the_user_folder(tmp_path: Path) -> None:
    a_checkpoint(tmp_path / "theirs.ckpt")
    assert import_published(tmp_path / "theirs.ckpt", str(tmp_path / "out.safetensors")).exists()
    with pytest.raises(AirwaySegError, match="neither a plain name"):
        import_published(tmp_path / "theirs.ckpt", "../out")


class RunsCode:
    """Unpickled in the ordinary way this would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_checkpoint_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    a_checkpoint(tmp_path / "evil.ckpt", surprise=RunsCode(tmp_path / "hacked"))
    with pytest.raises(AirwaySegError, match="without running code"):
        import_published(tmp_path / "evil.ckpt", "evil")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02]q\x00."])
def test_a_file_that_is_no_checkpoint_gives_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(AirwaySegError, match=r"x\.ckpt"):
        import_published(tmp_path / "x.ckpt", "x")
    with pytest.raises(AirwaySegError, match=r"absent\.ckpt does not exist"):
        import_published(tmp_path / "absent.ckpt", "x")
