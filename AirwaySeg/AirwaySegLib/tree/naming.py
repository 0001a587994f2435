"""Names of an airway tree by shape and side: trachea, carina, main bronchi, lobes; generations and orders.

Everything here is a rule of thumb about adult chests, read from the tree alone.
"""

from dataclasses import replace

import numpy as np

from AirwaySegLib.tree.airway_tree import TRACHEA, AirwayTree
from AirwaySegLib.tree.lobes import MAIN_NAME, SIDE_NAME, Lung, name_lung, walk_to_the_base
from AirwaySegLib.tree.missing import missing_lobes
from AirwaySegLib.tree.patient_axes import Carina, patient_axes, turned
from AirwaySegLib.tree.segments import name_segments
from AirwaySegLib.tree.shape import LEFT, RIGHT, Findings, Shape, mean_diameter_mm, measure_shape

MAIN_SHARE, STUMP_THICKNESS = 0.10, 0.4
"""A main bronchus carries this share of the length beyond its start, or is a stump: as thick as this share of the
trachea, and longer than 1.5 times the radius at its start."""
SIDEWAYS = 0.15
"""The subtree of a main bronchus lies sideways by at least this share of its distance."""
CARINA_SHARE = 0.5
"""The carina parts at least this share of the length beyond it into right and left."""
TRACHEAL_BRONCHUS_MM = 30.0
"""What leaves the trachea serves a lobe if it has at least this length and leads sideways; else it is a ragged wall."""
ROOT_DIAMETER_MM = 5.0
"""A root that is thinner is no trachea and no main bronchus, not even a child's."""
TRACHEA_MM, TRACHEA_COSINE = 30.0, 0.77
"""A root of this length, within 40 degrees of straight down, is a trachea even if no carina is seen."""
STUMP_SHARE = 0.2
"""What a trachea shorter than wide parts into leaves at least this share to either side: less is a lobe's forking."""
WAY_MM, FALL_SHARE, MAIN_FALL_SHARE = 40.0, 0.5, 0.25
"""The last part of a trachea, of this length, falls by at least this share of it; a main bronchus may be flatter."""
NOT_THINNER_SHARE = 0.7
"""The way to the carina is at least as thick as this share of the thicker main bronchus: more is left of a trachea that
is flat while the patient breathes out, less of a lobe's bronchus."""
TRACHEA_SEEN_MM = 20.0
"""Less of a trachea than this is worth a warning."""

TRACHEA_DIAMETER_MM = (10.0, 30.0)
THICKER_SHARE = 0.05
MOST_GENERATIONS = 23


def name_branches(tree: AirwayTree) -> AirwayTree:
    """Find trachea, carina and main bronchi, estimate lobes and segments, count generations and orders.

    Parameters
    ----------
    tree
        A forest whose component 1 is rooted at the trachea's upper end, in LPS mm. Names that it already has are
        replaced.

    Returns
    -------
    AirwayTree
        With ``carina_mm``, each branch's ``generation``, ``strahler``, ``name``, ``lobe``, ``segment`` and their
        confidences, and a warning for each thing that was looked for and not found, that is scarce
        (`missing.missing_lobes`), or that is not `plausibility`. It never fails: an empty tree gets a warning too.

    Notes
    -----
    A spur (`shape.SPUR_MM`) has the next generation, but does not advance that of the branch that it leaves. All
    stretches above the carina are the trachea, whatever leaves it. Lobes are looked for in the patient's own axes
    (`patient_axes`), so that nobody need lie straight. Right and left are told by the image's x alone: a mirrored
    patient is named by side, with lower confidence where the main bronchi's shape contradicts.
    """
    found = Findings()
    shape = measure_shape(tree)
    carina = _find_carina(shape)
    if carina is None:
        _name_without_carina(shape, found)
    elif reason := _why_no_trachea(shape, carina[0], list(carina[1:]), FALL_SHARE):
        found.warnings.append(f"No trachea was found: {reason}, so neither carina nor lobes are named.")
    else:
        _name_from_carina(shape, carina, found)
    generations = _generations(shape, found)
    orders = _strahler(tree)
    branches = []
    for branch in tree.branches:
        lobe, confidence = found.lobes.get(branch.id, ("", 0.0))
        segment, segment_confidence = found.segments.get(branch.id, ("", 0.0))
        branches.append(
            replace(
                branch,
                generation=generations[branch.id],
                strahler=orders[branch.id],
                name=found.names.get(branch.id, ""),
                lobe=lobe,
                lobe_confidence=round(confidence, 3),
                segment=segment,
                segment_confidence=round(segment_confidence, 3),
            )
        )
    named = tree.with_branches(branches, carina_mm=found.carina_mm)
    lacking = [lack.warning for lack in missing_lobes(named)]
    new = [
        text for text in dict.fromkeys((*found.warnings, *lacking, *plausibility(named))) if text not in tree.warnings
    ]
    return replace(named, warnings=(*tree.warnings, *new))


