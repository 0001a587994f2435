"""Bridges by the connection network: patches at the gaps of a mask, and what it predicts to be missing there.

The second stage of DeepTree (Accurate Airway Tree Segmentation in CT Scans via Anatomy-aware Multi-class Segmentation
and Deep Breakage Connection), section 2.2. Arrays are (Z, Y, X) on canonical axes. Letters in shapes: N voxels, K
centres of patches, B patches of a batch, S side of a patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree
from torch import nn

from AirwaySegLib.chest.preprocessing import normalise
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.masks.components import bounding_box
from AirwaySegLib.masks.sparse_mask import FORWARD_OFFSETS, Lumen, Spacing
from AirwaySegLib.networks.connection_net import Connector, fast_form
from AirwaySegLib.networks.device_plan import has_bfloat16
from AirwaySegLib.networks.weights import BREAKAGE_NAME, ModelInfo, load_weights
from AirwaySegLib.progress import Progress, silent
from AirwaySegLib.repair.attention import breakage_attention, kept_components, patch_centres
from AirwaySegLib.repair.bridge import NETWORK, Bridge, groups_of

Labels = NDArray[np.int32]
Voxels = NDArray[np.int32]

BREAKAGE_WINDOW_HU = (-1000.0, 200.0)
"""From air to soft tissue, with the walls of airways between both."""

SIDE = 64
"""Of a patch: DeepTree's."""

LEAST_ATTENTION, AROUND = 0.02, 8
"""What is missing is asked for, in training too, within so many voxels along each axis of this attention: in a gap of
16 voxels, or 12 mm, attention is lower towards both ends than in the middle, for there the other side is far."""

COVERED = 16
"""A centre needs no patch of its own if it lies this near, along each axis, to the centre of another: what is missing
is shown to the network anywhere in a patch, with no less than 16 voxels around it."""

BATCH = 4

MOST_ROUNDS = 4
"""So often, at most, is attention computed; gaps that come up when others are closed seldom do so a third time."""

LEVELS = (0.5, 0.4, 0.3, 0.2)
"""Probabilities at which what is predicted is looked at; only bridges at the first are joined for the next round."""

NEIGHBOURS = np.array([offset for forward in FORWARD_OFFSETS for offset in (forward, tuple(-k for k in forward))])


def load_connector(name_or_path: str | Path = BREAKAGE_NAME) -> tuple[Connector, ModelInfo, str]:
    """The connection network in evaluation mode, its description and its file's SHA-256.

    Raises
    ------
    AirwaySegError
        If there are no such weights, the file is not whole, or it is of another network or another HU window.
    """
    connector, info, sha256 = load_weights(name_or_path, "connector")
    if info.window_hu != BREAKAGE_WINDOW_HU:
        raise AirwaySegError(f"{name_or_path} was trained with the window {info.window_hu}, not {BREAKAGE_WINDOW_HU}.")
    return connector, info, sha256


