"""Averages the slices of real cases: a thick-slice CT with the label that was made on the thin one."""

from pathlib import Path

import numpy as np

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.progress import Progress
from AirwaySegTraining.data.augmentation import IGNORE
from AirwaySegTraining.data.cases import Case, case_folders, prepared_case
from AirwaySegTraining.data.pseudo_labels import AIR_HU, is_wall
from AirwaySegTraining.simulator.scanner import whole_hu
from AirwaySegTraining.simulator.simulate import SimulatedCase, write_case
from AirwaySegTraining.simulator.slabs import Slabs

FEWEST_SLICES = 8
"""A CT of fewer thick slices shows no airway tree."""


def thick_case(case: Case, slice_mm: float) -> SimulatedCase:
    """The case in slices of about ``slice_mm``, each the mean of as many slices of the CT as fit best, at least two.

    A voxel is airway if at least half of it was and it is still as dark as air and nearer to the lumen's density than
    to the wall's (see `is_wall`). One that is brighter is left out if half of it was airway, and background if less.

    Raises
    ------
    AirwaySegError
        If ``slice_mm`` is less than two slices of the CT, or the CT is too short for it.
    """
    thin_mm = case.spacing_mm[0]
    over = round(slice_mm / thin_mm)
    if over < 2:
        raise AirwaySegError(f"Case {case.name} has slices of {thin_mm:g} mm; {slice_mm:g} mm is not twice as thick.")
    if case.label.shape[0] < over * FEWEST_SLICES:
        raise AirwaySegError(f"Case {case.name} has too few slices to average {over} of them.")
    slabs = Slabs(over * thin_mm, thin_mm, over, over)
    hu = slabs.mean(np.asarray(case.ct, np.float32))
    label = slabs.label(np.asarray(case.label))
    airway = (label == 1) & (hu < AIR_HU)
    wall = is_wall(hu, airway, slabs.spacing_mm(case.spacing_mm))
    doubted = slabs.mean((np.asarray(case.label) == IGNORE).astype(np.float32)) > 0
    label[(label == IGNORE) & wall & ~doubted] = 0  # left out for its share of airway only
    label[(label == 1) & (wall | ~airway)] = IGNORE
    description = {
        "source": f"{case.name}, slices of {slabs.thick_mm:g} mm averaged from {thin_mm:g} mm",
        "patient": case.patient,
        "clean": False,
        "label_values": {"0": "background", "1": "airway", "2": "left out"},
    }
    return SimulatedCase(whole_hu(hu), label, slabs.spacing_mm(case.spacing_mm), description)


def thicken(data: Path, output: Path, slices_mm: list[float], progress: Progress) -> list[Path]:
    """Write each case in slices of each thickness into ``output``/cases/<id>-<mm>mm; existing ones are kept.

    Raises
    ------
    AirwaySegError
        If a case cannot be used (see `thick_case`) or the folder cannot be written.
    """
    targets: list[Path] = []
    folders = case_folders(data)
    total = len(folders) * len(slices_mm)
    for folder in folders:
        for slice_mm in slices_mm:
            target = output / "cases" / f"{folder.name}-{slice_mm:g}mm"
            progress("thicken", len(targets), total)
            if not (target / "case.json").exists():
                write_case(thick_case(prepared_case(folder), slice_mm), target)
            targets.append(target)
    progress("thicken", total, total)
    return targets
