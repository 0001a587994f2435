"""Sliding-window inference over a volume, and the backends that run a window: PyTorch, or OpenVINO on the CPU."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.architectures import architecture, heads_of
from AirwaySegLib.networks.device_plan import Plan, choose_cpu_backend
from AirwaySegLib.networks.openvino_backend import OpenVinoBackend
from AirwaySegLib.networks.weights import ModelInfo
from AirwaySegLib.networks.windows import Corner, Sliding, Windows, padded_to, window_box
from AirwaySegLib.progress import Progress, silent


class Runner(Protocol):
    """Runs windows."""

    def run(self, windows: np.ndarray) -> np.ndarray:
        """(B, C, Z, Y, X) float32 in [0, 1] -> probabilities (B, K, Z, Y, X) float32, valid until the next call."""
        ...


class Backend(Runner, Protocol):
    """A `Runner` with a largest batch size."""

    @property
    def batch(self) -> int:
        """Largest number of windows per call."""
        ...


def predict(
    image: np.ndarray,
    backend: Backend,
    sliding: Sliding,
    region: np.ndarray | None = None,
    progress: Progress = silent,
    kept: np.ndarray | None = None,
) -> np.ndarray:
    """Mean airway probability of overlapping windows.

    A volume smaller than a window is padded by its mirror image, because the normalisation depends on the window's
    content. Only sums of one window's depth are in memory: slices before the next row of windows are final.

    Parameters
    ----------
    image
        (C, Z, Y, X), any floating dtype, already normalised to [0, 1].
    backend
        From `open_backend`; with several classes the probability is the largest of theirs.
    sliding
        Size, overlap and weights of the windows.
    region
        (Z, Y, X) bool: where the probability is needed. Windows outside it are skipped, and the result is 0 outside it
        (but see ``kept``). Inside, every window that covers a voxel is run, so the mean is exact. None: everywhere.
    progress
        Callback, called as progress("infer", windows done, windows); may raise Cancelled.
    kept
        (Z, Y, X) bool: where the result is kept, if that is more than the region: what the windows answer beside the
        region is a mean of those that are run, and 0 where none is.

    Returns
    -------
    np.ndarray
        (Z, Y, X) uint8, 255 times the probability.
    """
    shape = image.shape[1:]
    if image.ndim != 4 or (region is not None and region.shape != shape):
        raise AirwaySegError(
            f"The image has shape {image.shape}, its region {None if region is None else region.shape}."
        )
    patch, whole = sliding.patch_zyx, np.zeros(shape, np.uint8)
    if region is not None and not region.any():
        return whole
    box = window_box(region, shape, sliding)
    sides = [part.stop - part.start for part in box]
    image = _mirrored_to(image[(slice(None), *box)], patch)
    grid = Windows(image.shape[1:], sliding, None if region is None else padded_to(region[box], patch))
    whole[box] = _over(image, grid, backend, progress)[: sides[0], : sides[1], : sides[2]]
    kept = region if kept is None else kept
    if kept is not None:
        whole[~kept] = 0
    return whole


def _over(image: np.ndarray, grid: Windows, backend: Backend, progress: Progress) -> np.ndarray:
    """Mean of the windows of a grid over an image of the grid's size (C, Z, Y, X): (Z, Y, X) uint8."""
    result = np.zeros(image.shape[1:], np.uint8)
    sums, weights = (np.zeros((grid.patch[0], *image.shape[2:]), np.float32) for _ in range(2))
    done, total = 0, sum(len(row) for row in grid.rows)
    progress("infer", 0, total)
    for row, (start, stop) in zip(grid.rows, grid.finished_slices(), strict=True):
        for corners in _batches(row, backend.batch):
            windows = np.stack([image[(slice(None), *grid.box(corner))] for corner in corners]).astype(np.float32)
            for (_, y, x), probability in zip(corners, backend.run(windows), strict=True):
                sums[grid.box((0, y, x))] += probability.max(axis=0) * grid.weight
                weights[grid.box((0, y, x))] += grid.weight
            done += len(corners)
            progress("infer", done, total)
        finished = stop - start
        result[start:stop] = _mean(sums[:finished], weights[:finished])
        for rolling in (sums, weights):
            rolling[:-finished] = rolling[finished:]
            rolling[-finished:] = 0
    return result


def _batches(corners: list[Corner], batch: int) -> Iterator[list[Corner]]:
    return (corners[start : start + batch] for start in range(0, len(corners), batch))


