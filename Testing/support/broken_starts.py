"""A bad segmentation of a known tree: subtrees missing, branches broken, false pieces beside and at the airways.

Arrays are (Z, Y, X) on the canonical grid.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import component_through, distance_to
from AirwaySegLib.tree.build import ParsedAirways, parse_airways
from AirwaySegLib.tree.shape import measure_shape
from AirwaySegTraining.connection.breaks import BreakSettings, break_tree

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

SUBTREE_MM, MOST_SHARE = (12.0, 120.0), 0.1
"""Length of a subtree that is missing, and the share of the tree that it is at most."""

FALSE_MM, FALSE_RADIUS_MM, HEADINGS = (10.0, 30.0), (1.2, 3.5), 30
"""Length and radius of a false branch, and how many directions are compared."""


@dataclass(frozen=True)
class Damage:
    """How many subtrees are missing, the share of the peripheral branches that is broken, and how many false pieces.

    ``beside`` touch nothing, ``attached`` hang on the airways.
    """

    subtrees: int = 8
    breaks: float = 0.08
    beside: int = 6
    attached: int = 8


def broken_start(whole: Volume, hu: NDArray[np.int16], damage: Damage, rng: np.random.Generator) -> Mask:
    """The damaged mask of a tree (canonical, not 0 is airway)."""
    airway = component_through(whole.array != 0, np.argwhere(whole.array))
    parsed = parse_airways(Volume(airway.astype(np.uint8), whole.spacing_mm))
    settings = BreakSettings(share=damage.breaks, distractors=damage.beside)
    broken = break_tree(parsed, airway, whole.spacing_mm, rng, settings, hu)
    mask = broken.mask & ~missing_subtrees(parsed, damage.subtrees, rng)
    return mask | attached_pieces(airway, mask, whole.spacing_mm, damage.attached, rng)


def missing_subtrees(parsed: ParsedAirways, count: int, rng: np.random.Generator) -> Mask:
    """The voxels of some subtrees, drawn at random, none of which holds another."""
    tree, below_mm = parsed.tree, measure_shape(parsed.tree).below_mm
    whole_mm = sum(branch.length_mm for branch in tree.main())
    low, high = SUBTREE_MM[0], min(SUBTREE_MM[1], MOST_SHARE * whole_mm)
    found = [one.id for one in tree.main() if one.generation >= 3 and low <= below_mm[one.id] <= high]
    gone = np.zeros(len(tree.branches) + 1, bool)
    taken = 0
    for first in rng.permutation(found):
        numbers = [branch.id for branch in tree.below(int(first))]
        if taken < count and not gone[numbers].any():
            gone[numbers] = True
            taken += 1
    mask = np.zeros(parsed.grid.array.shape, bool)
    lost = parsed.lumen.voxels[gone[parsed.branch_of_voxel()]]
    mask[tuple((lost + [part.start for part in parsed.box]).T)] = True
    return mask


def attached_pieces(airway: Mask, mask: Mask, spacing_mm: Spacing, count: int, rng: np.random.Generator) -> Mask:
    """False branches that hang on the airways: tubes from their surface straight to where most room is."""
    pieces, spacing = np.zeros(mask.shape, bool), np.asarray(spacing_mm)
    free_mm = distance_to(airway, spacing_mm)
    surface = np.argwhere(mask & (free_mm == 0) & ndimage.binary_dilation(~mask))
    for start in surface[rng.integers(len(surface), size=count)] * spacing:
        headings = rng.normal(size=(HEADINGS, 3))
        headings /= np.linalg.norm(headings, axis=1, keepdims=True)
        length_mm, radius_mm = rng.uniform(*FALSE_MM), rng.uniform(*FALSE_RADIUS_MM)
        ends = np.clip(np.rint((start + length_mm * headings) / spacing).astype(int), 0, np.array(mask.shape) - 1)
        heading = headings[free_mm[tuple(ends.T)].argmax()]
        line = start + np.arange(0, length_mm, 0.3)[:, None] * heading
        low = np.maximum(np.floor((line.min(axis=0) - radius_mm) / spacing).astype(int), 0)
        high = np.minimum(np.ceil((line.max(axis=0) + radius_mm) / spacing).astype(int) + 1, mask.shape)
        voxels = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
        inside = cKDTree(line).query(voxels * spacing)[0] <= max(radius_mm, 0.6 * float(spacing.max()))
        pieces[tuple(map(slice, low, high))] |= inside
    return pieces
