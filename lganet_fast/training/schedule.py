"""The learning rate."""

from __future__ import annotations

from ..config.schema import TrainSection

POWER = 0.9  # of the share of epochs left, where decay is "power"


def rate(section: TrainSection, epoch: float, step: int) -> float:
    """The rate in a step of an epoch, both counted from 0 (paper 3.1.2, where nothing warms up).

    `lr` up to epoch `decay_from`, then as `decay` says; all times a share that rises in a line to 1
    in the `warm_up`-th step of the run.
    """
    share = min(1.0, (step + 1) / (section.warm_up or 1))
    return share * epoch_rate(section, epoch)


def epoch_rate(section: TrainSection, epoch: float) -> float:
    """The rate in an epoch without the warm-up."""
    if section.decay == "power":
        left = (section.epochs - max(epoch, section.decay_from)) / section.epochs
        return section.lr * max(left, 0.0) ** POWER
    if section.decay == "step":
        return section.lr if epoch < section.decay_from else section.final_lr
    last = section.epochs - 1
    if epoch <= section.decay_from or last <= section.decay_from:
        return section.lr
    share = min(1.0, (epoch - section.decay_from) / (last - section.decay_from))
    return section.lr + share * (section.final_lr - section.lr)
