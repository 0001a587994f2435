"""Airway trees with anatomy: every branch's name and lobe is known; drawn by hand, or grown by the simulator."""

import dataclasses
import math

import numpy as np

from AirwaySegLib.tree.airway_tree import LOBES, AirwayTree, Branch
from AirwaySegLib.tree.naming import name_branches
from AirwaySegTraining.simulator.growth import Branch as GrownBranch
from AirwaySegTraining.simulator.growth import grow
from AirwaySegTraining.simulator.patient import Patient, draw_patient, lung_shape

RUL, RML, RLL, LUL, LLL = LOBES
UNIT_VOXEL = (0.6, 0.6, 0.6)

# Stretches by name: parent, way in mm (outward, back, up; outward is -x on the right), radius in mm, lobe.
TRUNK = {"trachea": ("", (0, 18, -100), 8.5, "")}
RIGHT_LUNG = {
    "RMB": ("trachea", (16, 4, -16), 6.5, ""),
    "RUL": ("RMB", (14, -1, 2), 4.8, RUL),
    "B1": ("RUL", (8, 3, 28), 3.0, RUL),
    "B2": ("RUL", (14, 20, 14), 2.8, RUL),
    "B3": ("RUL", (14, -24, 6), 2.9, RUL),
    "BI": ("RMB", (5, 4, -24), 5.3, ""),
    "RML": ("BI", (10, -16, -9), 3.4, RML),
    "B4": ("RML", (20, -8, -10), 2.5, RML),
    "B5": ("RML", (5, -22, -14), 2.5, RML),
    "RLL": ("BI", (5, 6, -12), 4.9, RLL),
    "B6": ("RLL", (8, 24, 2), 2.9, RLL),
    "basal": ("RLL", (5, 4, -14), 4.2, RLL),
    "B7": ("basal", (-5, -6, -22), 2.2, RLL),
    "basal 2": ("basal", (3, 3, -8), 3.8, RLL),
    "B8": ("basal 2", (14, -14, -26), 2.6, RLL),
    "basal 3": ("basal 2", (3, 5, -8), 3.3, RLL),
    "B9": ("basal 3", (17, 4, -28), 2.5, RLL),
    "B10": ("basal 3", (3, 17, -32), 2.8, RLL),
}
LEFT_LUNG = {
    "LMB": ("trachea", (36, 10, -26), 5.7, ""),
    "LUL": ("LMB", (12, -8, 3), 4.6, LUL),
    "upper division": ("LUL", (6, -4, 14), 3.7, LUL),
    "l B1+2": ("upper division", (6, 9, 24), 2.9, LUL),
    "l B3": ("upper division", (10, -22, 8), 2.7, LUL),
    "lingula": ("LUL", (10, -14, -10), 3.1, LUL),
    "l B4": ("lingula", (18, -8, -8), 2.3, LUL),
    "l B5": ("lingula", (5, -18, -14), 2.3, LUL),
    "LLL": ("LMB", (4, 6, -9), 4.6, LLL),
    "l B6": ("LLL", (8, 24, 3), 2.9, LLL),
    "l basal": ("LLL", (5, 4, -18), 4.1, LLL),
    "l B8": ("l basal", (13, -12, -26), 2.9, LLL),
    "l basal 2": ("l basal", (3, 5, -10), 3.4, LLL),
    "l B9": ("l basal 2", (17, 4, -26), 2.5, LLL),
    "l B10": ("l basal 2", (2, 17, -31), 2.7, LLL),
}
Stretches = dict[str, tuple[str, tuple[float, float, float], float, str]]


@dataclasses.dataclass
class Drawing:
    """A tree with the truth: ids by name, and the lobe of each branch in the order of ids."""

    tree: AirwayTree
    ids: dict[str, int]
    lobes: list[str]

    def lobes_right(self) -> float:
        """Share of the branches with a lobe that got the right one."""
        pairs = [(b.lobe, truth) for b, truth in zip(self.tree.branches, self.lobes, strict=True) if truth]
        return float(np.mean([ours == truth for ours, truth in pairs]))

    def of(self, name: str) -> Branch:
        return self.tree.branch(self.ids[name])

    def moved(self, matrix: np.ndarray) -> "Drawing":
        """The drawing turned or mirrored by a (3, 3) matrix, and named again."""
        branches = [dataclasses.replace(b, points_mm=b.points_mm @ matrix.T) for b in self.tree.branches]
        return Drawing(name_branches(AirwayTree(tuple(branches), UNIT_VOXEL)), self.ids, self.lobes)


