"""What an airway tree lacks: lobes without or with few branches, a lung with few airways, side branches cut off.

Rules of thumb; a lobe that was operated on, collapsed or not scanned is missing too. Points are in LPS mm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.airway_tree import LEFT_MAIN, LOBES, RIGHT_MAIN, TRACHEA, AirwayTree, Branch
from AirwaySegLib.tree.fragment_ends import ramp

Floats = NDArray[np.float64]

MISSING_SCORE, LITTLE_SCORE, LUNG_SCORE = 0.8, 0.6, 0.6
LITTLE_SHARE = {
    "right upper lobe": 0.12,
    "right lower lobe": 0.15,
    "left upper lobe": 0.2,
    "left lower lobe": 0.15,
}
"""A lobe with less of its lung's airway length than this has too little: in five of six CTs of patients without
consolidated lobes the least are 0.27, 0.50, 0.35 and 0.52. Middle lobes have next to none in thick slices."""
LEAST_LUNG_MM = 100.0
"""In a lung with less airway than this no lobe can be said to have little."""
LUNG_SHARE = 0.35
"""Airway length of the poorer lung over that of the other; with the lungs' volumes known, for each millilitre."""

COMES_OFF_MM = {
    "right upper lobe": 22.0,
    "right middle lobe": 46.0,
    "right lower lobe": 46.0,
    "left upper lobe": 48.0,
    "left lower lobe": 48.0,
}
"""Where a lobe's bronchus leaves: way from the carina (Boyden 1955: main bronchi of 22 and 48 mm, intermedius 24)."""
AROUND_MM = 15.0
"""The point is looked for so far to either side of that."""

WINDOW_MM, MIDDLE_MM, BEND_MM = 7.0, 1.5, 6.0
"""The radius before and after a point is the median from the second to the first distance; the bend that between the
directions over the third."""
STEP, BEND_DEG, MOST_BEND_DEG = 1.3, 40.0, 60.0
"""A step of the radius by this factor, and a bend of so many degrees, count 1 each."""
LEAST_STEP, LEAST_RADIUS_MM, RADIUS_VOXELS = 1.08, 2.0, 1.2
NOTED, SURE = 2.2, 4.0
"""Sum of both at which a score of 0.3 and of 1 is given."""

STUMP_DIAMETERS, STUMP_RADIUS_MM = 1.5, 1.8
"""A branch that ends after less than so many of its diameters outside its parent's lumen, and is at least so wide, is a
stump: among 350 tips of five CTs there are three."""


@dataclass(frozen=True)
class LungVolumes:
    """Volumes of both lungs in ml, their airways included, as far as the scan shows them aerated."""

    right_ml: float
    left_ml: float


@dataclass(frozen=True)
class Lack:
    """Something that is missing: the branch and point where it should come off, a sentence, and its numbers.

    ``warning`` says the same without the point.
    """

    what: str
    branch: Branch
    point_mm: Floats
    score: float
    reason: str
    facts: dict[str, float]
    warning: str = ""


def missing_lobes(tree: AirwayTree, volumes: LungVolumes | None = None) -> list[Lack]:
    """Lobes without a branch or with little, or else a lung with few airways, of a tree with names.

    None where no carina was found, or of a lung whose main bronchus ends without a branch: its end is a suspect. The
    point is that near the usual one (`COMES_OFF_MM`) where the airway's width steps down and its way bends most.
    """
    if tree.carina_mm is None:
        return []
    found = []
    lengths_mm = dict.fromkeys(LOBES, 0.0)
    for branch in tree.main():
        if branch.lobe:
            lengths_mm[branch.lobe] += branch.length_mm
    lungs_mm = {side: sum(mm for lobe, mm in lengths_mm.items() if lobe.startswith(side)) for side in ("right", "left")}
    for lobe, own_mm in lengths_mm.items():
        lung_mm = lungs_mm[lobe.split()[0]]
        facts = {"length_mm": round(own_mm, 1), "lung_mm": round(lung_mm, 1)}
        if lung_mm and not own_mm:
            found.append(_lack(tree, lobe, MISSING_SCORE, f"No branch of the {lobe} was found", facts))
        elif lung_mm >= LEAST_LUNG_MM and own_mm < LITTLE_SHARE.get(lobe, 0.0) * lung_mm:
            what = f"Only {own_mm:.0f} of the {lung_mm:.0f} mm of airway in this lung are of the {lobe}"
            found.append(_lack(tree, lobe, LITTLE_SCORE, what, facts))
    return found or _poor_lung(tree, lungs_mm, volumes)


