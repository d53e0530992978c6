"""The learning rate."""

from __future__ import annotations

from ..sections import TrainSection


def rate(section: TrainSection, epoch: int) -> float:
    """The rate in an epoch, counted from 0 (paper 3.1.2).

    `lr` up to epoch `decay_from`, then along a line that is at `final_lr` in the last epoch.
    """
    last = section.epochs - 1
    if epoch <= section.decay_from or last <= section.decay_from:
        return section.lr
    share = (epoch - section.decay_from) / (last - section.decay_from)
    return section.lr + share * (section.final_lr - section.lr)
