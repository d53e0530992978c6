"""The learning rate."""

from __future__ import annotations

from ..config.schema import TrainSection


def rate(section: TrainSection, epoch: int, step: int) -> float:
    """The rate in a step of an epoch, both counted from 0 (paper 3.1.2, where nothing warms up).

    `lr` up to epoch `decay_from`, then along a line that is at `final_lr` in the last epoch; all
    times a share that rises in a line to 1 in the `warm_up`-th step of the run.
    """
    share = min(1.0, (step + 1) / (section.warm_up or 1))
    return share * epoch_rate(section, epoch)


def epoch_rate(section: TrainSection, epoch: int) -> float:
    """The rate in an epoch without the warm-up."""
    last = section.epochs - 1
    if epoch <= section.decay_from or last <= section.decay_from:
        return section.lr
    share = (epoch - section.decay_from) / (last - section.decay_from)
    return section.lr + share * (section.final_lr - section.lr)
