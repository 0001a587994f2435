"""Fragments joined to the tree: the bridges of both methods are found and decided on.

Used by `airwayseg repair` for masks from anywhere, and by `pipeline.segment`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import (
    Volume,
    part_of,
)
from AirwaySegLib.masks.components import Box, bounding_box, label_components
from AirwaySegLib.progress import Progress
from AirwaySegLib.repair.bridge import MAIN, Bridge
from AirwaySegLib.repair.decide import decide, repaired_mask
from AirwaySegLib.repair.origins import bridges_by_origin, find_origins
from AirwaySegLib.repair.path_bridges import Evidence
from AirwaySegLib.repair.piece_score import airway_probability
from AirwaySegLib.repair.proposal import APPLIED, Proposal, fragments_of, sizes_of, voxels_added
from AirwaySegLib.settings import SegmentSettings
from AirwaySegLib.tree.build import ParsedAirways, parse_airways

Network = Callable[[NDArray[np.int16], NDArray[np.int32], tuple[float, float, float], Progress], list[Bridge]]
"""From HU, components, spacing (z, y, x) and progress to bridges."""


AROUND_VOXELS = 40
"""What is looked at around the components: half of the network's patch, and the width of a gap."""


MOST_ML = 1000.0
"""Airways hold about 150 ml; what holds more than a litre is a mask of something else, and its tree takes minutes."""


MOST_LOOSE = 65_535
"""What a map of 16 bits can number."""


