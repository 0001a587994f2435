"""Our inference against the plain loop of the reference evaluation, on the same windows in the same run.

    python Testing/benchmarks/inference.py --ct CT.nii.gz --weights default --windows 4
    python Testing/benchmarks/inference.py --memory

Both sides average 128^3 windows at a stride of 64 with constant weights. The plain loop is the published form of the
network in eager float32, encoder head included. Each side runs one window before its time is taken. Masks are compared
at 0.5; a network without training, whose answers all lie near one half, is compared at the value that
1 % of the plain loop's voxels exceed.
"""

import argparse
import itertools
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from AirwaySegLib.files.volume import read_ct
from AirwaySegLib.networks import openvino_backend
from AirwaySegLib.networks.device_plan import Plan, plan
from AirwaySegLib.networks.sliding_window import open_backend, predict
from AirwaySegLib.networks.weights import ModelInfo, load_weights
from AirwaySegLib.networks.windows import Sliding, axis_starts
from AirwaySegLib.networks.wingsnet import WingsNet

SIDE, STRIDE = 128, 64
PATCH = (SIDE, SIDE, SIDE)
SLIDING = Sliding(PATCH, overlap=0.5, weighting="constant")
BIG_CT = (600, 512, 512)
UNTRAINED = "untrained"


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=Path, help="a CT; left out: noise")
    parser.add_argument("--weights", default="default", help=f"a name, a file, or {UNTRAINED!r}")
    parser.add_argument("--norm", default="instance", help="normalisation of the untrained network")
    parser.add_argument("--windows", type=int, default=4, help="at least so many windows, taken from the middle")
    parser.add_argument("--memory", action="store_true", help=f"peak memory for a CT of {BIG_CT} instead")
    options = parser.parse_args()
    if options.memory:
        for kind, precision in configurations():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(f"{kind:<9} {precision:<9}", pool.apply(peak_memory, (kind, precision)), flush=True)
    else:
        compare(options)


def configurations() -> list[tuple[str, str]]:
    """Backend and precision of each run."""
    with_openvino = [("openvino", "float32"), ("openvino", "bfloat16")] if openvino_backend.is_installed() else []
    return [("torch", "float32"), *with_openvino]


def compare(options: argparse.Namespace) -> None:
    """Print seconds a window, ratio and agreement of the plain loop and of each backend."""
    if options.weights == UNTRAINED:
        net, info = untrained(options.norm), ModelInfo(UNTRAINED, norm=options.norm)
    else:
        net, info, _ = load_weights(options.weights)
    image = middle_of(options.ct, info, options.windows)
    windows = len(corners(image.shape[1:]))
    print(f"{windows} windows of {image.shape[1:]} voxels, {torch.get_num_threads()} threads, weights {info.name}")
    plain, plain_seconds = plain_loop(net, image)
    trained = options.weights != UNTRAINED
    threshold = 0.5 if trained else float(np.quantile(plain, 0.99))
    share = np.mean(plain >= threshold)
    print(f"plain loop          {plain_seconds:6.2f} s a window; {share:.2%} of voxels are airway", flush=True)
    for kind, precision in configurations():
        planned = Plan("cpu", kind, precision, 1, 0)
        backend = open_backend(net, info, planned, lambda sentence: print("warning:", sentence))
        backend.run(image[None, :, :SIDE, :SIDE, :SIDE].copy())
        start = time.perf_counter()
        result = predict(image, backend, SLIDING)
        seconds = (time.perf_counter() - start) / windows
        print(
            f"{kind:<9} {precision:<9} {seconds:6.2f} s a window; ratio {plain_seconds / seconds:5.2f}; "
            f"Dice {dice(result >= 255 * threshold, plain >= threshold):.5f}; "
            f"largest difference {np.abs(result / 255 - plain).max():.4f}",
            flush=True,
        )


def untrained(norm: str) -> WingsNet:
    """Random weights; batch normalisation gets the statistics of noise, so that no layer's values vanish."""
    torch.manual_seed(0)
    net = WingsNet(norm="batch" if norm == "batch" else "instance", dropout=0.0)
    with torch.no_grad():
        for _ in range(30):
            net(torch.rand(1, 1, 32, 32, 32))
    return net.eval()


def middle_of(path: Path | None, info: ModelInfo, windows: int) -> np.ndarray:
    """(C, Z, Y, X) float32: the middle of the CT, as large as so many windows need."""
    sides = [1, 1, 1]
    for axis in itertools.islice(itertools.cycle((1, 2, 0)), 12):
        if np.prod(sides) < windows:
            sides[axis] += 1
    shape = [SIDE + STRIDE * (count - 1) for count in sides]
    if path is None:
        hu = np.random.default_rng(0).normal(-700, 200, shape).astype(np.float32)
    else:
        whole = read_ct(path)[0].array
        starts = [max(0, (size - side) // 2) for size, side in zip(whole.shape, shape, strict=True)]
        hu = whole[tuple(slice(start, start + side) for start, side in zip(starts, shape, strict=True))]
    ranges = [info.window_hu] if info.second_window_hu is None else [info.window_hu, info.second_window_hu]
    return np.stack([np.clip((hu - low) / (high - low), 0, 1).astype(np.float32) for low, high in ranges])


def corners(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """First voxels of the windows."""
    return list(itertools.product(*(axis_starts(size, SIDE, SIDE - STRIDE) for size in shape)))


def plain_loop(net: nn.Module, image: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean probability float32 (Z, Y, X) of the published form, window by window, and seconds a window."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))
    from published_wingsnet import as_published

    published, sums, counts = as_published(net), np.zeros(image.shape[1:]), np.zeros(image.shape[1:])
    with torch.no_grad():
        published(torch.from_numpy(image[None, :, :SIDE, :SIDE, :SIDE].copy()))
        start = time.perf_counter()
        for corner in corners(image.shape[1:]):
            box = tuple(slice(first, first + SIDE) for first in corner)
            window = torch.from_numpy(image[(slice(None), *box)].copy())[None]
            sums[box] += published(window)[1].sigmoid().amax(1)[0].numpy()
            counts[box] += 1
        seconds = time.perf_counter() - start
    return sums / counts, seconds / len(corners(image.shape[1:]))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Dice coefficient of two masks; 1 when both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0


def peak_memory(kind: str, precision: str) -> str:
    """Run in a process of its own: all arrays of a big CT, uncropped, but one window only."""
    import resource

    image = np.zeros((1, *BIG_CT), np.float32)
    image += np.linspace(0, 1, BIG_CT[2], dtype=np.float32)
    region = np.zeros(BIG_CT, bool)
    region[:8, :8, :8] = True
    planned = plan(image.shape, PATCH, "cpu", kind, precision)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    predict(
        image, open_backend(untrained("batch"), ModelInfo(UNTRAINED, norm="batch"), planned, print), SLIDING, region
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    planned_gib = planned.bytes_estimated / 2**30
    return f"peak {peak / unit:.2f} GiB, planned {planned_gib:.2f}; before the network {before / unit:.2f}"


if __name__ == "__main__":
    main()
