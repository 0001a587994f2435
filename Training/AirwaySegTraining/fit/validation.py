"""Held-out cases, and validation of a network on whole scans with the library's own inference and metrics."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from AirwaySegLib.commands.evaluate import Report, as_numbers, mean_and_deviation
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.evaluation.protocols import AXES, PROTOCOLS, compare
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.networks.weights import ModelInfo
from AirwaySegLib.pipeline import Model, RunReport, Scan, airway_probability, load_model, segment
from AirwaySegLib.progress import Progress, silent
from AirwaySegLib.settings import SegmentSettings
from AirwaySegTraining.data.augmentation import IGNORE
from AirwaySegTraining.data.cases import Case, OnAirway, case_folders, prepared_case
from AirwaySegTraining.losses.weight_maps import hard_skeleton
from AirwaySegTraining.simulator.scanner import draw_scanner, scan, whole_hu

CHOSEN_BY = ("tld", "bd", "precision")
"""The best network has the largest mean of these: tree length and branches found, and precision against leakage."""


LEAST_DSC = 0.5
"""If trained weights have a lower Dice on a case, the label is probably wrong."""

HALF = 128
"""Probability 0.5, as the library stores it (0..255)."""


def held_out(groups: Sequence[Sequence[Case]], share: float, seed: int) -> list[Case]:
    """The cases of about ``share`` of the patients, at least one if there are two; all cases of a patient or none.

    Patients are chosen by a hash of seed and name, so that most of them stay held out when others are added. A patient
    is not chosen if that would leave a group without cases.
    """
    patients = {case.patient for group in groups for case in group}
    order = sorted(patients, key=lambda patient: _lot(patient, seed))
    wanted = max(1, round(share * len(order))) if share > 0 and len(order) > 1 else 0
    chosen: set[str] = set()
    for patient in order:
        rest = [[case for case in group if case.patient not in {*chosen, patient}] for group in groups]
        if len(chosen) < wanted and all(rest):
            chosen.add(patient)
    return [case for group in groups for case in group if case.patient in chosen]


def looked_at(held: Sequence[Case], most: int, seed: int) -> list[Case]:
    """The subset of at most ``most`` held-out cases for validation, always the same: whole CTs take long."""
    chosen = sorted(held, key=lambda case: _lot(case.name, seed))[:most]
    return [case for case in held if case in chosen]


def _lot(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def as_scanned(case: Case) -> tuple[NDArray, NDArray[np.uint8]]:
    """The case's CT (Z, Y, X) in HU and its label.

    A clean one gets a fixed scanner's blur and noise, and airway that this noise hides is left out.
    """
    if not case.clean:
        return np.asarray(case.ct), np.asarray(case.label)
    rng = np.random.default_rng(int(case.fingerprint, 16))
    scanner = draw_scanner(rng, case.spacing_mm[0])
    return whole_hu(scan(np.asarray(case.ct), scanner, rng)), case.label_at(scanner.noise_hu)[:, :, :]


def product_of(net: nn.Module, info: ModelInfo, precision: str) -> Model:
    """The network for `segment`; on a CPU in bfloat16 only if it was trained so and the CPU supports it."""
    return Model(net, replace(info, bfloat16=precision == "bfloat16"), sha256="")


def validate(model: Model, case: Case, device: str, axes: str = AXES[0]) -> dict[str, float]:
    """Segment the whole case as `airwayseg segment` does, without repair, and compare by ATM'22's protocol.

    The keys are those of `as_numbers`. Left-out voxels do not count. For ``axes`` see `compare`.
    """
    hu, label = as_scanned(case)
    ct = Volume(hu, case.spacing_mm)
    mask = segment(ct, model, SegmentSettings(device=device, repair="none"), RunReport(), silent).mask
    return as_numbers(compare(mask & (label != IGNORE), label == 1, case.spacing_mm, PROTOCOLS["atm22"], axes))


def evaluate_model(weights: str, data: Sequence[Path], device: str, progress: Progress, axes: str = AXES[0]) -> Report:
    """Segment every case of the data folders with the weights (a name or a file) and compare: see `validate`.

    Raises
    ------
    AirwaySegError
        If the weights or a case cannot be used, or two cases have the same name.
    """
    model = load_model(weights)
    folders = [folder for place in data for folder in case_folders(place)]
    cases: dict[str, dict[str, float]] = {}
    for done, folder in enumerate(folders):
        progress("evaluate", done, len(folders))
        if folder.name in cases:
            raise AirwaySegError(f"There are two cases called {folder.name}; rename one of them.")
        cases[folder.name] = validate(model, prepared_case(folder), device, axes)
    progress("evaluate", len(folders), len(folders))
    return Report("atm22", cases, axes=axes)


def mean_score(cases: dict[str, dict[str, float]], measures: Sequence[str] = CHOSEN_BY) -> float:
    """The score by which the best network is chosen: the mean of the ``measures`` over the cases.

    The precision of an empty prediction counts as 0; other NaN are left out.
    """
    chosen = {name: {key: numbers[key] for key in measures} for name, numbers in cases.items()}
    for numbers in chosen.values():
        numbers["precision"] = float(np.nan_to_num(numbers["precision"]))
    return float(np.nanmean(list(mean_and_deviation(chosen)[0].values())))


def doubt_about_labels(cases: dict[str, dict[str, float]]) -> str | None:
    """A sentence about labels that may be wrong, because the initial weights do badly on them; None if they do not."""
    worst = min(cases, key=lambda name: cases[name]["dsc"], default="")
    bad = [name for name, numbers in cases.items() if numbers["dsc"] < LEAST_DSC]
    if not bad:
        return None
    found = f"a DSC of {100 * cases[worst]['dsc']:.0f} % on {worst}"
    more = f" and less than {100 * LEAST_DSC:.0f} % on {len(bad) - 1} more" if len(bad) > 1 else ""
    return (
        f"Before the training the weights reached {found}{more}: does the label fit its CT, neither mirrored nor "
        "shifted nor another patient's?"
    )


def missed_skeleton(model: Model, case: Case, device: str) -> OnAirway:
    """The hard skeleton: 1 on the case's skeleton where the network's probability is below 0.5.

    Windows without skeleton are not run. What is left out is not missed.
    """
    hu, label = as_scanned(case)
    skeleton = np.where(label == IGNORE, 0, case.skeleton.whole())
    scan_at = Scan(hu, 0.0, case.spacing_mm, skeleton > 0)
    probability = airway_probability(scan_at, model, SegmentSettings(device=device), RunReport(), silent)
    return OnAirway.of(hard_skeleton(skeleton, probability >= HALF), case.skeleton.voxels)
