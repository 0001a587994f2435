"""Metrics of a predicted mask against a reference: counts, and the rates that follow from them.

Masks are bool (Z, Y, X) on one grid. All rates are 0..1; a rate whose denominator is 0 is NaN. Letters in shapes: S
voxels of the reference's skeleton.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import cKDTree

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.evaluation.reference_parse import thinned
from AirwaySegLib.masks.components import bounding_box, distance_to
from AirwaySegLib.masks.sparse_mask import Lumen

Mask = NDArray[np.bool_]

DETECTED_SHARE = 0.8
"""A branch counts as detected when at least this share of its skeleton is in the prediction."""

DIAMETER_LIMITS_MM = (2.0, 4.0, 8.0)
"""Inclusive upper limits of the diameter classes of `by_diameter`; the last class is everything above."""


@dataclass(frozen=True)
class Overlap:
    """Voxels in both masks, in the prediction alone and in the reference alone."""

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def precision(self) -> float:
        """Share of the prediction that lies in the reference."""
        return share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def sensitivity(self) -> float:
        """Share of the reference that lies in the prediction."""
        return share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def dice(self) -> float:
        """Dice similarity coefficient (DSC)."""
        return share(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def iou(self) -> float:
        """Intersection over union."""
        return share(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def leakage(self) -> float:
        """False positives per voxel of the reference (AIIB23); may exceed 1."""
        return share(self.false_positive, self.true_positive + self.false_negative)


@dataclass(frozen=True)
class Detection:
    """How much of the reference's skeleton, and how many of its branches, are in the prediction."""

    skeleton_voxels: int
    skeleton_voxels_detected: int
    length_mm: float
    length_mm_detected: float
    branches: int
    branches_detected: int

    @property
    def tree_length(self) -> float:
        """TLD: share of the skeleton's voxels that are detected."""
        return share(self.skeleton_voxels_detected, self.skeleton_voxels)

    @property
    def tree_length_mm(self) -> float:
        """The same share by length in mm."""
        return share(self.length_mm_detected, self.length_mm)

    @property
    def branch_rate(self) -> float:
        """BD: share of the branches that are detected."""
        return share(self.branches_detected, self.branches)


@dataclass(frozen=True)
class Metrics:
    """A prediction against a reference.

    ``by_diameter`` holds one `Overlap` for each class of `DIAMETER_LIMITS_MM`; ``cl_dice`` is a rate; the components
    are 26-connected ones of both whole masks.
    """

    overlap: Overlap
    detection: Detection
    by_diameter: tuple[Overlap, ...]
    cl_dice: float
    prediction_components: int
    reference_components: int

    @property
    def betti0_error(self) -> int:
        """Absolute difference in the number of components."""
        return abs(self.prediction_components - self.reference_components)

    @property
    def atm22_score(self) -> float:
        """Mean of TLD, BD, DSC and precision; the precision of an empty prediction counts as 0."""
        precision = 0.0 if math.isnan(self.overlap.precision) else self.overlap.precision
        return (self.detection.tree_length + self.detection.branch_rate + self.overlap.dice + precision) / 4


def share(part: float, whole: float) -> float:
    """``part / whole``; NaN if ``whole`` is 0."""
    return part / whole if whole else math.nan


def overlap_of(prediction: Mask, reference: Mask) -> Overlap:
    """Count the voxels."""
    _check(prediction, reference)
    both = int((prediction & reference).sum())
    return Overlap(both, int(prediction.sum()) - both, int(reference.sum()) - both)


def lengths_mm(skeleton: Lumen) -> NDArray[np.float64]:
    """Length in mm of each voxel of a skeleton, (S,): half of the edges to its neighbours.

    Neighbouring voxels are joined by a minimum spanning tree of the 26-neighbourhood, with the distances of voxel
    centres as edge lengths. So the small triangles at forks and corners do not count twice, and the sum over all voxels
    is the tree's length. A loop lacks one edge. A line between the directions of axes and diagonals is measured up to
    13 % too long on cubic voxels, because edges have these directions only; in a share this cancels.
    """
    one, other = skeleton.neighbours()
    steps = np.linalg.norm(skeleton.places_mm[one] - skeleton.places_mm[other], axis=1)
    graph = coo_array((steps, (one, other)), shape=(len(skeleton), len(skeleton)))
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    lengths = np.zeros(len(skeleton))
    for ends in (tree.row, tree.col):
        np.add.at(lengths, ends, tree.data / 2)
    return lengths


def count_branches(branches: NDArray[np.int32], detected: Mask, left_out: tuple[int, ...] = ()) -> tuple[int, int]:
    """Number of branches, and number of detected branches.

    ``branches`` (S,) is the branch of each skeleton voxel (0: none), ``detected`` (S,) whether the voxel is in the
    prediction. As in ATM'22's program the highest number that occurs is the number of branches, so that a branch
    without skeleton voxels counts as missed. Branches ``left_out`` do not count.
    """
    voxels = np.bincount(branches, minlength=1)
    found = np.bincount(branches, weights=detected, minlength=1)
    counted = np.ones(len(voxels), bool)
    counted[[0, *(label for label in left_out if label < len(voxels))]] = False
    shares = np.divide(found, voxels, out=np.zeros(len(voxels)), where=voxels > 0)
    return int(counted.sum()), int((counted & (shares >= DETECTED_SHARE)).sum())


