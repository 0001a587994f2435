"""Rehearsal: bundled simulated patches that are mixed into fine-tuning, against forgetting.

The file is an .npz of plain arrays, for N cubes of side S: "ct" (N, S, S, S) uint8, clean HU in steps of `STEP_HU` from
`FLOOR_HU` on, "label" and "noise_limit" (N, S, S, S) uint8 as in a case (the second need not be there), "spacing_mm"
(N, 3), "patient" (N,) whole numbers.
"""

import hashlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import written_whole
from AirwaySegLib.masks.components import distance_to
from AirwaySegLib.networks.sliding_window import TorchBackend, inference_form
from AirwaySegLib.pipeline import Model
from AirwaySegLib.progress import Progress
from AirwaySegTraining.data.augmentation import IGNORE, channels
from AirwaySegTraining.data.cases import Case, OnAirway, edited_map, make_map
from AirwaySegTraining.data.sampling import Kind, Mixture, cut, draw_start, find_centres
from AirwaySegTraining.fit.recipes import recipes_folder
from AirwaySegTraining.fit.validation import as_scanned
from AirwaySegTraining.losses import weight_maps
from AirwaySegTraining.simulator.simulate import simulate_case

SIDE = 96
FLOOR_HU, STEP_HU = -1024, 16

OF_EACH_PATIENT = (Kind.THIN, Kind.THIN, Kind.WIDE, Kind.BORDER)
"""Kinds of the patches of a patient."""

NEAR_VOXELS = 2

HELD_OUT = 4
"""Of this many patients the last is held out; its patches show whether something was forgotten."""


def rehearsal_file() -> Path:
    """The bundled patches, beside the recipes."""
    return recipes_folder() / "rehearsal.npz"


def make_rehearsal(path: Path, patients: int, seed: int, progress: Progress) -> None:
    """Simulate at least `HELD_OUT` patients and write their patches.

    Raises
    ------
    AirwaySegError
        If there are too few patients or the file cannot be written.
    """
    if patients < HELD_OUT:
        raise AirwaySegError(f"--patients is {patients}; it must be at least {HELD_OUT}, so that one is held out.")
    cts, labels, limits, spacings = [], [], [], []
    for done, case_seed in enumerate(np.random.SeedSequence(seed).generate_state(patients)):
        progress("simulate", done, patients)
        case = simulate_case(int(case_seed), clean=True)
        assert case.noise_limit is not None
        line = weight_maps.skeleton_of(case.label, case.spacing_mm)
        centres = find_centres(case.ct, case.label, line, case.spacing_mm)
        rng = np.random.default_rng(case_seed)
        for kind in OF_EACH_PATIENT:
            start = draw_start(centres.draw(Mixture.of({kind: 1.0}), rng), case.ct.shape, SIDE, rng)
            cts.append(_as_bytes(cut(case.ct, start, SIDE)))
            labels.append(cut(case.label, start, SIDE))
            limits.append(cut(case.noise_limit, start, SIDE))
            spacings.append(case.spacing_mm)
    progress("simulate", patients, patients)
    numbers = np.repeat(np.arange(patients), len(OF_EACH_PATIENT))
    with written_whole(path) as unfinished, unfinished.open("wb") as stream:
        np.savez_compressed(
            stream,
            ct=np.stack(cts),
            label=np.stack(labels),
            noise_limit=np.stack(limits),
            spacing_mm=np.array(spacings),
            patient=numbers,
        )


def _as_bytes(hu: NDArray) -> NDArray[np.uint8]:
    return np.clip(np.rint((hu.astype(np.float32) - FLOOR_HU) / STEP_HU), 0, 255).astype(np.uint8)


def rehearsal_cases(path: Path, wanted: tuple[str, ...] = ()) -> tuple[list[Case], list[Case]]:
    """Each patch as a clean case with its ``wanted`` maps: first those for training, then the held-out ones.

    Raises
    ------
    AirwaySegError
        If the file is missing or damaged.
    """
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in ("ct", "label", "spacing_mm", "patient")}
            if "noise_limit" in stored:
                arrays["noise_limit"] = stored["noise_limit"]
        if len({len(array) for array in arrays.values()}) != 1:
            raise ValueError("the arrays differ in length")
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise AirwaySegError(f"{path}, the file of rehearsal patches, is missing or damaged.") from error
    cases = [_patch_case(arrays, number, wanted) for number in range(len(arrays["ct"]))]
    asked = [number % HELD_OUT == HELD_OUT - 1 for number in arrays["patient"]]
    return [case for case, out in zip(cases, asked) if not out], [case for case, out in zip(cases, asked) if out]


def _patch_case(arrays: dict[str, NDArray], number: int, wanted: tuple[str, ...]) -> Case:
    hu = arrays["ct"][number].astype(np.int16) * STEP_HU + FLOOR_HU
    label = arrays["label"][number]
    limit = arrays["noise_limit"][number] if "noise_limit" in arrays else None
    spacing_z, spacing_y, spacing_x = arrays["spacing_mm"][number].tolist()
    spacing_mm = (spacing_z, spacing_y, spacing_x)
    line = weight_maps.skeleton_of(label, spacing_mm)
    centres = find_centres(hu, label, line, spacing_mm)
    case = Case(
        name=f"rehearsal-{number:03d}",
        patient=f"rehearsal-{arrays['patient'][number]}",
        fingerprint=hashlib.sha256(hu.tobytes() + label.tobytes()).hexdigest()[:16],
        ct=hu,
        label=label,
        spacing_mm=spacing_mm,
        clean=True,
        centres=centres,
        skeleton=OnAirway.of(line, np.flatnonzero((label == 1) | (line > 0))),
        maps={"edited": edited_map(centres)},
        noise_limit=None if limit is None else OnAirway.of(limit, np.flatnonzero(limit)),
    )
    for name in wanted:
        case.maps[name] = OnAirway.of(make_map(name, case), case.skeleton.voxels)
    return case


def remembered(model: Model, cases: list[Case], device: str, precision: str, progress: Progress) -> dict[str, float]:
    """Share of the patches' skeleton that the network finds ("tld"), and of its voxels that are near airways ("near").

    Near is within two voxels, so that labels drawn wider are not penalised. Each patch has a fixed scanner's blur and
    noise; left-out voxels do not count. ``precision`` is "bfloat16" or "float32".
    """
    windows = [window for window in (model.info.window_hu, model.info.second_window_hu) if window is not None]
    backend = model.backend or TorchBackend(inference_form(model.net, model.info), device, precision)
    found = line_voxels = near = marked = 0
    for done, case in enumerate(cases):
        progress("evaluate", done, len(cases))
        hu, label = as_scanned(case)
        probability = backend.run(channels(hu, windows)[None])
        mask = (probability[0].max(axis=0) >= 0.5) & (label != IGNORE)
        line = (case.skeleton.whole() > 0) & (label != IGNORE)
        found, line_voxels = found + int((mask & line).sum()), line_voxels + int(line.sum())
        near += int((mask & (distance_to(label != 0, (1.0, 1.0, 1.0)) <= NEAR_VOXELS)).sum())
        marked += int(mask.sum())
    progress("evaluate", len(cases), len(cases))
    return {"tld": found / max(1, line_voxels), "near": near / max(1, marked)}
