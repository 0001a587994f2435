"""From the skeleton's voxels to smooth lines: loops cut, a root for each component, lines smoothed.

Letters in shapes: K skeleton voxels, N voxels of the lumen, P points of a line. Points are (z, y, x) in mm from the
centre of voxel (0, 0, 0).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial import cKDTree

from AirwaySegLib.masks.sparse_mask import Lumen, Rows
from AirwaySegLib.tree.known_nearest import KnownSearch

Points = NDArray[np.float64]

Sides = tuple[tuple[bool, bool], tuple[bool, bool], tuple[bool, bool]]

THICK = 0.55
"""The root lies where the lumen has at least so much of the thickest 2 % of the skeleton's radius: in the trachea, but
in no blob of a leak that is a few voxels long."""

NEAR_STEPS = 5
"""Skeleton voxels that touch belong to one fork if their ways to a common ancestor are shorter; else a loop was cut."""

WIDEST, WIDTH_STEPS, CUT_VOXELS = 0.8, 8, 2.0
"""Where there is no trachea the root lies at the highest end whose radius is at least so much of the widest end's. An
end's radius is the largest within so many steps, for a cut end has a wall ahead. An end whose ball comes so near to the
array's border is cut by it, and goes first."""

SHORT_RADII = 0.5
"""Two branching points nearer to each other than so many lumen radii are one."""

SMOOTH_VOXELS, SMOOTH_RADII = 1.5, 0.5
"""Standard deviation of the smoothing along a line: the larger of so many voxels and so many lumen radii."""


@dataclass(frozen=True)
class Forest:
    """The skeleton as rooted trees, parents before children.

    ``rows`` (K,) are rows of the lumen, ``parent`` (K,) indices into them or -1 at a root, ``at_cut`` (K,) which of
    them lie where a loop was cut, and ``loops`` is how many loops were cut.
    """

    rows: Rows
    parent: Rows
    at_cut: NDArray[np.bool_]
    loops: int

    def children_count(self) -> NDArray[np.intp]:
        """How many children each voxel has, (K,)."""
        return np.bincount(self.parent[self.parent >= 0], minlength=len(self.rows))

    def kept(self, keep: NDArray[np.bool_]) -> "Forest":
        """The forest without some voxels, none of which has a child that stays."""
        index = np.cumsum(keep) - 1
        parent = self.parent[keep]
        return Forest(self.rows[keep], np.where(parent >= 0, index[parent], -1), self.at_cut[keep], self.loops)


@dataclass(frozen=True)
class Course:
    """A branch: its indices into the forest (P,), the first its parent's last, and its parent's index in the list."""

    nodes: Rows
    parent: int


def grow_forest(
    lumen: Lumen,
    line: NDArray[np.bool_],
    array_sides: Sides | None = None,
    in_trunk: NDArray[np.bool_] | None = None,
) -> Forest:
    """Root the skeleton of every component and cut its loops, each where the lumen is narrowest.

    Parameters
    ----------
    line
        (N,) True for the voxels of the lumen that are skeleton.
    array_sides
        None where the largest component begins in a trachea. Else for each axis whether the lumen's grid begins and
        ends where the scan does: trees are cut there.
    in_trunk
        (N,) True for the voxels of the trachea, if it was seen: the root is in it.
    """
    rows = np.flatnonzero(line)
    skeleton = Lumen(lumen.shape, lumen.spacing_mm, lumen.voxels[rows])
    radii = lumen.wall_mm[rows]
    first, second = skeleton.neighbours()
    # The spanning tree leaves out the weakest connection of every loop; among equally wide ones the longest.
    steps = np.linalg.norm(skeleton.places_mm[first] - skeleton.places_mm[second], axis=1)
    weight = 1 / np.minimum(radii[first], radii[second]) + 1e-3 * steps
    graph = coo_matrix((weight, (first, second)), shape=(len(rows),) * 2)
    tree = minimum_spanning_tree(graph.tocsr())
    order, parent = _breadth_first(tree, _roots(lumen, rows, tree, array_sides, in_trunk))
    index = np.empty(len(rows), np.intp)
    index[order] = np.arange(len(rows))
    return Forest(rows[order], parent, _at_cut(parent, index[first], index[second]), loops_in(skeleton))


def _at_cut(parent: Rows, first: Rows, second: Rows) -> NDArray[np.bool_]:
    """Which voxels touch another one that is far from them in the tree, (K,), given all pairs that touch."""
    apart = np.ones(len(first), bool)
    ancestor = first
    for _ in range(NEAR_STEPS):
        other = second
        for _ in range(NEAR_STEPS):
            apart &= ancestor != other
            other = np.where(parent[other] >= 0, parent[other], other)
        ancestor = np.where(parent[ancestor] >= 0, parent[ancestor], ancestor)
    at_cut = np.zeros(len(parent), bool)
    at_cut[first[apart]] = at_cut[second[apart]] = True
    return at_cut