# Trachea and carina ---------------------------------------------------------------------------------------------------


def _find_carina(shape: Shape) -> Carina | None:
    """The trachea's stretches, the right and the left main bronchus; None if no branching parts two sides.

    Of the branchings along the heaviest way from the root that lead to both sides, it is the one that leaves most
    length on the right of it to its right child, and on the left to its left child, and least across: a bronchus that
    leaves the trachea above leaves a rest that lies on both sides.
    """
    best, best_share = None, CARINA_SHARE
    way = _heaviest_way(shape)
    for count in range(1, len(way) + 1):
        stretch = way[count - 1]
        right, left = (_main_bronchus(shape, stretch, side) for side in (RIGHT, LEFT))
        if right is None or left is None:
            continue
        parted_mm = _length_parted(shape, stretch, right, RIGHT) + _length_parted(shape, stretch, left, LEFT)
        share = parted_mm / float(shape.below_mm[way[0]] - shape.own_mm[way[:count]].sum())
        if share > best_share:
            best, best_share = (way[:count], right, left), share
    return best


def _wide_root(shape: Shape) -> int | None:
    """The root of component 1, if it is wide enough for a trachea or main bronchus."""
    root = next((branch for branch in shape.tree.branches if branch.component == 1 and branch.parent is None), None)
    return root.id if root is not None and root.max_diameter_mm >= ROOT_DIAMETER_MM else None


def _heaviest_way(shape: Shape) -> list[int]:
    """From the root of component 1 always into the child with most length beyond; empty for a thin root."""
    root = _wide_root(shape)
    if root is None:
        return []
    way = [root]
    while children := shape.branch(way[-1]).children:
        way.append(max(children, key=lambda child: shape.below_mm[child]))
    return way


def _main_bronchus(shape: Shape, stretch: int, side: int) -> int | None:
    """The child with most length that leads to a side and may be a main bronchus."""
    children = shape.branch(stretch).children
    beyond_mm = sum(shape.below_mm[child] for child in children)
    trachea_mm = float(shape.branch(stretch).own_radii_mm.mean())
    fitting = []
    for child in children:
        branch = shape.branch(child)
        thick = float(branch.own_radii_mm.mean()) >= STUMP_THICKNESS * trachea_mm
        stump = thick and shape.own_mm[child] >= 1.5 * branch.radii_mm[0]
        heavy = shape.below_mm[child] >= MAIN_SHARE * beyond_mm
        if side * shape.sideways([child]) >= SIDEWAYS and (heavy or stump):
            fitting.append(child)
    return max(fitting, key=lambda child: shape.below_mm[child], default=None)


def _length_parted(shape: Shape, stretch: int, first: int, side: int) -> float:
    """Length of a subtree on its side of a stretch's end, less what lies across.

    What lies within the stretch's radius of the middle counts for neither: the trachea is never quite straight.
    """
    members = [branch.id for branch in shape.tree.below(first)]
    outward_mm = side * (shape.own_centre_mm[members, 0] - shape.end_mm(stretch)[0])
    beside = np.abs(outward_mm) > float(np.median(shape.branch(stretch).own_radii_mm))
    return float(shape.own_mm[members] @ (np.sign(outward_mm) * beside))


