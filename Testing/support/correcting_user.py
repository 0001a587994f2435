"""A user who corrects a result with the program's tools and nothing else, with CT and reference before him.

He knows what a person sees who has both open side by side: where the reference has a branch that the result lacks,
where the result has one that the reference lacks, and what the program highlights before a decision or a click is
confirmed. At each turn he does what would change a score most:

- he decides a listed point whose highlighted voxels are mostly right to add, or mostly wrong to keep; other points he
  leaves alone, and looking at them costs nothing;
- or he clicks the longest missing branch at the end of its centerline, which is a radius before its tip, in the middle
  of the lumen give or take half a mm. What is highlighted he confirms if it covers a third of what is missing there and
  most of it lies in the airway or at its edge. If not, he adds a click: in the middle of a branch of 8 mm or more, and
  then, or of a shorter one at once, where it leaves the tree; then he leaves the branch;
- or he cuts the largest false piece where it leaves the airway. If the highlighted voxels are not mostly false, he
  deletes the branch with its subtree; then he cuts between two clicks; then he leaves the piece.

Each decision and each click is an action, the discarded ones too. He stops when tree length detected and precision
are reached, or when nothing helps any more.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from correcting import ACCEPT, Decision, Session, Voxels, no_voxels
from numpy.typing import NDArray
from reference_airways import CLEAR_VOXELS, Reference, Scores, Stretch
from scipy.spatial import cKDTree

from AirwaySegLib.errors import AirwaySegError

CLICK, CUT = "click", "cut"

MOSTLY = 0.5
"""The share from which voxels are mostly right or mostly false."""

WORTH = 0.3
"""The share of a missing branch that must be covered."""

UNSTEADY_MM = 0.5
"""Standard deviation of a click along each axis."""

SHORT_MM = 8.0
"""A shorter missing branch is worth no click in its middle."""

SAME_MM = 4.0
"""What lies so near to a tip or piece that was left is left too."""

ENOUGH_VOXELS = 3
"""A missing stretch or a false piece of fewer voxels is not worth an action."""


@dataclass(frozen=True)
class Step:
    """One turn: its kind, how many actions it took, whether it changed the mask, and the scores after it.

    ``seconds`` is processor time of what the program computed for it, ``note`` says why a click was in vain.
    """

    kind: str
    actions: int
    helped: bool
    seconds: float
    scores: Scores
    note: str = ""


@dataclass
class User:
    """The user at work on one case; ``goal`` is for tree length detected and precision, in per cent."""

    session: Session
    reference: Reference
    goal: float = 98.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    left: list[NDArray] = field(default_factory=list)
    """Points (3,) in mm of the tips and pieces that were given up."""

    def work(self) -> Iterator[Step]:
        """All turns, one after the other."""
        scores = self.reference.scores(self.session.mask)
        while scores.tld < self.goal or scores.precision < self.goal:
            before = self.session.seconds
            turn = self._turn(scores)
            if turn is None:
                return
            kind, actions, helped, note = turn()
            scores = self.reference.scores(self.session.mask)
            yield Step(kind, actions, helped, self.session.seconds - before, scores, note)

    def _turn(self, scores: Scores) -> "Callable[[], tuple[str, int, bool, str]] | None":
        """What changes most of the scores that are not reached; None where nothing does."""
        found: list[tuple[float, Callable[[], tuple[str, int, bool, str]]]] = []
        decisions = self.session.decisions()
        mask, reference = self.session.mask, self.reference
        if scores.tld < self.goal:
            tree = reference.detected(mask)
            whole = len(reference.line)
            added = [(reference.gain_of(one.add, tree) / whole, one) for one in decisions if self._is_right(one)]
            found += [(gain, self._decided(one)) for gain, one in added if gain > 0]
            stretches = [one for one in reference.stretches(mask) if len(one.voxels) >= ENOUGH_VOXELS]
            open_ = (one for one in stretches if not self._is_left(one.voxels[-1]))
            found += [(len(one.voxels) / whole, self._clicked(one)) for one in _first(open_)]
        if scores.precision < self.goal:
            counted = max(int((mask & ~reference.left_out).sum()), 1)
            removed = [(self._false(one.remove) / counted, one) for one in decisions if self._is_false(one.remove)]
            found += [(gain, self._decided(one)) for gain, one in removed if gain > 0]
            pieces = (one for one in reference.false_pieces(mask) if len(one) >= ENOUGH_VOXELS)
            open_pieces = (one for one in pieces if not self._is_left(self._farthest(one)))
            found += [(len(one) / counted, self._cut(one)) for one in _first(open_pieces)]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    # Points that were given up ---------------------------------------------------------------------------------------

    def _mm(self, voxel: NDArray) -> NDArray[np.float64]:
        return np.asarray(voxel) * np.asarray(self.reference.spacing_mm)

    def _is_left(self, voxel: NDArray) -> bool:
        return any(np.linalg.norm(self._mm(voxel) - point) <= SAME_MM for point in self.left)

    def _leave(self, voxel: NDArray) -> None:
        self.left.append(self._mm(voxel))

    # Listed points ---------------------------------------------------------------------------------------------------

    def _decided(self, decision: Decision) -> Callable[[], tuple[str, int, bool, str]]:
        def turn() -> tuple[str, int, bool, str]:
            self.session.decide(decision)
            return f"{decision.decision} {decision.kind}", 1, True, ""

        return turn

    def _is_right(self, decision: Decision) -> bool:
        return decision.decision == ACCEPT and self._mostly_right(decision.add)

    def _mostly_right(self, voxels: Voxels) -> bool:
        return len(voxels) > 0 and float((self.reference.outside(voxels) < CLEAR_VOXELS).mean()) > MOSTLY

    def _false(self, voxels: Voxels) -> int:
        """How many false voxels there are more than true ones."""
        wrong = self.reference.outside(voxels) > 0
        return int(wrong.sum()) - int(self.reference.airway[tuple(voxels.T)].sum())

    def _is_false(self, voxels: Voxels) -> bool:
        return len(voxels) > 0 and self._false(voxels) > MOSTLY * len(voxels)

    # Clicks at missing branches --------------------------------------------------------------------------------------

    def _clicked(self, stretch: Stretch) -> Callable[[], tuple[str, int, bool, str]]:
        def turn() -> tuple[str, int, bool, str]:
            tip, middle = stretch.voxels[-1], stretch.voxels[len(stretch.voxels) // 2]
            first = stretch.voxels[0]
            tries = [[tip], [first, tip]]
            if stretch.length_mm >= SHORT_MM:
                tries = [[tip], [middle, tip], [first, middle, tip]]
            notes = []
            for actions, points in enumerate(tries, start=1):
                found, note = self._grown(np.array([self._unsteady(point) for point in points]), stretch)
                if len(found):
                    self.session.apply(found, no_voxels())
                    return CLICK, actions, True, " / ".join(notes)
                notes.append(note)
            self._leave(stretch.voxels[-1])
            return CLICK, len(tries), False, " / ".join(notes)

        return turn

    def _unsteady(self, voxel: NDArray) -> NDArray[np.float64]:
        point = voxel + self.rng.normal(0, UNSTEADY_MM, 3) / np.asarray(self.reference.spacing_mm)
        return np.clip(point, 0, np.array(self.session.mask.shape) - 1)

    def _grown(self, points: NDArray, stretch: Stretch) -> tuple[Voxels, str]:
        """What is grown, and nothing with a note where the user does not want it."""
        try:
            voxels = self.session.grown(points).voxels.astype(np.intp)
        except AirwaySegError as error:
            return no_voxels(), str(error)
        wanted = {tuple(voxel) for voxel in stretch.voxels.tolist()}
        covered = sum(tuple(voxel) in wanted for voxel in voxels.tolist()) / len(wanted)
        right = float((self.reference.outside(voxels) < CLEAR_VOXELS).mean())
        if covered < WORTH or right < MOSTLY:
            return no_voxels(), f"covers {covered:.2f}, right {right:.2f}"
        return voxels, ""

    # Cuts of false pieces --------------------------------------------------------------------------------------------

    def _cut(self, piece: Voxels) -> Callable[[], tuple[str, int, bool, str]]:
        def turn() -> tuple[str, int, bool, str]:
            actions, notes = 0, []
            for clicks, tool in self._cuts_of(piece):
                actions += clicks
                try:
                    voxels = tool()
                except AirwaySegError as error:
                    notes.append(str(error))
                    continue
                if self._is_false(voxels):
                    self.session.apply(no_voxels(), voxels)
                    return CUT, actions, True, " / ".join(notes)
                notes.append(f"{self._false(voxels)} of {len(voxels)} voxels false")
            self._leave(self._farthest(piece))
            return CUT, actions, False, " / ".join(notes)

        return turn

    def _cuts_of(self, piece: Voxels) -> Iterator[tuple[int, Callable[[], Voxels]]]:
        """How many clicks each tool takes, and the tool."""
        session, clear = self.session, piece[self.reference.outside(piece) > CLEAR_VOXELS]
        right = np.argwhere(session.mask & self.reference.airway)
        apart, nearest = cKDTree(self._mm(right)).query(self._mm(clear))
        first, true = clear[apart.argmin()], right[nearest[apart.argmin()]]
        middle, end = clear[np.argsort(apart)[len(apart) // 2]], clear[apart.argmax()]
        yield 1, lambda: session.beyond(first)
        yield 1, lambda: session.subtree(middle)
        yield 2, lambda: session.between(true, end)

    def _farthest(self, piece: Voxels) -> NDArray[np.intp]:
        """The piece's voxel that is farthest from the reference."""
        return piece[self.reference.outside(piece).argmax()]


def _first(found: Iterator) -> list:
    """The first one, if there is any."""
    return [one for _, one in zip(range(1), found)]
