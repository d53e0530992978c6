"""The loss of a batch, from the configuration."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..config.schema import LossSection
from ..errors import InputError
from ..losses.dissimilarity import SIMILARITIES, dice_loss, folding_loss, lncc_loss
from ..ops import gradient_loss, warp
from .batch import Batch


class Objective:
    """The weighted sum of the terms that have a weight (paper 2.6, by default).

    Each term is a mean over the pairs of a batch, so that the mean over processes with equal
    batches is that of the whole.
    """

    def __init__(self, section: LossSection) -> None:
        self.section = section
        terms: dict[str, tuple[float, Callable[[Tensor, Batch], Tensor]]] = {
            section.similarity: (section.similarity_weight, self.dissimilarity),
            "smoothness": (section.smoothness, lambda flow, batch: gradient_loss(flow)),
            "dice": (section.dice, overlap),
            "folding": (section.folding, lambda flow, batch: folding_loss(flow)),
        }
        self.terms = {name: term for name, term in terms.items() if term[0]}
        if not self.terms:
            raise InputError("every weight in [loss] is 0: there is nothing to train for")

    def __call__(self, flow: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms without their weights.

        flow: (B, 3, H, W, D) in voxels. Raises InputError where labels are needed and not there.
        """
        parts = {name: term(flow, batch) for name, (_, term) in self.terms.items()}
        weighted = [weight * parts[name] for name, (weight, _) in self.terms.items()]
        return sum(weighted[1:], weighted[0]), parts

    def dissimilarity(self, flow: Tensor, batch: Batch) -> Tensor:
        """Of the fixed and the warped moving images, or of their features."""
        section = self.section
        if section.similarity == "ncc":
            warped = warp(batch.moving, flow)
            return lncc_loss(batch.fixed, warped, None, section.window, section.squared)
        measure = SIMILARITIES[section.similarity]
        fixed, moving = (measure.features(x) for x in (batch.fixed, batch.moving))
        return measure.loss(fixed, warp(moving, flow), None)


def overlap(flow: Tensor, batch: Batch) -> Tensor:
    """The Dice term."""
    if batch.fixed_labels is None or batch.moving_labels is None:
        raise InputError(f"loss.dice needs labels, {', '.join(batch.names)} has none")
    return dice_loss(batch.fixed_labels, batch.moving_labels, flow)
