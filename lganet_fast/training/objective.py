"""The loss of a batch, from the configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from ..config.schema import LossSection
from ..errors import InputError
from ..losses.dissimilarity import SIMILARITIES, dice_loss, folding_loss, lncc_loss
from ..models import Network
from ..ops import gradient_loss, warp
from .batch import Batch

Found: TypeAlias = Tensor | tuple[Tensor, Tensor]  # a flow, or `Network.regularised`


class Regularised(nn.Module):
    """A network whose call is `Network.regularised`."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """The flow, and the field that the network's authors smooth."""
        return self.network.regularised(moving, fixed)


class Objective:
    """The weighted sum of the terms with a weight above 0 (by default paper 2.6).

    Each term is a mean over the pairs of a batch, so the mean over processes with equal batches is
    the mean over all pairs.
    """

    def __init__(self, section: LossSection) -> None:
        self.section = section
        terms: dict[str, tuple[float, Callable[[Tensor, Batch], Tensor]]] = {
            section.similarity: (section.similarity_weight, self.dissimilarity),
            "smoothness": (section.smoothness, lambda flow, batch: gradient_loss(flow)),
            "dice": (section.dice, overlap),
            "flow": (section.flow, distance),
            "folding": (section.folding, lambda flow, batch: folding_loss(flow)),
        }
        self.terms = {name: term for name, term in terms.items() if term[0]}
        if not self.terms:
            raise InputError("every weight in [loss] is 0: there is nothing to train for")

    def called(self, network: Network) -> nn.Module:
        """The network in the form that this loss needs."""
        return Regularised(network) if self.section.smooth == "own" else network

    def __call__(self, found: Found, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms without their weights.

        found: what the network of `called` gives: the flow, (B, 3, H, W, D) in voxels, and with
        loss.smooth="own" its roughness. Raises InputError if labels are needed and not there.
        """
        flow, *roughness = found if isinstance(found, tuple) else (found,)
        known = dict(zip(["smoothness"], roughness, strict=False))
        parts = {
            name: known[name] if name in known else term(flow, batch)
            for name, (_, term) in self.terms.items()
        }
        weighted = [weight * parts[name] for name, (weight, _) in self.terms.items()]
        return sum(weighted[1:], weighted[0]), parts

    def dissimilarity(self, flow: Tensor, batch: Batch) -> Tensor:
        """Dissimilarity of the fixed and the warped moving images, or of their features."""
        section = self.section
        if section.similarity == "ncc":
            warped = warp(batch.moving, flow)
            return lncc_loss(batch.fixed, warped, None, section.window, section.squared)
        measure = SIMILARITIES[section.similarity]
        fixed, moving = (measure.features(x) for x in (batch.fixed, batch.moving))
        return measure.loss(fixed, warp(moving, flow), None)


def distance(flow: Tensor, batch: Batch) -> Tensor:
    """The term of the known flow."""
    if batch.flow is None:
        raise InputError(f"loss.flow needs the true flow, {', '.join(batch.names)} has none")
    inside = (batch.fixed > 0).to(flow)
    return (inside * (flow - batch.flow).square()).sum() / (3 * inside.sum()).clamp_min(1)


def overlap(flow: Tensor, batch: Batch) -> Tensor:
    """The Dice term."""
    if batch.fixed_labels is None or batch.moving_labels is None:
        raise InputError(f"loss.dice needs labels, {', '.join(batch.names)} has none")
    return dice_loss(batch.fixed_labels, batch.moving_labels, flow)