def network_bridges(
    hu: NDArray[np.int16],
    labels: Labels,
    spacing_mm: Spacing,
    connector: nn.Module,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[Bridge]:
    """What the network would put between the components of a mask, the surest first.

    Patches are looked at where attention has its maxima. What is predicted with a probability of at least 1/2, outside
    the mask, and touches two components or more is joined to them; then attention is computed again, and points that
    no patch has shown are looked at, until nothing more is joined. Finally, gaps that are still open are examined with
    the lower `LEVELS`. The score of a bridge is the mean probability along it, but at a lower level that level, the
    least on its way: below 1/2 it is a doubtful one. Components that attention ignores are not joined by themselves;
    one that lies within a bridge is joined with it.

    Parameters
    ----------
    hu
        (Z, Y, X) int16.
    labels
        (Z, Y, X): 0 background, 1, 2, ... the components (26 neighbours).
    spacing_mm
        (z, y, x).
    connector
        Takes (B, 2, S, S, S) and gives logits (B, 1, S, S, S): see `connection_net.Connector`.
    device
        Where it runs.
    progress
        Called as progress("connect", patches done, patches known of); may raise Cancelled.
    """
    if hu.shape != labels.shape:
        raise AirwaySegError(f"The CT has shape {hu.shape}, the mask {labels.shape}.")
    ignored = ~np.isin(np.arange(int(labels.max(initial=0)) + 1), [0, *kept_components(labels, spacing_mm)])
    work = _Work(hu, labels, spacing_mm, ignored, np.zeros(labels.shape, np.uint8))
    network = fast_form(connector) if isinstance(connector, Connector) else connector.eval()
    runner = _Runner(network.to(device), torch.device(device), device == "cpu" and has_bfloat16(device))
    joined, seen = labels, np.empty((0, 3), np.int32)
    bridges: list[Bridge] = []
    for _ in range(MOST_ROUNDS):
        attention = breakage_attention(joined, spacing_mm)
        centres = _not_covered(patch_centres(attention, joined), seen)
        if not len(centres):
            break
        seen = np.concatenate([seen, centres])
        _look(work, attention, centres, runner, progress)
        before, bridges = len(bridges), _bridges_at(work, LEVELS[0], [])
        if len(bridges) == before:
            break
        joined = _joined(labels, bridges)
    for level in LEVELS[1:]:
        bridges += _bridges_at(work, level, bridges)
    return sorted(bridges, key=lambda bridge: -bridge.score)


@dataclass(frozen=True, eq=False)
class _Work:
    """What is looked at.

    ``ignored`` says by number which components attention leaves out; ``probability`` (Z, Y, X), 0..255, holds the
    largest prediction so far of each voxel.
    """

    hu: NDArray[np.int16]
    labels: Labels
    spacing_mm: Spacing
    ignored: NDArray[np.bool_]
    probability: NDArray[np.uint8]


@dataclass(frozen=True)
class _Runner:
    network: nn.Module
    device: torch.device
    reduced: bool

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (B, 2, S, S, S) -> probabilities (B, S, S, S)."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.reduced):
            # On a CPU this order of memory halves the time.
            batch = torch.from_numpy(images).to(self.device, memory_format=torch.channels_last_3d)
            return self.network(batch)[:, 0].float().sigmoid().cpu().numpy()


# Looking at patches --------------------------------------------------------------------------------------------------


def _not_covered(centres: Voxels, seen: Voxels) -> Voxels:
    """Those of the centres (K, 3), from the first on, that lie in the middle of no patch that was or will be seen."""
    if not len(centres):
        return centres
    all_centres = np.concatenate([seen, centres]).astype(np.int64)
    near = cKDTree(all_centres).query_ball_point(centres, COVERED, p=np.inf)
    chosen = set(range(len(seen)))
    for index, beside in enumerate(near, start=len(seen)):
        if chosen.isdisjoint(beside):
            chosen.add(index)
    return centres[[index - len(seen) for index in sorted(chosen) if index >= len(seen)]]


def _look(work: _Work, attention: NDArray[np.float32], centres: Voxels, runner: _Runner, progress: Progress) -> None:
    """Predict at all centres and keep the largest probability of each voxel that is asked about."""
    progress("connect", 0, len(centres))
    for first in range(0, len(centres), BATCH):
        corners = [centre - SIDE // 2 for centre in centres[first : first + BATCH]]
        looks = [_cut(attention, corner, 0) for corner in corners]
        images = [normalise(_cut(work.hu, corner, None), BREAKAGE_WINDOW_HU) for corner in corners]
        found = runner(np.stack([np.stack(pair) for pair in zip(images, looks, strict=True)]))
        for corner, look, probability in zip(corners, looks, found, strict=True):
            _keep(work.probability, np.where(asked_about(look), probability, 0), corner)
        progress("connect", min(first + BATCH, len(centres)), len(centres))


def _cut(array: NDArray, corner: NDArray, fill: float | None) -> NDArray:
    """The patch at a corner; beyond the array ``fill``, or with None its mirror image, as in training."""
    low, high = np.maximum(corner, 0), np.minimum(corner + SIDE, array.shape)
    part = array[tuple(slice(a, b) for a, b in zip(low, high))]
    wide = list(zip(low - corner, corner + SIDE - high))
    return np.pad(part, wide, mode="symmetric") if fill is None else np.pad(part, wide, constant_values=fill)


def asked_about(attention: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where an answer of the network counts, (Z, Y, X); see `LEAST_ATTENTION`."""
    asked = np.zeros(attention.shape, bool)
    box = bounding_box(attention >= LEAST_ATTENTION, margin=AROUND)
    if box is not None:
        high = (attention[box] >= LEAST_ATTENTION).astype(np.uint8)
        asked[box] = maximum_filter(high, 2 * AROUND + 1, mode="constant") > 0
    return asked


def _keep(whole: NDArray[np.uint8], probability: NDArray[np.float32], corner: NDArray) -> None:
    low, high = np.maximum(corner, 0), np.minimum(corner + SIDE, whole.shape)
    inner = probability[tuple(slice(a, b) for a, b in zip(low - corner, high - corner))]
    box = tuple(slice(a, b) for a, b in zip(low, high))
    np.maximum(whole[box], np.rint(255 * inner).astype(np.uint8), out=whole[box])


# From predictions to bridges -----------------------------------------------------------------------------------------


def _bridges_at(work: _Work, level: float, before: Sequence[Bridge]) -> list[Bridge]:
    """Bridges of what has at least a probability, without those that join only what is joined ``before``."""
    labels, ignored, shape = work.labels, work.ignored, work.labels.shape
    flat = np.flatnonzero(work.probability >= round(255 * level))
    flat = flat[(labels.ravel()[flat] == 0) | ignored[labels.ravel()[flat]]]
    voxels = np.stack(np.unravel_index(flat, shape), axis=1).astype(np.int32)
    if not len(voxels):
        return []
    pieces = Lumen((shape[0], shape[1], shape[2]), work.spacing_mm, voxels).components
    pairs = touched_by(voxels, pieces, labels)
    group = groups_of(int(labels.max()), before)
    order = np.argsort(pieces, kind="stable")
    parts = np.split(order, np.searchsorted(pieces[order], np.arange(1, int(pieces.max()) + 1)))
    joins = np.split(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(1, len(parts))))
    found = []
    for rows, touched in zip(parts, joins, strict=True):
        if len(np.unique(group[touched[~ignored[touched]]])) > 1:
            found.append(_bridge(work, level, voxels[rows], touched))
    return found


def _bridge(work: _Work, level: float, piece: Voxels, touched: NDArray[np.intp]) -> Bridge:
    """The bridge of one piece, which touches the components ``touched``, ignored ones included."""
    voxels = piece[work.labels[tuple(piece.T)] == 0]
    mean = float(work.probability[tuple(voxels.T)].mean()) / 255
    score = min(mean, 1.0) if level == LEVELS[0] else level
    facts = {"probability": round(mean, 4), "voxels": float(len(voxels))}
    joins = tuple(int(number) for number in touched)
    return Bridge(joins, voxels, round(score, 4), NETWORK, _gap_mm(work, piece, joins), facts)


def _gap_mm(work: _Work, piece: Voxels, joins: tuple[int, ...]) -> float:
    """Distance between the nearest voxel centres of two components; of several the farthest from the others."""
    low, high = np.maximum(piece.min(axis=0) - 1, 0), piece.max(axis=0) + 2
    part = work.labels[tuple(slice(a, b) for a, b in zip(low, high))]
    voxels_mm = {number: np.argwhere(part == number) * np.asarray(work.spacing_mm) for number in joins}
    farthest = 0.0
    for number in joins:
        others = np.concatenate([voxels_mm[other] for other in joins if other != number])
        farthest = max(farthest, float(cKDTree(others).query(voxels_mm[number])[0].min()))
    return farthest


def _joined(labels: Labels, bridges: Sequence[Bridge]) -> Labels:
    """The labels with the bridges filled in and what they join under one number."""
    group = groups_of(int(labels.max()), bridges).astype(np.int32)
    joined = group[labels]
    for bridge in bridges:
        joined[tuple(bridge.voxels.T)] = group[bridge.joins[0]]
    return joined


def touched_by(voxels: Voxels, numbers: NDArray[np.integer], labels: Labels) -> NDArray[np.intp]:
    """Which components touch which pieces: pairs (P, 2) of piece and component, each once, ascending.

    ``voxels`` (N, 3) lie in the pieces ``numbers`` (N,); a voxel touches the 26 around it.
    """
    pairs = [np.empty((0, 2), np.intp)]
    last = np.array(labels.shape) - 1
    for offset in NEIGHBOURS:
        beside = voxels + offset
        inside = np.flatnonzero(((beside >= 0) & (beside <= last)).all(axis=1))
        found = labels[tuple(beside[inside].T)]
        hit = inside[found > 0]
        pairs.append(np.column_stack([numbers[hit], found[found > 0]]).astype(np.intp))
    return np.unique(np.concatenate(pairs), axis=0)
