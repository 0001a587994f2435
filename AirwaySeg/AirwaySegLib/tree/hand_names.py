"""Names that a person gave: lobe, segment or generation of a branch and what springs from it, instead of the estimate.

A name belongs to points in the patient (LPS, mm), never to the number of a branch, so that it outlasts measuring.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.json_documents import read_document, triple
from AirwaySegLib.files.user_files import check_regular_file
from AirwaySegLib.tree.airway_tree import LOBES, AirwayTree, Branch, Estimate
from AirwaySegLib.tree.lobes import INTERMEDIUS, LOBAR_BRONCHUS
from AirwaySegLib.tree.missing import missing_lobes
from AirwaySegLib.tree.segments import SEGMENTS

FORMAT = "AirwaySeg names 1"

NONE = "none"
"""Given as lobe or segment: the branch is of none."""
DEEPEST_GENERATION = 40
"""More than a lung has (Weibel's model ends at 23), also where side branches are many."""
FARTHEST_MM = 1e6
"""Coordinates are smaller: a kilometre."""
NEAR_MM = 2.0
"""A name's point lies in a branch, or this near to its lumen: measuring again moves centerlines a little."""
SHARES = (0.25, 0.5, 0.75)
"""The points of a name lie at these parts of its branch, so that either half keeps it when a new branch divides it."""

Point = tuple[float, float, float]


@dataclass(frozen=True)
class HandName:
    """The lobe, the segment or the generation, or several of them, of the branches on which some points lie.

    Parameters
    ----------
    points_mm
        At least one point (x, y, z) in LPS, in the lumen of the branch, best on its centerline.
    lobe
        One of `LOBES`, `NONE`, or empty: that of the segment, and without one the estimate.
    segment
        A key of `SEGMENTS`, `NONE`, or empty: the estimate as far as it is of the lobe.
    with_subtree
        Whether what springs from the branch has lobe and segment too, as far as it has none of its own.
    generation
        Weibel's, 0 to `DEEPEST_GENERATION`; those of all branches beyond count on from it. None: as it is counted.

    Raises
    ------
    AirwaySegError
        If a value is another, none is given, or the segment is of another lobe.
    """

    points_mm: tuple[Point, ...]
    lobe: str = ""
    segment: str = ""
    with_subtree: bool = True
    generation: int | None = None

    def __post_init__(self) -> None:
        if not self.points_mm or not (np.abs(self.points_mm) < FARTHEST_MM).all():  # nor NaN
            raise AirwaySegError(f"The name {self.words!r} has no points, or points that are not numbers of mm.")
        if self.lobe not in ("", NONE, *LOBES):
            raise AirwaySegError(f"{self.lobe!r} is no lobe; it is one of {', '.join(LOBES)} and {NONE}.")
        if self.segment not in ("", NONE, *SEGMENTS):
            raise AirwaySegError(f"{self.segment!r} is no segment; it is one of {', '.join(SEGMENTS)} and {NONE}.")
        if self.generation is not None and not 0 <= self.generation <= DEEPEST_GENERATION:
            raise AirwaySegError(f"The generation {self.generation} is not from 0 to {DEEPEST_GENERATION}.")
        if not self.names and self.generation is None:
            raise AirwaySegError("A name by hand has no lobe, no segment and no generation.")
        if self.segment in SEGMENTS and self.lobe not in ("", SEGMENTS[self.segment][0]):
            raise AirwaySegError(f"{self.segment} is a segment of the {SEGMENTS[self.segment][0]}, not {self.lobe!r}.")

    @property
    def names(self) -> bool:
        """Whether it gives a lobe or a segment."""
        return bool(self.lobe or self.segment)

    @property
    def words(self) -> str:
        """The name for a sentence, such as "RB6", "right upper lobe" or "generation 4"."""
        if not self.names and self.generation is not None:
            return f"generation {self.generation}"
        if self.segment in SEGMENTS:
            return self.segment
        return "no lobe" if self.lobe == NONE else self.lobe or "no segment"


def points_on(branch: Branch) -> tuple[Point, ...]:
    """The points by which a branch is named: at `SHARES` of its centerline outside its parent's lumen."""
    own = branch.points_mm[branch.own_points]
    rows = sorted({round(share * (len(own) - 1)) for share in SHARES})
    return tuple((float(x), float(y), float(z)) for x, y, z in np.round(own[rows], 2))


def branches_of(tree: AirwayTree, names: Sequence[HandName]) -> list[set[int]]:
    """The ids of the branches on which the points of each name lie; an empty set where none is near.

    A point is of the branch whose centerline outside its parent's lumen is nearest. A name of which no more than half
    of the points are near is lost: its branch was cut off, and what is left near its beginning is its parent.
    """
    if not tree.branches:
        return [set() for _ in names]
    points = np.concatenate([branch.points_mm[branch.own_points] for branch in tree.branches])
    radii = np.concatenate([branch.own_radii_mm for branch in tree.branches])
    ids = np.repeat([branch.id for branch in tree.branches], [len(branch.own_radii_mm) for branch in tree.branches])
    search = cKDTree(points)
    found = []
    for name in names:
        gaps_mm, rows = search.query(np.array(name.points_mm))
        near = gaps_mm <= radii[rows] + NEAR_MM
        found.append(set(ids[rows[near]].tolist()) if near.mean() > 0.5 else set())
    return found


def governing(tree: AirwayTree, names: Sequence[HandName]) -> dict[int, HandName]:
    """The name that counts for lobe and segment of each branch, by id; branches without one are left out.

    It is that on the branch itself, the last one if there are several; else that of the nearest branch above whose
    subtree is named too.
    """
    own: dict[int, HandName] = {}
    for name, ids in zip(names, branches_of(tree, names), strict=True):
        own |= dict.fromkeys(ids if name.names else (), name)
    found: dict[int, HandName] = {}
    handed_down: dict[int, HandName] = {}
    for branch in tree.branches:
        above = handed_down.get(branch.parent or 0)
        mine = own.get(branch.id, above)
        below = mine if mine is not None and mine.with_subtree else above
        if mine is not None:
            found[branch.id] = mine
        if below is not None:
            handed_down[branch.id] = below
    return found


def generations_of(tree: AirwayTree, names: Sequence[HandName]) -> dict[int, int]:
    """The generations by hand, by id: of a name's branch, and counted on from it beyond; all others are left out.

    Where a new branch divides a branch that has the name, its first half keeps the generation.
    """
    own: dict[int, int] = {}
    for name, ids in zip(names, branches_of(tree, names), strict=True):
        if name.generation is not None:
            firsts = {number for number in ids if not ids & {above.id for above in tree.path_to(number)[:-1]}}
            own |= dict.fromkeys(firsts, name.generation)
    found: dict[int, int] = {}
    for branch in tree.branches:
        if branch.id in own:
            found[branch.id] = own[branch.id]
        elif branch.parent in found:
            found[branch.id] = found[branch.parent] + branch.counted - tree.branch(branch.parent).counted
    return found


def with_hand_names(tree: AirwayTree, names: Sequence[HandName]) -> AirwayTree:
    """A tree with lobes, segments and generations by hand; all others are as they were estimated.

    Lobes and segments by hand have the confidence 1.

    Names that the tree already has by hand are replaced, so that no names give the estimate back. Warnings about lobes
    that are missing are those of the new names. Names that are lost (`branches_of`) are told in one more warning.
    """
    count_for, generations = governing(tree, names), generations_of(tree, names)
    named = tree.with_branches(
        [
            _of_generation(_named(branch, count_for.get(branch.id)), generations.get(branch.id))
            for branch in tree.branches
        ]
    )
    if not names and not any(branch.given for branch in tree.branches):
        return named
    estimated = {lack.warning for lack in missing_lobes(tree)}
    warnings = [text for text in tree.warnings if text not in estimated]
    warnings += [lack.warning for lack in missing_lobes(named)]
    lost = [name for name, ids in zip(names, branches_of(tree, names), strict=True) if not ids]
    return replace(named, warnings=(*dict.fromkeys((*warnings, *_lost_sentence(lost))),))


def _named(branch: Branch, name: HandName | None) -> Branch:
    """The branch with this name, or with its estimate; a bronchus of another lobe is no longer called so."""
    before = branch.estimate or Estimate(
        branch.lobe, branch.lobe_confidence, branch.segment, branch.segment_confidence, branch.name
    )
    lobe, segment = (before.lobe, before.lobe_confidence), (before.segment, before.segment_confidence)
    given: list[str] = []
    if name is not None:
        of_segment = SEGMENTS[name.segment][0] if name.segment in SEGMENTS else ""
        if name.lobe or of_segment:
            lobe = "" if name.lobe == NONE else name.lobe or of_segment, 1.0
            given.append("lobe")
        if name.segment or name.lobe == NONE:
            segment = name.segment if name.segment in SEGMENTS else "", 1.0
            given.append("segment")
        elif segment[0] and SEGMENTS[segment[0]][0] != lobe[0]:
            segment = "", 0.0
    lobar = before.name == INTERMEDIUS or before.name in LOBAR_BRONCHUS.values()
    return replace(
        branch,
        name="" if "lobe" in given and lobar and before.name != LOBAR_BRONCHUS.get(lobe[0]) else before.name,
        lobe=lobe[0],
        lobe_confidence=lobe[1],
        segment=segment[0],
        segment_confidence=segment[1],
        by_hand=" and ".join(given),
        estimate=before if given else None,
    )


def _of_generation(branch: Branch, generation: int | None) -> Branch:
    """The branch with a generation by hand, or with the counted one."""
    if generation is None:
        return replace(branch, generation=branch.counted, counted_generation=None)
    return replace(branch, generation=generation, counted_generation=branch.counted)


def _lost_sentence(lost: list[HandName]) -> list[str]:
    """The sentence about names that no branch is near; none without such names."""
    if not lost:
        return []
    where = [f"{name.words} at ({', '.join(f'{mm:.1f}' for mm in name.points_mm[0])})" for name in lost]
    count = "One name by hand lies" if len(lost) == 1 else f"{len(lost)} names by hand lie"
    return [f"{count} near no branch: {', '.join(where)}."]


# Files ----------------------------------------------------------------------------------------------------------------


def names_to_json(names: Sequence[HandName]) -> str:
    """Text for `names_from_json`."""
    document = {"format": FORMAT, "space": "LPS", "unit": "mm", "names": [to_plain(name) for name in names]}
    return json.dumps(document, indent=1)


def to_plain(name: HandName) -> dict[str, Any]:
    """A name as it stands in the document."""
    return {
        "points_mm": [list(point) for point in name.points_mm],
        "lobe": name.lobe,
        "segment": name.segment,
        "with_subtree": name.with_subtree,
        **({} if name.generation is None else {"generation": name.generation}),
    }


def from_plain(plain: dict[str, Any]) -> HandName:
    """What `to_plain` wrote; a document of a user may lack all but the points and one of the names."""
    points, generation = plain["points_mm"], plain.get("generation")
    with_subtree = plain.get("with_subtree", True)
    if not isinstance(with_subtree, bool):
        raise ValueError(f"with_subtree is {with_subtree!r}, not true or false")
    if generation is not None and type(generation) is not int:
        raise ValueError(f"generation is {generation!r}, not a whole number")
    return HandName(
        tuple(map(triple, points)),
        str(plain.get("lobe", "")),
        str(plain.get("segment", "")),
        with_subtree,
        generation,
    )


def names_from_json(text: str) -> list[HandName]:
    """Read what `names_to_json` wrote.

    Raises
    ------
    AirwaySegError
        If it is something else.
    """
    return read_document(
        text, FORMAT, "list of names by hand", lambda document: [from_plain(plain) for plain in document["names"]]
    )


def read_names(path: Path) -> list[HandName]:
    """The names of a file.

    Raises
    ------
    AirwaySegError
        If it cannot be read, or is no such file; the sentence names it.
    """
    check_regular_file(path)
    try:
        return names_from_json(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise AirwaySegError(f"{path} is not text in UTF-8.") from None
    except OSError as error:
        raise AirwaySegError(f"{path} cannot be read: {error.strerror}.") from None
    except AirwaySegError as error:
        raise AirwaySegError(f"{path}: {error}") from None
