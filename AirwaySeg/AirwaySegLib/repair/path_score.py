"""Where a loose piece comes from: pairs of ends and points worth a path, and the probability of each origin.

Letters in shapes: K points, C candidates: a piece's end, a point of another component, and what lies between them.
Lengths are in mm. ``ramp(x, a, b)`` is 0 at a, 1 at b, straight between them and flat outside.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.masks.threshold import SMALLEST_FRAGMENT_VOXELS
from AirwaySegLib.repair.bridge import MAIN
from AirwaySegLib.tree.fragment_ends import NOISE_LENGTH_MM, Course, Facts, Floats, Numbers, Points, ramp, weighed
from AirwaySegLib.tree.fragment_joints import (
    JOINT_ALONE,
    LARGE_GAP_MM,
    Pairs,
    ends_and_targets,
    joint_terms,
    pair_facts,
    reach_mm,
)

PATHS_PER_FRAGMENT, MAX_PATHS = 6, 2000
"""Pairs for which a path is searched: the best of each fragment, and the best of all, to finish within seconds."""

NETWORK_REACH_MM = 8.0
"""Gaps that the repair network is asked about; of wider ones its silence says nothing."""


def joinable_components(whole: Facts, voxels: NDArray) -> NDArray[np.bool_]:
    """By number, which components may be joined: the tree, and fragments of at least `NOISE_LENGTH_MM` (both ends
    included) and `SMALLEST_FRAGMENT_VOXELS`."""
    joinable = (whole["length_mm"] >= NOISE_LENGTH_MM) & (voxels >= SMALLEST_FRAGMENT_VOXELS)
    joinable[MAIN] = True
    return joinable


def find_pairs(courses: list[Course], whole: Facts, joinable: NDArray[np.bool_], wanted: Numbers) -> Pairs | None:
    """The pairs worth a search, best first; None for none.

    Each free end of a fragment, and its sharpest bend (a fork that was broken off), is compared with the points of all
    other centerlines within reach (`fragment_joints.reach_mm`). Of the pairs of an end and a component the best with an
    end and the best with a side are kept; of a fragment's, `PATHS_PER_FRAGMENT`, and the best with each component that
    it is ``wanted`` (W, 2) to be looked at with; of all, `MAX_PATHS`.
    """
    near = [course for course in courses if joinable[course.component]]
    if len({course.component for course in near}) < 2:
        return None
    ends, targets = ends_and_targets(near)
    rows, columns = _within_reach(ends, targets, whole)
    one, other = ends.take(rows), targets.take(columns)
    pairs = Pairs(one, other, pair_facts(one, other, whole))
    widest = np.where(_are_among(pairs, wanted), LARGE_GAP_MM, reach_mm(pairs.facts["length_mm"]))
    pairs = pairs.take(np.flatnonzero(pairs.facts["distance_mm"] <= widest))
    return _best_pairs(pairs, wanted) if len(pairs) else None


def _within_reach(ends: Points, targets: Points, whole: Facts) -> tuple[Numbers, Numbers]:
    """Rows of ends and targets of different components that may be within reach, each (C,)."""
    # Few lumens are wide: those are searched for once more with a reach of their own.
    usual = 2 * float(np.median(targets.radii))
    reach = reach_mm(whole["length_mm"][ends.components]) + ends.radii
    rows, columns = [], []
    for some in (np.flatnonzero(targets.radii <= usual), np.flatnonzero(targets.radii > usual)):
        if len(some):
            widest = float(targets.radii[some].max())
            found = cKDTree(targets.points_mm[some]).query_ball_point(ends.points_mm, reach + widest)
            rows.append(np.repeat(np.arange(len(found)), [len(each) for each in found]))
            columns.append(some[np.concatenate([np.asarray(each, int) for each in found])])
    first, second = np.concatenate(rows), np.concatenate(columns)
    apart = ends.components[first] != targets.components[second]
    return first[apart], second[apart]


def _best_pairs(pairs: Pairs, wanted: Numbers) -> Pairs:
    """The best of each end, other component and kind; of these the best of each fragment; of these the best of all."""
    score = weighed(joint_terms(pairs.facts), JOINT_ALONE)
    order = np.argsort(-score, kind="stable")
    key = np.column_stack([pairs.ends.points_mm, pairs.others.components, pairs.others.free])[order]
    order = order[np.sort(np.unique(key, axis=0, return_index=True)[1])]
    by_fragment = order[np.argsort(pairs.ends.components[order], kind="stable")]
    numbers = pairs.ends.components[by_fragment]
    _, first, count = np.unique(numbers, return_index=True, return_counts=True)
    rank = np.arange(len(numbers)) - np.repeat(first, count)
    kept = by_fragment[(rank < PATHS_PER_FRAGMENT) | _are_among(pairs.take(by_fragment), wanted)]
    return pairs.take(kept[np.argsort(-score[kept], kind="stable")][:MAX_PATHS])


def _are_among(pairs: Pairs, wanted: Numbers) -> NDArray[np.bool_]:
    """Which pairs are of two components that are asked for, in either order."""
    asked = {(int(a), int(b)) for one, other in wanted for a, b in ((one, other), (other, one))}
    both = np.column_stack([pairs.ends.components, pairs.others.components]).tolist()
    return np.array([(one, other) in asked for one, other in both], bool)


WITH_CT = {
    "one": 3.16,
    "gap": -0.3,
    "bend": -1.39,
    "aside": -1.91,
    "turn": -1.23,
    "beside": -0.65,
    "backwards": -0.4,
    "wider": -2.51,
    "proximal": 1.43,
    "wrong_way": -0.08,
    "long": 0.61,
    "dense": -1.97,
    "plug": 2.02,
    "likely": 0.75,
    "network": 1.09,
}
"""Weights with a CT, fitted as those of `piece_score.WITH_CT`, on 223 pieces of airway."""


def origin_terms(facts: Facts) -> Facts:
    """What the probability of an origin weighs, by name, each (C,): `fragment_joints.joint_terms`, and of the gap

    with a CT: cost: mean of the path's cost by the CT, 0 like the lumen, 1 like the wall or brighter; worst: the
    largest along the path; dense: how far the mean lies beyond 1 (soft tissue: a plug, or a vessel); plug: that much of
    it that lies in line between two open ends; with a probability: likely: ramp(its mean in the gap, 0.02, 0.3) - 1/3;
    where the repair network has looked: network: its score, 0 for none; silent: 1 where it proposes nothing although
    the gap is no wider than `NETWORK_REACH_MM`; no_path: 1 where the network has a bridge but no path was found.
    """
    terms = joint_terms(facts)
    if "mean_cost" in facts:
        inline = np.maximum(0, np.cos(np.radians(facts["angle_deg"])))
        inline = inline * np.where(facts["at_end"] > 0, np.maximum(0, np.cos(np.radians(facts["turn_deg"]))), 0.5)
        dense = np.clip(facts["mean_cost"] - 1, 0, 1)
        terms["cost"], terms["worst"] = np.minimum(facts["mean_cost"], 1), np.minimum(facts["most_cost"], 1)
        terms["dense"], terms["plug"] = dense, dense * inline
    if "probability" in facts:
        terms["likely"] = ramp(facts["probability"], 0.02, 0.3) - 1 / 3
    if "network" in facts:
        terms["network"] = facts["network"]
        near = facts["distance_mm"] <= NETWORK_REACH_MM
        terms["silent"] = ((facts["network"] == 0) & near).astype(float)
        terms["no_path"] = facts["no_path"]
    return terms


def utility_of(facts: Facts) -> Floats:
    """Log of the odds of each candidate against none of them being right, if it were the only one, (C,)."""
    terms = origin_terms(facts)
    weights = WITH_CT if "cost" in terms else JOINT_ALONE | {"likely": WITH_CT["likely"]}
    return weighed(terms, {name: weight for name, weight in weights.items() if name in terms})


def origin_probability(utility: Floats, pieces: Numbers) -> Floats:
    """Probability of each candidate to be where its piece comes from, (C,).

    A conditional logit (McFadden 1974): exp(utility) over the sum of that of all candidates of the piece and of 1 for
    an origin that is not among them.
    """
    if not len(utility):
        return utility
    _, number = np.unique(pieces, return_inverse=True)
    top = np.zeros(number.max() + 1)
    np.maximum.at(top, number, utility)
    share = np.exp(utility - top[number])
    return share / (np.bincount(number, share) + np.exp(-top))[number]
