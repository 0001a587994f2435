"""From a mask to its airway tree: branches with centerline, radius, angle and volume, and to which each voxel belongs.

Letters in shapes: N voxels of the lumen, S points of all centerlines together. Points are (z, y, x) in mm along the
axes of the grid, from the centre of voxel (0, 0, 0).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume, points_to_lps
from AirwaySegLib.masks.certain import SMALLEST_PIECE_VOXELS
from AirwaySegLib.masks.components import Box, bounding_box
from AirwaySegLib.masks.sparse_mask import Lumen, Rows, voxels_of
from AirwaySegLib.masks.threshold import EDGE_VOXELS
from AirwaySegLib.tree.airway_tree import AirwayTree, Branch
from AirwaySegLib.tree.centerline import (
    Course,
    Forest,
    Points,
    contract,
    courses_of,
    grow_forest,
    lines_of,
    reaching_the_end,
    rooted_at_a_tip,
    tangents,
)
from AirwaySegLib.tree.cross_sections import section_radii
from AirwaySegLib.tree.known_nearest import KnownSearch
from AirwaySegLib.tree.known_parts import KnownParts
from AirwaySegLib.tree.mask_trachea import find_trunk
from AirwaySegLib.tree.naming import name_branches
from AirwaySegLib.tree.skeleton import completed, thinned
from AirwaySegLib.tree.spurs import prune

MOST_BRANCHES = 65_535
"""What a branch map of 16 bits can number."""

SOME = 16
"""Voxels whose indices add up to a multiple of this are enough to know how thick the thickest lumen is; `ALIGNED` is a
multiple of it, so that they are the same voxels after an edit."""

ALIGNED = 32
"""The box begins at a multiple of so many voxels, so that most edits leave it where it is."""

ANGLE_RADII, ANGLE_VOXELS = 3.0, 4.0
"""A branch's direction at a fork is taken over so many of its radii, or voxels if they are more, beyond the fork."""


@dataclass(frozen=True)
class Lines:
    """All centerlines one after the other.

    ``places_mm`` (S, 3), ``radii_mm`` (S,), ``branch`` (S,) the branch's index in the list, ``along_mm`` (S,) the
    distance from the branch's first point; ``starts`` where each branch begins, and the end.
    """

    places_mm: Points
    radii_mm: NDArray[np.float64]
    branch: Rows
    along_mm: NDArray[np.float64]
    starts: Rows

    def of(self, index: int) -> slice:
        """Where the points of a branch are."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))


@dataclass(frozen=True)
class ParsedAirways:
    """A mask as a tree.

    ``grid`` is the mask on canonical axes, ``box`` the part of it from whose corner ``lumen`` and ``lines`` count. The
    lumen is the mask with its holes filled. ``nearest`` (N,) is for each of its voxels the point of its branch's
    centerline to which it belongs. ``search`` looks for what is nearest to them.
    """

    tree: AirwayTree
    grid: Volume
    box: Box
    lumen: Lumen
    lines: Lines
    nearest: Rows
    search: KnownSearch

    def branch_of_voxel(self) -> NDArray[np.uint16]:
        """Branch id of each voxel of the lumen, (N,)."""
        return (self.lines.branch[self.nearest] + 1).astype(np.uint16)

    @cached_property
    def in_mask(self) -> NDArray[np.bool_]:
        """Which voxels of the lumen are voxels of the mask, (N,): all but those of filled holes."""
        return self.grid.array[self.box][tuple(self.lumen.voxels.T)] != 0

    def voxels_of_mask(self) -> NDArray[np.int32]:
        """The mask's voxels on the canonical grid, (M, 3)."""
        return self.lumen.voxels[self.in_mask] + _corner(self.box)

    def in_box(self, values: NDArray) -> NDArray:
        """An array of the box's shape that holds ``values`` (N,) in the mask and 0 elsewhere."""
        part = np.zeros(self.lumen.shape, values.dtype)
        part[tuple(self.lumen.voxels[self.in_mask].T)] = values[self.in_mask]
        return part


