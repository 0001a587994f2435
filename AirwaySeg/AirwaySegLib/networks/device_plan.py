"""Choice of device, backend, precision and batch size for inference, made from the free memory before the start."""

import copy
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks import openvino_backend
from AirwaySegLib.networks.architectures import DEFAULT, architecture
from AirwaySegLib.networks.wingsnet import SMALLEST_SIDE, WingsNet, fast_form

CpuBackend = Literal["torch", "openvino"]
Patch = tuple[int, int, int]


@dataclass(frozen=True)
class Plan:
    """Device, backend, precision and batch size; `bytes_estimated` is the estimated peak memory on that device.

    ``on_cpu`` is the backend that is wanted where a GPU fails: a choice of `SegmentSettings`.
    """

    device: str
    backend: CpuBackend
    precision: str
    batch: int
    bytes_estimated: int
    warnings: tuple[str, ...] = ()
    on_cpu: str = "auto"


PROCESS_BYTES = 400 * 2**20
"""Python, PyTorch and OpenVINO before the first window (measured: 0.31-0.39 GiB)."""

WINDOW_BYTES_PER_VOXEL = {
    ("openvino", "float32"): 750,
    ("openvino", "bfloat16"): 450,
    ("torch", "float32"): 700,
    ("torch", "bfloat16"): 390,
}
"""Memory for opening the backend on the CPU and running one window of 128^3, rounded up.

Measured by peak resident memory: OpenVINO 570-740 and 434, PyTorch 690 and 374 bytes per voxel.
"""

GPU_ALLOWANCE = 1.5
"""On a GPU, PyTorch's figure times this, for the workspaces of its convolutions; an allowance, not measured."""

LARGEST_BATCH = 4
"""One window of 128^3 already keeps a GPU busy; a few more hide the time between launches."""


def plan(
    shape: Sequence[int],
    patch_zyx: Patch,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    free_bytes: int | None = None,
) -> Plan:
    """Choose device, backend and batch size so that there is enough memory.

    A given precision and the window size are never changed, because they change the result. If a window does not fit
    into the GPU's memory, the CPU is used; if it does not fit into the CPU's, it is tried with a warning.

    Parameters
    ----------
    shape
        (C, Z, Y, X) of the image.
    patch_zyx
        The windows' size.
    device, backend, precision
        As in `SegmentSettings`.
    free_bytes
        Free memory of the device; None: the system is asked.

    Raises
    ------
    AirwaySegError
        If OpenVINO is wanted and not installed, on a GPU too, which gives way to the CPU when it fails.
    """
    device = choose_device(device)
    if device == "cpu":
        return _cpu_plan(shape, patch_zyx, choose_cpu_backend(backend), precision, free_bytes)
    if backend == "openvino":
        choose_cpu_backend(backend)  # refused now, not when the GPU fails
    free = free_memory(device) if free_bytes is None else free_bytes
    chosen = choose_precision(precision, "torch")
    window = int(GPU_ALLOWANCE * WINDOW_BYTES_PER_VOXEL["torch", chosen] * math.prod(patch_zyx))
    batch = 1 if free is None else min(int(0.9 * free / window), LARGEST_BATCH)
    if batch >= 1:
        return Plan(device, "torch", chosen, batch, batch * window, on_cpu=backend)
    warning = f"A window needs {_gib(window)} on the GPU, but {_gib(free or 0)} are free; the CPU is used."
    on_cpu = _cpu_plan(shape, patch_zyx, choose_cpu_backend(backend), precision, None)
    return replace(on_cpu, warnings=(warning, *on_cpu.warnings))


def _cpu_plan(
    shape: Sequence[int], patch_zyx: Patch, backend: CpuBackend, precision: str, free_bytes: int | None
) -> Plan:
    precision = choose_precision(precision, backend)
    window = WINDOW_BYTES_PER_VOXEL[backend, precision] * math.prod(patch_zyx)
    needed = PROCESS_BYTES + window + volume_bytes(shape, patch_zyx)
    free = free_memory("cpu") if free_bytes is None else free_bytes
    if free is None or needed <= free:
        return Plan("cpu", backend, precision, 1, needed)
    warning = f"About {_gib(needed)} of memory are needed, but {_gib(free)} are free; this may be slow or fail."
    return Plan("cpu", backend, precision, 1, needed, (warning,))


