"""The kinds of points that are reviewed: their names, the family that a decision belongs to, and what decisions do."""

from __future__ import annotations

from dataclasses import dataclass

from slicer.i18n import tr as _

PROPOSED, APPLIED, REFUSED = "proposed repair", "applied repair", "refused repair"
PIECE, FRAGMENT, END, LEAK, TIP = "unconnected piece", "fragment", "sudden end", "leak", "doubtful tip"


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
        Kind(PIECE, "piece", _("Unconnected piece"), _("Accept adds it without a bridge, Refuse removes it.")),
        Kind(FRAGMENT, "piece", _("Loose fragment"), _("Accept keeps it, Refuse removes it.")),
        Kind(END, "end", _("Sudden end"), _("Accept: it ends here. Refuse: it goes on, and more is to be added.")),
        Kind(
            LEAK, "leak", _("Possible leak"), _("Accept keeps it, Refuse removes the branch and all that follows it.")
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
