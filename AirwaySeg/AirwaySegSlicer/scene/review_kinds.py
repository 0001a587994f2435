"""A point of the review, and the kinds of points: their names, families, and what decisions do."""

from __future__ import annotations

from dataclasses import dataclass

from slicer.i18n import tr as _

from AirwaySegSlicer.scene.branches import Point
from AirwaySegSlicer.scene.decisions import ACCEPT, REFUSE

PROPOSED, APPLIED, REFUSED = "proposed repair", "applied repair", "refused repair"
PIECE, FRAGMENT, END, LEAK, TIP = "unconnected piece", "fragment", "sudden end", "leak", "doubtful tip"
MISSING_LOBE, MISSING_BRANCH = "missing lobe", "missing branch"


@dataclass(frozen=True)
class Kind:
    """A kind of point.

    Decisions about points of one ``family`` at the same position are the same decision. ``title`` names one of them;
    ``does`` says what Accept and Refuse do. ``listed``: it is in the list of all kinds.
    """

    key: str
    family: str
    title: str
    does: str
    listed: bool = True


KINDS = {
    kind.key: kind
    for kind in (
        Kind(PROPOSED, "repair", _("Proposed repair"), _("Accept joins it to the tree, Refuse leaves it out.")),
        Kind(APPLIED, "repair", _("Applied repair"), _("Accept keeps it, Refuse takes it out again.")),
        Kind(REFUSED, "repair", _("Refused repair"), _("Accept joins it all the same, Refuse leaves it out."), False),
        Kind(
            PIECE,
            "piece",
            _("Unconnected piece"),
            _("Accept joins it to the airways, or adds it without a bridge where no way is seen. Refuse removes it."),
        ),
        Kind(FRAGMENT, "piece", _("Loose fragment"), _("Accept keeps it, Refuse removes it.")),
        Kind(END, "end", _("Sudden end"), _("Accept: it ends here. Refuse: it goes on, and more is to be added.")),
        Kind(MISSING_LOBE, "missing", _("Missing lobe"), _("Accept: it is complete. Refuse: more is to be added.")),
        Kind(MISSING_BRANCH, "missing", _("Missing branch"), _("Accept: it is complete. Refuse: more is to be added.")),
        Kind(
            LEAK,
            "leak",
            _("Possible leak"),
            _(
                "Accept keeps it, Refuse cuts it off at its narrowest place, with all that follows it; where it cannot "
                "be cut so, its whole branch goes."
            ),
        ),
        Kind(TIP, "tip", _("Doubtful tip"), _("Accept keeps it, Refuse removes it.")),
    )
}


def kind_of(key: str) -> Kind:
    """The kind of this key; one that only a newer library knows can be kept or marked as wrong."""
    unknown = Kind(
        key, key, key.capitalize(), _("Accept: it is right as it is. Refuse: it is to be corrected by hand.")
    )
    return KINDS.get(key, unknown)


@dataclass(frozen=True)
class ReviewItem:
    """A point to look at.

    ``point`` is in the airways' own space (RAS, mm). ``score`` is the program's certainty (0..1) of what Accept does
    with a repair or piece, and of the suspicion otherwise. ``change_mm`` is the length of airway that a decision adds,
    keeps or removes. ``number`` is that of the repair or piece, ``branch`` the id of a branch in the last measurement;
    both 0 where there is none. ``decision`` is accept, refuse, later, or empty.
    """

    kind: str
    point: Point
    score: float
    change_mm: float
    reason: str
    number: int = 0
    branch: int = 0
    decision: str = ""

    @property
    def key(self) -> str:
        """The family and the point; the same in every measurement that finds the point again exactly."""
        return " ".join([kind_of(self.kind).family, *(f"{mm:.1f}" for mm in self.point)])

    @property
    def urgency(self) -> float:
        """Millimetres of tree times how likely they change."""
        return self.change_mm * (1 - self.score if self.kind == APPLIED else self.score)

    @property
    def is_open(self) -> bool:
        """Whether it has neither been accepted nor refused."""
        return self.decision not in (ACCEPT, REFUSE)