def parse_airways(mask: Volume, known: KnownParts | None = None) -> ParsedAirways:
    """Parse a mask on canonical axes (`volume.to_canonical`), whose voxels that are not 0 are airway.

    Cavities are filled, and a ragged trachea is made solid (`mask_trachea.find_trunk`). The largest component is the
    tree; its root is the trachea's upper end. Where no trachea is seen each component begins at its widest upper end,
    if possible one that the array's border cuts; where no carina is seen, those that it cuts are trees (`trees_of`).
    Every component, even a single voxel, becomes at least one branch, and every voxel belongs to a branch of its own
    component. With the ``known`` parts of an earlier parse the result is the same, sooner.

    Raises
    ------
    AirwaySegError
        If the mask is empty, or falls into more than `MOST_BRANCHES` branches.
    """
    known = known or KnownParts()
    voxels = voxels_of(mask.array)
    if not len(voxels):
        raise AirwaySegError(f"{mask.path or 'The mask'} is empty: there is no airway to measure.")
    tight = _around(voxels)
    box = _aligned(tight)
    part = mask.array[box]
    lumen = Lumen((part.shape[0], part.shape[1], part.shape[2]), mask.spacing_mm, voxels - _corner(box))
    lumen, search, line, in_trunk = _skeleton(lumen, part, known)
    z, y, x = ((part.start == 0, part.stop == count) for part, count in zip(tight, mask.array.shape, strict=True))
    forest, spurs = prune(grow_forest(lumen, line, (z, y, x) if in_trunk is None else None, in_trunk), lumen, known)
    forest = forest if in_trunk is None else rooted_at_a_tip(forest, lumen)
    courses = _by_component(contract(courses_of(forest), forest, lumen), forest, lumen)
    if len(courses) > MOST_BRANCHES:
        raise AirwaySegError(
            f"The mask falls into {len(courses)} branches, more than {MOST_BRANCHES}: it is not an airway tree."
        )
    lines = _draw(courses, forest, lumen, search, known)
    component = lumen.components[forest.rows[[course.nodes[0] for course in courses]]]
    nearest = _assign(lines, component, lumen, search)
    volumes_mm3 = np.bincount(lines.branch[nearest], minlength=len(courses)) * float(np.prod(mask.spacing_mm))
    corner_zyx = _corner(box)
    corner_mm = corner_zyx * np.asarray(mask.spacing_mm)
    points_lps = points_to_lps(lines.places_mm + corner_mm, mask)
    branches = _branches(courses, lines, points_lps, component, volumes_mm3)
    tree = name_branches(AirwayTree(tuple(branches), mask.spacing_mm, loops_cut=forest.loops, spurs_pruned=spurs))
    vars(lumen).pop("padded", None)  # as large as the box, and made again where it is needed
    if tree.carina_mm is None:
        tree = replace(tree, trees=trees_of(lumen, corner_zyx, mask.array.shape))
    return ParsedAirways(tree, mask, box, lumen, lines, nearest, search)


def _around(voxels: NDArray[np.int32]) -> Box:
    """The smallest box around voxels (N, 3) in C order."""
    (low_y, low_x), (high_y, high_x) = voxels[:, 1:].min(axis=0).tolist(), voxels[:, 1:].max(axis=0).tolist()
    return slice(int(voxels[0, 0]), int(voxels[-1, 0]) + 1), slice(low_y, high_y + 1), slice(low_x, high_x + 1)


