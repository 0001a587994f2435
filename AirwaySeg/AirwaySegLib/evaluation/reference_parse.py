"""The published parse of a reference into branches (ATM'22, WingsNet, AIIB23): the same label in every voxel, but fast.

It is used only for figures that can be compared with published ones; the tree that AirwaySeg measures is another,
better one. The caller chooses the order of the arrays' axes (`protocols.AXES`), because thinning and ties depend on it.
Only thinning works on a volume; the rest works on lists of skeleton and mask voxels and on tables of labels.

Letters: S skeleton voxels, M mask voxels, L labels.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from AirwaySegLib.masks.components import bounding_box
from AirwaySegLib.masks.sparse_mask import FACES, FORWARD_OFFSETS, Lumen

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]
Positions = NDArray[np.integer[Any]]

UNIT = (1.0, 1.0, 1.0)
FORWARD_FACES = FACES[3:]

MOST_NEIGHBOURS = 3
"""A skeleton voxel with more skeleton voxels than this in its 3 x 3 x 3 neighbourhood, itself included, is a fork."""

LEAST_SEGMENT_VOXELS = 5


@dataclass(frozen=True)
class Parse:
    """Branches of a mask.

    Parameters
    ----------
    labels
        int32 (Z, Y, X): 1, 2, ... in every voxel of the largest component with its cavities filled, 0 elsewhere.
    parents
        ``parents[label]`` lists the parents of ``label``, ascending; more than one only without refinement. Empty for
        the trachea; ``parents[0]`` is empty too.
    trachea
        The label with most voxels, 0 if there is no branch.
    skeleton
        bool (Z, Y, X): Lee thinning of the largest component with its cavities filled.
    voxels
        Voxels of each label, (L + 1,).
    segments
        Indices (S, 3) of the skeleton voxels that were kept, and their ``segment_labels`` (S,).
    """

    labels: Labels
    parents: tuple[tuple[int, ...], ...]
    trachea: int
    skeleton: Mask
    voxels: NDArray[np.int64]
    segments: Positions
    segment_labels: Labels

    @property
    def count(self) -> int:
        """Number of labels."""
        return len(self.parents) - 1

    def children(self, label: int) -> tuple[int, ...]:
        """Labels of the children of ``label``."""
        return tuple(child for child, parents in enumerate(self.parents) if label in parents)


def thinned(mask: Mask) -> Mask:
    """Lee thinning on the mask's box, bool (Z, Y, X): the same voxels as on the whole array.

    Bars of even and constant width vanish in it (scikit-image issue 3757); real airways taper and bend, so they do not.
    """
    thin = np.zeros(mask.shape, bool)
    box = bounding_box(mask)
    if box is not None:
        thin[box] = skeletonize(mask[box], method="lee") > 0
    return thin


def largest_component(mask: Mask) -> Mask:
    """The largest of the 6-connected components; of several of one size the last in the array's order."""
    found = np.zeros(mask.shape, bool)
    if mask.any():
        lumen = Lumen.of(mask, UNIT)
        pieces = lumen.pieces(FORWARD_FACES)
        found[tuple(lumen.voxels[pieces == _last_largest(np.bincount(pieces))].T)] = True
    return found


def parse_branches(mask: Mask, refine: bool = True) -> Parse:
    """Parse a mask into branches as ATM'22 and WingsNet's evaluation do; without ``refine``, as AIIB23 does.

    A mask without a skeleton segment of 5 voxels gives no label. Sources: the programs of Zheng et al., IEEE TMI 2021
    (arXiv:2011.11952), and of ATM'22, Zhang et al., Medical Image Analysis 2023
    (doi:10.1016/j.media.2023.102957).
    """
    labels = np.zeros(mask.shape, np.int32)
    skeleton = np.zeros(mask.shape, bool)
    nothing = Parse(labels, ((),), 0, skeleton, np.zeros(1, int), np.empty((0, 3), int), np.empty(0, np.int32))
    box = bounding_box(mask, margin=1)
    if box is None:
        return nothing
    airway = largest_component(np.asarray(mask[box], bool))
    airway[tuple(Lumen.of(airway, UNIT).cavities().T)] = True
    skeleton[box] = thinned(airway)
    segments, first_labels = _segments(skeleton[box])
    if len(segments) == 0:
        return nothing
    lumen = Lumen.of(airway, UNIT)
    voxel_labels = first_labels[nearest(segments, lumen.voxels)]
    table, parents, trachea = _tree(np.bincount(voxel_labels), _touching(lumen, voxel_labels), refine)
    labels[box][tuple(lumen.voxels.T)] = table[voxel_labels]
    voxels = np.bincount(table[voxel_labels])
    start = [part.start for part in box]
    return Parse(labels, parents, trachea, skeleton, voxels, segments + start, table[first_labels])


def nearest(sites: Positions, positions: Positions) -> NDArray[np.intp]:
    """Index (M,) of the site (S, 3) nearest to each position (M, 3), both integers.

    Of several at the same distance it is that with the smallest x, then y, then z, which is how
    `scipy.ndimage.distance_transform_edt` chooses. A fourth coordinate puts the sites that much farther away, in this
    order: less than 1 in the squared distance, which between integer positions differs by 1 at least.
    """
    order = np.lexsort(sites.T)
    fourth = np.sqrt(0.5 * np.arange(len(sites)) / len(sites))
    tree = cKDTree(np.column_stack([sites[order], fourth]))
    _, found = tree.query(np.column_stack([positions, np.zeros(len(positions))]))
    return order[found]


