"""Sliding windows, the backends that run them, and the plan of memory."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from published_wingsnet import PublishedWingsNet

from AirwaySegLib.errors import AirwaySegError, Cancelled
from AirwaySegLib.networks import device_plan, sliding_window
from AirwaySegLib.networks.device_plan import Plan, plan
from AirwaySegLib.networks.openvino_backend import is_installed
from AirwaySegLib.networks.sliding_window import PlannedBackend, TorchBackend, predict
from AirwaySegLib.networks.weights import ModelInfo
from AirwaySegLib.networks.windows import Sliding, axis_starts
from AirwaySegLib.networks.wingsnet import WingsNet, fast_form, published_to_ours

PATCH = (16, 16, 16)
ON_CPU = Plan("cpu", "torch", "float32", 1, 0)


class Identity:
    """A network whose probability is its first channel; counts the windows and remembers the batches."""

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self.batches: list[int] = []

    def run(self, windows: np.ndarray) -> np.ndarray:
        assert windows.dtype == np.float32
        assert windows.shape[2:] == PATCH
        self.batches.append(len(windows))
        return windows[:, :1]


class Position(Identity):
    """A network that answers 1 in the corner voxel of a window and 0 elsewhere: it shows where windows lie."""

    def run(self, windows: np.ndarray) -> np.ndarray:
        super().run(windows)
        answer = np.zeros((len(windows), 1, *PATCH), np.float32)
        answer[:, :, 0, 0, 0] = 1
        return answer


def a_volume(*shape: int, channels: int = 1) -> np.ndarray:
    steps = np.random.default_rng(0).integers(0, 256, (channels, *shape))
    return (steps / 255).astype(np.float32)


def as_stored(image: np.ndarray) -> np.ndarray:
    return np.rint(image[0] * 255).astype(np.uint8)


def description_of(net: WingsNet) -> ModelInfo:
    second = (0.0, 1.0) if net.in_channels == 2 else None
    return ModelInfo("some", net.in_channels, net.classes, net.norm, second_window_hu=second, patch_zyx=PATCH)


def a_net(in_channels: int = 1, classes: int = 1) -> tuple[WingsNet, PublishedWingsNet]:
    torch.manual_seed(4)
    published = PublishedWingsNet(in_channels, classes).eval()
    net = WingsNet(in_channels, classes)
    net.load_state_dict(published_to_ours(published.state_dict())[0])
    return net, published


# Sliding windows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["constant", "gaussian"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(40, 33, 16), (16, 16, 16), (9, 50, 5)])
def test_an_identity_network_gives_the_volume_back(weighting: str, overlap: float, shape: tuple[int, ...]) -> None:
    image = a_volume(*shape)
    result = predict(image, Identity(batch=3), Sliding(PATCH, overlap, weighting))
    assert result.dtype == np.uint8
    assert np.array_equal(result, as_stored(image))


def test_the_windows_of_an_axis_are_on_a_raster_or_spread_evenly() -> None:
    assert axis_starts(110, 64, 32) == [0, 32, 46]
    assert axis_starts(110, 64, 32, even=True) == [0, 23, 46]
    assert axis_starts(128, 64, 32) == [0, 32, 64]
    assert axis_starts(64, 64, 32) == [0]
    assert axis_starts(10, 64, 32) == [0]
    assert axis_starts(200, 128, 0) == [0, 72]
    assert axis_starts(240, 128, 16, even=True) == [0, 112]
    assert axis_starts(241, 128, 16, even=True) == [0, 56, 113]


def test_overlapping_windows_are_averaged() -> None:
    image = a_volume(16, 16, 24)
    result = predict(image, Position(), Sliding(PATCH, 0.5))
    # Windows start at x = 0 and 8: the voxel x = 8 is seen by both, and only the second answers 1 there.
    assert result[0, 0, 0] == 255
    assert result[0, 0, 8] == round(255 / 2)
    assert np.count_nonzero(result) == 2


def test_gaussian_weights_trust_the_middle_of_a_window_more() -> None:
    image = a_volume(16, 16, 24)
    result = predict(image, Position(), Sliding(PATCH, 0.5, "gaussian"))
    edge, middle = np.exp(-0.5 * (7.5 / 2) ** 2), np.exp(-0.5 * (0.5 / 2) ** 2)
    assert result[0, 0, 0] == 255
    assert result[0, 0, 8] == round(255 * edge / (edge + middle))


def test_windows_without_region_are_skipped_and_the_rest_is_exact() -> None:
    image = a_volume(40, 40, 40)
    region = np.zeros((40, 40, 40), bool)
    region[2:12, 5:30, 20:28] = True
    for weighting in ("constant", "gaussian"):
        backend = Identity()
        result = predict(image, backend, Sliding(PATCH, 0.5, weighting), region)
        assert np.array_equal(result, np.where(region, as_stored(image), 0))
        assert 0 < len(backend.batches) < 4**3 / 2


def test_what_windows_answer_beside_the_region_can_be_kept() -> None:
    image = a_volume(16, 16, 60)
    region, kept = np.zeros((2, 16, 16, 60), bool)
    region[:, :, 20:30] = kept[:, :, :40] = True
    result = predict(image, Identity(), Sliding(PATCH, 0.5, on_region=True), region, kept=kept)
    ran = np.flatnonzero(result.any(axis=(0, 1)))
    assert (ran[0], ran[-1]) == (17, 32)  # the box of the region, enlarged to a window
    assert np.array_equal(result[..., 17:33], as_stored(image)[..., 17:33])


def test_an_empty_region_runs_no_window() -> None:
    backend = Identity()
    result = predict(a_volume(20, 20, 20), backend, Sliding(PATCH), np.zeros((20, 20, 20), bool))
    assert backend.batches == []
    assert not result.any()


def test_a_region_smaller_than_a_window_is_padded_with_the_volume() -> None:
    image, region = a_volume(10, 20, 12), np.zeros((10, 20, 12), bool)
    region[3:5] = True
    result = predict(image, Identity(), Sliding(PATCH), region)
    assert np.array_equal(result, np.where(region, as_stored(image), 0))


def test_every_window_runs_once_in_batches_and_is_reported() -> None:
    backend, reports = Identity(batch=4), []
    predict(a_volume(32, 32, 24), backend, Sliding(PATCH, 0.5), progress=lambda *report: reports.append(report))
    assert sum(backend.batches) == 3 * 3 * 2
    assert max(backend.batches) == 4
    assert reports[-1] == ("infer", 18, 18)
    assert [done for _, done, _ in reports] == sorted({done for _, done, _ in reports})


def test_cancelling_stops_before_the_next_window() -> None:
    backend = Identity()

    def cancel(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        predict(a_volume(32, 32, 32), backend, Sliding(PATCH), progress=cancel)
    assert len(backend.batches) == 2


def test_values_that_are_not_finite_are_refused() -> None:
    image = a_volume(16, 16, 16)
    image[0, 3, 3, 3] = np.nan
    with pytest.raises(AirwaySegError, match="not finite"):
        predict(image, Identity(), Sliding(PATCH))


def test_a_half_precision_image_is_taken_and_left_alone() -> None:
    image = np.full((1, 16, 16, 20), 0.25, np.float16)
    assert np.all(predict(image, Identity(), Sliding(PATCH)) == 64)
    assert np.all(image == 0.25)


def test_wrong_overlap_weighting_and_shapes_are_refused() -> None:
    for wrong in ({"overlap": 0.9}, {"overlap": -0.1}, {"weighting": "cosine"}):
        with pytest.raises(AirwaySegError):
            Sliding(PATCH, **wrong)
    with pytest.raises(AirwaySegError, match="region"):
        predict(a_volume(16, 16, 16), Identity(), Sliding(PATCH), np.ones((16, 16, 17), bool))
    with pytest.raises(AirwaySegError, match="shape"):
        predict(a_volume(16, 16, 16)[0], Identity(), Sliding(PATCH))


# Backends ------------------------------------------------------------------------------------------------------------


def plainly(published: PublishedWingsNet, image: np.ndarray) -> np.ndarray:
    """The papers' protocol written out: both heads, half a window in common or more, the decoder's mean."""
    sums, counts = np.zeros(image.shape[1:]), np.zeros(image.shape[1:])
    for z in (0, 8):
        for x in (0, 8, 12):
            box = (slice(z, z + 16), slice(0, 16), slice(x, x + 16))
            with torch.no_grad():
                logits = published(torch.from_numpy(image[(slice(None), *box)])[None])[1]
            sums[box] += logits.sigmoid().amax(1)[0].numpy()
            counts[box] += 1
    return sums / counts


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize(("in_channels", "classes"), [(1, 1), (2, 3)])
def test_a_volume_gets_the_published_answer(backend: str, in_channels: int, classes: int) -> None:
    if backend == "openvino" and not is_installed():
        pytest.skip("OpenVINO is not installed")
    net, published = a_net(in_channels, classes)
    image, warnings = a_volume(24, 16, 28, channels=in_channels), []
    opened = PlannedBackend(net, description_of(net), Plan("cpu", backend, "float32", 1, 0), warnings.append)
    expected = 255 * plainly(published, image)
    assert expected.std() > 1
    assert np.abs(predict(image, opened, Sliding(PATCH)) - expected).max() < 0.6
    assert warnings == []
    assert opened.plan.backend == backend


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_bfloat16_is_near(backend: str, norm: str) -> None:
    if backend == "openvino" and not is_installed():
        pytest.skip("OpenVINO is not installed")
    torch.manual_seed(1)
    net = WingsNet(norm=norm)
    windows = a_volume(*PATCH)[None]
    exact = fast_form(net)(torch.from_numpy(windows)).sigmoid().numpy()
    opened = PlannedBackend(net, description_of(net), Plan("cpu", backend, "bfloat16", 1, 0), lambda sentence: None)
    assert np.abs(opened.run(windows) - exact).max() < 0.03


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_windows_may_change_their_size(backend: str) -> None:
    if backend == "openvino" and not is_installed():
        pytest.skip("OpenVINO is not installed")
    torch.manual_seed(1)
    net = WingsNet(norm="batch")
    opened = PlannedBackend(net, description_of(net), Plan("cpu", backend, "float32", 1, 0), lambda sentence: None)
    for sides in (PATCH, (16, 24, 32), (24, 16, 16), PATCH):
        windows = a_volume(*sides)[None]
        exact = fast_form(net)(torch.from_numpy(windows)).sigmoid().numpy()
        assert np.abs(opened.run(windows) - exact).max() < 1e-4


def test_openvino_is_imported_without_telemetry(tmp_path: Path) -> None:
    if not is_installed():
        pytest.skip("OpenVINO is not installed")
    program = (
        "import socket, sys, time\n"
        "def refuse(*args, **kwargs): print('asked for', args); raise OSError\n"
        "socket.getaddrinfo = refuse\n"
        "from AirwaySegLib.networks.openvino_backend import import_openvino\n"
        "assert import_openvino().Core() is not None\n"
        "time.sleep(0.3)\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    environment = {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_broken_openvino_is_replaced_by_pytorch_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no such plugin\nand a trace")

    monkeypatch.setattr(sliding_window, "OpenVinoBackend", broken)
    net, published = a_net()
    windows, warnings = a_volume(*PATCH)[None], []
    opened = PlannedBackend(net, description_of(net), Plan("cpu", "openvino", "float32", 1, 0), warnings.append)
    with torch.no_grad():
        expected = published(torch.from_numpy(windows))[1].sigmoid().numpy()
    assert np.allclose(opened.run(windows), expected, atol=1e-5)
    assert opened.plan.backend == "torch"
    assert warnings == ["OpenVINO does not work here (no such plugin); PyTorch is used, which is slower."]


def a_runner_that_fails_above(largest: int, error: Exception) -> Callable[..., object]:
    """Stands in for `TorchBackend` on a GPU: it runs `largest` windows at once, and not more."""

    class Runner(TorchBackend):
        def __init__(self, net: object, device: str, precision: str) -> None:
            super().__init__(net, "cpu", precision)
            self.wanted = device

        def run(self, windows: np.ndarray) -> np.ndarray:
            if self.wanted == "cuda" and len(windows) > largest:
                raise error
            return super().run(windows)

    return Runner


@pytest.mark.parametrize(("largest", "device", "sentences"), [(1, "cuda", 1), (0, "cpu", 1)])
def test_a_full_gpu_takes_single_windows_and_then_the_cpu(
    largest: int, device: str, sentences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory.")
    monkeypatch.setattr(sliding_window, "TorchBackend", a_runner_that_fails_above(largest, full))
    monkeypatch.setattr(sliding_window, "choose_cpu_backend", lambda wanted, network: "torch")
    net, published = a_net()
    image, warnings = a_volume(24, 16, 28), []
    opened = PlannedBackend(net, description_of(net), Plan("cuda", "torch", "float32", 4, 0), warnings.append)
    result = predict(image, opened, Sliding(PATCH))
    assert np.abs(result - 255 * plainly(published, image)).max() < 0.6
    assert (opened.plan.device, opened.batch) == (device, 1)
    assert len(warnings) == sentences


@pytest.mark.parametrize(("wanted", "used"), [("torch", "torch"), ("auto", "openvino")])
def test_a_gpu_that_cannot_run_the_network_gives_way_to_the_cpu(
    wanted: str, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = RuntimeError("CUDA error: no kernel image is available\nfor this device")
    monkeypatch.setattr(sliding_window, "TorchBackend", a_runner_that_fails_above(0, unknown))
    monkeypatch.setattr(device_plan.openvino_backend, "is_installed", lambda: True)
    monkeypatch.setattr(sliding_window, "OpenVinoBackend", lambda *_: SimpleNamespace(precision="float32"))
    warnings: list[str] = []
    planned = Plan("cuda", "torch", "float32", 1, 0, on_cpu=wanted)
    opened = PlannedBackend(a_net()[0], description_of(a_net()[0]), planned, warnings.append)
    assert (opened.plan.device, opened.plan.backend) == ("cpu", used)
    assert warnings == ["cuda cannot run the network (CUDA error: no kernel image is available); the CPU is used."]


def test_a_failure_of_the_gpu_amid_the_work_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("CUDA error: device lost")
    monkeypatch.setattr(sliding_window, "TorchBackend", a_runner_that_fails_above(1, lost))
    opened = PlannedBackend(a_net()[0], description_of(a_net()[0]), Plan("cuda", "torch", "float32", 2, 0), print)
    with pytest.raises(RuntimeError, match="device lost"):
        opened.run(np.concatenate([a_volume(*PATCH)[None]] * 2))


def test_a_full_cpu_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = PlannedBackend(a_net()[0], description_of(a_net()[0]), ON_CPU, print)

    def full(windows: np.ndarray) -> np.ndarray:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes.")

    monkeypatch.setattr(opened, "_runner", type("Full", (), {"run": staticmethod(full)}))
    with pytest.raises(AirwaySegError, match="Out of memory for a window"):
        opened.run(a_volume(*PATCH)[None])


# The plan ------------------------------------------------------------------------------------------------------------


SHAPE, WINDOW, GIB = (1, 400, 300, 300), (128, 128, 128), 2**30


def test_the_cpu_is_planned_with_its_memory() -> None:
    planned = plan(SHAPE, WINDOW, "cpu", "torch", free_bytes=8 * GIB)
    assert (planned.device, planned.backend, planned.batch, planned.warnings) == ("cpu", "torch", 1, ())
    volume = 300 * 300 * (400 * 6 + 128 * 8)
    assert planned.bytes_estimated == device_plan.PROCESS_BYTES + 700 * 128**3 + volume
    assert plan(SHAPE, WINDOW, "cpu", "torch", "bfloat16", 8 * GIB).bytes_estimated < planned.bytes_estimated


def test_too_little_memory_is_said_before_the_start() -> None:
    (warning,) = plan(SHAPE, WINDOW, "cpu", "torch", free_bytes=GIB).warnings
    assert "1.0 GiB are free" in warning


@pytest.mark.parametrize(("free", "batch"), [(80 * GIB, 4), (5 * GIB, 2), (int(2.5 * GIB), 1)])
def test_a_gpu_gets_as_many_windows_as_fit(free: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    planned = plan(SHAPE, WINDOW, "auto", free_bytes=free)
    assert (planned.device, planned.batch, planned.warnings) == ("cuda", batch, ())
    assert planned.bytes_estimated < free


def test_a_gpu_that_is_too_small_gives_way_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_plan, "free_memory", lambda device: GIB if device == "cuda" else 64 * GIB)
    planned = plan(SHAPE, WINDOW, "cuda")
    assert (planned.device, planned.batch) == ("cpu", 1)
    assert "the CPU is used" in planned.warnings[0]


def test_a_device_or_backend_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(device_plan.openvino_backend, "is_installed", lambda: False)
    assert device_plan.choose_device("auto") == "cpu"
    assert device_plan.choose_cpu_backend("auto") == "torch"
    for wanted in ("cuda", "cuda:1", "mps", "tpu"):
        with pytest.raises(AirwaySegError, match=wanted):
            plan(SHAPE, WINDOW, wanted)
    monkeypatch.setattr(device_plan, "choose_device", lambda wanted: wanted)
    for device in ("cpu", "cuda"):  # a GPU that fails gives way to the backend that is wanted
        with pytest.raises(AirwaySegError, match="OpenVINO is not installed"):
            plan(SHAPE, WINDOW, device, "openvino", free_bytes=8 * GIB)


def test_an_apple_gpu_is_taken_by_itself_only_where_it_has_run_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for runs, device in ((False, "cpu"), (True, "mps")):
        monkeypatch.setattr(device_plan, "runs_network", lambda device, runs=runs: runs)
        assert device_plan.choose_device("auto") == device and device_plan.choose_device("mps") == "mps"


def test_a_device_runs_the_network_when_it_computes_as_the_cpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    device_plan.runs_network.cache_clear()
    assert device_plan.runs_network("cpu")
    assert not device_plan.runs_network("meta")  # which computes nothing
    device_plan.runs_network.cache_clear()
    figures = device_plan._figures_on
    wrong = iter((1.1, 1.0))
    monkeypatch.setattr(device_plan, "_figures_on", lambda *a: [next(wrong) * one for one in figures(*a)[:1]])
    assert not device_plan.runs_network("cpu")
    device_plan.runs_network.cache_clear()


def test_free_memory_is_a_sensible_number_on_linux() -> None:
    if not Path("/proc/meminfo").exists():
        pytest.skip("only Linux tells it this way")
    free = device_plan.free_memory("cpu")
    assert free is not None
    assert 2**26 < free < 2**50
