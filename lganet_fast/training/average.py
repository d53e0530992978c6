"""The running mean of a network's weights, which scores better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of the weights (Polyak and Juditsky, 1992).

    network: whose weights are averaged. decay: the weight of the mean so far in each step, 0 for no
    averaging: the mean is the weights then. In the first steps the weight is less,
    (1 + steps) / (10 + steps), so that the random start is forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.weights, self.decay, self.steps = list(network.parameters()), decay, 0
        self.means = [p.detach().clone() for p in self.weights] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Count a step."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        if self.means:
            torch._foreach_lerp_(self.means, [p.detach() for p in self.weights], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network have the mean weights in the block."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """Exchange weights and means."""
        for weight, mean in zip(self.weights, self.means, strict=False):
            kept = weight.clone()
            weight.copy_(mean)
            mean.copy_(kept)

    def state_dict(self) -> dict[str, int | list[Tensor]]:
        """The state to resume exactly here."""
        return {"steps": self.steps, "means": self.means}

    def load_state_dict(self, state: dict[str, int | list[Tensor]]) -> None:
        """Resume another one's state."""
        steps, means = state["steps"], state["means"]
        assert isinstance(steps, int)
        assert isinstance(means, list)
        self.steps = steps
        for mean, saved in zip(self.means, means, strict=True):
            mean.copy_(saved)
