"""The field's parse of an airway tree (ATM'22, WingsNet) written out plainly from its description: an oracle.

Every step works on the whole array, one label after the other, as the published programs do. A tie between largest
components or largest labels, which those leave to an unstable sort, goes to the last one.

Two things are settled here that end the published programs with an error: a tree without any segment has no branches,
and a label that fusing leaves beyond the number of labels is fused again (see `refine`).
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage import measure
from skimage.morphology import skeletonize

FACES = ndimage.generate_binary_structure(3, 1)
CUBE = ndimage.generate_binary_structure(3, 3)


@dataclass(frozen=True)
class Result:
    """Counts of a prediction against a reference, and the reference's labels (Z, Y, X)."""

    skeleton_voxels: int
    skeleton_detected: int
    branches: int
    branches_detected: int
    labels: np.ndarray


def evaluate(prediction: np.ndarray, reference: np.ndarray, refined: bool = True) -> Result:
    """TLD and BD of the prediction's largest component, as counts."""
    prediction = largest_component(prediction)
    skeleton = skeletonize(reference > 0, method="lee").astype(np.uint8)
    labels = parse(reference, refined)
    of_branch = np.bincount((labels * skeleton).ravel())[1:]
    detected = np.bincount((labels * skeleton * prediction).ravel(), minlength=len(of_branch) + 1)[1:]
    shares = np.divide(detected, of_branch, out=np.zeros(len(of_branch)), where=of_branch > 0)
    return Result(
        int(skeleton.sum()),
        int((skeleton * prediction).sum()),
        len(of_branch),
        int((shares >= 0.8).sum()),
        labels,
    )


def parse(mask: np.ndarray, refined: bool = True) -> np.ndarray:
    """Label of every voxel of the mask's largest component, int32 (Z, Y, X); 0 elsewhere."""
    airway = ndimage.binary_fill_holes(largest_component(mask)).astype(np.uint8)
    segments, count = cut_skeleton(skeletonize(airway > 0, method="lee").astype(np.uint8))
    if count == 0:
        return np.zeros(mask.shape, np.int32)
    nearest = ndimage.distance_transform_edt(segments == 0, return_distances=False, return_indices=True)
    labels = segments[tuple(nearest)] * airway
    while refined:
        parents = walk(adjacency(labels, count), trachea(labels, count))
        fusions = fusions_of(parents)
        if not fusions:
            break
        labels, count = refine(labels, count, fusions)
    return labels


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Of 6-connected components, as 0 and 1; nothing for an empty mask."""
    components, count = measure.label(mask > 0, return_num=True, connectivity=1)
    sizes = [0, *((components == label).sum() for label in range(1, count + 1))]
    return ((mask > 0) & (components == np.argsort(sizes, kind="stable")[-1])).astype(np.uint8)


def cut_skeleton(skeleton: np.ndarray) -> tuple[np.ndarray, int]:
    """Segments between forks, numbered. Beyond the array's border the convolution sees the border mirrored."""
    around = ndimage.convolve(skeleton, CUBE.astype(np.uint8)) * skeleton
    kept = np.where(around > 3, 0, skeleton)
    segments, count = ndimage.label(kept, structure=CUBE)
    for label in range(1, count + 1):
        if (segments == label).sum() < 5:
            kept[segments == label] = 0
    return ndimage.label(kept, structure=CUBE)


def trachea(labels: np.ndarray, count: int) -> int:
    """The label with most voxels."""
    sizes = [(labels == label).sum() for label in range(1, count + 1)]
    return int(np.argsort(sizes, kind="stable")[-1]) + 1


def adjacency(labels: np.ndarray, count: int) -> np.ndarray:
    """Which labels share a face, bool (count + 1, count + 1); row and column 0 stay empty."""
    touching = np.zeros((count + 1, count + 1), bool)
    for label in range(1, count + 1):
        inside = labels == label
        used = [np.flatnonzero(inside.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        box = tuple(slice(max(0, axis[0] - 4), axis[-1] + 5) for axis in used)
        rim = ndimage.binary_dilation(inside[box], structure=FACES) & ~inside[box]
        touching[label, np.unique(labels[box][rim])] = True
    touching[:, 0] = False
    return touching


def walk(touching: np.ndarray, root: int) -> dict[int, list[int]]:
    """Parents of each label, ascending. The walk goes from generation to generation; the trachea has no parent."""
    parents: dict[int, list[int]] = {root: []}
    generation = {root: 0}
    waiting = [root]
    while waiting:
        current, waiting = waiting, []
        while current:
            label = current.pop()
            for child in np.flatnonzero(touching[label]):
                child = int(child)
                if child not in generation:
                    generation[child] = generation[label] + 1
                    parents[child] = [label]
                    waiting.append(child)
                elif generation[child] == generation[label] + 1:
                    parents[child].append(label)
    return {label: sorted(found) for label, found in parents.items()}


def fusions_of(parents: dict[int, list[int]]) -> list[tuple[int, int]]:
    """Which label goes into which, in order: the parents of one child, then an only child into its parent."""
    children: dict[int, list[int]] = {}
    for child in sorted(parents):
        for parent in parents[child]:
            children.setdefault(parent, []).append(child)
    fusions = [(other, parents[child][0]) for child in sorted(parents) for other in parents[child][1:]]
    gone = {moved for moved, _ in fusions}
    for parent in sorted(children):
        if len(children[parent]) == 1 and parent not in gone and children[parent][0] not in gone:
            fusions.append((children[parent][0], parent))
            gone.add(children[parent][0])
    return fusions


def refine(labels: np.ndarray, count: int, fusions: list[tuple[int, int]]) -> tuple[np.ndarray, int]:
    """Fuse and renumber.

    The published programs fuse on the same array twice, once to see whether there is anything to do. A label that has
    gone and receives voxels afterwards is therefore emptied by the second time, unless it received them from one that
    itself received them late. What is then left in a gone label keeps its number: it falls together with whichever
    label gets that number. Beyond the highest number the published programs fail; here all is fused once more.
    """
    labels = labels.copy()
    gone = sorted({moved for moved, _ in fusions})
    left = count - len(gone)
    rounds = 0
    while rounds < 2 or any((labels == label).any() for label in gone if label > left):
        for moved, onto in fusions:
            labels[labels == moved] = onto
        rounds += 1
    for label in range(1, count + 1):
        if label not in gone:
            labels[labels == label] = label - sum(other < label for other in gone)
    return labels, left
