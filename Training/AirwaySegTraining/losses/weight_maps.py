"""Maps of a case and the voxel weights of the papers, one function for each equation.

A map is computed once per case; a weight is computed per patch from crops of the maps, because it depends on settings.
Arrays are (Z, Y, X), spacings (z, y, x). A label is uint8: 0 background, 1 airway, 2 left out, which is not airway
here. Weights are float32 and at least 0. A case without airway has maps of zeros.

Sources: WingsNet is Zheng et al., IEEE TMI 2021, arXiv:2011.11952; Tang is Tang, Local-imbalance-based and
Centerline-distance Weight Dice-loss (winner of ATM'22); DeepTree is Accurate Airway Tree Segmentation in CT Scans via
Anatomy-aware Multi-class Segmentation and Deep Breakage Connection.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, uniform_filter
from scipy.spatial import cKDTree

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import bounding_box, fill_holes
from AirwaySegLib.masks.sparse_mask import Lumen, Spacing
from AirwaySegLib.tree.airway_tree import LEFT_MAIN, RIGHT_MAIN, TRACHEA, Branch
from AirwaySegLib.tree.build import parse_airways
from AirwaySegLib.tree.skeleton import completed, thinned

Label = NDArray[np.uint8]
Map = NDArray[np.uint8]
Rate = NDArray[np.float16]
Weight = NDArray[np.float32]

AIRWAY = 1

LARGE, MIDDLE, SMALL = 1, 2, 3
"""DeepTree's classes: trachea and main bronchi; bronchi down to the segmental ones; thinner bronchi."""

SMALL_DIAMETER_MM = 2.0
"""A branch with this mean lumen diameter, or less, is of DeepTree's class `SMALL`."""

SMALL_VOXELS = 2.0
"""A skeleton voxel closer than this to the background is a small airway (Tang, section 1.3)."""

INVERSE_LIMITS = (1.0, 2e5)


def skeleton_of(label: Label, spacing_mm: Spacing) -> Map:
    """Skeleton of the airway, 1 on it: Lee thinning, corrected where thinning deletes bars of even width.

    Cavities of the label are filled first, because thinning would leave a shell around each.
    """
    skeleton = np.zeros(label.shape, np.uint8)
    box = bounding_box(label == AIRWAY)
    if box is not None:
        airway = fill_holes(label[box] == AIRWAY)
        lumen = Lumen.of(airway, spacing_mm)
        rows = completed(thinned(lumen), lumen)
        skeleton[box][tuple(lumen.voxels[rows].T)] = 1
    return skeleton


def centerline_distance(label: Label, spacing_mm: Spacing, skeleton: Map | None = None) -> Rate:
    """d / d_max of WingsNet (Eq. 15, 32) and Tang (Eq. 4), float16: 0 on the skeleton and outside the airway, up to 1.

    d is the distance in mm to the nearest skeleton voxel, d_max its maximum in the case. d / d_max is stored, not a
    weight, because the weight depends on alpha. A given ``skeleton`` saves the thinning.
    """
    distance = np.zeros(label.shape, np.float16)
    line = np.argwhere(skeleton_of(label, spacing_mm) if skeleton is None else skeleton)
    if len(line):
        airway = np.argwhere(label == AIRWAY)
        d_mm, _ = cKDTree(line * np.asarray(spacing_mm)).query(airway * np.asarray(spacing_mm))
        distance[tuple(airway.T)] = d_mm / max(float(d_mm.max()), 1e-6)
    return distance


def general_union_m(alpha: float, root: float) -> float:
    """Decrease of a voxel's weight at d_max in the General Union loss: m = (r - 2 alpha) / (r - alpha).

    WingsNet prints m = (1 - alpha) / alpha (below Eq. 16), which is 9 for alpha 0.1. Then weights are as low as -8: the
    network is trained to miss large airways. The smallest ratio of foreground to background gradient is
    (1 - m) (r / alpha - 1) (Eq. 18), and this m makes it exactly 1: at the rim of a wide airway the foreground's
    gradient is no smaller than that of the background beside it, so the airway is not eroded. For that, r = ``root``
    has to be the loss's own exponent, the paper's r_l: with 0.7, m is 0.83 for alpha 0.1 and 0.6 for 0.2. The m of
    r = 1, 0.89 and 0.75, would leave a smallest ratio of (0.7 - alpha) / (1 - alpha), 0.67 and 0.63.

    Raises
    ------
    AirwaySegError
        Unless alpha is above 0 and at most root / 2: otherwise wide airways would weigh more, not less.
    """
    if not 0 < alpha <= root / 2:
        raise AirwaySegError(f"alpha is {alpha:g}; with the root {root:g} it must be above 0 and at most {root / 2:g}.")
    return (root - 2 * alpha) / (root - alpha)


