"""Patches for the connection network: broken trees, the airway that is missing in them, and crops of both.

The pool of patches of each tree is made once and stored on disk. Each time a patch is drawn, it is shifted, mirrored
and augmented by a random scanner. Arrays are (Z, Y, X). Letters in shapes: P patches of a tree, S side of a patch, K
side of a patch in the pool.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from AirwaySegLib.chest.preprocessing import normalise
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume, read_ct, read_on_grid, to_canonical
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.progress import Progress
from AirwaySegLib.repair.attention import breakage_attention, patch_centres
from AirwaySegLib.repair.network_bridges import BREAKAGE_WINDOW_HU, SIDE, asked_about, touched_by
from AirwaySegLib.tree.build import parse_airways
from AirwaySegTraining.connection.breaks import BreakSettings, Broken, break_tree
from AirwaySegTraining.data.augmentation import IGNORE, Placement, image_patch
from AirwaySegTraining.data.cases import Case, prepared_case
from AirwaySegTraining.data.sampling import cut
from AirwaySegTraining.fit.patches import MARGIN, mild_scanner
from AirwaySegTraining.simulator.scanner import draw_scanner, scan
from AirwaySegTraining.workers import WorkerPool

Mask = NDArray[np.bool_]

SHIFT = 10
"""Largest shift of a patch in voxels along each axis, so that a gap is not always in its middle."""

STORED = SIDE + 2 * SHIFT
"""Side K of a patch in the pool."""

BROKEN_SHARE = (0.15, 0.5)
"""Range of the share of peripheral branches that is broken, uniform: up to DeepTree's half."""

DISTRACTORS = 40
"""Number of false pieces that are tried in each tree; the gaps beside them must stay empty."""

FALSE_SHARE = 1 / 3
"""Share of the patches without anything missing near their middle."""

NEAR = 24
"""Missing airway within this many voxels along each axis is near the middle of a patch."""

PREDICTION = "prediction.nrrd"
"""File in a case's folder: the mask of a first stage, on the CT's grid."""

OPEN, EMPTY, MISSING = 0, 1, 2
"""States of a voxel: left out of the loss; no airway missing; airway missing."""


@dataclass(frozen=True)
class PoolSettings:
    """``trees``: broken trees of each case; ``patches``: the most patches per tree; ``folder``: that of the pool."""

    folder: Path
    trees: int
    patches: int
    seed: int


@dataclass(frozen=True, eq=False)
class PooledTree:
    """The patches of one broken tree: the file with `attention_<n>` and `state_<n>`, their centres (P, 3), and whether
    airway is missing near their middle."""

    case: Case
    path: Path
    centres: NDArray[np.int32]
    holds_gap: Mask


# Making the pool -----------------------------------------------------------------------------------------------------


def states_of(
    mask: Mask, missing: Mask, left_out: Mask, spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.uint8]]:
    """Components, attention and states (all (Z, Y, X)) of a broken mask in which ``missing`` is missing.

    A voxel counts only where the repair uses the network (`network_bridges.asked_about`), outside the mask. Of the
    missing airway there, the pieces that join two components are `MISSING`; other pieces, of thinned walls and of ends,
    are `OPEN`, and so are voxels that the label leaves out.
    """
    labels = label_components(mask)
    attention = breakage_attention(labels, spacing_mm)
    asked = asked_about(attention)
    pieces = label_components(missing & asked & ~mask)
    voxels = np.argwhere(pieces).astype(np.int32)
    pairs = touched_by(voxels, pieces[tuple(voxels.T)].astype(np.intp), labels)
    joining = np.bincount(pairs[:, 0], minlength=int(pieces.max(initial=0)) + 1) >= 2
    states = np.where(asked & ~mask & ~missing & ~left_out, EMPTY, OPEN).astype(np.uint8)
    states[joining[pieces]] = MISSING
    return labels, attention, states