def turn(axis: int, degrees: float) -> np.ndarray:
    """The rotation (3, 3) about the x, y or z axis."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    first, second = (other for other in range(3) if other != axis)
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def straight(parent: Branch | None, number: int, way: np.ndarray, radius_mm: float, start: np.ndarray) -> Branch:
    """A straight branch of even width, a point each 2 mm or so."""
    count = max(3, int(np.linalg.norm(way) / 2))
    points = start + np.linspace(0, 1, count)[:, None] * way
    radii = np.full(count, radius_mm)
    if parent is not None:
        radii[0] = parent.radii_mm[-1]
    volume_mm3 = math.pi * radius_mm**2 * float(np.linalg.norm(way))
    return Branch(number, parent.id if parent else None, (), 1, points, radii, volume_mm3)


def assemble(branches: list[Branch]) -> AirwayTree:
    """The branches as a tree, their children filled in."""
    children: dict[int, list[int]] = {branch.id: [] for branch in branches}
    for branch in branches:
        if branch.parent is not None:
            children[branch.parent].append(branch.id)
    whole = [dataclasses.replace(branch, children=tuple(children[branch.id])) for branch in branches]
    return AirwayTree(tuple(whole), UNIT_VOXEL)


def draw(stretches: Stretches, fan: int = 2, wobble: float = 0.0, seed: int = 0) -> Drawing:
    """Draw stretches with the trachea's lower end near 0, fork each tip ``fan`` times, and name the result.

    ``wobble`` turns each way at random by about this share. Stretches whose parent is missing are left out.
    """
    rng = np.random.default_rng(seed)
    branches: list[Branch] = []
    ids: dict[str, int] = {}
    lobes: list[str] = []

    def add(parent: Branch | None, way: np.ndarray, radius_mm: float, lobe: str) -> Branch:
        start = np.array([0.0, -18.0, 100.0]) if parent is None else parent.points_mm[-1]
        branches.append(straight(parent, len(branches) + 1, way, radius_mm, start))
        lobes.append(lobe)
        return branches[-1]

    for name, (parent, way, radius_mm, lobe) in stretches.items():
        if parent and parent not in ids:
            continue
        side = 1 if name.removesuffix(" above") in LEFT_LUNG else -1
        lps = np.array(way, float) * [side, 1, 1]
        lps += wobble * np.linalg.norm(lps) * rng.normal(size=3) * (parent != "")
        ids[name] = add(branches[ids[parent] - 1] if parent else None, lps, radius_mm, lobe).id
    parents = {branch.parent for branch in branches}
    tips = [branch for branch in branches if branch.id not in parents and lobes[branch.id - 1]]
    for _ in range(fan):
        tips = [child for tip in tips for child in fork(tip, lobes[tip.id - 1], add, rng)]
    return Drawing(name_branches(assemble(branches)), ids, lobes)


def fork(tip: Branch, lobe: str, add, rng: np.random.Generator) -> list[Branch]:
    """Two children at about 35 degrees to both sides of a tip."""
    way = tip.points_mm[-1] - tip.points_mm[0]
    across = np.cross(way, rng.normal(size=3))
    across *= np.linalg.norm(way) / np.linalg.norm(across)
    radius_mm = 0.8 * float(tip.radii_mm[-1])
    return [add(tip, 0.75 * (0.82 * way + sign * 0.57 * across), radius_mm, lobe) for sign in (-1, 1)]


WHOLE: Stretches = TRUNK | RIGHT_LUNG | LEFT_LUNG
LOBAR = ("trachea", "RMB", "RUL", "BI", "RML", "RLL", "LMB", "LUL", "LLL")


def without(*names: str, stretches: Stretches = WHOLE) -> Stretches:
    return {name: stretch for name, stretch in stretches.items() if name not in names}


def attached(name: str, parent: str) -> Stretches:
    """The whole tree with a stretch hung to another parent."""
    return {key: (parent, *stretch[1:]) if key == name else stretch for key, stretch in WHOLE.items()}


def with_side_branch(name: str, on: str, at: float, way: tuple, radius_mm: float, lobe: str = "") -> Stretches:
    """The whole tree with a stretch that leaves another one at a share of its length, which it cuts in two."""
    parent, whole_way, radius, own_lobe = WHOLE[on]
    result: Stretches = {}
    for key, stretch in WHOLE.items():
        if key == on:
            result[f"{on} above"] = (parent, tuple(at * part for part in whole_way), radius, own_lobe)
            result[on] = (f"{on} above", tuple((1 - at) * part for part in whole_way), radius, own_lobe)
            result[name] = (f"{on} above", way, radius_mm, lobe)
        else:
            result[key] = stretch
    return result


# Grown in lungs that fissures divide ---------------------------------------------------------------------------------


def lobe_at(zyx_mm: np.ndarray, side: int) -> np.ndarray:
    """Lobe of points by fissures; the carina is at 0.

    The oblique fissure falls from 25 mm above the carina at the back to 125 mm below it in front, the horizontal one
    lies 30 mm below.
    """
    z, y, _ = zyx_mm.T
    below_oblique = z < -50 + (y - 5) * 0.85
    if side > 0:
        return np.where(below_oblique, LLL, LUL)
    return np.where(below_oblique, RLL, np.where(z < -30, RML, RUL))


def seeds_in(patient: Patient, side: int, rng: np.random.Generator) -> np.ndarray:
    """Points all over a lung, (N, 3) as (z, y, x)."""
    box = rng.uniform([-190, -120, 0], [120, 130, 160], size=(4000, 3)) * [1, 1, side]
    z, y, x = box.T.astype(np.float32)
    return box[lung_shape(patient, side, z, y, x) > 3]


def near_hilum(zyx_mm: np.ndarray, side: int) -> np.ndarray:
    """Whether points lie where bronchi enter the lung."""
    return np.linalg.norm(zyx_mm - [-22, 4, side * 32], axis=1) < 35


def grown(seed: int) -> Drawing:
    """Trachea, main and lobar bronchi as drawn, turned at random; below them what the simulator grows in each lobe."""
    rng = np.random.default_rng(seed)
    patient = draw_patient(rng)
    central = draw({key: value for key, value in WHOLE.items() if key in LOBAR}, fan=0, wobble=0.15, seed=seed)
    branches, lobes = list(central.tree.branches), list(central.lobes)
    for side, names in ((-1, ("RUL", "RML", "RLL")), (1, ("LUL", "LLL"))):
        seeds = seeds_in(patient, side, rng)
        for name in names:
            trunk = central.of(name)
            stem = GrownBranch(trunk.points_mm[:, ::-1], trunk.radii_mm, -1, 0)
            served = seeds[lobe_at(seeds, side) == central.lobes[trunk.id - 1]]
            shift = len(branches)
            for branch in grow([stem], served, 0.9, rng)[1:]:
                parent = trunk.id if branch.parent == 0 else shift + branch.parent
                branches.append(
                    Branch(len(branches) + 1, parent, (), 1, branch.points_mm[:, ::-1], branch.radii_mm, 1.0)
                )
                lobes.append(central.lobes[trunk.id - 1])
    return Drawing(name_branches(assemble(branches)), central.ids, lobes)


# Another scan of the same patient ------------------------------------------------------------------------------------


def scanned_again(
    tree: AirwayTree, matrix: np.ndarray, bend_mm: float = 0, lost: float = 0, wider: float = 1
) -> tuple[AirwayTree, dict[int, int]]:
    """The tree in another scan, and which branch each of its branches was.

    It is turned and scaled by ``matrix``, shifted, bent by up to ``bend_mm``, and lacks a share of its tips: where one
    of two is lost, the other prolongs its parent, and the new branch is none of the old ones.
    """
    rng = np.random.default_rng(1)
    kept = [branch for branch in tree.branches if branch.children or rng.random() >= lost]
    alone = {b.id for b in kept if b.parent and sum(other.parent == b.parent for other in kept) == 1}
    new: list[Branch] = []
    place: dict[int, int] = {}
    was: dict[int, int] = {}
    for branch in kept:
        parent = place.get(branch.parent or 0)
        points = branch.points_mm @ matrix.T + [10, -20, 300]
        points = points + bend_mm * np.sin(points / 60)[:, [1, 2, 0]]
        if branch.id in alone and parent is not None:
            before = new[parent - 1]
            points, radii = (
                np.concatenate([before.points_mm, points[1:]]),
                np.append(before.radii_mm, branch.radii_mm[1:] * wider),
            )
            new[parent - 1] = dataclasses.replace(before, points_mm=points, radii_mm=radii)
            was.pop(parent, None)
            place[branch.id] = parent
            continue
        place[branch.id] = len(new) + 1
        was[len(new) + 1] = branch.id
        radii = branch.radii_mm * wider
        new.append(
            dataclasses.replace(branch, id=len(new) + 1, parent=parent, children=(), points_mm=points, radii_mm=radii)
        )
    return name_branches(assemble(new)), was