def _poor_lung(tree: AirwayTree, lungs_mm: dict[str, float], volumes: LungVolumes | None) -> list[Lack]:
    """The lung that has much less airway than the other one, for its volume if that is known."""
    poor, rich = sorted(lungs_mm, key=lambda side: lungs_mm[side])
    millilitres = (
        {"right": 1.0, "left": 1.0} if volumes is None else {"right": volumes.right_ml, "left": volumes.left_ml}
    )
    if not lungs_mm[poor] or min(millilitres.values()) <= 0:
        return []
    if lungs_mm[poor] / millilitres[poor] >= LUNG_SHARE * lungs_mm[rich] / millilitres[rich]:
        return []
    what = f"The {poor} lung has {lungs_mm[poor]:.0f} mm of airway, the {rich} one {lungs_mm[rich]:.0f} mm"
    facts = {"length_mm": round(lungs_mm[poor], 1), "other_lung_mm": round(lungs_mm[rich], 1)}
    if volumes is not None:
        what += f", though their volumes are {millilitres[poor]:.0f} and {millilitres[rich]:.0f} ml"
        facts |= {"volume_ml": round(millilitres[poor]), "other_volume_ml": round(millilitres[rich])}
    main = tree.named(RIGHT_MAIN if poor == "right" else LEFT_MAIN)
    return (
        [Lack(f"{poor} lung", main[-1], main[-1].points_mm[-1], LUNG_SCORE, f"{what}.", facts, f"{what}.")]
        if main
        else []
    )


def _lack(tree: AirwayTree, lobe: str, score: float, what: str, facts: dict[str, float]) -> Lack:
    """The lack of a lobe, with the point where its bronchus should leave."""
    firsts = [branch for branch in tree.main() if branch.lobe == lobe and branch.name == f"{lobe} bronchus"]
    if firsts:
        return Lack(lobe, firsts[0], firsts[0].points_mm[0], score, f"{what}, which begins here.", facts, f"{what}.")
    branch, point_mm = _where_it_leaves(tree, lobe)
    facts["from_carina_mm"] = round(float(np.linalg.norm(point_mm - np.asarray(tree.carina_mm))), 1)
    return Lack(
        lobe, branch, point_mm, score, f"{what}; its bronchus should leave branch {branch.id} here.", facts, f"{what}."
    )


def _where_it_leaves(tree: AirwayTree, lobe: str) -> tuple[Branch, Floats]:
    """The branch and the point at which a lobe's bronchus should leave the way from the carina down."""
    way = _way_down(tree, RIGHT_MAIN if lobe.startswith("right") else LEFT_MAIN)
    along_mm, places, signs = 0.0, [], []
    for branch in way:
        signs_at = dict(_signs(branch))
        for row, at_mm in enumerate(branch.along_mm):
            off_mm = abs(along_mm + float(at_mm) - COMES_OFF_MM[lobe])
            nearest = min(signs_at, key=lambda mm: abs(mm - at_mm), default=None)
            sign = signs_at[nearest] if nearest is not None and abs(nearest - at_mm) <= 1.0 else 0.0
            places.append((branch, branch.points_mm[row]))
            signs.append(min(sign, 2.0) * (off_mm <= AROUND_MM) - off_mm / AROUND_MM)
        along_mm += branch.length_mm
    return places[int(np.argmax(signs))]


def _way_down(tree: AirwayTree, main: str) -> list[Branch]:
    """From the start of a main bronchus down: into the child that serves several lobes, else past the upper lobe."""
    way = tree.named(main)[:1] or [branch for branch in tree.main() if branch.name == TRACHEA][-1:]
    while way[-1].children:
        children = [tree.branch(child) for child in way[-1].children]
        usual = [child for child in children if child.length_mm > child.radii_mm[0]] or children
        way.append(max(usual, key=lambda b: (not b.lobe, "upper" not in b.lobe, b.mean_diameter_mm)))
    return way


# Side branches that were cut off --------------------------------------------------------------------------------------