def local_diameters_mm(skeleton: Lumen, mask: Lumen) -> NDArray[np.float64]:
    """Lumen diameter at each skeleton voxel, (S,): that of the largest ball in the mask that contains the voxel.

    Balls are centred on skeleton voxels; their radius is the distance to the wall's face, that is, corrected by the
    half voxel between the face and the nearest background voxel's centre. So the diameter does not decrease towards a
    flat end, such as a trachea that the scan truncates. Hildebrand and Ruegsegger's local thickness, 1997,
    doi:10.1046/j.1365-2818.1997.1340694.x.
    """
    radii = mask.to_wall(skeleton.places_mm)
    largest = radii.copy()
    held = cKDTree(skeleton.places_mm).query_ball_point(skeleton.places_mm, radii)
    for radius, rows in zip(radii, held, strict=True):
        largest[rows] = np.maximum(largest[rows], radius)
    return 2 * largest


def by_diameter(prediction: Mask, reference: Mask, skeleton: Lumen, diameters_mm: NDArray) -> tuple[Overlap, ...]:
    """One `Overlap` for each class of the reference's lumen diameter.

    Every voxel of both masks belongs to the class of the nearest skeleton voxel (in mm) of the reference; a false
    positive counts for the airway beside it.
    """
    classes = len(DIAMETER_LIMITS_MM) + 1
    if len(skeleton) == 0:
        return (Overlap(0, 0, 0),) * classes
    voxels = np.argwhere(prediction | reference)
    _, nearest = cKDTree(skeleton.places_mm).query(voxels * np.asarray(skeleton.spacing_mm))
    # Rounded, so that 2 mm computed from 0.7 mm voxels is not a little more than 2 mm.
    of_skeleton = np.digitize(np.round(diameters_mm, 6), DIAMETER_LIMITS_MM, right=True)
    kind = of_skeleton[nearest]
    predicted, true = prediction[tuple(voxels.T)], reference[tuple(voxels.T)]
    counts = [
        np.bincount(kind[chosen], minlength=classes) for chosen in (predicted & true, predicted & ~true, ~predicted)
    ]
    return tuple(Overlap(*(int(count[k]) for count in counts)) for k in range(classes))


def cl_dice(prediction_line: Mask, prediction: Mask, reference_line: Mask, reference: Mask) -> float:
    """Centerline Dice of two masks and their (hard) skeletons; 0 if one of them has no skeleton, NaN if neither has.

    Shit et al., CVPR 2021, doi:10.1109/CVPR46437.2021.01629: the harmonic mean of the share of the prediction's
    skeleton in the reference and the share of the reference's skeleton in the prediction.
    """
    lines = int(prediction_line.sum()), int(reference_line.sum())
    if 0 in lines:
        return math.nan if lines == (0, 0) else 0.0
    precise = int((prediction_line & reference).sum()) / lines[0]
    complete = int((reference_line & prediction).sum()) / lines[1]
    return 2 * precise * complete / (precise + complete) if precise + complete else 0.0


def tree_length_detected(prediction: Mask, reference: Mask) -> float:
    """Share of the reference's skeleton voxels that lie in the prediction (TLD of ATM'22)."""
    _check(prediction, reference)
    line = thinned(reference)
    return share(int((line & prediction).sum()), int(line.sum()))


def precision(prediction: Mask, reference: Mask, left_out: Mask | None = None) -> float:
    """Share of the prediction's voxels that lie in the reference; voxels in ``left_out`` do not count."""
    return _counted(prediction, reference, left_out).precision


def dice(prediction: Mask, reference: Mask, left_out: Mask | None = None) -> float:
    """Dice similarity coefficient; voxels in ``left_out`` do not count."""
    return _counted(prediction, reference, left_out).dice


def share_outside(prediction: Mask, reference: Mask, margin_voxels: float = 2.0) -> float:
    """Share of the prediction's voxels farther than ``margin_voxels`` from the reference."""
    _check(prediction, reference)
    box = bounding_box(prediction | reference, margin=1)
    if box is None:
        return math.nan
    far = distance_to(reference[box], (1.0, 1.0, 1.0)) > margin_voxels
    return share(int((prediction[box] & far).sum()), int(prediction.sum()))


def _counted(prediction: Mask, reference: Mask, left_out: Mask | None) -> Overlap:
    _check(prediction, reference)
    if left_out is None:
        return overlap_of(prediction, reference)
    return overlap_of(prediction & ~left_out, reference & ~left_out)


def _check(prediction: Mask, reference: Mask) -> None:
    if prediction.shape != reference.shape:
        raise AirwaySegError(
            f"The prediction's grid {prediction.shape} differs from the reference's {reference.shape}."
        )