def _segments(skeleton: Mask) -> tuple[Positions, Labels]:
    """Positions (S, 3) of the skeleton's voxels off forks and off short segments, and their segments 1, 2, ...

    Segments are numbered by their first voxel in the array's order. The published count of neighbours mirrors the
    array at its border, so a voxel there counts itself again; clipped positions do the same.
    """
    positions = np.argwhere(skeleton)
    steps = np.array(list(product((-1, 0, 1), repeat=3)))
    around = np.clip(positions[:, None] + steps, 0, np.array(skeleton.shape) - 1)
    kept = positions[skeleton[tuple(np.moveaxis(around, -1, 0))].sum(axis=1) <= MOST_NEIGHBOURS]
    if len(kept) == 0:
        return kept, np.empty(0, np.int32)
    segment = Lumen(skeleton.shape, UNIT, kept.astype(np.int32)).pieces(FORWARD_OFFSETS)
    long = np.bincount(segment)[segment] >= LEAST_SEGMENT_VOXELS
    _, first, numbers = np.unique(segment[long], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return kept[long], (rank[numbers] + 1).astype(np.int32)


def _touching(airway: Lumen, voxel_labels: Labels) -> NDArray[np.int64]:
    """Pairs (P, 2) of different labels that share a face, each once, the smaller first."""
    one, other = airway.neighbours(FORWARD_FACES)
    pairs = np.sort(np.column_stack([voxel_labels[one], voxel_labels[other]]), axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).astype(np.int64)


def _tree(
    sizes: NDArray[np.int64], touching: NDArray[np.int64], refine: bool
) -> tuple[Labels, tuple[tuple[int, ...], ...], int]:
    """Refine until nothing changes: new label of each old one (L + 1,), parents, trachea."""
    count = len(sizes) - 1
    table = np.arange(count + 1, dtype=np.int32)
    while True:
        trachea = _last_largest(np.bincount(table, weights=sizes, minlength=count + 1))
        parents = _parents(table[touching], count, trachea)
        fusions = _fusions(parents) if refine else []
        if not fusions:
            return table, parents, trachea
        table, count = _fuse(table, count, fusions)


def _last_largest(sizes: NDArray) -> int:
    """Index of the largest, the last of several: the end of a stable sort."""
    return len(sizes) - 1 - int(np.argmax(sizes[::-1]))


def _parents(touching: NDArray, count: int, trachea: int) -> tuple[tuple[int, ...], ...]:
    """All neighbours one generation nearer to the trachea, for each label.

    The published walk goes generation by generation and gives a child that it meets again from the same generation
    one more parent, so in the end all of these neighbours are parents, whatever the order of the walk.
    """
    neighbours: list[set[int]] = [set() for _ in range(count + 1)]
    for one, other in touching.tolist():
        if one != other:
            neighbours[one].add(other)
            neighbours[other].add(one)
    generation = {trachea: 0}
    current = [trachea]
    while current:
        reached = {label for parent in current for label in neighbours[parent]} - generation.keys()
        generation |= dict.fromkeys(reached, generation[current[0]] + 1)
        current = list(reached)
    return tuple(
        tuple(sorted(other for other in near if generation.get(other, -1) == generation.get(label, -1) - 1))
        for label, near in enumerate(neighbours)
    )


def _fusions(parents: tuple[tuple[int, ...], ...]) -> list[tuple[int, int]]:
    """Pairs (label, label that it is merged into), in the published order.

    First several parents of one child are merged into the lowest of them, then only children into their parents.
    """
    fusions = [(fellow, fellows[0]) for fellows in parents for fellow in fellows[1:]]
    gone = {moved for moved, _ in fusions}
    children: list[list[int]] = [[] for _ in parents]
    for child, fellows in enumerate(parents):
        for parent in fellows:
            children[parent].append(child)
    for parent, own in enumerate(children):
        if len(own) == 1 and parent not in gone and own[0] not in gone:
            fusions.append((own[0], parent))
            gone.add(own[0])
    return fusions


def _fuse(table: Labels, count: int, fusions: list[tuple[int, int]]) -> tuple[Labels, int]:
    """Relabel and renumber the table as the published programs relabel the volume, with their side effects.

    They relabel one label after the other, and do so twice. A label that receives voxels after it was merged keeps them
    under its old number, which the renumbering gives to another label; the second pass repairs most of these cases. If
    such a number exceeds the number of remaining labels the published programs fail; here the merging is repeated.
    """
    gone = np.unique([moved for moved, _ in fusions])
    left = count - len(gone)
    table = table.copy()
    rounds = 0
    while rounds < 2 or np.isin(table, gone[gone > left]).any():
        for moved, onto in fusions:
            table[table == moved] = onto
        rounds += 1
    numbers = np.arange(count + 1, dtype=np.int32)
    numbers -= np.where(np.isin(numbers, gone), 0, np.searchsorted(gone, numbers)).astype(np.int32)
    return numbers[table], left
