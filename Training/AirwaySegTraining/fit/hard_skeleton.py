"""The hard skeleton: skeleton voxels of the training cases that the previous stage's model missed (WingsNet, IV-B)."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.progress import Progress
from AirwaySegTraining.data.cases import Case, OnAirway, write_array
from AirwaySegTraining.distributed import Team
from AirwaySegTraining.fit.checkpoint import Run
from AirwaySegTraining.fit.validation import missed_skeleton, product_of
from AirwaySegTraining.losses.terms import MISSED_WEIGHTS
from AirwaySegTraining.losses.weight_maps import back_propagation_weight, nearest_back_propagation_weight


def with_missed(groups: list[list[Case]], run: Run, team: Team, folder: Path, progress: Progress) -> list[list[Case]]:
    """The cases for the run's stage, with the patch centres and weights that depend on a model, if the stage uses them.

    The model is the average of the weights at the start of the stage. The voxels that it missed are written to
    ``folder``/missed/<stage>, where a resumed run finds them; each process computes its share of the cases.

    Raises
    ------
    AirwaySegError
        If one of these files is missing in the middle of a stage.
    """
    stage = run.recipe.stages[run.place]
    if not stage.uses_missed:
        return groups
    folder = folder / "missed" / str(run.place + 1)
    model = product_of(run.average, run.info, run.settings.precision)
    cases = team.share([case for group in groups for case in group])
    for done, case in enumerate(cases, start=1):
        path = _file(folder, case)
        if not path.exists():
            if run.step > run.recipe.ends[run.place] - stage.steps:
                raise AirwaySegError(f"{path} is missing; without it the run cannot be resumed identically.")
            folder.mkdir(parents=True, exist_ok=True)
            write_array(path, missed_skeleton(model, case, team.device.type).values)
        progress("missed", done, len(cases))
    team.wait()
    weights = [name for name in stage.weights if name in MISSED_WEIGHTS]
    return [[_completed(case, _file(folder, case), weights) for case in group] for group in groups]


def _file(folder: Path, case: Case) -> Path:
    return folder / f"{case.name}-{case.fingerprint}.npy"


def _completed(case: Case, path: Path, weights: list[str]) -> Case:
    missed = OnAirway(case.skeleton.shape, case.skeleton.voxels, np.load(path)).whole()
    maps = dict(case.maps)
    for name in weights:
        if name == "back_propagation":
            weight = back_propagation_weight(missed, maps["branch"].whole(), maps["distance"].whole())
        else:
            weight = nearest_back_propagation_weight(missed, case.skeleton.whole(), np.asarray(case.label))
        maps[name] = OnAirway.of(weight, case.skeleton.voxels)
    return replace(case, centres=case.centres.with_missed(missed), maps=maps)