def _breadth_first(tree: csr_matrix, roots: Rows) -> tuple[Rows, Rows]:
    """The voxels in breadth-first order from all roots at once, and for each its parent's index in that order."""
    count = tree.shape[0]
    links = tree.tocoo()
    # One more node that leads to every root makes it a single search.
    first = np.concatenate([links.row, np.full(len(roots), count)])
    second = np.concatenate([links.col, roots])
    joined = csr_matrix((np.ones(len(first)), (first, second)), shape=(count + 1, count + 1))
    order, before = breadth_first_order(joined, count, directed=False)
    order = order[1:]
    index = np.full(count + 1, -1)
    index[order] = np.arange(count)
    return order, index[before[order]]


def _roots(
    lumen: Lumen, rows: Rows, tree: csr_matrix, array_sides: Sides | None, in_trunk: NDArray[np.bool_] | None
) -> Rows:
    """The skeleton voxel of each component where its tree begins, as indices into ``rows``.

    In the largest component the highest voxel in the trachea, or else that is thick enough for it, in a fragment its
    thicker end; without a trachea in each component its widest upper end.
    """
    component, radii = lumen.components[rows], lumen.wall_mm[rows]
    links = tree + tree.T
    links.data[:] = 1
    neighbours = np.diff(links.indptr)
    mean = radii
    for _ in range(4):
        mean = (mean + links @ mean) / (1 + neighbours)
    order = np.lexsort((-mean, neighbours > 1, component))
    _, first = np.unique(component[order], return_index=True)
    roots = order[first]
    if array_sides is not None:
        ends = np.flatnonzero(neighbours <= 1)
        ends = ends[np.argsort(component[ends], kind="stable")]
        for of_one in np.split(ends, np.flatnonzero(np.diff(component[ends])) + 1):
            if len(of_one) > 1:
                roots[component[of_one[0]]] = _widest_upper_end(lumen, rows, links, of_one, array_sides)
        return roots
    of_tree = np.flatnonzero(component == 0)
    thick = of_tree[in_trunk[rows[of_tree]]] if in_trunk is not None else of_tree[:0]
    if not len(thick):
        thick = of_tree[radii[of_tree] >= thick_mm(radii[of_tree])]
    roots[0] = thick[lumen.places_mm[rows[thick], 0].argmax()]
    return roots


def _within_steps(links: csr_matrix, start: int, steps: int) -> list[int]:
    """The voxels that so many steps lead to."""
    reached, last = {start}, [start]
    for _ in range(steps):
        last = [int(n) for one in last for n in links.indices[links.indptr[one] : links.indptr[one + 1]]]
        last = [one for one in last if one not in reached]
        reached.update(last)
    return sorted(reached)


def _widest_upper_end(lumen: Lumen, rows: Rows, links: csr_matrix, ends: Rows, array_sides: Sides) -> int:
    """Where a tree without trachea begins: of its ends the widest that the array's border cuts, else the widest."""
    radii = lumen.wall_mm[rows]
    own = radii[ends]
    wide = np.array([radii[_within_steps(links, int(end), WIDTH_STEPS)].max() for end in ends])
    voxels = lumen.voxels[rows[ends]]
    far = np.stack([voxels, np.asarray(lumen.shape) - 1 - voxels], axis=2)  # (ends, axis, first or last side)
    reach = own[:, None, None] / np.asarray(lumen.spacing_mm)[None, :, None] + CUT_VOXELS
    cut = ((far <= reach) & np.asarray(array_sides)[None]).any(axis=(1, 2))
    if cut.any():
        ends, wide = ends[cut], wide[cut]
    widest = ends[wide >= WIDEST * wide.max()]
    return int(widest[lumen.places_mm[rows[widest], 0].argmax()])


def loops_in(skeleton: Lumen) -> int:
    """How many independent loops a 26-connected set of voxels without cavities has: components less Euler number.

    The Euler number counts the corners, edges, faces and bodies of the voxels as closed cubes, with alternating signs.
    """
    if len(skeleton) == 0:
        return 0
    offsets = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    cells = (2 * skeleton.voxels[:, None].astype(np.int64) + offsets).reshape(-1, 3)
    shape = [2 * count + 3 for count in skeleton.shape]
    numbers = np.unique(np.ravel_multi_index(tuple(cells.T + 1), shape))
    dimension = sum((part - 1) % 2 == 0 for part in np.unravel_index(numbers, shape))
    euler = int(np.where(np.asarray(dimension) % 2 == 0, 1, -1).sum())
    return int(skeleton.components.max()) + 1 - euler


