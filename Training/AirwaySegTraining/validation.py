"""Which cases are held out, and how a network does on whole scans: with the product's own inference and metrics."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.evaluation import as_numbers, mean_and_deviation
from AirwaySegLib.inference import Sliding, open_backend, predict
from AirwaySegLib.network import WingsNet
from AirwaySegLib.pipeline import Journal, Model, segment
from AirwaySegLib.planner import plan
from AirwaySegLib.progress import silent
from AirwaySegLib.protocols import PROTOCOLS, compare
from AirwaySegLib.settings import SegmentSettings
from AirwaySegLib.volume import Volume
from AirwaySegLib.weights import ModelInfo
from AirwaySegTraining.cases import Case, OnAirway
from AirwaySegTraining.degrade import draw_scanner, scan
from AirwaySegTraining.rotation import IGNORE, channels
from AirwaySegTraining.weightmaps import hard_skeleton

CHOSEN_BY = ("tld", "bd", "precision")
"""The best network has the largest mean of these: tree length and branches found, and leakage against them."""


def held_out(groups: Sequence[Sequence[Case]], share: float, seed: int) -> list[Case]:
    """The cases of about ``share`` of the patients, at least one if there are two; all cases of a patient or none.

    Patients are drawn by a hash of seed and name, so that most of them stay held out when others join. None is taken
    that would leave a group without cases.
    """
    patients = {case.patient for group in groups for case in group}
    order = sorted(patients, key=lambda patient: hashlib.sha256(f"{seed} {patient}".encode()).digest())
    wanted = max(1, round(share * len(order))) if share > 0 and len(order) > 1 else 0
    chosen: set[str] = set()
    for patient in order:
        rest = [[case for case in group if case.patient not in {*chosen, patient}] for group in groups]
        if len(chosen) < wanted and all(rest):
            chosen.add(patient)
    return [case for group in groups for case in group if case.patient in chosen]


def as_scanned(case: Case) -> NDArray:
    """The case's CT (Z, Y, X) in HU; a clean one as one scanner shows it, always the same."""
    if not case.clean:
        return np.asarray(case.ct)
    rng = np.random.default_rng(int(case.fingerprint, 16))
    return np.clip(np.rint(scan(np.asarray(case.ct), draw_scanner(rng), rng)), -1024, 3071).astype(np.int16)


def validate(net: WingsNet, info: ModelInfo, case: Case, device: str) -> dict[str, float]:
    """Segment the whole case as the product does, and compare by the protocol of ATM'22; see `as_numbers`.

    Voxels that are left out do not count.
    """
    settings = SegmentSettings(device=device, backend="torch")
    ct = Volume(as_scanned(case), case.spacing_mm)
    mask = segment(ct, Model(net, info, ""), settings, Journal(), silent).mask
    label = np.asarray(case.label)
    return as_numbers(compare(mask & (label != IGNORE), label == 1, case.spacing_mm, PROTOCOLS["atm22"]))


def mean_score(cases: dict[str, dict[str, float]]) -> float:
    """What the best network is chosen by: the mean of `CHOSEN_BY` over the cases, NaN (nothing found) counting as 0."""
    means, _ = mean_and_deviation({name: _without_nan(numbers) for name, numbers in cases.items()})
    return float(np.mean([means[name] for name in CHOSEN_BY]))


def _without_nan(numbers: dict[str, float]) -> dict[str, float]:
    return {name: 0.0 if np.isnan(numbers[name]) else numbers[name] for name in CHOSEN_BY}


def windows_of(info: ModelInfo) -> list[tuple[float, float]]:
    """The HU window of each of the network's channels."""
    return [window for window in (info.window_hu, info.second_window_hu) if window is not None]


def missed_skeleton(net: WingsNet, info: ModelInfo, case: Case, device: str) -> OnAirway:
    """The hard skeleton: where the network's probability is below a half on the case's skeleton.

    Windows without skeleton are not run.
    """
    skeleton = case.skeleton.whole()
    image = channels(as_scanned(case), windows_of(info))
    planned = plan(image.shape, info.patch_zyx, device, "torch", "float32")
    backend = open_backend(net, planned, info.patch_zyx, lambda _: None)
    probability = predict(image, backend, Sliding(info.patch_zyx), skeleton > 0)
    return OnAirway.of(hard_skeleton(skeleton, probability >= 128), case.skeleton.voxels)
