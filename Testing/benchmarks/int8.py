"""The network in int8 against float32, both in OpenVINO: processor seconds of a window, and how far the masks agree.

    .venv/bin/python Testing/benchmarks/int8.py --calibration CT --ct CT [--weights default] [--processor avx2]

Quantised after training by NNCF (`pip install nncf`), which is no dependency of the program: each activation gets the
range that it has in windows of one CT; windows of the other CT are run. ``--processor avx2`` tells oneDNN to do without
AVX-512 and its instructions for int8, as in `case.py`. NNCF's telemetry is not loaded.
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from inference import PATCH, SIDE, corners, dice, middle_of

from AirwaySegLib.networks.openvino_backend import OPSET, Graph, import_openvino
from AirwaySegLib.networks.sliding_window import inference_form
from AirwaySegLib.networks.weights import load_weights
from AirwaySegLib.networks.wingsnet import FastWingsNet


def windows_of(image: np.ndarray) -> Iterator[np.ndarray]:
    """Windows (1, C, 128, 128, 128) of an image (C, Z, Y, X)."""
    for z, y, x in corners(image.shape[1:]):
        yield image[None, :, z : z + SIDE, y : y + SIDE, x : x + SIDE].copy()


def timed(model: Any, precision: str, windows: list[np.ndarray], openvino: Any) -> tuple[list[np.ndarray], float]:
    """The answers of a model, and processor seconds of a window after a first one that does not count."""
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1})
    compiled(windows[0])
    start = time.process_time()
    answers = [np.array(compiled(window)[0]) for window in windows]
    return answers, (time.process_time() - start) / len(windows)


def main() -> int:
    """Read the command line, quantise, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=Path, required=True, help="a CT")
    parser.add_argument("--ct", type=Path, required=True, help="another CT")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--processor", choices=("own", "avx2"), default="own")
    options = parser.parse_args()
    if options.processor == "avx2":
        os.environ |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"}
    openvino = import_openvino()
    cast(dict[str, Any], sys.modules)["openvino_telemetry"] = None  # NNCF then goes without it
    nncf = importlib.import_module("nncf")
    net, info, _ = load_weights(options.weights)
    fast = inference_form(net, info)
    assert isinstance(fast, FastWingsNet)
    shape = (1, info.in_channels, *PATCH)
    (model,) = Graph(importlib.import_module(OPSET)).models(openvino, fast, shape, cut=0)
    known = list(windows_of(middle_of(options.calibration, info, options.windows)))
    windows = list(windows_of(middle_of(options.ct, info, options.windows)))
    exact, seconds = timed(model, "f32", windows, openvino)
    print(f"float32 {seconds:.2f} processor seconds a window", flush=True)
    small = nncf.quantize(model, nncf.Dataset(known), subset_size=len(known))
    rough, faster = timed(small, "f32", windows, openvino)
    masks = np.stack(exact) >= 0.5, np.stack(rough) >= 0.5
    ratio = seconds / faster
    print(f"int8    {faster:.2f} processor seconds a window, {ratio:.2f} times as fast; Dice {dice(*masks):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