def courses_of(forest: Forest) -> list[Course]:
    """The stretches between roots, branching points and tips, parents before children."""
    children = forest.children_count()
    is_end = (children != 1) & (forest.parent >= 0)
    index: dict[int, int] = {}
    courses: list[Course] = []
    for end in np.flatnonzero(is_end).tolist():
        nodes = [end]
        while len(nodes) == 1 or not (is_end[nodes[-1]] or forest.parent[nodes[-1]] < 0):
            nodes.append(int(forest.parent[nodes[-1]]))
        index[end] = len(courses)
        courses.append(Course(np.array(nodes[::-1]), index.get(nodes[-1], -1)))
    lonely = np.flatnonzero((children == 0) & (forest.parent < 0))
    return courses + [Course(np.array([root]), -1) for root in lonely]


def thick_mm(radii_mm: NDArray[np.float64]) -> float:
    """From which radius on a lumen may be the trachea's."""
    return THICK * float(np.quantile(radii_mm, 0.98))


def rooted_at_a_tip(forest: Forest, lumen: Lumen) -> Forest:
    """The forest with the tree's root moved to the highest tip above it, if something is left above it.

    Of the root's children the one with the most voxels leads to the lungs, the others to the upper end.
    """
    roots = np.flatnonzero(forest.parent < 0)
    root = int(roots[lumen.components[forest.rows[roots]] == 0][0])
    children = np.flatnonzero(forest.parent == root)
    if len(children) < 2:
        return forest
    branch = np.full(len(forest.rows), -1)  # which of the root's children each voxel springs from
    branch[children] = children
    for index in np.flatnonzero(forest.parent >= 0).tolist():  # parents before children
        if branch[index] < 0:
            branch[index] = branch[forest.parent[index]]
    to_lungs = np.bincount(branch[branch >= 0]).argmax()
    is_tip = forest.children_count() == 0
    above = np.flatnonzero((branch >= 0) & (branch != to_lungs) & is_tip)
    tip = int(above[lumen.places_mm[forest.rows[above], 0].argmax()])
    roots[roots == root] = tip
    linked = np.flatnonzero(forest.parent >= 0)
    links = csr_matrix((np.ones(len(linked)), (linked, forest.parent[linked])), shape=(len(forest.rows),) * 2)
    order, parent = _breadth_first(links, roots)
    return Forest(forest.rows[order], parent, forest.at_cut[order], forest.loops)


def contract(courses: list[Course], forest: Forest, lumen: Lumen) -> list[Course]:
    """The courses without those that are shorter than `SHORT_RADII` lumen radii and fork again: one fork, not two.

    The children of such a course begin where it begins.
    """
    with_children = {course.parent for course in courses}
    kept: list[Course] = []
    new_index: list[int] = []
    way: list[Rows] = []
    for index, course in enumerate(courses):
        before = way[course.parent] if course.parent >= 0 else course.nodes[:0]
        parent = new_index[course.parent] if course.parent >= 0 else -1
        nodes = np.concatenate([before, course.nodes])
        ends = forest.rows[nodes[[0, -1]]]
        straight_mm = float(np.linalg.norm(lumen.places_mm[ends[1]] - lumen.places_mm[ends[0]]))
        if parent >= 0 and index in with_children and straight_mm < SHORT_RADII * lumen.wall_mm[ends[0]]:
            new_index.append(parent)
            way.append(nodes[:-1])
        else:
            new_index.append(len(kept))
            way.append(nodes[:0])
            kept.append(Course(nodes, parent))
    return kept


def smooth(points_mm: Points, sigma: float) -> Points:
    """A line (P, 3) smoothed by a Gaussian of ``sigma`` points; its ends stay where they are.

    What is smoothed is the deviation from the straight line between the ends, continued with the opposite sign beyond
    them, so that a straight line stays itself.
    """
    count = len(points_mm)
    if count < 3:
        return points_mm
    chord = np.linspace(0, 1, count)[:, None]
    straight = points_mm[0] + chord * (points_mm[-1] - points_mm[0])
    deviation = points_mm - straight
    odd = np.concatenate([-deviation[:0:-1], deviation, -deviation[-2::-1]])
    smoothed = straight + gaussian_filter1d(odd, min(sigma, count / 2), axis=0)[count - 1 : 2 * count - 1]
    smoothed[[0, -1]] = points_mm[[0, -1]]  # to the last bit: lines that meet there go on doing so
    return smoothed


