"""Points of an airway tree to look at: unconnected pieces, fragments, what is missing, sudden ends, leaks, tips.

Lengths are in mm. ``ramp(x, a, b)`` in formulas is 0 at a, 1 at b, straight between them and flat outside. All kinds
have one scale of scores: from 0.5 on more likely than not worth a look, 1 means certain.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.tree.airway_tree import LEFT_MAIN, RIGHT_MAIN, TRACHEA, AirwayTree, Branch
from AirwaySegLib.tree.fragment_ends import ramp
from AirwaySegLib.tree.fragment_joints import Joint, far_radius_mm, rounded_point
from AirwaySegLib.tree.loose_pieces import Piece, joints_of_pieces
from AirwaySegLib.tree.missing import Lack, LungVolumes, cut_off_branches, is_stump, missing_lobes
from AirwaySegLib.tree.missing_segments import missing_segments
from AirwaySegLib.tree.suspect import (
    DOUBTFUL_TIP,
    FRAGMENT,
    KINDS,
    LEAK,
    MISSING_BRANCH,
    MISSING_LOBE,
    SUDDEN_END,
    UNCONNECTED,
    Suspect,
)

MOST_OF_A_KIND = 10
"""A person looks at five to twenty suspects of a case."""
MOST_MISSING_BRANCHES = 2
"""A whole tree has about one point that looks like this."""
MOST_MISSING_SEGMENTS = 3
LEAST_SCORE = 0.2
"""What scores less is counted, not listed."""
NOTE_SCORE = 0.01
LIMIT_SCORE = 0.3
"""Of a sudden end or leak that is just beyond the limit: below 0.5, because measurements scatter."""

SMALL_TIP_MM, SMALL_TIP_VOXELS = 1.5, 2.0
"""Radius of a tip as good segmentations have them (Weibel's model, 1963: generation 6), and what the grid can show."""
LARGE_TIP_MM = 2.5
"""Radius between Weibel's generations 3 (2.8 mm) and 4 (2.25 mm): a segmental bronchus does not end."""
TIP_SPREADS = 3.0
"""Robust standard deviations above the tree's median tip."""
EARLY_GENERATION, LATE_GENERATION = 3, 8
"""Lobar and segmental bronchi never end; around generation 8 CT loses the airways."""

STUMP_SCORE = 0.6

WIDENING, SURE_WIDENING = 1.3, 2.0
"""A daughter's lumen has 0.8 of its mother's (2 ** (-1/3); Weibel, 1963) and no healthy airway widens; 1.3 leaves room
for measurement and mild dilatation, twice as wide is at least bronchiectasis."""
BLOB, SURE_BLOB = 2.0, 3.0
"""Widest point over the branch's median: a section through a healthy fork reaches 1.6 in 99 of 100."""
SWOLLEN, SURE_SWOLLEN = 1.6, 3.0
"""Volume over that of a tube of the median radius: below 1.3 in all but one of 3 000 simulated and real branches."""
LEAST_GROWTH_MM, LEAST_EXCESS_MM3 = 0.75, 60.0
"""One voxel of a usual CT (or one of this grid, if larger), and a ball of 2.4 mm radius: less is noise."""
BUSH, SURE_BUSH = 6, 15
BUSH_MM, TWIG_MM = 8.0, 8.0
"""Tips of short branches around one point: deep healthy trees have up to three within such a ball."""
ONE_LEAK_MM = 12.0
"""Leaks nearer to each other than this, or than the radius there, are one suspect."""

DOUBTFUL, VERY_DOUBTFUL = 0.85, 0.6
"""Mean probability. Of the tips that the bundled network found in six simulated cases a third was airway below 0.85,
four in five above 0.9."""
THICK_TIP_MM, THIN_TIP_MM = 2.0, 1.0
"""Radii: false branches are as thin as the noise."""


def find_suspects(
    tree: AirwayTree,
    probability: dict[int, float] | None = None,
    certain: dict[int, Piece] | None = None,
    volumes: LungVolumes | None = None,
    most: int | None = MOST_OF_A_KIND,
) -> list[Suspect]:
    """Unconnected pieces, the longest first, then all other kinds, the highest score first.

    All unconnected pieces; of each other kind at most ``most`` (None: all from `LEAST_SCORE` on, for a list that a
    person works through), and a note about those left out. ``certain``
    says which loose components are airway for certain, ``volumes`` are those of the lungs, if they are known.
    ``probability`` comes from `branch_probability`; without it no tip is doubtful. An empty tree has no suspects. A
    branch that is more likely a leak is not listed as a sudden end too, and none with a leak as a missing branch; leaks
    close to each other are merged.
    """
    leaks = possible_leaks(tree)
    leaking = {leak.branch: leak.score for leak in leaks}
    ends = [end for end in sudden_ends(tree) if end.score > leaking.get(end.branch, 0)]
    loose = loose_fragments(tree, certain)
    pieces = [suspect for suspect in loose if suspect.kind == UNCONNECTED]
    ended = [suspect.place_mm for suspect in ends]
    cut_off = [
        _lacking(MISSING_BRANCH, lack)
        for lack in cut_off_branches(tree)
        if lack.branch.id not in leaking and all(math.dist(lack.point_mm, end) > ONE_LEAK_MM for end in ended)
    ]
    lobes = missing_lobes(tree, volumes)
    segments = missing_segments(tree, frozenset(lack.what for lack in lobes))[:MOST_MISSING_SEGMENTS]
    missing = [_lacking(MISSING_BRANCH, lack) for lack in segments] + cut_off[:MOST_MISSING_BRANCHES]
    lacking = [_lacking(MISSING_LOBE, lack) for lack in lobes]
    kinds = [loose[len(pieces) :], lacking, ends, _sorted(missing), _merged_leaks(leaks)]
    kinds.append(doubtful_tips(tree, probability or {}))
    return [*pieces, *_sorted(suspect for found in kinds for suspect in _shortened(found, most))]


def _sorted(suspects: Iterable[Suspect]) -> list[Suspect]:
    return sorted(suspects, key=lambda suspect: (-suspect.score, KINDS.index(suspect.kind), suspect.branch))


def _lacking(kind: str, lack: Lack) -> Suspect:
    return _suspect(kind, lack.branch, lack.point_mm, lack.score, lack.reason, lack.facts)


def _shortened(found: list[Suspect], most: int | None) -> list[Suspect]:
    """The best of one kind, and a note that counts the others."""
    listed = [suspect for suspect in found[:most] if suspect.score >= LEAST_SCORE]
    rest = found[len(listed) :]
    if not rest:
        return listed
    first, many = rest[0], len(rest) > 1
    reason = f"{len(rest)} more {first.kind}{'s' if many else ''} of lower score {'are' if many else 'is'} not listed"
    facts = {"left_out": float(len(rest)), "highest_score": first.score}
    if first.kind == FRAGMENT:
        facts["volume_mm3"] = round(sum(suspect.facts["volume_mm3"] for suspect in rest), 1)
        reason += f": {facts['volume_mm3']:.0f} mm3 in all"
    return [*listed, Suspect(first.kind, first.place_mm, NOTE_SCORE, first.branch, reason + ".", facts)]


def loose_fragments(tree: AirwayTree, certain: dict[int, Piece] | None = None) -> list[Suspect]:
    """The loose components that are airway for certain, longest first, then the others, highest score first.

    Score and facts are those of `loose_pieces.joints_of_pieces`: how likely it is a piece of airway that was broken
    off. Of a certain one the score is its certainty, its fact ``certainty`` too, and ``piece`` its number among the
    pieces that are not in the mask; such a one has the branch that it would join.
    """
    certain = certain or {}
    joints = [(joint, certain.get(tree.branch(joint.branch).component)) for joint in joints_of_pieces(tree)]
    pieces = [_certain(_fragment(joint, UNCONNECTED), piece) for joint, piece in joints if piece is not None]
    pieces.sort(key=lambda suspect: (-suspect.facts["length_mm"], suspect.branch))
    return [*pieces, *_sorted(_fragment(joint, FRAGMENT) for joint, piece in joints if piece is None)]


def _certain(suspect: Suspect, piece: Piece) -> Suspect:
    score = round(piece.certainty, 3)
    if piece.number is None or suspect.other_branch is None:
        return replace(suspect, score=score, facts=suspect.facts | {"certainty": score})
    facts = suspect.facts | {"certainty": score, "piece": float(piece.number)}
    return replace(suspect, score=score, facts=facts, branch=suspect.other_branch)


def _fragment(joint: Joint, kind: str) -> Suspect:
    facts = joint.facts
    what = "A loose fragment" if kind == FRAGMENT else "A certain piece of airway"
    where = f"the {'tip' if facts['at_tip'] else 'side'} of branch {joint.other_branch}"
    apart = f"ends {facts['distance_mm']:.1f} mm from" if round(facts["distance_mm"], 1) > 0 else "almost touches"
    reason = f"{what} {facts['length_mm']:.1f} mm long {apart} {where}"
    if "angle_deg" in facts:
        reason += f", {facts['angle_deg']:.0f} degrees off its axis"
    score = round(joint.score, 3)
    other = joint.other_branch, joint.other_place_mm
    return Suspect(kind, joint.place_mm, score, joint.branch, reason + ".", facts, *other)


def sudden_ends(tree: AirwayTree) -> list[Suspect]:
    """Terminal branches of the tree that are too wide to end, highest score first.

    r is the median radius of the last third of the branch outside its parent's lumen, or that at this distance before
    the end if it is smaller: what runs out in a cone is no sudden end, what is rounded off may be. It is too wide above
    limit = median + `TIP_SPREADS` * 1.4826 * MAD of r over the tree's tips, but never below `SMALL_TIP_MM` or
    `SMALL_TIP_VOXELS`, and always above `LARGE_TIP_MM`: an obstruction, mucus, or a breakage of the segmentation.
    Score = 0.3 + 0.5 ramp(r, limit, 2 limit) + 0.2 ramp(generation, `LATE_GENERATION`, `EARLY_GENERATION`).
    A stump (`missing.is_stump`) scores at least `STUMP_SCORE`. A main bronchus without children scores 1 whatever its
    radius, and so does a trachea without any, which one of several trees is not. The root's upper end never counts, nor
    does a bump: a branch whose centerline does not leave its parent's lumen.
    """
    tips = [branch for branch in tree.main() if not branch.children]
    radii = {branch.id: _tip_radius_mm(branch) for branch in tips}
    branching = {branch.id for branch in tips if branch.length_mm >= branch.radii_mm[0]}
    limit_mm = _widest_usual_tip_mm([radii[number] for number in branching], tree.voxel_mm)
    found = []
    for branch in tips:
        radius = radii[branch.id]
        early = float(ramp(branch.generation, LATE_GENERATION, EARLY_GENERATION))
        score = LIMIT_SCORE + 0.5 * float(ramp(radius, limit_mm, 2 * limit_mm)) + 0.2 * early
        alone = branch.parent is None and len(tree.trees) == 1
        if alone or branch.name in (RIGHT_MAIN, LEFT_MAIN):
            score = 1.0
        elif is_stump(branch, tree.voxel_mm):
            score = max(score, STUMP_SCORE)
        elif branch.id not in branching or radius <= limit_mm:
            continue
        reason = (
            f"The airway ends {2 * radius:.1f} mm wide in generation {branch.generation}; "
            f"tips up to {2 * limit_mm:.1f} mm are usual here."
        )
        if radius <= limit_mm and score == STUMP_SCORE:
            out_mm = branch.length_mm - branch.radii_mm[0]
            reason = f"The airway ends {out_mm:.1f} mm beyond its parent though it is {2 * radius:.1f} mm wide."
        facts = {"radius_mm": radius, "usual_radius_mm": limit_mm, "generation": branch.generation}
        found.append(_suspect(SUDDEN_END, branch, branch.points_mm[-1], score, reason, facts))
    return _sorted(found)


def _tip_radius_mm(branch: Branch) -> float:
    """The r of `sudden_ends`."""
    median = far_radius_mm(branch)
    before = int(np.searchsorted(branch.along_mm, branch.length_mm - median))
    return min(median, float(branch.radii_mm[before]))


def _widest_usual_tip_mm(radii_mm: list[float], voxel_mm: tuple[float, float, float]) -> float:
    """The limit of `sudden_ends`."""
    middle = float(np.median(radii_mm)) if radii_mm else 0.0
    spread = 1.4826 * float(np.median(np.abs(np.subtract(radii_mm, middle)))) if radii_mm else 0.0
    by_tree = min(max(middle + TIP_SPREADS * spread, SMALL_TIP_MM), LARGE_TIP_MM)
    return max(by_tree, SMALL_TIP_VOXELS * float(np.mean(voxel_mm)))


def possible_leaks(tree: AirwayTree) -> list[Suspect]:
    """Branches of the tree that widen away from the trachea, swell or burst into twigs, highest score first.

    Radii are those outside the parent's lumen and the fork at the end. The trachea, whose width at the larynx varies,
    is left out. Each rule compares a quotient with a limit and a value at which it is sure:

    - widening: median radius of the last third over that of the first, `WIDENING`;
    - parent_ratio: median radius over that of the nearest ancestor that is longer than wide, `WIDENING`;
    - blob: widest radius of the last two thirds, fork included, over the median or, if it is smaller, the radius of
      that ancestor, `BLOB`;
    - swelling: volume over pi median^2 length + 4/3 pi median^3, a tube with round ends, `SWOLLEN`;
    - twigs: number of branches shorter than `TWIG_MM` that end within `BUSH_MM` of the tip, itself included, `BUSH`.

    The first three count only if they amount to `LEAST_GROWTH_MM` (or a voxel), and the first two in a branch that is
    longer than wide (a shorter one is all fork); swelling only from `LEAST_EXCESS_MM3` on. Score = 0.3 + 0.7
    ramp(quotient, limit, sure) of the rule that says most.
    """
    own = [branch for branch in tree.main() if branch.parent is not None and branch.name != TRACHEA]
    twigs = _twigs_around([branch for branch in own if not branch.children and branch.length_mm < TWIG_MM])
    least_mm = max(LEAST_GROWTH_MM, float(np.mean(tree.voxel_mm)))
    found = []
    for branch in own:
        facts = _leak_facts(tree, branch) | {"twigs": twigs.get(branch.id, 0)}
        rule, score = _worst_rule(facts, least_mm)
        if score > 0:
            widest = branch.points_mm[-len(branch.own_radii_mm) :][branch.own_radii_mm.argmax()]
            where = branch.points_mm[-1] if rule == "twigs" else widest
            found.append(_suspect(LEAK, branch, where, score, _leak_reason(rule, facts), facts))
    return _sorted(found)


def _free(branch: Branch) -> NDArray[np.intp]:
    """Points outside the parent's lumen and the fork at the end; at least one."""
    first = len(branch.radii_mm) - len(branch.own_radii_mm)
    fork_mm = float(branch.radii_mm[-1]) if branch.children else 0.0
    rows = np.flatnonzero(branch.along_mm <= branch.length_mm - fork_mm)
    rows = rows[rows >= first]
    return rows if len(rows) else np.array([first])


def _leak_facts(tree: AirwayTree, branch: Branch) -> dict[str, float]:
    radii = branch.radii_mm[_free(branch)]
    third = max(1, len(radii) // 3)
    start, end, median = (float(np.median(part)) for part in (radii[:third], radii[-third:], radii))
    own = branch.own_radii_mm
    widest = float(own[len(own) // 3 :].max())
    tube_mm3 = math.pi * median**2 * (branch.length_mm + 4 / 3 * median)
    parent = _upstream_radius_mm(tree, branch)
    return {
        "length_mm": branch.length_mm,
        "radius_mm": end,
        "start_radius_mm": start,
        "median_radius_mm": median,
        "widest_radius_mm": widest,
        "parent_radius_mm": parent,
        "widening": end / max(start, 1e-6),
        "parent_ratio": median / max(parent, 1e-6),
        "blob": widest / max(min(median, parent), 1e-6),
        "swelling": branch.volume_mm3 / max(tube_mm3, 1e-6),
        "excess_mm3": branch.volume_mm3 - tube_mm3,
    }


def _upstream_radius_mm(tree: AirwayTree, branch: Branch) -> float:
    """Median radius of the nearest ancestor that is longer than wide, else the root's; of the trachea, the widest's.

    The trachea's upper end is often ragged and its stretches there are thin.
    """
    radius = 0.0
    for ancestor in tree.path_to(branch.id)[-2::-1]:
        own = float(np.median(ancestor.radii_mm[_free(ancestor)]))
        if ancestor.name == TRACHEA:
            radius = max(radius, own)
        elif radius == 0 and (ancestor.length_mm > 2 * own or ancestor.parent is None):
            return own
    return radius


def _worst_rule(facts: dict[str, float], least_mm: float) -> tuple[str, float]:
    """The rule that says most, and its score; 0 if none is broken."""
    median, widest, parent = (facts[f"{name}_radius_mm"] for name in ("median", "widest", "parent"))
    limits: dict[str, tuple[float, float]] = {}
    if facts["length_mm"] > 2 * median:
        if facts["radius_mm"] - facts["start_radius_mm"] >= least_mm:
            limits["widening"] = (WIDENING, SURE_WIDENING)
        if median - parent >= least_mm:
            limits["parent_ratio"] = (WIDENING, SURE_WIDENING)
    if widest - min(median, parent) >= least_mm:
        limits["blob"] = (BLOB, SURE_BLOB)
    if facts["excess_mm3"] >= LEAST_EXCESS_MM3:
        limits["swelling"] = (SWOLLEN, SURE_SWOLLEN)
    limits["twigs"] = (BUSH, SURE_BUSH)
    scores = {
        rule: LIMIT_SCORE + (1 - LIMIT_SCORE) * float(ramp(facts[rule], limit, sure))
        for rule, (limit, sure) in limits.items()
        if facts[rule] >= limit
    }
    worst = max(scores, key=lambda rule: scores[rule], default="")
    return worst, scores.get(worst, 0.0)


def _leak_reason(rule: str, facts: dict[str, float]) -> str:
    width = {name: 2 * value for name, value in facts.items() if name.endswith("radius_mm")}
    return {
        "widening": f"The airway widens from {width['start_radius_mm']:.1f} to {width['radius_mm']:.1f} mm along its "
        "length.",
        "parent_ratio": f"The airway is {width['median_radius_mm']:.1f} mm wide, its parent airway only "
        f"{width['parent_radius_mm']:.1f} mm.",
        "blob": f"The airway is {min(width['median_radius_mm'], width['parent_radius_mm']):.1f} mm wide but swells to "
        f"{width['widest_radius_mm']:.1f} mm.",
        "swelling": f"The branch has {facts['swelling']:.1f} times the volume of a tube of its width.",
        "twigs": f"{facts['twigs']:.0f} short branches end within {BUSH_MM:.0f} mm of each other.",
    }[rule]


def _twigs_around(twigs: list[Branch]) -> dict[int, int]:
    """For each short terminal branch how many of them end near its tip, itself included."""
    if not twigs:
        return {}
    tips = cKDTree(np.array([branch.points_mm[-1] for branch in twigs]))
    counts = tips.query_ball_point(tips.data, BUSH_MM, return_length=True)
    return {branch.id: int(count) for branch, count in zip(twigs, counts, strict=True)}


def _merged_leaks(leaks: list[Suspect]) -> list[Suspect]:
    """Without those that lie near one of a higher score."""
    kept: list[Suspect] = []
    for leak in leaks:
        apart = [(math.dist(leak.place_mm, other.place_mm), other.facts["widest_radius_mm"]) for other in kept]
        if all(distance_mm > max(ONE_LEAK_MM, radius_mm) for distance_mm, radius_mm in apart):
            kept.append(leak)
    return kept


def doubtful_tips(tree: AirwayTree, probabilities: dict[int, float]) -> list[Suspect]:
    """Terminal branches of the tree that the network was unsure of, highest score first.

    Score = ramp(mean probability, `DOUBTFUL`, `VERY_DOUBTFUL`) * (0.6 + 0.4 ramp(radius, `THICK_TIP_MM`,
    `THIN_TIP_MM`)), so that of equally doubtful tips thin ones go first. Branches without a probability are left out.
    """
    found = []
    for branch in tree.main():
        probability = 1.0 if branch.children else probabilities.get(branch.id, 1.0)
        if probability >= DOUBTFUL:
            continue
        radius = far_radius_mm(branch)
        thin = 0.6 + 0.4 * float(ramp(radius, THICK_TIP_MM, THIN_TIP_MM))
        score = float(ramp(probability, DOUBTFUL, VERY_DOUBTFUL)) * thin
        reason = f"This terminal branch, {2 * radius:.1f} mm wide, has a mean network probability of {probability:.2f}."
        facts = {"probability": probability, "radius_mm": radius, "length_mm": branch.length_mm}
        found.append(_suspect(DOUBTFUL_TIP, branch, branch.points_mm[-1], score, reason, facts))
    return _sorted(found)


def branch_probability(
    tree: AirwayTree, branch_of_voxel: NDArray[np.uint16], probability: NDArray[np.uint8]
) -> dict[int, float]:
    """Mean probability 0..1 over the voxels of each branch, by its id; a branch without voxels is left out.

    ``branch_of_voxel`` (0: none) and ``probability`` (0..255) are of one shape: of a grid, or of a list of voxels.

    Raises
    ------
    AirwaySegError
        If they are not.
    """
    if branch_of_voxel.shape != probability.shape:
        raise AirwaySegError(f"The probability's grid {probability.shape} is not the mask's {branch_of_voxel.shape}.")
    if probability.dtype != np.uint8:
        raise ValueError(f"probability is {probability.dtype}, not uint8")
    inside = branch_of_voxel > 0
    numbers = branch_of_voxel[inside]
    sums = np.bincount(numbers, probability[inside], minlength=len(tree.branches) + 1)
    counts = np.bincount(numbers, minlength=len(tree.branches) + 1)
    found = [branch.id for branch in tree.branches if counts[branch.id]]
    return {number: float(sums[number] / counts[number] / 255) for number in found}


def _suspect(
    kind: str, branch: Branch, point: NDArray[np.float64], score: float, reason: str, facts: dict[str, float]
) -> Suspect:
    rounded = {name: round(float(value), 3) for name, value in facts.items()}
    return Suspect(kind, rounded_point(point), round(score, 3), branch.id, reason, rounded)
