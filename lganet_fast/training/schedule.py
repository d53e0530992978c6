"""The length of a run and the learning rate of each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..config.schema import TrainSection

POWER = 0.9  # of the fraction of epochs left, for decay "power"


class Standing(NamedTuple):
    """Progress of a run: the amount done, the total, the unit."""

    done: int
    total: int
    unit: str


@dataclass
class Schedule:
    """The progress of a run.

    epoch_steps: optimiser steps of an epoch. step: optimiser steps done. spent: seconds of these
    steps. saved: those up to the last checkpoint of this process. With `section.budget`, in
    seconds, the run also ends when the budget is spent.
    """

    section: TrainSection
    epoch_steps: int
    step: int = 0
    spent: float = 0.0
    saved: float = 0.0

    @property
    def total(self) -> int:
        """Optimiser steps of the whole run."""
        return self.section.epochs * self.epoch_steps

    @property
    def done(self) -> bool:
        """Whether the run has ended, by its steps or by its time."""
        return self.step >= self.total or 0 < self.section.budget <= self.spent

    @property
    def epoch(self) -> int:
        """The epoch of the next step, from 0."""
        return self.step // self.epoch_steps

    @property
    def standing(self) -> Standing:
        """How much is done: seconds of a budget, else optimiser steps."""
        if budget := self.section.budget:
            return Standing(int(min(self.spent, budget)), round(budget), "seconds")
        return Standing(self.step, self.total, "steps")

    def rate(self) -> float:
        """The learning rate of the next step; with a budget, from the fraction of it spent."""
        budget = self.section.budget
        epoch = self.section.epochs * self.spent / budget if budget else self.epoch
        return rate(self.section, epoch, self.step)

    def advance(self, seconds: float) -> None:
        """Count a step and its time."""
        self.step += 1
        self.spent += seconds

    def save_due(self) -> bool:
        """Whether a checkpoint is due, by steps or by their time."""
        minutes = (self.spent - self.saved) / 60
        return self.step % self.section.save_every == 0 or minutes >= self.section.save_minutes

    def due(self, every: int) -> bool:
        """Whether an action due every `every` epochs and at the end is due now; 0: never."""
        epoch, left = divmod(self.step, self.epoch_steps)
        return not left and every > 0 and (epoch % every == 0 or self.done)


def steps_per_epoch(section: TrainSection, pairs: int) -> int:
    """Optimiser steps of an epoch: as configured, or from a process's number of pairs."""
    return section.steps_per_epoch or max(1, pairs // (section.batch * section.accumulate))


def rate(section: TrainSection, epoch: float, step: int) -> float:
    """The rate in a step of an epoch, both counted from 0 (paper 3.1.2, without warm-up).

    `lr` up to epoch `decay_from`, then according to `decay`; times a factor that rises linearly to
    1 at the `warm_up`-th step of the run.
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
