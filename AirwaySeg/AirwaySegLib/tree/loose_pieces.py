"""Pieces of airway beside the tree: taken into it as components, and where each of them, or a fragment, would join."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.tree.airway_tree import AirwayTree, Branch
from AirwaySegLib.tree.build import ParsedAirways, parse_airways
from AirwaySegLib.tree.fragment_joints import MAIN, Joint, joints_of_fragments


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of airway that are not in the mask: their numbers and how certain each is airway.

    ``numbers`` is on canonical axes, whole or a box of them: uint16 (Z, Y, X), 0 is no piece. ``certainty`` is 0..1 by
    number.
    """

    numbers: Volume
    certainty: NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """A component that is airway for certain: its certainty 0..1, and its number if it is one of `Pieces`."""

    certainty: float
    number: int | None = None


def with_pieces(tree: AirwayTree, pieces: Pieces) -> tuple[AirwayTree, dict[int, Piece]]:
    """The tree with the pieces as its last components, whose branches follow its own, and what these components are."""
    numbers = pieces.numbers.array
    if not numbers.any():
        return tree, {}
    parsed = parse_airways(replace(pieces.numbers, array=numbers > 0))
    after_id, after = len(tree.branches), max((branch.component for branch in tree.branches), default=0)
    moved = [_moved(branch, after_id, after) for branch in parsed.tree.branches]
    certain = {
        component + 1 + after: Piece(float(pieces.certainty[number]), int(number))
        for component, number in enumerate(_numbers_of(parsed, numbers))
    }
    return tree.with_branches([*tree.branches, *moved]), certain


def _moved(branch: Branch, after_id: int, after: int) -> Branch:
    return replace(
        branch,
        id=branch.id + after_id,
        parent=None if branch.parent is None else branch.parent + after_id,
        children=tuple(child + after_id for child in branch.children),
        component=branch.component + after,
    )


def _numbers_of(parsed: ParsedAirways, numbers: NDArray) -> NDArray[np.intp]:
    """The piece's number of each component of the parsed pieces, (C,); voxels of filled holes have none."""
    found = np.zeros(int(parsed.lumen.components.max()) + 1, np.intp)
    np.maximum.at(found, parsed.lumen.components, numbers[parsed.box][tuple(parsed.lumen.voxels.T)])
    return found


def joints_of_pieces(tree: AirwayTree) -> list[Joint]:
    """The best joint of every loose component with any of the trees, in the order of the components."""
    if tree.trees == (MAIN,):
        return joints_of_fragments(tree)
    found: dict[int, Joint] = {}
    loose = {branch.component for branch in tree.loose()}
    for number in tree.trees if loose else ():
        for joint in joints_of_fragments(_with_first(tree, number)):
            component = tree.branch(joint.branch).component
            if component in loose and (component not in found or joint.score > found[component].score):
                found[component] = joint
    return [found[component] for component in sorted(found)]


def _with_first(tree: AirwayTree, number: int) -> AirwayTree:
    """The same branches with one of the trees as component `MAIN`, alone."""
    other = {number: MAIN, MAIN: number}
    branches = [replace(one, component=other.get(one.component, one.component)) for one in tree.branches]
    return tree.with_branches(branches, trees=(MAIN,))