def lines_of(courses: list[Course], forest: Forest, lumen: Lumen, search: KnownSearch | None = None) -> list[Points]:
    """The centerline (P, 3) of each course: its voxels, smoothed over about the radius, then moved to the middle.

    Thinning sets a line up to half a voxel off where a lumen is an even number of voxels wide. So every point is moved
    across the line to the middle of those of the lumen's voxels that are nearest to it, by one voxel at most; the ends
    stay, for other lines meet there. A point that has thereby left the lumen goes back to its voxel.
    """
    rows = [forest.rows[course.nodes] for course in courses]
    lines = [smooth(lumen.places_mm[part], _sigma(part, lumen)) for part in rows]
    points = np.concatenate(lines)
    nearest = (search or KnownSearch(lumen)).nearest(cKDTree(points), "beside")
    count = np.maximum(np.bincount(nearest, minlength=len(points)), 1)
    sums = [np.bincount(nearest, weights=lumen.places_mm[:, axis], minlength=len(points)) for axis in range(3)]
    shift = np.stack(sums, axis=1) / count[:, None] - points
    along = np.concatenate([tangents(line) for line in lines])
    shift -= (shift * along).sum(axis=1, keepdims=True) * along
    length_mm = np.linalg.norm(shift, axis=1, keepdims=True)
    shift *= np.minimum(1, max(lumen.spacing_mm) / np.maximum(length_mm, 1e-9))
    shifts = np.split(shift, np.cumsum([len(line) for line in lines])[:-1])
    moved = [_moved(line, move, _sigma(part, lumen)) for line, move, part in zip(lines, shifts, rows, strict=True)]
    points = np.concatenate(moved)
    voxels = np.rint(points / lumen.spacing_mm).astype(np.int32)
    outside = lumen.rows_of(np.clip(voxels, 0, np.asarray(lumen.shape) - 1)) < 0
    points[outside] = lumen.places_mm[np.concatenate(rows)][outside]
    return np.split(points, np.cumsum([len(line) for line in lines])[:-1])


def _sigma(rows: Rows, lumen: Lumen) -> float:
    """Standard deviation of the smoothing in points of the line."""
    if len(rows) < 2:
        return 0.0
    step_mm = float(np.linalg.norm(np.diff(lumen.places_mm[rows], axis=0), axis=1).mean())
    return max(SMOOTH_VOXELS * max(lumen.spacing_mm), SMOOTH_RADII * float(np.median(lumen.wall_mm[rows]))) / step_mm


def _moved(line: Points, move: Points, sigma: float) -> Points:
    if len(line) < 3:
        return line
    move = move.copy()
    move[[0, -1]] = 0
    return line + smooth(move, sigma)


def tangents(points_mm: Points) -> Points:
    """Unit vectors (P, 3) along a line, by central differences; 0 for a single point."""
    if len(points_mm) < 2:
        return np.zeros_like(points_mm)
    along = np.gradient(points_mm, axis=0)
    return along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)


def reaching_the_end(line: Points, lumen: Lumen, leave_radii: float) -> Points:
    """A line with the stretch beyond its first point that thinning took off the lumen's end.

    It goes on straight until the wall is as near as ``leave_radii`` of the radius at the first point: 0 for the
    trachea, which the scan cuts off flat, and 1 for a tip, whose rounding counts as no length. Thinning takes as much
    off an end as off the sides, but in voxels, which may be longer along one axis.
    """
    radius_mm = float(lumen.to_wall(line[:1])[0])
    along = np.linalg.norm(line - line[0], axis=1)
    direction = line[0] - line[min(int(np.searchsorted(along, 2 * radius_mm)), len(line) - 1)]
    length_mm = float(np.linalg.norm(direction))
    if length_mm == 0:
        return line
    step_mm = min(lumen.spacing_mm)
    ahead = line[0] + np.arange(1, int(3 * radius_mm / step_mm) + 2)[:, None] * step_mm * direction / length_mm
    voxels = np.rint(ahead / lumen.spacing_mm).astype(np.int32)
    inside = ((voxels >= 0) & (voxels < lumen.shape)).all(axis=1)
    inside[inside] = lumen.rows_of(voxels[inside]) >= 0
    reach = len(inside) if inside.all() else int(inside.argmin())
    # The last one is within half a voxel of the wall: no cross-section can be measured there.
    reach = max(0, reach - 1 - round(leave_radii * radius_mm / step_mm))
    return np.concatenate([ahead[:reach][::-1], line])
