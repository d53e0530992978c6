"""One optimiser step: forward, backward and update, in one process or several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config.schema import TrainSection
from ..models import Network
from ..runtime.ranks import Ranks
from .batch import Batch
from .graph import Graphed
from .objective import Objective
from .stop import Stop

TYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class NotFiniteError(Exception):
    """The loss or the gradient of a batch is not finite.

    what: "the loss" or "the gradient". loss, parts: the batch's, the terms without weights.
    """

    def __init__(self, what: str, batch: Batch, loss: float, parts: dict[str, float]) -> None:
        super().__init__(f"{what} is not finite")
        self.what, self.batch, self.loss, self.parts = what, batch, loss, parts


@dataclass(frozen=True)
class Outcome:
    """Means over the batches and processes of a step. asked: whether any process must stop."""

    loss: float
    parts: dict[str, float]
    asked: bool


class Step:
    """One process's part of an optimiser step.

    section: precision, Adam's options, batches per step. network: on the device of `ranks`, in
    training mode. shape: of a batch of images, (B, 1, H, W, D), for graphs with `train.graph`.
    """

    def __init__(
        self,
        section: TrainSection,
        network: Network,
        objective: Objective,
        ranks: Ranks,
        shape: tuple[int, ...],
    ) -> None:
        self.section, self.network, self.objective, self.ranks = section, network, objective, ranks
        self.model = self.called(shape)
        self.optimizer = torch.optim.Adam(
            network.parameters(),
            lr=section.lr,
            betas=(section.beta1, section.beta2),
            weight_decay=section.weight_decay,
            amsgrad=section.amsgrad,
        )
        half = section.precision == "fp16"
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=half)

    def called(self, shape: tuple[int, ...]) -> nn.Module:
        """The network as called by a step, with graphs for batches of a shape if configured.

        Gradients are averaged outside the graphs, which must be created before DDP.
        """
        model = self.objective.called(self.network)
        if self.section.graph:
            model = Graphed(model, self.autocast(cache=False), shape, self.ranks.device)
        return DistributedDataParallel(model) if self.ranks.count > 1 else model

    def __call__(self, stream: Iterator[Batch], lr: float, stop: Stop) -> Outcome:
        """Take a step at a learning rate. Raises NotFiniteError before it changes anything."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        outcome = self.accumulate(stream, stop)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=not self.section.graph)
        return outcome

    def accumulate(self, stream: Iterator[Batch], stop: Stop) -> Outcome:
        """Add up the gradients of the step's batches."""
        count = self.section.accumulate
        names = self.objective.terms
        sums = torch.zeros(1 + len(names), dtype=torch.float64, device=self.ranks.device)
        for index in range(count):
            batch = next(stream)
            with nullcontext() if index == count - 1 else self.unsynchronised():
                with self.autocast():
                    found = self.model(batch.moving, batch.fixed)
                loss, parts = self.objective(found, batch)
                self.scaler.scale(loss / count).backward()  # type: ignore[no-untyped-call]
            values = torch.stack([loss, *parts.values()]).detach()
            sums += values
            if not values.isfinite().all():
                raise self.not_finite("the loss", batch, values)
        if not self.scaler.is_enabled() and not self.gradient_norm().isfinite():
            raise self.not_finite("the gradient", batch, values)
        asked = sums.new_tensor([float(stop.asked)])
        means = self.ranks.total(torch.cat([asked, sums / count])) / self.ranks.count
        stopping, mean, *means_of_parts = means.tolist()
        return Outcome(mean, dict(zip(names, means_of_parts, strict=True)), stopping > 0)

    def not_finite(self, what: str, batch: Batch, values: Tensor) -> NotFiniteError:
        """The error for a batch whose loss and terms are `values`."""
        loss, *parts = values.tolist()
        return NotFiniteError(
            what, batch, loss, dict(zip(self.objective.terms, parts, strict=True))
        )

    def unsynchronised(self) -> Any:
        """Do not average gradients yet: more will be added first."""
        model = self.model
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def autocast(self, *, cache: bool = True) -> torch.autocast:
        """The precision of the network; losses are computed in float32 or better.

        cache: cast each weight once, even if it is used several times.
        """
        kind = TYPES[self.section.precision]
        return torch.autocast(self.ranks.device.type, kind, kind != torch.float32, cache)

    def gradient_norm(self) -> Tensor:
        """Norm of all gradients."""
        grads = [p.grad for p in self.network.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(grads)

    def state_dict(self) -> dict[str, Any]:
        """The weights and the optimiser's state."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from another step's state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
