"""Patches of training cases: cropped around sampled points, augmented, with the maps and weights of the losses.

Letters in shapes: B patches of a batch, C channels, S side of a patch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from AirwaySegTraining.data.augmentation import IGNORE, channels, draw_placement, image_patch, label_patch, map_patches
from AirwaySegTraining.data.cases import Case
from AirwaySegTraining.data.sampling import EDIT_KINDS, Mixture
from AirwaySegTraining.fit.mining import Miner
from AirwaySegTraining.fit.recipes import Stage
from AirwaySegTraining.losses import weight_maps
from AirwaySegTraining.losses.terms import MISSED_WEIGHTS, WEIGHT_MAPS
from AirwaySegTraining.simulator.scanner import Scanner, draw_scanner, scan

MARGIN = 4
"""Margin in voxels that is cropped with a patch and dropped after blurring, so that its border is blurred correctly."""


def patch_maps(stage: Stage) -> tuple[str, ...]:
    """The maps that are cropped with a stage's patches."""
    of_loss = {name for term in stage.loss for name in term.loss.maps}
    of_person = {"edited"} if stage.emphasises else set()
    return tuple(sorted(of_loss | of_person | {WEIGHT_MAPS[name] for name in stage.weights}))


def case_maps(stage: Stage) -> tuple[str, ...]:
    """The maps (`cases.MAPS`) that a stage needs of every case; the hard skeleton is not one of them."""
    names = set(patch_maps(stage)) - {"edited"}
    if "back_propagation" in names:
        names |= {"branch", "distance"}
    return tuple(sorted(names - set(MISSED_WEIGHTS)))


@dataclass(frozen=True)
class Source:
    """Source of the patches: groups of cases, each group's share, HU windows of the channels, random seed."""

    groups: Sequence[Sequence[Case]]
    shares: NDArray[np.float64]
    windows_hu: Sequence[tuple[float, float]]
    seed: int


class Batches(Dataset):
    """Item ``step`` is this process's part of the step's batch: tensors by name.

    "image" (B, C, S, S, S) float32 within 0..1, "label" (B, 1, S, S, S) uint8, and the inputs of the stage's loss.
    Patches depend only on the seed, the step and their index in the batch, so a resumed run, or a run of several
    processes, sees the same patches as an uninterrupted run of one process. With hard mining, some steps show the
    patches that `Miner` has chosen from earlier steps, made again from the seed, that step and that index.
    """

    def __init__(self, source: Source, stage: Stage, rank: int = 0, size: int = 1, miner: Miner | None = None) -> None:
        self.source, self.stage, self.miner = source, stage, miner
        self.mixture = Mixture.of(stage.sampling)
        each = stage.batch // size
        self.numbers = range(rank * each, (rank + 1) * each)

    def parts(self, steps: range) -> Iterator[range]:
        """The steps in parts; take a part only after the steps of all parts before it have been trained."""
        return iter((steps,)) if self.miner is None else self.miner.parts(steps)

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        chosen = {} if self.miner is None else self.miner.chosen
        origins = [chosen.get((step, number), (step, number)) for number in self.numbers]
        patches = [self.patch(np.random.default_rng([self.source.seed, *origin])) for origin in origins]
        return {name: torch.from_numpy(np.stack([patch[name] for patch in patches])) for name in patches[0]}

    def patch(self, rng: np.random.Generator) -> dict[str, NDArray]:
        """A random patch of a random case; every array has a first axis for channels."""
        group = self.source.groups[rng.choice(len(self.source.groups), p=self.source.shares)]
        hu, label, maps = draw_patch(group[int(rng.integers(len(group)))], self.stage, self.mixture, rng)
        kept: dict[str, NDArray] = {"label": label}
        if self.stage.weights:
            kept["weight"] = patch_weight(self.stage.weights, label, maps, rng, self.stage.weight_power)
        if self.stage.emphasises:
            kept["emphasis"] = emphasis_of(self.stage)[maps["edited"]]
        kept |= {name: maps[name] for term in self.stage.loss for name in term.loss.maps}
        return {"image": channels(hu, self.source.windows_hu), **{key: array[None] for key, array in kept.items()}}


def emphasis_of(stage: Stage) -> NDArray[np.float32]:
    """How much a voxel counts by what a person did to it (`sampling.EDIT_KINDS`), (256,); 1 for 0, an untouched one."""
    table = np.full(256, stage.edited, np.float32)
    table[0] = 1
    for kind, name in EDIT_KINDS.items():
        table[kind] = stage.edited_by.get(name, stage.edited)
    return table


def patch_weight(
    shares: Mapping[str, float],
    label: NDArray[np.uint8],
    maps: dict[str, NDArray],
    rng: np.random.Generator,
    power: tuple[float, float] = (1.0, 1.0),
) -> NDArray[np.float32]:
    """Weight of every voxel of a patch (S, S, S): on the airway the sum of the named weights by their shares, else 1.

    The sum is raised to a power drawn from the range ``power``. A voxel that is left out has weight 0.
    """
    total = np.zeros(label.shape, np.float32)
    for name, share in shares.items():
        values = maps[WEIGHT_MAPS[name]]
        if name == "lib":
            values = weight_maps.lib_weight(values, weight_maps.draw_lib_root(rng))
        elif name == "imbalance":
            values = weight_maps.imbalance_weight(values)
        elif name == "centerline":
            values = weight_maps.tang_distance_weight(values, label == 1)
        total += np.float32(share) * values
    if power != (1, 1):
        total **= np.float32(rng.uniform(*power))
    return np.where(label == 1, total, label != IGNORE).astype(np.float32)


def draw_patch(
    case: Case, stage: Stage, mixture: Mixture, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8], dict[str, NDArray]]:
    """A random patch: HU (S, S, S) with a random scanner's blur and noise, its label, and the case's maps there.

    Airway that the noise hides is left out, where the case tells what does (`cases.NOISE_LIMIT`).
    A case that is not clean has its own noise; it gets only an offset of a few HU and, half of the time, more noise.
    """
    augmentation = stage.augmentation()
    point = case.centres.draw(mixture, rng)
    placement = draw_placement(point, case.centres.shape, stage.patch, case.spacing_mm, augmentation, rng)
    scanner = draw_scanner(rng, case.spacing_mm[0]) if case.clean else mild_scanner(rng)
    hu = scan(image_patch(case.ct, placement.enlarged(MARGIN)), scanner, rng)[(slice(MARGIN, -MARGIN),) * 3]
    label = label_patch(case.label_at(scanner.noise_hu), placement, stage.label_threshold)
    maps = {name: case.maps[name] for name in patch_maps(stage)}
    return hu, label, map_patches(maps, placement)


def mild_scanner(rng: np.random.Generator) -> Scanner:
    """A weak augmentation for CTs that already have a scanner's blur and noise; see `draw_patch`."""
    noise_hu = rng.uniform(3, 25) if rng.random() < 0.5 else 1.0
    blur = rng.uniform(0.4, 0.8) if rng.random() < 0.3 else 0.2
    return Scanner(blur, blur, 0.0, noise_hu, 0.6, 0.0, rng.uniform(-30, 30), rng.uniform(0.97, 1.03), -1024.0)