def _mean(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums divided (in place) by those of the weights, as 0..255; 0 where no window was run."""
    np.divide(sums, weights, out=sums, where=weights > 0)
    if not np.isfinite(sums).all():
        raise AirwaySegError("The network's output has values that are not finite; try --precision float32.")
    np.rint(sums * np.float32(255), out=sums)
    return sums.astype(np.uint8)


def _mirrored_to(image: np.ndarray, patch: tuple[int, int, int]) -> np.ndarray:
    missing = [max(0, side - size) for size, side in zip(image.shape[1:], patch, strict=True)]
    return np.pad(image, [(0, 0), *((0, n) for n in missing)], mode="symmetric") if any(missing) else image


class LastHead(nn.Module):
    """A network without a fast form, for inference: the logits of its last head."""

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.net, self.name = net, name

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> logits (B, K, Z, Y, X); raises AirwaySegError if the network gives another shape."""
        logits = heads_of(self.net(x))[-1]
        if logits.ndim != 5 or logits.shape[2:] != x.shape[2:] or len(logits) != len(x):
            raise AirwaySegError(
                f"The network {self.name!r} answers a tensor of {tuple(x.shape)} with one of {tuple(logits.shape)}."
            )
        return logits


def inference_form(net: nn.Module, info: ModelInfo) -> nn.Module:
    """The network in the form in which it segments, a copy: its fast form if it has one, else as it is."""
    fast_form = architecture(info.architecture).fast_form
    return LastHead(copy.deepcopy(net).eval(), info.architecture) if fast_form is None else fast_form(net)


class TorchBackend:
    """A network's form for inference in PyTorch on `device`, in "float32" or with autocast to "bfloat16"."""

    def __init__(self, net: nn.Module, device: str, precision: str) -> None:
        self.device, self.reduced = torch.device(device), precision == "bfloat16"
        self.net = net.to(self.device)

    def run(self, windows: np.ndarray) -> np.ndarray:
        """See `Runner`."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.reduced):
            logits = self.net(torch.from_numpy(windows).to(self.device))
        return logits.float().sigmoid().cpu().numpy()


def open_backend(net: nn.Module, info: ModelInfo, planned: Plan, warn: Callable[[str], None]) -> "PlannedBackend":
    """The backend that runs the windows of `net` as planned; see `PlannedBackend`."""
    return PlannedBackend(net, info, planned, warn)


class PlannedBackend:
    """Runs as planned; if a GPU is out of memory after all, one window at a time, then on the CPU.

    Windows may have any size; OpenVINO's network is compiled again (about a second) when it changes.

    Parameters
    ----------
    net
        The network on any device, in any mode; it is copied.
    info
        Its description: which network it is, its channels, and the size of the first windows.
    planned
        From `device_plan.plan`; the caller reports its warnings. The attribute `plan` is what is actually used.
    warn
        Callback, called with a sentence whenever the plan is changed.
    """

    def __init__(self, net: nn.Module, info: ModelInfo, planned: Plan, warn: Callable[[str], None]) -> None:
        self.net, self.info, self.plan, self.warn = net, info, planned, warn
        self.patch_zyx = info.patch_zyx
        self._runner = self._open()

    @property
    def batch(self) -> int:
        """How many windows at once."""
        return self.plan.batch

    def run(self, windows: np.ndarray) -> np.ndarray:
        """See `Runner`."""
        if self.plan.backend == "openvino" and windows.shape[2:] != self.patch_zyx:
            z, y, x = windows.shape[2:]
            self.patch_zyx = z, y, x
            del self._runner  # its memory is needed for the next
            self._runner = self._open()
        if len(windows) > self.batch:
            return np.concatenate([self.run(window[None]).copy() for window in windows])
        try:
            return self._runner.run(windows)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if self.plan.device == "cpu":
                raise AirwaySegError("Out of memory for a window; close other programs.") from error
        # Outside the except block: the error's traceback would keep the tensors of the failed window alive.
        self._step_down()
        return self.run(windows)

    def _step_down(self) -> None:
        if self.plan.batch > 1:
            self.warn("The GPU is out of memory for the planned batch; windows run one at a time.")
            self.plan = replace(self.plan, batch=1)
        else:
            self.warn("The GPU is out of memory for a single window; the rest runs on the CPU.")
            self._runner = self._open_on_cpu()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _open(self) -> Runner:
        net = inference_form(self.net, self.info)
        if self.plan.backend == "openvino":
            try:
                return self._open_openvino(net.cpu())
            except (ImportError, RuntimeError) as error:
                self.warn(f"OpenVINO does not work here ({_first_line(error)}); PyTorch is used, which is slower.")
                self.plan = replace(self.plan, backend="torch")
        if self.plan.device == "cpu":
            return TorchBackend(net, "cpu", self.plan.precision)
        try:
            runner = TorchBackend(net, self.plan.device, self.plan.precision)
            sides = (2 * self.info.side_multiple,) * 3 if self.info.any_window() else self.patch_zyx
            runner.run(np.zeros((1, self.info.in_channels, *sides), np.float32))
        except RuntimeError as error:  # a GPU for which this PyTorch has no kernels, or that lacks an operator
            self.warn(f"{self.plan.device} cannot run the network ({_first_line(error)}); the CPU is used.")
            return self._open_on_cpu()
        return runner

    def _open_on_cpu(self) -> Runner:
        backend = choose_cpu_backend(self.plan.on_cpu, self.info.architecture)
        self.plan = replace(self.plan, device="cpu", backend=backend, batch=1)
        return self._open()

    def _open_openvino(self, net: Any) -> Runner:
        shape = (self.plan.batch, self.info.in_channels, *self.patch_zyx)
        runner = OpenVinoBackend(net, shape, self.plan.precision, torch.get_num_threads())
        if runner.precision != self.plan.precision:
            self.warn(f"This processor does not support {self.plan.precision}; {runner.precision} is used.")
            self.plan = replace(self.plan, precision=runner.precision)
        return runner


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_out_of_memory(error: RuntimeError) -> bool:
    signs = ("out of memory", "alloc_failed", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(sign in str(error).lower() for sign in signs)
