"""What a run's data give its loop: the crops of every step."""

from __future__ import annotations

from dataclasses import dataclass

from mskd.data.patches import Crops, PatchSampler


@dataclass(frozen=True)
class PatchReader:
    """(step, number of the batch in it) -> crops: a pure function that can be sent to other processes.

    Batch ``b`` of rank ``r`` takes the samples ``(b * world + r) * batch`` and following of its step, so that two ranks
    draw together what one with the doubled batch draws alone.

    Args:
        unlabelled: Samples the cases without labels, if there are any.
        share: Of the steps that take unlabelled cases; evenly spread, the same on every rank.
    """

    labelled: PatchSampler
    unlabelled: PatchSampler | None
    share: float
    batch: int
    rank: int
    world: int

    def __call__(self, step: int, number: int) -> Crops:
        first = (number * self.world + self.rank) * self.batch
        turn = int((step + 1) * self.share) > int(step * self.share)
        sampler = self.unlabelled if self.unlabelled is not None and turn else self.labelled
        return sampler.draw(step, range(first, first + self.batch))
