"""The airway tree as data: branches with centerline, radius, position in the tree and names; JSON and back.

Letters in shapes: P points of a branch. Points are (x, y, z) in mm in the patient's frame LPS (x to the left, y to the
back, z to the head), and run away from the trachea.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.files.json_documents import indented, read_document, triple
from AirwaySegLib.tree.wall import Wall, WallScan, wall_from_plain, wall_measures, wall_scan_from_plain

FORMAT = "AirwaySeg tree 1"

TRACHEA, RIGHT_MAIN, LEFT_MAIN = "trachea", "right main bronchus", "left main bronchus"
LOBES = (
    "right upper lobe",
    "right middle lobe",
    "right lower lobe",
    "left upper lobe",
    "left lower lobe",
)

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """Lobe and segment of a branch as they were estimated, with their confidences, and its name; see `Branch`."""

    lobe: str
    lobe_confidence: float
    segment: str
    segment_confidence: float
    name: str


@dataclass(frozen=True, eq=False)
class Branch:
    """A stretch of airway between two branching points, or from one to a tip.

    Parameters
    ----------
    id
        1, 2, ...: its value in the branch map.
    parent, children
        Ids; a root has no parent.
    component
        1 is the largest, which holds the trachea; 2, 3, ... are loose fragments or further trees, larger ones first.
    points_mm
        (P, 3), P >= 1, from the end near the trachea to the far one. The first point of a child is the last of its
        parent.
    radii_mm
        (P,) lumen radius: that of the circle with the area of the lumen's cross-section (see `cross_sections`).
    volume_mm3
        Of the voxels that belong to the branch.
    generation
        Weibel's: trachea 0, main bronchi 1; in a fragment counted from its thicker end.
    strahler
        Order after Strahler: 1 at a tip.
    angle_deg
        Between its first stretch and its parent's last one; None for a root.
    name
        Such as "trachea"; empty for most.
    lobe, lobe_confidence
        One of `LOBES`, estimated by rule, with a confidence 0..1; empty and 0 where no lobe is meant or known.
    segment, segment_confidence
        The same for the bronchopulmonary segment, by its code such as "RB6" (`segments.SEGMENTS`).
    wall
        What the CT shows of its wall; None where no CT was measured.
    by_hand
        Which names a person gave (`hand_names`): "lobe", "segment", "lobe and segment", or empty; their confidence
        is 1.
    estimate
        What was estimated where a person gave a name, else None.
    counted_generation
        What was counted where a person gave the generation of the branch or of one above it, else None.
    """

    id: int
    parent: int | None
    children: tuple[int, ...]
    component: int
    points_mm: Points
    radii_mm: NDArray[np.float64]
    volume_mm3: float
    generation: int = 0
    strahler: int = 1
    angle_deg: float | None = None
    name: str = ""
    lobe: str = ""
    lobe_confidence: float = 0.0
    segment: str = ""
    segment_confidence: float = 0.0
    wall: Wall | None = None
    by_hand: str = ""
    estimate: Estimate | None = None
    counted_generation: int | None = None

    @property
    def given(self) -> str:
        """What a person gave: ``by_hand``, and "generation"."""
        return " and ".join(filter(None, (self.by_hand, "" if self.counted_generation is None else "generation")))

    @property
    def counted(self) -> int:
        """The generation as it is counted, without those by hand."""
        return self.generation if self.counted_generation is None else self.counted_generation

    @cached_property
    def along_mm(self) -> NDArray[np.float64]:
        """Distance along the centerline from the first point to each, (P,)."""
        steps = np.linalg.norm(np.diff(self.points_mm, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def length_mm(self) -> float:
        """Length of the centerline."""
        return float(self.along_mm[-1])

    @property
    def mean_diameter_mm(self) -> float:
        """Mean lumen diameter along the branch, outside the parent's lumen."""
        return 2 * float(self.own_radii_mm.mean())

    @property
    def min_diameter_mm(self) -> float:
        """Diameter at the narrowest point, outside the parent's lumen."""
        return 2 * float(self.own_radii_mm.min())

    @property
    def max_diameter_mm(self) -> float:
        """Diameter at the widest point, outside the parent's lumen."""
        return 2 * float(self.own_radii_mm.max())

    @cached_property
    def own_points(self) -> NDArray[np.bool_]:
        """Which points (P,) lie outside the parent's lumen and not in the rounding of a free end, at least one.

        The parent's lumen reaches as far as the radius at the first point, but is taken for no more than half of the
        branch; the rounding of a tip or of the root's beginning for half the median radius and a quarter of the branch.
        """
        rounding_mm = min(0.5 * float(np.median(self.radii_mm)), 0.25 * self.length_mm)
        first_mm = rounding_mm if self.parent is None else min(float(self.radii_mm[0]), 0.5 * self.length_mm)
        last_mm = self.length_mm - (0.0 if self.children else rounding_mm)
        own = (self.along_mm >= first_mm) & (self.along_mm <= last_mm)
        return own if own.any() else np.arange(len(own)) == len(own) // 2

    @property
    def own_radii_mm(self) -> NDArray[np.float64]:
        """The radii (Q,) outside the parent's lumen and the rounding of free ends; never empty."""
        return self.radii_mm[self.own_points]

    @property
    def tapering(self) -> float:
        """Loss of diameter in mm for each mm of length (positive: thinner towards the tip), by a straight fit."""
        radii, along = self.own_radii_mm, self.along_mm[self.own_points]
        if len(radii) < 3 or along[-1] <= along[0]:
            return 0.0
        return -2 * float(np.polyfit(along, radii, 1)[0])

    @property
    def tortuosity(self) -> float:
        """Length over the straight distance between the ends; 1 is straight."""
        straight_mm = float(np.linalg.norm(self.points_mm[-1] - self.points_mm[0]))
        return self.length_mm / straight_mm if straight_mm > 0 else 1.0