def _why_no_trachea(shape: Shape, way: list[int], ahead: list[int], fall_share: float) -> str:
    """Why a way from the root to the branches ``ahead`` cannot be what air comes through; empty if it can.

    It is the middle of a sentence. The direction of a way that is shorter than wide tells nothing; the balance of what
    lies ahead must do.
    """
    radius_mm = _median_radius_mm(shape, way)
    points = np.concatenate([shape.branch(part).points_mm for part in way])
    left_mm = np.cumsum(np.linalg.norm(np.diff(points[::-1], axis=0), axis=1))  # from the end to each point but it
    if not len(left_mm) or left_mm[-1] <= 2 * radius_mm:
        weights = shape.below_mm[ahead]
        if len(ahead) > 1 and weights.min() < STUMP_SHARE * weights.sum():
            return "what is left of the airway at the upper end is too short to tell it from a bronchus"
    else:
        index = min(int(np.searchsorted(left_mm, WAY_MM)), len(left_mm) - 1)
        if points[-2 - index, 2] - points[-1, 2] < fall_share * left_mm[index]:
            return "the airway at the upper end does not lead down to where the tree parts"
    thickest_mm = max((_median_radius_mm(shape, shape.run(first)) for first in ahead), default=0.0)
    if radius_mm < NOT_THINNER_SHARE * thickest_mm:
        widths = f"{2 * radius_mm:.1f} mm wide, one that springs from it {2 * thickest_mm:.1f} mm"
        return f"the airway at the upper end is too thin ({widths})"
    return ""


def _median_radius_mm(shape: Shape, run: list[int]) -> float:
    """Median lumen radius of several stretches together."""
    return float(np.median(np.concatenate([shape.branch(part).own_radii_mm for part in run])))


def _name_from_carina(shape: Shape, carina: Carina, found: Findings) -> None:
    """Name trachea, main bronchi and both lungs."""
    trachea, right, left = carina
    found.name(trachea, TRACHEA)
    x, y, z = (float(value) for value in shape.end_mm(trachea[-1]))
    found.carina_mm = (x, y, z)
    length_mm = float(shape.own_mm[trachea].sum())
    if length_mm < TRACHEA_SEEN_MM:
        found.warnings.append(f"Only {length_mm:.0f} mm of the trachea are in the mask.")
    own = turned(shape, patient_axes(shape, carina))
    lungs = [
        walk_to_the_base(own, side, main, _leaving_high(own, carina, side))
        for side, main in ((RIGHT, right), (LEFT, left))
    ]
    trust = 1.0
    if _looks_mirrored(shape, *lungs):
        trust = 0.7
        found.warnings.append(
            "The left main bronchus is shorter, wider or steeper than the right one: the patient or the image may be "
            "mirrored. Names follow the side in the image."
        )
    for lung in lungs:
        name_lung(lung, trust, found)
    name_segments(own, found)


def _leaving_high(shape: Shape, carina: Carina, side: int) -> list[int]:
    """Bronchi that leave the trachea towards a side, at the carina or above."""
    trachea, right, left = carina
    children = [child for stretch in trachea for child in shape.branch(stretch).children]
    return [
        child
        for child in children
        if child not in (*trachea, right, left)
        and shape.below_mm[child] >= TRACHEAL_BRONCHUS_MM
        and side * shape.sideways([child]) >= 2 * SIDEWAYS
    ]


def _looks_mirrored(shape: Shape, right: Lung, left: Lung) -> bool:
    """Whether two of shortness, width and steepness speak for the left main bronchus, and none for the right one."""
    if len(right.runs) < 2 or len(left.runs) < 2:
        return False
    traits = []
    for lung in (right, left):
        run = lung.runs[0]
        way = shape.end_mm(run[-1]) - shape.start_mm(run[0])
        radius_mm = float(np.concatenate([shape.branch(part).own_radii_mm for part in run]).mean())
        steepness = max(-way[2], 0.0) / max(float(np.linalg.norm(way)), 1e-9)
        # What is added keeps the ratios finite, and small differences of flat bronchi small.
        traits.append((1 / (1 + lung.run_mm[0]), 0.1 + radius_mm, 0.1 + steepness))
    ratios = [left_one / right_one for right_one, left_one in zip(*traits, strict=True)]
    return sum(ratio > 1.15 for ratio in ratios) >= 2 and not any(ratio < 1 / 1.15 for ratio in ratios)