def foreground_rate(label: Label, side: int = 7) -> Rate:
    """FR of Tang (Eq. 1), float16: share of airway among the ``side``^3 voxels around each, 0..1.

    The scan is padded by its mirror image, as in the authors' program, so that a trachea stays wide at the scan's edge.
    Computed as a running mean along each axis, exact within float16: a convolution would take 35 times as long.
    """
    rate = np.zeros(label.shape, np.float16)
    # With a margin of a whole side, the mirror image at the box's own faces is background, which is correct.
    box = bounding_box(label == AIRWAY, margin=side)
    if box is not None:
        airway = (label[box] == AIRWAY).astype(np.float32)
        rate[box] = uniform_filter(airway, side, mode="mirror")
    return rate


def lib_weight(rate: NDArray, root: float, floor: float = 0.05, airway: NDArray | None = None) -> Weight:
    """Local-imbalance weight (Tang Eq. 3): w = (1 - lambda) min(-log10 FR, 1)^r + lambda, lambda = ``floor``.

    ``rate`` is FR (see `foreground_rate`); r is called a root and is a power, 2 to 3, drawn anew for each patch (see
    `draw_lib_root`). w is 1 where at most a tenth of the neighbourhood is airway, lambda within wide airways. In the
    paper, background beside a wide airway has as low a weight as the airway; with ``airway`` (not 0 in the airway) all
    background has weight 1, as in the program of Zheng et al. 2021, from which the weight is taken.
    """
    imbalance = np.minimum(-np.log10(np.maximum(rate.astype(np.float32), 1e-6)), 1)
    weight = (1 - floor) * np.maximum(imbalance, 0) ** root + floor
    return (weight if airway is None else np.where(airway, weight, 1)).astype(np.float32)


def imbalance_weight(rate: NDArray, side: int = 7) -> Weight:
    """Local imbalance as in the published programs: -log10 FR, from 0 in wide airways to 2.54 on a single voxel.

    Tang's program and that of Zheng et al. 2021, from which his comes, raise it to a power of 2 to 3 (a stage's
    ``weight_power``), without the limit of 1 and the floor of `lib_weight`: thin airways have weights up to 16, and
    voxels in the middle of the trachea 0, so that another term, his Dice loss, is needed for them. A rate below that of
    a single voxel among ``side``^3, as beside a rotated label, is set to that.
    """
    return -np.log10(np.clip(rate.astype(np.float32), 1 / side**3, 1))


def draw_lib_root(rng: np.random.Generator) -> float:
    """The r of `lib_weight`: uniform from 2 to 3 (Tang, section 1.1)."""
    return float(rng.uniform(2, 3))


def tang_distance_weight(distance: NDArray, airway: NDArray) -> Weight:
    """Centerline-distance weight (Tang Eq. 4): (1 - d / d_max)^2 on the airway, 0 elsewhere.

    It is added to `lib_weight` (Eq. 5). The background has no d, so nothing is added there; ``airway`` is not 0 in the
    airway.
    """
    return np.where(airway, (1 - distance.astype(np.float32)) ** 2, 0).astype(np.float32)


def back_propagation_weight(missed: NDArray, branch: NDArray, distance: NDArray) -> Weight:
    """Back-propagation enhancement: (1 - d / d_max)^2 in every branch of which a skeleton voxel was missed, else 0.

    Zheng et al., Refined local-imbalance-based weight, MICCAI 2021. It is added to another weight. ``missed`` is
    from `hard_skeleton`, ``branch`` from `branch_map`; give whole maps, because the missed voxel of a branch may be
    outside a patch. The authors' program does `nearest_back_propagation_weight` instead.
    """
    hard = np.zeros(int(branch.max(initial=0)) + 1, bool)
    hard[branch[missed > 0]] = True
    hard[0] = False
    return tang_distance_weight(distance, hard[branch])