def volume_bytes(shape: Sequence[int], patch_zyx: Patch) -> int:
    """Memory of `predict`: image (float32), region, result, and sums of values and weights of one window's depth."""
    channels, *zyx = (int(side) for side in shape)
    depth, height, width = (max(size, side) for size, side in zip(zyx, patch_zyx, strict=True))
    return height * width * (depth * (4 * channels + 2) + 8 * patch_zyx[0])


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def choose_precision(wanted: str, backend: CpuBackend) -> str:
    """For "auto" bfloat16 in OpenVINO on a processor that supports it, else float32.

    For the bundled weights it was measured that bfloat16 does no harm on the CPU (see their model card), not on GPUs.
    """
    if wanted != "auto":
        return wanted
    return "bfloat16" if backend == "openvino" and openvino_backend.has_bfloat16() else "float32"


def has_bfloat16(device: str) -> bool:
    """Whether PyTorch is faster on the device in bfloat16: a GPU from Ampere on, or a processor with AVX512-BF16.

    Elsewhere PyTorch's convolutions in bfloat16 take up to fifty times as long as in float32. See
    `openvino_backend.has_bfloat16` for OpenVINO.
    """
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    # PyTorch's only query for it; versions without this query are taken to compute in float32.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def choose_device(wanted: str) -> str:
    """For "auto" "cuda" if available, "mps" if it passes `runs_network`, else "cpu".

    Raises
    ------
    AirwaySegError
        If another device is given that is not available.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        usable = [device for device in there if there[device] and (device != "mps" or runs_network(device))]
        return usable[0]
    if not there.get(wanted.split(":")[0], False):
        raise AirwaySegError(f"The device {wanted!r} is not available here; use --device auto or cpu.")
    return wanted


@functools.cache
def runs_network(device: str) -> bool:
    """Whether a device has every operator of the network, forward and backward, and gives the CPU's results.

    Apple's GPU lacks 3-D operators in some versions of PyTorch. A window of 16^3 shows this within seconds.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, window = WingsNet().eval(), torch.rand(1, 1, *3 * (SMALLEST_SIDE,))
    try:
        there, here = (_figures_on(where, copy.deepcopy(net), window) for where in (device, "cpu"))
        return all(torch.allclose(a, b, rtol=1e-2, atol=1e-3) for a, b in zip(there, here, strict=True))
    except (RuntimeError, AssertionError):  # a missing operator is the former, a missing device may be the latter
        return False


def _figures_on(device: str, net: WingsNet, window: Tensor) -> list[Tensor]:
    """Logits of training and of inference, and a gradient, each on the CPU."""
    net, window = net.to(device), window.to(device)
    with torch.enable_grad():
        outputs = net(window)
        torch.cat(outputs).square().mean().backward()
    gradient = next(net.parameters()).grad
    assert gradient is not None
    return [tensor.detach().cpu() for tensor in (*outputs, fast_form(net)(window), gradient)]


def choose_cpu_backend(wanted: str, network: str = DEFAULT) -> CpuBackend:
    """For "auto" OpenVINO if it is installed and has the network (`architectures`), else PyTorch."""
    if not architecture(network).openvino:
        if wanted == "openvino":
            raise AirwaySegError(f"OpenVINO does not run the network {network!r}; use --backend auto or torch.")
        return "torch"
    if wanted == "torch" or (wanted == "auto" and not openvino_backend.is_installed()):
        return "torch"
    if not openvino_backend.is_installed():
        raise AirwaySegError("OpenVINO is not installed; use --backend auto or torch.")
    return "openvino"


def free_memory(device: str) -> int | None:
    """Free bytes of a CUDA device or of the CPU (Linux: also a container's limit); None if unknown."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    found = []
    if device == "cpu" and Path("/proc/meminfo").exists():
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
        limit = Path("/sys/fs/cgroup/memory.max")
        if limit.exists() and limit.read_text().strip().isdigit():
            found.append(int(limit.read_text()))
    return min(found, default=None)
