"""Online hard mining: the patches of a round with the largest losses are trained on once more at the round's end.

Tang's program (winner of ATM'22, train2.py) stores the worst 30 % of an epoch's patches on disk and trains on them
once, in random order, before the next epoch. Here a patch is made again from its step and its index in the batch, so
only its loss has to be stored.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from AirwaySegTraining.fit.recipes import Stage

Losses = dict[int, list[float]]
"""The loss of each patch of a step's whole batch, by the step, counted from the beginning of the training."""

Patch = tuple[int, int]
"""A step, and an index in its batch."""


@dataclass
class Miner:
    """The steps of a stage that train on hard patches, and these patches.

    A round is the stage's ``mined_every`` steps with new patches, then its ``mined_steps`` with hard ones; rounds are
    counted from the stage's first step, which is step ``begins`` of the training. ``losses`` is filled by the training
    and stored in its checkpoints. ``chosen`` maps the patches of the current part to the hard ones that replace them.
    """

    stage: Stage
    begins: int
    seed: int
    losses: Losses
    chosen: dict[Patch, Patch] = field(default_factory=dict)

    def is_hard(self, step: int) -> bool:
        """Whether a step trains on hard patches."""
        fresh, hard = self.stage.mined_every, self.stage.mined_steps
        return hard > 0 and (step - self.begins) % (fresh + hard) >= fresh

    def parts(self, steps: range) -> Iterator[range]:
        """``steps``, divided where hard ones begin and end.

        Take a part only after the steps before it have been trained: their losses decide which patches are hard.
        """
        fresh, hard = self.stage.mined_every, self.stage.mined_steps
        while steps and hard:
            begins = steps.start - (steps.start - self.begins) % (fresh + hard)  # of the round
            is_hard = self.is_hard(steps.start)
            if steps.start == begins:
                self.losses.clear()
            self.chosen = self._chosen(begins + fresh) if is_hard else {}
            ends = min(begins + fresh + (hard if is_hard else 0), steps.stop)
            yield range(steps.start, ends)
            steps = range(ends, steps.stop)
        if steps:
            yield steps

    def _chosen(self, first: int) -> dict[Patch, Patch]:
        """The hard patches for the hard steps from ``first`` on."""
        batch = self.stage.batch
        worst = hardest(self.losses, self.stage.mined_steps * batch)
        order = np.random.default_rng([self.seed, first]).permutation(len(worst))
        return {(first + index // batch, index % batch): worst[number] for index, number in enumerate(order.tolist())}


def hardest(losses: Losses, count: int) -> list[Patch]:
    """The ``count`` patches with the largest losses, in decreasing order; of equal losses the earlier patch first.

    A loss that is not a number comes last.
    """
    patches = [(step, number) for step, of_batch in sorted(losses.items()) for number in range(len(of_batch))]

    def badness(patch: Patch) -> float:
        loss = losses[patch[0]][patch[1]]
        return -math.inf if math.isnan(loss) else loss

    return sorted(patches, key=badness, reverse=True)[:count]