@dataclass(frozen=True, eq=False)
class AirwayTree:
    """All branches of a mask: the tree (component 1) and its loose fragments, parents before children, ids 1, 2, ...

    ``trees`` are the components that are trees: 1, and where the mask shows no carina those that the scan's edge cuts.
    ``loops_cut`` and ``spurs_pruned`` count what was taken off the skeleton; ``carina_mm`` is the point (3,) in LPS
    where the main bronchi begin, None where the mask shows none; ``voxel_mm`` (z, y, x) is the mask's spacing;
    ``wall_scan`` says how the walls were measured and holds Pi10, None without a CT.
    """

    branches: tuple[Branch, ...]
    voxel_mm: tuple[float, float, float]
    carina_mm: tuple[float, float, float] | None = None
    loops_cut: int = 0
    spurs_pruned: int = 0
    warnings: tuple[str, ...] = field(default=())
    trees: tuple[int, ...] = (1,)
    wall_scan: WallScan | None = None

    def __post_init__(self) -> None:
        """Refuse branches that are not numbered 1, 2, ... with parents first, or do not know their children."""
        children: dict[int | None, list[int]] = {}
        components: set[int] = set()
        for number, branch in enumerate(self.branches, start=1):
            parent = branch.parent
            if branch.id != number or not (parent is None or 1 <= parent < number):
                raise ValueError(f"branch {branch.id} stands at position {number} with parent {parent}")
            if parent is not None and branch.component != self.branches[parent - 1].component:
                raise ValueError(f"branch {number} and its parent {parent} are of different components")
            if parent is None and branch.component in components:
                raise ValueError(f"component {branch.component} has two roots")
            components.add(branch.component)
            children.setdefault(parent, []).append(number)
        for branch in self.branches:
            if sorted(branch.children) != children.get(branch.id, []):
                raise ValueError(f"branch {branch.id} has the children {children.get(branch.id, [])}")

    def branch(self, number: int) -> Branch:
        """The branch with this id."""
        return self.branches[number - 1]

    def main(self) -> list[Branch]:
        """The branches of the tree that holds the trachea; without a carina those of all trees."""
        return [branch for branch in self.branches if branch.component in self.trees]

    def loose(self) -> list[Branch]:
        """The branches of the loose fragments."""
        return [branch for branch in self.branches if branch.component not in self.trees]

    def roots(self) -> list[Branch]:
        """The first branch of each component."""
        return [branch for branch in self.branches if branch.parent is None]

    def path_to(self, number: int) -> list[Branch]:
        """The branches from the root of its component down to this one."""
        path = [self.branch(number)]
        while path[-1].parent is not None:
            path.append(self.branch(path[-1].parent))
        return path[::-1]

    def below(self, number: int) -> Iterator[Branch]:
        """This branch and everything that springs from it, parents first."""
        members = {number}
        yield self.branch(number)
        for branch in self.branches[number:]:
            if branch.parent in members:
                members.add(branch.id)
                yield branch

    def named(self, name: str) -> list[Branch]:
        """The branches of that name, from the root on: the trachea may consist of several stretches."""
        return [branch for branch in self.branches if branch.name == name]

    def with_branches(self, branches: list[Branch], **changes: Any) -> "AirwayTree":
        """The tree with other branches, and with whatever else changes."""
        return replace(self, branches=tuple(branches), **changes)

    def to_json(self) -> str:
        """Text for `from_json`; lengths in mm with 3 decimals, derived measures beside the raw ones for readers."""
        document = {
            "format": FORMAT,
            "space": "LPS",
            "unit": "mm",
            "voxel_mm_zyx": list(self.voxel_mm),
            "carina": None if self.carina_mm is None else [round(value, 3) for value in self.carina_mm],
            "loops_cut": self.loops_cut,
            "spurs_pruned": self.spurs_pruned,
            "trees": list(self.trees),
            "warnings": list(self.warnings),
            "walls": None if self.wall_scan is None else self.wall_scan.to_plain(),
            "branches": [_branch_to_plain(branch) for branch in self.branches],
        }
        return indented(document)

    @classmethod
    def from_json(cls, text: str) -> "AirwayTree":
        """Read what `to_json` wrote.

        Raises
        ------
        AirwaySegError
            If it is something else.
        """
        return read_document(text, FORMAT, "airway tree", cls._from_plain)

    @classmethod
    def _from_plain(cls, document: dict[str, Any]) -> "AirwayTree":
        carina = document["carina"]
        return cls(
            branches=tuple(_branch_from_plain(plain) for plain in document["branches"]),
            voxel_mm=triple(document["voxel_mm_zyx"]),
            carina_mm=None if carina is None else triple(carina),
            loops_cut=int(document["loops_cut"]),
            spurs_pruned=int(document["spurs_pruned"]),
            warnings=tuple(map(str, document["warnings"])),
            trees=tuple(map(int, document.get("trees", [1]))),
            wall_scan=wall_scan_from_plain(document.get("walls")),
        )


