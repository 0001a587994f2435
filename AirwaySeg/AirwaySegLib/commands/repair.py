"""The command `airwayseg repair`: read a mask, join its fragments, write the result and its report."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib import __version__
from AirwaySegLib.commands.measure import check_no_report
from AirwaySegLib.files.atomic_output import check_free, delivered_into, write_text
from AirwaySegLib.files.ct_checks import Spacing
from AirwaySegLib.files.folder_lock import locked
from AirwaySegLib.files.image_files import case_name
from AirwaySegLib.files.volume import (
    Volume,
    check_same_grid,
    from_canonical,
    ijk_to_ras,
    read_ct,
    read_mask,
    read_probability,
    to_canonical,
    voxels_from_canonical,
    write_nrrd,
    write_sparse_nrrd,
)
from AirwaySegLib.masks.contacts import joined_by_faces
from AirwaySegLib.pictures.repair_pictures import draw_repairs
from AirwaySegLib.progress import Progress
from AirwaySegLib.repair.proposal import Proposal, facts, fragments_to_plain, repairs_map, to_plain
from AirwaySegLib.repair.repair import Repaired, Source, open_repair_model, repair, whole_hu
from AirwaySegLib.settings import SegmentSettings
from AirwaySegLib.tree.build import tree_voxels

log = logging.getLogger("airwayseg")

MASK, REPAIRS, LOOSE, PICTURE, PROPOSALS = (
    "airways.nrrd",
    "repairs.nrrd",
    "fragments.nrrd",
    "repairs.png",
    "repairs.json",
)
FILES = (REPAIRS, LOOSE, PICTURE, PROPOSALS)
"""Names of the files that describe a repair; `PROPOSALS` is the last."""


@dataclass(frozen=True)
class RepairRequest:
    """The mask to repair, the folder for the results, and the options.

    ``ct`` (HU) and ``probability`` (0..255) are on the mask's grid; ``method``, ``threshold``, ``weights`` and
    ``device`` are those of `SegmentSettings`; ``force`` replaces results; ``spacing_mm`` (x, y, z) is for files
    without a spacing.
    """

    mask: Path
    output: Path
    ct: Path | None = None
    probability: Path | None = None
    method: str = SegmentSettings.repair
    threshold: float = SegmentSettings.repair_threshold
    weights: str = SegmentSettings.repair_weights
    device: str = SegmentSettings.device
    force: bool = False
    spacing_mm: Spacing | None = None

    @property
    def settings(self) -> SegmentSettings:
        """The options as `SegmentSettings`, which raise AirwaySegError for a value outside its limits."""
        return SegmentSettings(
            repair=self.method, repair_threshold=self.threshold, repair_weights=self.weights, device=self.device
        )


def run_repair(request: RepairRequest, progress: Progress) -> str:
    """Repair a mask file and return a summary of its proposals.

    Raises
    ------
    AirwaySegError
        If a file cannot be read or written or is on another grid, the mask is empty, the network that was asked for is
        not available, or another run works in the folder.
    """
    with locked(request.output, "airwayseg repair"):
        return _run_repair(request, progress)


def _run_repair(request: RepairRequest, progress: Progress) -> str:
    settings = request.settings
    check_free(request.output, (MASK, *FILES), request.force)
    check_no_report(request.output)
    repair_model = open_repair_model(settings, with_ct=request.ct is not None)
    progress("read", 0, 1)
    mask, source, about_ct = _read(request)
    progress("read", 1, 1)
    repaired = repair(source, repair_model, progress)
    progress("write", 0, 1)
    with delivered_into(request.output, PROPOSALS, (MASK, *FILES)) as unfinished:
        whole = repaired.whole_mask(source.mask.array.shape)
        whole[repaired.box] = joined_by_faces(whole[repaired.box], likelihood(source.within(repaired.box)))
        write_nrrd(unfinished / MASK, from_canonical(whole, mask).astype(np.uint8), mask)
        write_repairs(unfinished, repaired, mask, source.hu, case_name(request.mask))
    progress("write", 1, 1)
    for warning in [*repair_model.warnings, *about_ct]:
        log.warning("%s: %s", case_name(request.mask), warning)
    return summary_text(repaired)


def _read(request: RepairRequest) -> tuple[Volume, Source, list[str]]:
    """The mask on its own grid, all inputs on the mask's canonical axes, and warnings about the CT."""
    mask = read_mask(request.mask, request.spacing_mm)
    hu = probability = None
    warnings: list[str] = []
    if request.ct is not None:
        ct, warnings = read_ct(request.ct, spacing_mm=request.spacing_mm)
        check_same_grid(mask, ct, str(request.mask))
        hu = whole_hu(to_canonical(ct).array)
    if request.probability is not None:
        values = read_probability(request.probability, mask, request.spacing_mm)
        probability = to_canonical(replace(mask, array=values)).array
    canonical = to_canonical(mask)
    return mask, Source(canonical, hu, probability, tree_voxels(canonical)), warnings