def chosen_centres(
    centres: NDArray[np.int32], states: NDArray[np.uint8], most: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], Mask]:
    """At most ``most`` centres, `FALSE_SHARE` of them without missing airway nearby, and which ones have it."""
    holds = np.array([bool((cut(states, c - NEAR, 2 * NEAR, OPEN) == MISSING).any()) for c in centres], bool)
    true, false = (rng.permutation(np.flatnonzero(holds == wanted)) for wanted in (True, False))
    few = round(most * FALSE_SHARE)
    chosen = np.concatenate([true[: most - min(few, len(false))], false[: most - min(most - few, len(true))]])
    return centres[chosen[:most]], holds[chosen[:most]]


def broken_trees(case: Case, seed: int, count: int) -> Iterator[Broken]:
    """Broken trees of a case, each with a different share of broken branches; the case is parsed once."""
    airway = np.asarray(case.label) == 1
    parsed = parse_airways(Volume(airway.astype(np.uint8), case.spacing_mm))
    for number in range(count):
        rng = np.random.default_rng([seed, int(case.fingerprint, 16), number])
        settings = BreakSettings(share=rng.uniform(*BROKEN_SHARE), distractors=DISTRACTORS)
        left_out = np.asarray(case.label) == IGNORE
        yield break_tree(parsed, airway, case.spacing_mm, rng, settings, np.asarray(case.ct), left_out)


def predicted_tree(folder: Path, case: Case) -> tuple[Mask, Mask]:
    """The mask of a first stage for a case, and the airway that it misses.

    Raises
    ------
    AirwaySegError
        If the file cannot be read or does not lie on the CT's grid.
    """
    ct, _ = read_ct(folder / "ct.nrrd")
    mask = to_canonical(read_on_grid(folder / PREDICTION, ct)).array != 0
    return mask, (np.asarray(case.label) == 1) & ~mask


def make_pool(folders: Sequence[Path], settings: PoolSettings, workers: int, progress: Progress) -> list[PooledTree]:
    """The pool of all cases; missing files are made by ``workers`` processes.

    Raises
    ------
    AirwaySegError
        If a case or its prediction cannot be used, there is no gap at all, or the disk is full.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    paths = {folder: pool_files(folder, prepared_case(folder), settings) for folder in folders}
    todo = [folder for folder in folders if not all(path.exists() for path in paths[folder])]
    progress("break", len(folders) - len(todo), len(folders))
    for done, _ in enumerate(_pooled(todo, settings, workers), start=len(folders) - len(todo) + 1):
        progress("break", done, len(folders))
    trees = [_read_tree(prepared_case(folder), path) for folder in folders for path in paths[folder]]
    trees = [tree for tree in trees if len(tree.centres)]
    if not any(tree.holds_gap.any() for tree in trees):
        raise AirwaySegError("There is no gap to train on: the labels have no peripheral branches to break.")
    return trees


def pool_files(folder: Path, case: Case, settings: PoolSettings) -> list[Path]:
    """The files of a case's trees; their names have a hash of everything that their content depends on."""
    name = f"{case.name}-{case.fingerprint}-{settings.seed}-{settings.patches}"
    files = [f"{name}-{number}.npz" for number in range(settings.trees)]
    if (folder / PREDICTION).exists():
        content = hashlib.sha256((folder / PREDICTION).read_bytes()).hexdigest()[:8]
        files.append(f"{name}-{content}.npz")
    return [settings.folder / file for file in files]


def _pooled(folders: Sequence[Path], settings: PoolSettings, workers: int) -> Iterator[None]:
    if workers <= 1:
        for folder in folders:
            _pool_case(folder, settings)
            yield
        return
    try:
        with WorkerPool(workers) as processes:
            for job in as_completed([processes.submit(_pool_case, folder, settings) for folder in folders]):
                yield job.result()
    except BrokenProcessPool as error:
        raise AirwaySegError(
            "A worker process ended unexpectedly, probably because it was out of memory; try --workers 1."
        ) from error