def nearest_back_propagation_weight(missed: NDArray, skeleton: Map, label: Label) -> Weight:
    """Back-propagation enhancement as in Tang's program: (1 - d / d_max)^2 where the nearest skeleton voxel was missed.

    d is the distance to it in voxels and d_max the largest such d; all other voxels have weight 0. ``missed`` is from
    `hard_skeleton`; all three are whole maps (Z, Y, X). The program of Zheng et al. 2021 multiplies this by the square
    of 1 - |gradient| of the network's first layer, which Tang's does not.
    """
    weight = np.zeros(label.shape, np.float32)
    line, airway = np.argwhere(skeleton), np.argwhere(label == AIRWAY)
    if not np.any(missed) or not len(line) or not len(airway):
        return weight
    distance, nearest = cKDTree(line).query(airway)
    hard = (missed[tuple(line.T)] > 0)[nearest]
    far = max(float(distance[hard].max(initial=0)), 1e-6)
    weight[tuple(airway[hard].T)] = (1 - distance[hard] / far) ** 2
    return weight


def inverse_weight(parts: NDArray) -> Weight:
    """Inverse weighting: w = N / ((K + 1) |part|), N voxels, K parts and the background as one more; within 1..200000.

    Shirokikh et al., MICCAI 2020, doi:10.1007/978-3-030-59719-1_51. ``parts`` holds integers from 0, the background:
    components (`components.label_components`), or branches (`branch_map`), since an airway tree is one component.
    """
    sizes = np.bincount(parts.ravel())
    present = np.count_nonzero(sizes[1:]) + 1
    weights = parts.size / (present * np.maximum(sizes, 1))
    return np.clip(weights, *INVERSE_LIMITS).astype(np.float32)[parts]


def tube(skeleton: Map, label: Label) -> Map:
    """The tube of the Skeleton Recall loss: the skeleton dilated twice by the six neighbours, within the airway.

    Kirchhoff et al., ECCV 2024, arXiv:2404.03010.
    """
    widened = np.zeros(label.shape, np.uint8)
    box = bounding_box(skeleton, margin=2)
    if box is not None:
        widened[box] = binary_dilation(skeleton[box], iterations=2) & (label[box] == AIRWAY)
    return widened


def branch_map(label: Label, spacing_mm: Spacing) -> tuple[NDArray[np.uint16], tuple[Branch, ...]]:
    """Branch id of each airway voxel, 0 elsewhere, and the branches; the label is on canonical axes."""
    numbers = np.zeros(label.shape, np.uint16)
    airway = (label == AIRWAY).astype(np.uint8)
    if not airway.any():
        return numbers, ()
    parsed = parse_airways(Volume(airway, spacing_mm))
    numbers[parsed.box] = parsed.in_box(parsed.branch_of_voxel())
    return numbers, parsed.tree.branches


def classes_by_diameter(branch: NDArray[np.uint16], branches: tuple[Branch, ...]) -> Map:
    """DeepTree's three classes (section 2.1): `LARGE`, `MIDDLE`, `SMALL`, 0 outside the airway.

    Trachea and main bronchi are `LARGE` by name, whatever their width; of the others those of a mean lumen diameter of
    2 mm or less are `SMALL`. Without names there is no `LARGE`. Both arguments are from `branch_map`.
    """
    table = np.zeros(len(branches) + 1, np.uint8)
    for one in branches:
        # Rounded, so that 2 mm computed from 0.7 mm voxels is not a little more than 2 mm.
        thin_one = round(one.mean_diameter_mm, 6) <= SMALL_DIAMETER_MM
        table[one.id] = LARGE if one.name in (TRACHEA, RIGHT_MAIN, LEFT_MAIN) else SMALL if thin_one else MIDDLE
    return table[branch]


def hard_skeleton(skeleton: Map, prediction: NDArray) -> Map:
    """The hard skeleton (WingsNet IV-B): skeleton voxels that a model missed, 1 on them; ``prediction`` is a mask."""
    return ((skeleton > 0) & (prediction == 0)).astype(np.uint8)