def _aligned(box: Box) -> Box:
    """The box with its first voxels at multiples of `ALIGNED`."""
    z, y, x = (slice(part.start // ALIGNED * ALIGNED, part.stop) for part in box)
    return z, y, x


def _corner(box: Box) -> NDArray[np.int32]:
    """The first voxel of a box, (z, y, x)."""
    return np.array([part.start for part in box], np.int32)


def _skeleton(
    lumen: Lumen, mask: NDArray, known: KnownParts
) -> tuple[Lumen, KnownSearch, NDArray[np.bool_], NDArray[np.bool_] | None]:
    """The lumen made solid, searches in it, and which of its voxels are skeleton and which trachea, (N,) each.

    None for the last where no trachea is seen. ``lumen`` is the list of the voxels of ``mask`` that are not 0.
    """
    radius_mm = largest_radius_mm(lumen)
    trunk = find_trunk(mask, lumen.spacing_mm, radius_mm)
    if trunk is not None and trunk.has_seen(lumen.voxels[lumen.components > 0]):
        tree = Lumen(lumen.shape, lumen.spacing_mm, lumen.voxels[lumen.components == 0])
        trunk = find_trunk(tree.array(), lumen.spacing_mm, radius_mm)  # without gas in the oesophagus
    more = lumen.cavities()
    if trunk is not None:
        ragged = np.argwhere(trunk.mask & (mask[trunk.box] == 0))
        more = np.concatenate([more, ragged + _corner(trunk.box)])
    if len(more):
        lumen = lumen.with_voxels(more)
        enclosed = lumen.cavities()  # by the solid trachea
        lumen = lumen.with_voxels(enclosed) if len(enclosed) else lumen
    search = KnownSearch(lumen, known)
    if not lumen.is_body:
        lumen.take_nearest(search.nearest(lumen.shell_tree, "shell"))
    if trunk is None:
        return lumen, search, completed(thinned(lumen, known), lumen), None
    near = lumen.rows_in(trunk.box)
    there = tuple((lumen.voxels[near] - _corner(trunk.box)).T)
    in_trunk, slender = np.zeros(len(lumen), bool), np.ones(len(lumen), bool)
    in_trunk[near] = trunk.mask[there]
    # A rod stands for the trachea; what springs from it is joined to it again.
    slender[near] = ~trunk.mask[there] | trunk.rod[there]
    line = thinned(Lumen(lumen.shape, lumen.spacing_mm, lumen.voxels[slender]), known)
    return lumen, search, completed(line, lumen, in_trunk), in_trunk


def largest_radius_mm(lumen: Lumen) -> float:
    """The radius of about the largest ball in a lumen; all distances to the wall are known only when it is solid."""
    some = lumen.voxels.sum(axis=1) % SOME == 0
    return float(lumen.to_wall(lumen.places_mm[some] if some.any() else lumen.places_mm).max())


def tree_voxels(mask: Volume) -> NDArray[np.bool_] | None:
    """The voxels of the trees of a mask on canonical axes that shows no carina but several trees, else None."""
    tight = bounding_box(mask.array)
    if tight is None:
        return None
    lumen = Lumen.of(mask.array[tight], mask.spacing_mm)
    if len(trees_of(lumen, _corner(tight), mask.array.shape)) == 1:
        return None
    airways = parse_airways(mask)
    if len(airways.tree.trees) == 1:
        return None
    voxels = np.zeros(mask.array.shape, bool)
    inside = airways.lumen.voxels[np.isin(airways.lumen.components + 1, airways.tree.trees)]
    voxels[airways.box][tuple(inside.T)] = True
    return voxels & (mask.array != 0)


def trees_of(lumen: Lumen, corner_zyx: NDArray[np.int32], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers (from 1) of those components that are trees where no carina is seen: the largest, and what is cut.

    Where the carina is not in the scan, its airways enter it through its edge, each by itself (as in
    `threshold.cut_trees`). The lumen's box begins at ``corner_zyx`` of the scan, which has the ``shape``.
    """
    places = lumen.voxels + corner_zyx
    at_edge = ((places < EDGE_VOXELS) | (places >= np.array(shape) - EDGE_VOXELS)).any(axis=1)
    sizes = np.bincount(lumen.components)
    entering = np.unique(lumen.components[at_edge])
    return tuple(sorted({1, *(entering[sizes[entering] >= SMALLEST_PIECE_VOXELS] + 1).tolist()}))


def _by_component(courses: list[Course], forest: Forest, lumen: Lumen) -> list[Course]:
    """The tree's branches first, then each fragment's, larger fragments first."""
    component = lumen.components[forest.rows[[course.nodes[0] for course in courses]]]
    order = np.argsort(component, kind="stable")
    index = np.empty(len(order), int)
    index[order] = np.arange(len(order))
    ordered = [courses[old] for old in order]
    return [Course(course.nodes, int(index[course.parent]) if course.parent >= 0 else -1) for course in ordered]


def _draw(courses: list[Course], forest: Forest, lumen: Lumen, search: KnownSearch, known: KnownParts) -> Lines:
    """The smooth lines of all courses with their radii; the root's and the tips' reach to the end of the lumen."""
    lines = lines_of(courses, forest, lumen, search)
    lines[0] = reaching_the_end(lines[0], lumen, leave_radii=0)
    with_children = {course.parent for course in courses}
    for index in set(range(len(lines))) - with_children:
        lines[index] = reaching_the_end(lines[index][::-1], lumen, leave_radii=1)[::-1]
    counts = [len(line) for line in lines]
    points = np.concatenate(lines)
    along = np.concatenate([tangents(line) for line in lines])
    starts = np.concatenate([[0], np.cumsum(counts)])
    steps = np.linalg.norm(np.diff(points, axis=0, prepend=points[:1]), axis=1)
    walked = np.cumsum(steps)
    branch = np.repeat(np.arange(len(lines)), counts)
    radii = section_radii(lumen.array(), lumen, points, along, branch, known)
    return Lines(points, radii, branch, walked - walked[starts[branch]], starts)


def _assign(lines: Lines, component: NDArray, lumen: Lumen, search: KnownSearch) -> Rows:
    """The point of a centerline to which each voxel belongs, (N,), always one of its own component.

    That point whose ball the voxel lies deepest in: with the least squared distance less squared radius (a power
    diagram), so that the first stretch of a thin branch, which runs within its parent's lumen, claims none of it. Both
    the radius and the component are further coordinates of a search for the nearest point.
    """
    own = lines.radii_mm.copy()
    for index in range(len(lines.starts) - 1):
        part = lines.of(index)
        far_half = own[(part.start + part.stop) // 2 : part.stop]
        own[part] = np.minimum(own[part], np.median(far_half))
    weight = np.sqrt(own.max() ** 2 - own**2)
    apart = 2 * float(np.linalg.norm(np.asarray(lumen.shape) * lumen.spacing_mm)) + 2 * float(own.max())
    points = np.column_stack([lines.places_mm, weight, component[lines.branch] * apart])
    further = np.column_stack([np.zeros(len(lumen)), lumen.components * apart])
    return search.nearest(cKDTree(points), "assigned", further)


def _branches(
    courses: list[Course], lines: Lines, points_lps: NDArray[np.float64], component: NDArray, volumes_mm3: NDArray
) -> list[Branch]:
    children: list[list[int]] = [[] for _ in courses]
    for index, course in enumerate(courses):
        if course.parent >= 0:
            children[course.parent].append(index + 1)
    branches = []
    for index, course in enumerate(courses):
        part = lines.of(index)
        branches.append(
            Branch(
                id=index + 1,
                parent=course.parent + 1 if course.parent >= 0 else None,
                children=tuple(children[index]),
                component=int(component[index]) + 1,
                points_mm=points_lps[part],
                radii_mm=lines.radii_mm[part],
                volume_mm3=float(volumes_mm3[index]),
                angle_deg=_angle(lines, course.parent, index) if course.parent >= 0 else None,
            )
        )
    return branches


def _angle(lines: Lines, parent: int, child: int) -> float:
    """Degrees between the parent's last stretch and the child's first, both outside the lumen of the fork."""
    before = lines.places_mm[lines.of(parent)][::-1]
    after = lines.places_mm[lines.of(child)]
    fork_mm = float(lines.radii_mm[lines.of(parent)][-1])
    incoming = -_direction(before, lines.radii_mm[lines.of(parent)], fork_mm)
    outgoing = _direction(after, lines.radii_mm[lines.of(child)], fork_mm)
    return float(np.degrees(np.arccos(np.clip(incoming @ outgoing, -1, 1))))


def _direction(points_mm: Points, radii_mm: NDArray[np.float64], skip_mm: float) -> NDArray[np.float64]:
    """Unit vector of a line's first stretch beyond ``skip_mm``, or of all of it if it is shorter; 0 for a point."""
    along = np.linalg.norm(points_mm - points_mm[0], axis=1)
    step_mm = float(along[1]) if len(along) > 1 else 0.0
    stretch_mm = max(ANGLE_RADII * float(np.median(radii_mm)), ANGLE_VOXELS * step_mm)
    beyond = np.flatnonzero(along >= skip_mm)
    first = int(beyond[0]) if len(beyond) > 2 else 0
    last = min(int(np.searchsorted(along, along[first] + stretch_mm)), len(points_mm) - 1)
    vector = points_mm[last] - points_mm[first]
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