def distances_from_carina(tree: AirwayTree) -> list[NDArray[np.float64]]:
    """Distance along the tree from the carina to each point of each branch, (P,) in mm, never negative.

    It grows down both lungs and up the trachea. Where no carina is known it is measured from the root of each tree; NaN
    in loose fragments, and in further trees where one has a carina.
    """
    distances = [np.full(len(branch.points_mm), np.nan) for branch in tree.branches]
    main = tree.main() if tree.carina_mm is None else [branch for branch in tree.main() if branch.component == 1]
    if not main:
        return distances
    trunk, carina_depth = [branch for branch in main if branch.parent is None], 0.0
    if tree.carina_mm is not None:
        gaps_mm = [np.linalg.norm(branch.points_mm - tree.carina_mm, axis=1) for branch in main]
        nearest = int(np.argmin([gap.min() for gap in gaps_mm]))
        trunk = tree.path_to(main[nearest].id)
        carina_depth = sum(branch.length_mm for branch in trunk[:-1])
        carina_depth += float(trunk[-1].along_mm[gaps_mm[nearest].argmin()])
    ends = {0: 0.0}  # depth below the root at which each branch ends
    forks = {branch.id: carina_depth for branch in trunk}  # depth at which the way to it leaves the way to the carina
    for branch in main:
        depth = ends[branch.parent or 0] + branch.along_mm
        ends[branch.id] = float(depth[-1])
        if branch.id not in forks:
            forks[branch.id] = min(float(depth[0]), forks[branch.parent or 0])
        distances[branch.id - 1] = depth + carina_depth - 2 * np.minimum(depth, forks[branch.id])
    return distances