def cut_off_branches(tree: AirwayTree) -> list[Lack]:
    """Points at which an airway thins and bends at once, as where a side branch leaves, but none does; the worst first.

    ``evidence`` = ln(step) / ln(`STEP`) + bend / `BEND_DEG` of the best point of each branch outside the forks at its
    ends. Only airways of a radius of `LEAST_RADIUS_MM`, or `RADIUS_VOXELS` of the coarsest voxel side, are looked at.
    """
    least_mm = max(LEAST_RADIUS_MM, RADIUS_VOXELS * max(tree.voxel_mm))
    found = []
    for branch in tree.main():
        if branch.name == TRACHEA or branch.max_diameter_mm < 2 * least_mm:
            continue
        best = max(_signs(branch, least_mm), key=lambda sign: sign[1], default=(0.0, 0.0))
        if best[1] < NOTED:
            continue
        row = int(np.searchsorted(branch.along_mm, best[0]))
        before, after = _radius_around(branch, best[0])
        score = 0.3 + 0.7 * float(ramp(best[1], NOTED, SURE))
        reason = (
            f"The airway thins from {2 * before:.1f} to {2 * after:.1f} mm at a bend: a side branch may be missing."
        )
        facts = {"radius_mm": before, "next_radius_mm": after, "evidence": best[1]}
        found.append(Lack("branch", branch, branch.points_mm[row], score, reason, facts))
    return sorted(found, key=lambda lack: -lack.score)


def _signs(branch: Branch, least_mm: float = 0.0) -> list[tuple[float, float]]:
    """(distance from the branch's start in mm, evidence of a lost side branch) for each mm outside the forks."""
    length = branch.length_mm
    first = min(float(branch.radii_mm[0]), 0.5 * length) if branch.parent is not None else 0.0
    last = length - (float(branch.radii_mm[-1]) if branch.children else 0.5 * float(np.median(branch.radii_mm)))
    at_mm = np.arange(first + 2.5, last - 2.5)
    if not len(at_mm):
        return []
    points = [_along(branch, np.clip(at_mm + off, 0, length)) for off in (-BEND_MM - 1, -1, 1, BEND_MM + 1)]
    ways = [points[1] - points[0], points[3] - points[2]]
    ways = [way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9) for way in ways]
    bend = np.degrees(np.arccos(np.clip((ways[0] * ways[1]).sum(axis=1), -1, 1)))
    found = []
    for mm in at_mm:
        before, after = _radius_around(branch, float(mm))
        step = before / max(after, 1e-6)
        if before >= least_mm and step >= LEAST_STEP:
            near = min(float(bend[np.abs(at_mm - mm) <= 4].max()), MOST_BEND_DEG)
            found.append((float(mm), float(np.log(step) / np.log(STEP)) + near / BEND_DEG))
    return found


def _radius_around(branch: Branch, at_mm: float) -> tuple[float, float]:
    """Median radius shortly before and after a point of a branch, outside its parent's lumen and its end's fork."""
    along, length = branch.along_mm, branch.length_mm
    first = min(float(branch.radii_mm[0]), 0.5 * length) if branch.parent is not None else 0.0
    last = length - (float(branch.radii_mm[-1]) if branch.children else 0.5 * float(np.median(branch.radii_mm)))
    before = (along >= max(first, at_mm - WINDOW_MM)) & (along <= at_mm - MIDDLE_MM)
    after = (along >= at_mm + MIDDLE_MM) & (along <= min(last, at_mm + WINDOW_MM))
    if before.sum() < 2 or after.sum() < 2:
        return 0.0, 0.0
    return float(np.median(branch.radii_mm[before])), float(np.median(branch.radii_mm[after]))


def _along(branch: Branch, at_mm: Floats) -> Floats:
    """Points (N, 3) at distances from the branch's start."""
    return np.column_stack([np.interp(at_mm, branch.along_mm, axis) for axis in branch.points_mm.T])


def is_stump(branch: Branch, voxel_mm: tuple[float, float, float]) -> bool:
    """Whether a terminal branch ends right after it left its parent's lumen though it is wide."""
    radius_mm = float(np.median(branch.own_radii_mm))
    out_mm = branch.length_mm - float(branch.radii_mm[0])
    wide = radius_mm >= max(STUMP_RADIUS_MM, max(voxel_mm))
    return not branch.children and branch.parent is not None and wide and 0 < out_mm < STUMP_DIAMETERS * 2 * radius_mm