def likelihood(source: Source) -> NDArray[np.uint8] | None:
    """How likely each voxel is airway, 0..255: the probability, or how dark the CT is, or None where both are missing.

    Of the CT 255 is -1000 HU and less, air, and 0 is 20 HU and more, soft tissue.
    """
    if source.probability is not None or source.hu is None:
        return source.probability
    return np.clip((20 - source.hu.astype(np.int32)) // 4, 0, 255).astype(np.uint8)


def write_repairs(folder: Path, repaired: Repaired, like: Volume, hu: NDArray | None, title: str) -> None:
    """Write `FILES` into an existing folder; `PROPOSALS` comes last.

    The maps are on the grid of ``like``, which need not be canonical. ``hu`` (int16) is the CT on its canonical axes;
    with it the picture has slices.
    """
    labels = repaired.grid.array
    for name, values in ((REPAIRS, repairs_map(labels.shape, repaired.proposals)), (LOOSE, repaired.loose())):
        voxels = np.argwhere(values)
        turned = voxels_from_canonical(voxels + repaired.corner, like)
        write_sparse_nrrd(folder / name, turned, values[tuple(voxels.T)], like)
    near = None if hu is None else hu[repaired.box]
    draw_repairs(labels, repaired.proposals, repaired.grid.spacing_mm, near, title).save(folder / PICTURE)
    document = to_plain([_moved(proposal, repaired.corner) for proposal in repaired.proposals])
    document["ijk_to_lps"] = _whole_ijk_to_lps(repaired).tolist()
    document["fragments"] = fragments_to_plain(labels, repaired.corner, repaired.proposals)
    made = {"program": f"AirwaySeg {__version__}", "summary": repaired.summary()}
    write_text(folder / PROPOSALS, json.dumps(document | made, indent=1))


def _whole_ijk_to_lps(repaired: Repaired) -> NDArray[np.float64]:
    """The matrix (4, 4) from voxel indices (x, y, z) on the whole canonical grid to LPS mm."""
    back = np.eye(4)
    back[:3, 3] = -repaired.corner[::-1]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ ijk_to_ras(repaired.grid) @ back


def _moved(proposal: Proposal, corner: NDArray[np.int32]) -> Proposal:
    """The same proposal with voxel indices on the whole canonical grid."""
    bridge = proposal.bridge
    return replace(proposal, bridge=replace(bridge, voxels=(bridge.voxels + corner).astype(np.int32)))


def summary_text(repaired: Repaired) -> str:
    """A summary of the repair, and a line for each proposal."""
    return "\n".join([facts(repaired.grid.array, repaired.proposals), *map(line_of, repaired.proposals)])


def line_of(proposal: Proposal) -> str:
    """One line: number, state, method, score, gap, fragments, branch, and why the proposal is not applied."""
    bridge = proposal.bridge
    what = f"{proposal.number}: {proposal.state}, {bridge.method} {bridge.score:.2f}, gap {bridge.length_mm:.1f} mm"
    brought = f", fragments {', '.join(map(str, proposal.fragments))}" if proposal.fragments else ""
    return f"{what}{brought} to branch {proposal.branch}. {proposal.reason}".rstrip()
