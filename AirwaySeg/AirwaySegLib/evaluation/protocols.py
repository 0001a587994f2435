"""The field's protocols, and the comparison of two masks by one of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.evaluation.metrics import (
    Detection,
    Metrics,
    by_diameter,
    cl_dice,
    count_branches,
    lengths_mm,
    local_diameters_mm,
    overlap_of,
)
from AirwaySegLib.evaluation.reference_parse import Parse, largest_component, nearest, parse_branches, thinned
from AirwaySegLib.masks.components import bounding_box
from AirwaySegLib.masks.sparse_mask import Lumen, Spacing

Mask = NDArray[np.bool_]

AXES = ("xyz", "zyx")
"""Orders of the axes in which a reference can be parsed; the first is that of the programs of ATM'22 and AIIB23."""

HEAVY_SHARE = 0.2
"""See `central_branches`: a lung has about half of the voxels, a bronchus from the trachea itself a twentieth."""


@dataclass(frozen=True)
class Protocol:
    """The definitions of one challenge or paper.

    Parameters
    ----------
    largest_for_all
        Whether all metrics use only the prediction's largest component (6-connected), or only TLD and BD do.
    without_central
        Whether trachea and main bronchi are left out.
    refined
        Whether the reference's parse is refined (see `reference_parse.parse_branches`).
    source
        The names of those who use it, for printed tables.
    """

    largest_for_all: bool
    without_central: bool
    refined: bool
    source: str


PROTOCOLS = {
    "atm22": Protocol(
        largest_for_all=False, without_central=False, refined=True, source="ATM'22, WingsNet, BAS"
    ),
    "aiib23": Protocol(
        largest_for_all=True, without_central=False, refined=False, source="AIIB23"
    ),
    "deeptree": Protocol(
        largest_for_all=True, without_central=True, refined=True, source="DeepTree: no trachea, no main bronchi"
    ),
}  # fmt: skip


def protocol_named(name: str) -> Protocol:
    """The protocol; raises AirwaySegError for an unknown name."""
    if name not in PROTOCOLS:
        raise AirwaySegError(f"The protocol is {name!r}; it must be one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def checked_axes(axes: str) -> str:
    """One of `AXES`; raises AirwaySegError for another."""
    if axes not in AXES:
        raise AirwaySegError(f"The order of the axes is {axes!r}; it must be one of {', '.join(AXES)}.")
    return axes


def compare(prediction: Mask, reference: Mask, spacing_mm: Spacing, protocol: Protocol, axes: str = AXES[0]) -> Metrics:
    """Compare two masks, bool (Z, Y, X) in the order in which they are stored, ``spacing_mm`` (z, y, x).

    ``axes`` is one of `AXES`: the order of the axes for thinning and parse. Thinning removes voxels in the array's
    order, and a voxel that is equally near to two branches is given to the first; so skeleton and branches, and thus BD
    and TLD, depend on it. The programs of ATM'22, AIIB23 and WingsNet read NIfTI with nibabel, which gives x, y, z; a
    program that reads with SimpleITK gets z, y, x.

    An empty prediction gives rates of 0 and a precision of NaN. TLD and BD always refer to the prediction's largest
    component, everything else to what the protocol says; Betti-0 counts the components of both whole masks, because
    one component would be the only possible answer otherwise.

    The published programs take the skeleton of the whole reference, but of the prediction only the largest component
    whose voxels share faces. A mask whose airways hang together by edges or corners, or that has loose fragments,
    therefore does not reach 100 % against itself.

    Raises
    ------
    AirwaySegError
        If the reference is empty, or ``axes`` is not one of `AXES`.
    """
    if checked_axes(axes) == "xyz":
        prediction, reference, spacing_mm = prediction.T, reference.T, (spacing_mm[2], spacing_mm[1], spacing_mm[0])
    box = bounding_box(reference | prediction, margin=1)
    if box is None or not reference.any():
        raise AirwaySegError("The reference is empty.")
    prediction, reference = np.ascontiguousarray(prediction[box]), np.ascontiguousarray(reference[box])
    parse = parse_branches(reference, protocol.refined)
    line = parse.skeleton if np.array_equal(reference, parse.labels > 0) else thinned(reference)
    main = largest_component(prediction)
    counted = main if protocol.largest_for_all else prediction
    central = central_branches(parse) if protocol.without_central else ()
    kept = ~region_of(parse, central, prediction | reference)
    skeleton = Lumen.of(line & kept, spacing_mm)
    return Metrics(
        overlap=overlap_of(counted & kept, reference & kept),
        detection=_detection(main, parse, line, kept, central, spacing_mm),
        by_diameter=by_diameter(counted & kept, reference & kept, skeleton, _diameters(skeleton, reference)),
        cl_dice=cl_dice(thinned(counted) & kept, counted & kept, line & kept, reference & kept),
        prediction_components=_components(prediction),
        reference_components=_components(reference),
    )


def central_branches(parse: Parse) -> tuple[int, ...]:
    """Labels of trachea and main bronchi in a reference's refined parse; none without a branch.

    The trachea is the largest label. From it the tree is followed to its first fork into two heavy parts, the carina:
    the second heaviest child and all beyond it hold at least `HEAVY_SHARE` of the voxels beyond the fork. These two
    children are the main bronchi. So a bronchus that leaves the trachea above the carina stays in, and the trachea
    below it is left out too. A tree without such a fork loses the trachea alone.
    """
    if parse.trachea == 0:
        return ()

    def weight(label: int) -> int:
        return int(parse.voxels[label]) + sum(weight(child) for child in parse.children(label))

    way = [parse.trachea]
    while stems := sorted(parse.children(way[-1]), key=weight, reverse=True):
        weights = [weight(stem) for stem in stems]
        if len(stems) > 1 and weights[1] >= HEAVY_SHARE * sum(weights):
            return *way, *stems[:2]
        way.append(stems[0])
    return (parse.trachea,)


def region_of(parse: Parse, branches: tuple[int, ...], voxels: Mask) -> Mask:
    """Those of ``voxels`` (Z, Y, X) whose nearest skeleton voxel is of one of ``branches``.

    So voxels outside the reference belong to the branch beside them.
    """
    region = np.zeros(voxels.shape, bool)
    if branches:
        positions = np.argwhere(voxels)
        labels = parse.segment_labels[nearest(parse.segments, positions)]
        region[tuple(positions.T)] = np.isin(labels, branches)
    return region


def _detection(
    main: Mask, parse: Parse, line: Mask, kept: Mask, central: tuple[int, ...], spacing_mm: Spacing
) -> Detection:
    """Counts of TLD and BD for the prediction's main component on the reference's skeleton ``line``."""
    skeleton = Lumen.of(line, spacing_mm)
    voxels = tuple(skeleton.voxels.T)
    counts = kept[voxels]
    detected = main[voxels] & counts
    lengths = lengths_mm(skeleton)
    branches, found = count_branches(parse.labels[voxels], detected, central)
    return Detection(
        skeleton_voxels=int(counts.sum()),
        skeleton_voxels_detected=int(detected.sum()),
        length_mm=float(lengths[counts].sum()),
        length_mm_detected=float(lengths[detected].sum()),
        branches=branches,
        branches_detected=found,
    )


def _diameters(skeleton: Lumen, reference: Mask) -> NDArray[np.float64]:
    return local_diameters_mm(skeleton, Lumen.of(reference, skeleton.spacing_mm))


def _components(mask: Mask) -> int:
    return int(Lumen.of(mask, (1.0, 1.0, 1.0)).components.max()) + 1 if mask.any() else 0
