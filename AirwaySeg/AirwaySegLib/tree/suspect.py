"""A point of an airway tree to look at, and lists of such points as JSON and back."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from AirwaySegLib.files.json_documents import read_document, triple
from AirwaySegLib.tree.fragment_joints import Point

FORMAT = "AirwaySeg suspects 1"
FRAGMENT, SUDDEN_END, LEAK, DOUBTFUL_TIP = "fragment", "sudden end", "leak", "doubtful tip"
UNCONNECTED, MISSING_LOBE, MISSING_BRANCH = "unconnected piece", "missing lobe", "missing branch"
KINDS = (UNCONNECTED, MISSING_LOBE, FRAGMENT, SUDDEN_END, MISSING_BRANCH, LEAK, DOUBTFUL_TIP)


@dataclass(frozen=True)
class Suspect:
    """A point to look at.

    ``kind`` is one of `KINDS`; ``place_mm`` is in LPS (x, y, z); ``score`` 0..1, higher first; ``branch`` the id of the
    branch it belongs to, of a piece outside the mask of the one that it would join; ``reason`` a sentence for the user,
    ``facts`` its numbers by name. A fragment or piece names the branch of the tree that it would join, and the
    point on that branch's centerline. A note about what the list leaves out has the fact ``left_out``, their number,
    and stands at the first of them.
    """

    kind: str
    place_mm: Point
    score: float
    branch: int
    reason: str
    facts: dict[str, float]
    other_branch: int | None = None
    other_place_mm: Point | None = None


def suspects_to_json(suspects: list[Suspect]) -> str:
    """Text for `suspects_from_json`."""
    document = {"format": FORMAT, "space": "LPS", "unit": "mm", "suspects": [asdict(suspect) for suspect in suspects]}
    return json.dumps(document, indent=1)


def suspects_from_json(text: str) -> list[Suspect]:
    """Read what `suspects_to_json` wrote.

    Raises
    ------
    AirwaySegError
        If it is something else.
    """
    return read_document(
        text, FORMAT, "list of suspects", lambda document: [_from_plain(plain) for plain in document["suspects"]]
    )


def _from_plain(plain: dict[str, Any]) -> Suspect:
    if plain["kind"] not in KINDS or not 0 <= plain["score"] <= 1:
        raise ValueError(f"a {plain['kind']!r} of score {plain['score']}")
    other, other_point = plain["other_branch"], plain["other_place_mm"]
    return Suspect(
        kind=plain["kind"],
        place_mm=triple(plain["place_mm"]),
        score=float(plain["score"]),
        branch=int(plain["branch"]),
        reason=str(plain["reason"]),
        facts={str(name): float(value) for name, value in plain["facts"].items()},
        other_branch=None if other is None else int(other),
        other_place_mm=None if other_point is None else triple(other_point),
    )
