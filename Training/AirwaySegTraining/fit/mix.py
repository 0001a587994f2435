"""Mixes two weights of one network: between a network before and after a training lie networks that keep more of both.

Wortsman et al., Robust fine-tuning of zero-shot models, 2022, arXiv:2109.01903.
"""

from dataclasses import replace
from pathlib import Path

import torch

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.weights import ModelInfo, load_weights, save_weights


def mix(new: str | Path, old: str | Path, share: float, target: Path, name: str, force: bool = False) -> ModelInfo:
    """Write ``share`` of the weights ``new`` plus the rest of ``old``, both of networks of one shape, and describe it.

    The description is that of ``new``; its provenance holds both, with their shares and hashes.

    Raises
    ------
    AirwaySegError
        If the share is not between 0 and 1, the networks differ in shape or in their input's HU window, or ``target``
        exists and ``force`` is False.
    """
    if not 0 < share < 1:
        raise AirwaySegError(f"--share is {share:g}; it must lie between 0 and 1.")
    (net, info, digest), (other, other_info, other_digest) = load_weights(new), load_weights(old)
    described = [(one.shape(), one.window_hu, one.second_window_hu) for one in (info, other_info)]
    if described[0] != described[1]:
        raise AirwaySegError(f"{new} and {old} are not of one network: shape or input differ.")
    own, others = net.state_dict(), other.state_dict()
    mixed = {
        key: torch.lerp(others[key].double(), value.double(), share) if value.is_floating_point() else value
        for key, value in own.items()
    }
    net.load_state_dict(mixed)
    parts = ((share, digest, info), (1 - share, other_digest, other_info))
    provenance = {
        "mixed": [
            {"share": round(part, 6), "sha256": hashed, "name": one.name, "provenance": one.provenance}
            for part, hashed, one in parts
        ]
    }
    described_mix = replace(info, name=name, provenance=provenance)
    save_weights(target, net, described_mix, force)
    return described_mix