@dataclass(frozen=True)
class RepairModel:
    """What finds bridges, opened once for many masks.

    ``method`` is what of the wanted one is possible; ``network`` is there for "network" and "both". ``weights`` says
    whose weights it has, and ``warnings`` what is missing.
    """

    method: str
    threshold: float
    network: Network | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Repaired:
    """The result, on a part of a canonical grid.

    ``grid`` has the components' numbers (Z, Y, X) as its array, ``corner`` (3,) is where it begins in the whole.
    ``how`` says by which method, threshold and weights. ``airway`` is P(airway) of each component by its number
    (`piece_score.airway_probability`); None where no paths were searched.
    """

    grid: Volume
    corner: NDArray[np.int32]
    proposals: list[Proposal]
    how: dict[str, object] = field(default_factory=dict)
    airway: NDArray[np.float64] | None = None

    def loose(self) -> NDArray[np.uint16]:
        """Numbers of the fragments that were not joined (Z, Y, X), 0 elsewhere; of more than 65 535 the largest."""
        labels = self.grid.array
        numbers = np.arange(max(int(labels.max()), MAIN) + 1)
        numbers[[0, MAIN, *fragments_of(self.proposals)]] = 0
        numbers[MOST_LOOSE + 1 :] = 0
        return numbers.astype(np.uint16)[labels]

    def whole_mask(self, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """The repaired mask on the whole canonical grid."""
        mask = np.zeros(shape, bool)
        mask[self.box] = repaired_mask(self.grid.array, self.proposals)
        return mask

    @property
    def box(self) -> Box:
        """Which part of the whole it is."""
        z, y, x = (slice(int(low), int(low) + n) for low, n in zip(self.corner, self.grid.array.shape, strict=True))
        return z, y, x

    def further_in(self, box: Box) -> "Repaired":
        """The same, counted on a grid of which the present one is this box."""
        return replace(self, corner=self.corner + np.array([part.start for part in box], np.int32))

    def _voxels_left_out(self) -> int:
        sizes = sizes_of(self.grid.array)
        sizes[[MAIN, *fragments_of(self.proposals)]] = 0
        return int(sizes.sum())

    def summary(self) -> dict[str, object]:
        """What a report tells of it, as plain values."""
        labels = self.grid.array
        return {
            **self.how,
            "fragments": int(np.count_nonzero(sizes_of(labels)[MAIN + 1 :])),
            "fragments_joined": len(fragments_of(self.proposals)),
            "proposals": len(self.proposals),
            "applied": sum(proposal.state == APPLIED for proposal in self.proposals),
            "voxels_added": voxels_added(labels, self.proposals),
            "voxels_left_out": self._voxels_left_out(),
        }


def open_repair_model(settings: SegmentSettings, with_ct: bool = True) -> RepairModel:
    """Load the network if it is wanted and there is a CT for it to see.

    Where "both" is wanted and the network cannot be had, paths alone are left, with a warning.

    Raises
    ------
    AirwaySegError
        If the network is wanted alone, or with other weights than usual, and cannot be had.
    """
    plain = RepairModel(settings.repair, settings.repair_threshold)
    if settings.repair not in ("network", "both"):
        return plain
    try:
        if not with_ct:
            raise AirwaySegError("The repair network needs the CT.")
        network, weights = _open_network(settings)
    except AirwaySegError as error:
        if settings.repair == "network" or settings.repair_weights != SegmentSettings.repair_weights:
            raise
        return replace(plain, method="path", warnings=(f"{error} Fragments are joined by paths alone.",))
    return replace(plain, network=network, weights=weights)


def _open_network(settings: SegmentSettings) -> tuple[Network, dict[str, str]]:
    """The network with its weights on its device, and whose weights they are."""
    try:
        from AirwaySegLib.networks.device_plan import choose_device
        from AirwaySegLib.repair.network_bridges import load_connector, network_bridges
    except ImportError as error:
        raise AirwaySegError(f"The repair network needs PyTorch ({error}).") from error
    connector, info, sha256 = load_connector(settings.repair_weights)
    device = choose_device(settings.device)

    def bridges(
        hu: NDArray, labels: NDArray, spacing_mm: tuple[float, float, float], progress: Progress
    ) -> list[Bridge]:
        return network_bridges(hu, labels, spacing_mm, connector, device, progress)

    return bridges, {"name": info.name, "sha256": sha256}


@dataclass(frozen=True)
class Source:
    """What is repaired, all on one canonical grid (Z, Y, X): what is not 0 in ``mask`` is airway.

    ``hu`` is the CT, int16, ``probability`` that of the first stage, 0..255, and ``tree`` the voxels of the main tree;
    each may be missing. Without ``tree`` the largest component is the main one.
    """

    mask: Volume
    hu: NDArray[np.int16] | None = None
    probability: NDArray[np.uint8] | None = None
    tree: NDArray[np.bool_] | None = None

    def within(self, box: Box) -> "Source":
        """A part of it, at its position in the patient."""
        return Source(
            part_of(self.mask, box, self.mask.array[box]),
            None if self.hu is None else self.hu[box],
            None if self.probability is None else self.probability[box],
            None if self.tree is None else self.tree[box],
        )


def repair(source: Source, repair_model: RepairModel, progress: Progress) -> Repaired:
    """Join fragments of a mask to its tree, as far as that is sure enough.

    Raises
    ------
    AirwaySegError
        If the mask is empty or no airway tree. `errors.Cancelled` when ``progress`` raised it.
    """
    progress("repair", 0, 3)
    box = bounding_box(source.mask.array, margin=AROUND_VOXELS)
    if box is None:
        raise AirwaySegError(f"{source.mask.path or 'The mask'} is empty: there is nothing to repair.")
    millilitres = float(np.count_nonzero(source.mask.array[box])) * float(np.prod(source.mask.spacing_mm)) / 1000
    if millilitres > MOST_ML:
        name = source.mask.path or "The mask"
        raise AirwaySegError(
            f"{name} holds {millilitres:.0f} ml, more than any airway tree: is it a mask of the lungs?"
        )
    near = source.within(box)
    labels = number_components(near.mask.array, near.tree)
    proposals: list[Proposal] = []
    airway = None
    if repair_model.method != "none" and labels.max() > MAIN:
        parsed = parse_airways(near.mask)
        progress("repair", 1, 3)
        bridges, airway = find_bridges(near, labels, parsed, repair_model, progress)
        progress("repair", 2, 3)
        proposals = decide(bridges, parsed, labels, repair_model.threshold)
    progress("repair", 3, 3)
    how: dict[str, object] = {
        "method": repair_model.method,
        "threshold": repair_model.threshold,
        "weights": dict(repair_model.weights),
    }
    corner = np.array([part.start for part in box], np.int32)
    return Repaired(replace(near.mask, array=labels), corner, proposals, how, airway)


def find_bridges(
    source: Source, labels: NDArray[np.int32], parsed: ParsedAirways, repair_model: RepairModel, progress: Progress
) -> tuple[list[Bridge], NDArray[np.float64] | None]:
    """Bridges in the order in which to decide on them, and P(airway) of the components by number.

    The bridges are the network's alone, and then there is no P(airway), or those by both questions (`origins`).
    """
    network: list[Bridge] | None = None
    spacing_mm = source.mask.spacing_mm
    if repair_model.network is not None and source.hu is not None:
        network = repair_model.network(source.hu, labels, spacing_mm, progress)
    if repair_model.method == "network":
        return network or [], None
    found = find_origins(parsed, labels, spacing_mm, Evidence(source.hu, source.probability), network)
    return bridges_by_origin(found), airway_probability(found.pieces)


def unrepaired(mask: Volume) -> Repaired:
    """What tells that in a mask (canonical, may be empty) nothing was looked for: all of it is tree."""
    box = bounding_box(mask.array) or (slice(0, 1),) * 3
    labels = (mask.array[box] != 0).astype(np.int32)
    return Repaired(part_of(mask, box, labels), np.array([part.start for part in box], np.int32), [])


def whole_hu(hu: NDArray, offset_hu: float = 0.0) -> NDArray[np.int16]:
    """HU (Z, Y, X) plus an offset as whole numbers; what int16 cannot hold, such as metal, becomes its limit."""
    if hu.dtype == np.int16 and offset_hu == 0:
        return hu
    whole, limits = np.empty(hu.shape, np.int16), np.iinfo(np.int16)
    for z, plane in enumerate(hu):  # floats of one slice at a time take no memory to speak of
        whole[z] = np.clip(np.rint(plane + offset_hu), limits.min, limits.max)
    return whole


def number_components(mask: NDArray, tree: NDArray[np.bool_] | None) -> NDArray[np.int32]:
    """Components of a mask: `bridge.MAIN` is what holds ``tree``, then come the others, larger ones first.

    Where a scan holds no carina the tree may be several components, which all have the number `bridge.MAIN`. Where
    ``tree`` is None or lies outside the mask, the largest component is the main one.
    """
    labels = label_components(mask)
    main = np.zeros(int(labels.max()) + 1, bool)
    if tree is not None:
        main[labels[tree]] = True
    main[0] = False
    if not main.any():
        return labels
    others = ~main
    others[0] = False
    numbers = np.zeros(len(main), np.int32)
    numbers[main] = MAIN
    numbers[others] = MAIN + 1 + np.arange(np.count_nonzero(others))
    return numbers[labels]
