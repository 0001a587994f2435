"""WingsNet on the CPU in OpenVINO: the graph is built operator by operator from the fast form's weights.

OpenVINO's own converter is not used, and its telemetry is not loaded: nothing leaves the user's computer.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, cast

import numpy as np
from torch import nn

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.wingsnet import DECODER, ENCODER, SKIPS, FastBlock, FastWingsNet

PRECISIONS = {"float32": ("f32",), "bfloat16": ("f32", "bf16")}
"""OpenVINO's names of the precision, one for each model that is run; see `PRECISE_BLOCKS`."""

OPSET = "openvino.opset13"

PRECISE_BLOCKS = 1
"""Encoder blocks that stay in float32 when the rest computes in bfloat16.

Most of bfloat16's error arises in the first block, which is 0.15 % of the work: with it in float32 the masks of four
windows of a real CT agree with float32's to Dice 0.9994 instead of 0.9981, at the same speed.
"""


def is_installed() -> bool:
    """Whether OpenVINO is installed; does not import it."""
    return importlib.util.find_spec("openvino") is not None


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry.

    A plain `import openvino` reports to a web analytics service and writes an identifier into the user's home folder.
    If the package `openvino_telemetry` cannot be imported, OpenVINO uses its own no-op replacement.
    """
    modules = cast(dict[str, Any], sys.modules)
    before = {name: modules.pop(name) for name in list(modules) if name.split(".")[0] == "openvino_telemetry"}
    modules["openvino_telemetry"] = None  # Python then refuses to import it
    try:
        openvino = importlib.import_module("openvino")
        importlib.import_module(OPSET)
    finally:
        del modules["openvino_telemetry"]
        modules.update(before)
    return openvino


def has_bfloat16() -> bool:
    """Whether OpenVINO is installed and this processor supports bfloat16."""
    if not is_installed():
        return False
    try:
        return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, RuntimeError):
        return False


class OpenVinoBackend:
    """A compiled network for windows of one fixed shape.

    Parameters
    ----------
    net
        The fast form, on the CPU.
    shape
        (B, C, Z, Y, X) of the windows.
    precision
        "float32", or "bfloat16", which a processor without bfloat16 computes in float32.
    threads
        Number of threads.
    """

    def __init__(self, net: FastWingsNet, shape: tuple[int, ...], precision: str, threads: int) -> None:
        if precision not in PRECISIONS:
            raise AirwaySegError(f"OpenVINO computes in {' or '.join(PRECISIONS)}, not in {precision}.")
        openvino = import_openvino()
        graph, core = Graph(importlib.import_module(OPSET)), openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        models = graph.models(openvino, net, shape, cut=PRECISE_BLOCKS if precision == "bfloat16" else 0)
        compiled = [
            core.compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": hint})
            for model, hint in zip(models, PRECISIONS[precision], strict=True)
        ]
        is_bfloat16 = compiled[-1].get_property("INFERENCE_PRECISION_HINT") == openvino.Type.bf16
        self.precision = "bfloat16" if is_bfloat16 else "float32"
        """The precision that the processor actually uses."""
        self._requests = [model.create_infer_request() for model in compiled]

    def run(self, windows: np.ndarray) -> np.ndarray:
        """(B, C, Z, Y, X) float32 -> probabilities (B, K, Z, Y, X) float32, valid until the next call."""
        for request in self._requests:
            windows = np.asarray(request.infer({0: windows}, share_inputs=True, share_outputs=True)[0])
        return windows


class Graph:
    """Writes the network in OpenVINO's operators (`ops`, an opset); mirrors the forward pass of `FastWingsNet`."""

    def __init__(self, ops: Any) -> None:
        self.ops = ops

    def models(self, openvino: Any, net: FastWingsNet, shape: tuple[int, ...], cut: int) -> list[Any]:
        """The network as one model, or as two to be run one after the other: `cut` (0, 1 or 2) blocks and the rest."""
        x = entry = self.ops.parameter(list(shape), np.float32)
        models, skips = [], []
        for index, (block, plan) in enumerate(zip(net.encoder, ENCODER, strict=True)):
            if index == cut > 0:
                models.append(openvino.Model([x], [entry], "wingsnet_start"))
                x = entry = self.ops.parameter(list(x.output(0).shape), np.float32)
            if index in (3, 6, 9):
                x = self.halve(x)
            x = self.block(x, block, plan.dilation)
            if index in SKIPS:
                skips.append(x)
        logits = self.decoder(net, skips)
        return [*models, openvino.Model([self.ops.sigmoid(logits)], [entry], "wingsnet")]

    def decoder(self, net: FastWingsNet, skips: list[Any]) -> Any:
        """Logits (B, K, Z, Y, X) from the encoder's outputs; ``skips`` is used up."""
        x = skips.pop()
        per_scale: dict[int, Any] = {}
        for index, (block, plan) in enumerate(zip(net.decoder, DECODER, strict=True)):
            if index % 2 == 0:
                x = self.ops.concat([self.upsample(x, 2), skips.pop()], axis=1)
            x = self.block(x, block, plan.dilation)
            share = self.convolution(x, net.sides[index], 1)
            per_scale[plan.scale] = self.ops.add(per_scale[plan.scale], share) if plan.scale in per_scale else share
        logits = self.per_channel(net.bias)
        for scale, x in per_scale.items():
            logits = self.ops.add(self.upsample(x, scale), logits)
        return logits

    def block(self, x: Any, block: nn.Module, dilation: int) -> Any:
        """`FastBlock.forward`."""
        assert isinstance(block, FastBlock)
        x = self.convolution(x, block.convolution, dilation)
        if block.normalise:
            x = self.ops.mvn(x, self.ops.constant(np.array([2, 3, 4])), True, 1e-5, "inside_sqrt")
        x = self.ops.prelu(x, self.ops.constant(np.array([0.01], np.float32)))
        for gate in block.gates:
            x = self.ops.multiply(x, self.ops.sigmoid(self.convolution(x, gate, 1)))
        return x

    def convolution(self, x: Any, convolution: nn.Module, dilation: int) -> Any:
        """A convolution that keeps the sides, with its bias if it has one."""
        weight = convolution.get_parameter("weight").numpy()
        pad = [dilation * (side // 2) for side in weight.shape[2:]]
        y = self.ops.convolution(x, self.ops.constant(weight), [1, 1, 1], pad, pad, [dilation] * 3)
        bias = dict(convolution.named_parameters()).get("bias")
        return y if bias is None else self.ops.add(y, self.per_channel(bias))

    def per_channel(self, values: nn.Parameter) -> Any:
        """Values (C,) as a constant (1, C, 1, 1, 1)."""
        return self.ops.constant(values.numpy().reshape(1, -1, 1, 1, 1))

    def halve(self, x: Any) -> Any:
        """The maximum of each 2 x 2 x 2 voxels."""
        return self.ops.max_pool(x, [2, 2, 2], [1, 1, 1], [0, 0, 0], [0, 0, 0], [2, 2, 2]).output(0)

    def upsample(self, x: Any, scale: int) -> Any:
        """Trilinear with aligned corners, the sides times ``scale``."""
        if scale == 1:
            return x
        sides = np.array([scale * side for side in list(x.output(0).shape)[2:]])
        return self.ops.interpolate(
            x,
            self.ops.constant(sides),
            "linear_onnx",
            "sizes",
            coordinate_transformation_mode="align_corners",
            axes=self.ops.constant(np.array([2, 3, 4])),
        )