def _name_without_carina(shape: Shape, found: Findings) -> None:
    """Name what can be named where one lung or the trachea is missing."""
    root = _wide_root(shape)
    if root is None:
        found.warnings.append("No carina was found: the tree does not begin in a trachea, so no lobes are named.")
        return
    run = shape.run(root)
    ahead = shape.forks(run[-1])
    sideways = shape.sideways(ahead)
    if reason := _why_no_trachea(shape, run, ahead, MAIN_FALL_SHARE):
        found.warnings.append(f"No trachea was found: {reason}, so neither carina nor lobes are named.")
        return
    if abs(sideways) >= 2 * SIDEWAYS:
        side = RIGHT if sideways < 0 else LEFT
        found.warnings.append(f"No carina was found: only airways of the {SIDE_NAME[side]} lung are in the mask.")
        name_lung(walk_to_the_base(shape, side, root, []), 0.5, found)
        name_segments(shape, found)
    else:
        found.warnings.append("No carina was found: the tree does not part into a right and a left side.")
    way = shape.end_mm(run[-1]) - shape.start_mm(root)
    if shape.own_mm[run].sum() >= TRACHEA_MM and -way[2] >= TRACHEA_COSINE * np.linalg.norm(way):
        found.name(run, TRACHEA)


# Orders and plausibility ----------------------------------------------------------------------------------------------


def _generations(shape: Shape, found: Findings) -> dict[int, int]:
    """Weibel's generation by id: one more at each branching, spurs excepted; roots 0, or 1 for a main bronchus."""
    generations: dict[int, int] = {}
    for branch in shape.tree.branches:
        name = found.names.get(branch.id, "")
        generation = generations.setdefault(branch.id, int(name in MAIN_NAME.values()))
        ahead = shape.forks(branch.id) if name != TRACHEA else []
        for child in branch.children:
            onward = found.names.get(child) == TRACHEA or ahead == [child]
            generations[child] = generation + (0 if onward else 1)
    return generations


def _strahler(tree: AirwayTree) -> dict[int, int]:
    """Strahler's order by id: 1 at tips, one more where two of the highest order meet."""
    orders: dict[int, int] = {}
    for branch in reversed(tree.branches):
        below = [orders[child] for child in branch.children]
        top = max(below, default=1)
        orders[branch.id] = top + (below.count(top) > 1)
    return orders


def plausibility(tree: AirwayTree) -> list[str]:
    """One sentence for each thing about a named tree that an adult's airways do not show; none for a plausible tree.

    Plausible are a mean diameter of the trachea of 10 to 30 mm, at most 23 generations (Weibel), and at most one, or
    5 %, of the main tree's branches thicker than their parent by more than half a voxel.
    """
    doubts = []
    trachea = tree.named(TRACHEA)
    if trachea:
        low_mm, high_mm = TRACHEA_DIAMETER_MM
        diameter_mm = mean_diameter_mm(trachea)
        if not low_mm <= diameter_mm <= high_mm:
            doubts.append(
                f"The trachea's mean diameter is {diameter_mm:.1f} mm, outside {low_mm:.0f} to {high_mm:.0f} mm."
            )
    children = [branch for branch in tree.main() if branch.parent is not None]
    slack_mm = 0.5 * min(tree.voxel_mm)
    parents_mm = [tree.branch(branch.parent or 1).mean_diameter_mm for branch in children]
    thicker = sum(child.mean_diameter_mm > mm + slack_mm for child, mm in zip(children, parents_mm, strict=True))
    if thicker > max(1, THICKER_SHARE * len(children)):
        doubts.append(f"{thicker} of {len(children)} branches are thicker than the branch they spring from.")
    deepest = max((branch.generation for branch in tree.main()), default=0)
    if deepest > MOST_GENERATIONS:
        doubts.append(f"The tree has {deepest} generations below the trachea, more than {MOST_GENERATIONS}.")
    return doubts