def _pool_case(folder: Path, settings: PoolSettings) -> None:
    case = prepared_case(folder)
    files = pool_files(folder, case, settings)
    trees = [(one.mask, one.removed) for one in broken_trees(case, settings.seed, settings.trees)]
    if len(files) > len(trees):
        trees.append(predicted_tree(folder, case))
    for tree_number, ((mask, missing), path) in enumerate(zip(trees, files, strict=True), start=1):
        rng = np.random.default_rng([settings.seed, int(case.fingerprint, 16), tree_number])
        labels, attention, states = states_of(mask, missing, np.asarray(case.label) == IGNORE, case.spacing_mm)
        centres, holds = chosen_centres(patch_centres(attention, labels), states, settings.patches, rng)
        small = np.rint(255 * attention).astype(np.uint8)
        arrays = {"centres": centres, "holds_gap": holds}
        for number, centre in enumerate(centres):
            start = centre - STORED // 2
            arrays[f"attention_{number}"] = cut(small, start, STORED, 0)
            arrays[f"state_{number}"] = cut(states, start, STORED, OPEN)
        _write(path, arrays)


def _write(path: Path, arrays: dict[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.replace(unfinished, path)
    except OSError as error:
        raise AirwaySegError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _read_tree(case: Case, path: Path) -> PooledTree:
    with np.load(path) as stored:
        return PooledTree(case, path, stored["centres"], stored["holds_gap"])


# Drawing from it -----------------------------------------------------------------------------------------------------


class BreakagePatches(Dataset):
    """Item ``step`` is the step's batch: "image" (B, 2, S, S, S) float32 and "state" (B, 1, S, S, S) uint8.

    Patches depend only on the seed, the step and their index in the batch, so a resumed run sees the same patches as an
    uninterrupted one.
    """

    def __init__(self, trees: Sequence[PooledTree], batch: int, seed: int) -> None:
        self.trees, self.batch, self.seed = trees, batch, seed

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        patches = [self.patch(np.random.default_rng([self.seed, step, number])) for number in range(self.batch)]
        images, states = zip(*patches)
        return {"image": torch.from_numpy(np.stack(images)), "state": torch.from_numpy(np.stack(states)[:, None])}

    def patch(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """A random patch: CT and attention (2, S, S, S), and states (S, S, S)."""
        tree = self.trees[int(rng.integers(len(self.trees)))]
        wanted = np.flatnonzero(tree.holds_gap == (rng.random() >= FALSE_SHARE))
        number = int(rng.choice(wanted if len(wanted) else len(tree.centres)))
        return drawn_patch(tree, number, rng)


def _triple(values: NDArray) -> tuple[Any, Any, Any]:
    """Three numbers or booleans as Python's own types."""
    z, y, x = values.tolist()
    return z, y, x


def drawn_patch(
    tree: PooledTree, number: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A patch of a pooled tree, randomly shifted and mirrored, with the blur and noise of a random scanner."""
    shift = rng.integers(-SHIFT, SHIFT + 1, 3)
    mirrored = _triple(rng.random(3) < 0.5)
    placement = Placement(_triple(tree.centres[number]), _triple(SIDE // 2 - shift), SIDE, None, mirrored)
    scanner = draw_scanner(rng, tree.case.spacing_mm[0]) if tree.case.clean else mild_scanner(rng)
    hu = scan(image_patch(tree.case.ct, placement.enlarged(MARGIN)), scanner, rng)[(slice(MARGIN, -MARGIN),) * 3]
    part = tuple(slice(SHIFT + by, SHIFT + by + SIDE) for by in shift)
    turned = tuple(slice(None, None, -1 if flip else 1) for flip in mirrored)
    with np.load(tree.path) as stored:
        attention, state = (stored[f"{name}_{number}"][part][turned] for name in ("attention", "state"))
    image = np.stack([normalise(hu, BREAKAGE_WINDOW_HU), attention.astype(np.float32) / 255])
    return image, np.ascontiguousarray(state)