_PLAIN = ("id", "parent", "component", "generation", "strahler", "name", "lobe", "lobe_confidence")
_SEGMENT = ("segment", "segment_confidence", "by_hand")
_DERIVED = ("length_mm", "mean_diameter_mm", "min_diameter_mm", "max_diameter_mm", "tapering", "tortuosity")


def measures_of(branch: Branch) -> dict[str, float | None]:
    """Length, diameters, tapering, tortuosity, volume and angle of a branch by name, rounded to 3 decimals."""
    measures: dict[str, float | None] = {name: round(getattr(branch, name), 3) for name in _DERIVED}
    measures["volume_mm3"] = round(branch.volume_mm3, 3)
    measures["angle_deg"] = None if branch.angle_deg is None else round(branch.angle_deg, 1)
    return measures


def _branch_to_plain(branch: Branch) -> dict[str, Any]:
    return {
        **{name: getattr(branch, name) for name in (*_PLAIN, *_SEGMENT)},
        **({"estimate": asdict(branch.estimate)} if branch.estimate else {}),
        **({} if branch.counted_generation is None else {"counted_generation": branch.counted_generation}),
        "children": list(branch.children),
        **measures_of(branch),
        **(wall_measures(branch.wall) if branch.wall else {}),
        "points_mm": np.round(branch.points_mm, 3).tolist(),
        "radii_mm": np.round(branch.radii_mm, 3).tolist(),
    }


def _branch_from_plain(plain: dict[str, Any]) -> Branch:
    points = np.asarray(plain["points_mm"], float)
    radii = np.asarray(plain["radii_mm"], float)
    if points.ndim != 2 or points.shape[1] != 3 or radii.shape != (len(points),) or not len(points):
        raise ValueError(f"branch {plain['id']} has points of shape {points.shape} and {radii.size} radii")
    if radii.min() < 0 or plain["lobe"] not in ("", *LOBES):
        raise ValueError(f"branch {plain['id']} has a negative radius or an unknown lobe {plain['lobe']!r}")
    parent, angle = plain["parent"], plain["angle_deg"]
    return Branch(
        id=int(plain["id"]),
        parent=None if parent is None else int(parent),
        children=tuple(int(child) for child in plain["children"]),
        component=int(plain["component"]),
        points_mm=points,
        radii_mm=radii,
        volume_mm3=float(plain["volume_mm3"]),
        generation=int(plain["generation"]),
        strahler=int(plain["strahler"]),
        angle_deg=None if angle is None else float(angle),
        name=str(plain["name"]),
        lobe=str(plain["lobe"]),
        lobe_confidence=float(plain["lobe_confidence"]),
        segment=str(plain.get("segment", "")),
        segment_confidence=float(plain.get("segment_confidence", 0.0)),
        wall=wall_from_plain(plain),
        by_hand=str(plain.get("by_hand", "")),
        estimate=_estimate_from_plain(plain["estimate"]) if "estimate" in plain else None,
        counted_generation=int(plain["counted_generation"]) if "counted_generation" in plain else None,
    )


def _estimate_from_plain(plain: dict[str, Any]) -> Estimate:
    return Estimate(
        str(plain["lobe"]),
        float(plain["lobe_confidence"]),
        str(plain["segment"]),
        float(plain["segment_confidence"]),
        str(plain["name"]),
    )
