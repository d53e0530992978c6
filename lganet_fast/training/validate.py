"""Scores of a network on the validation pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..data import Pairs
from ..metrics.scores import dice, mean_known
from ..ops import warp
from ..runtime.ranks import Ranks
from .batch import Batch, collate
from .objective import Objective


@torch.no_grad()
def validate(
    network: nn.Module,
    data: Pairs,
    objective: Objective,
    ranks: Ranks,
    autocast: torch.autocast,
) -> dict[str, float]:
    """Mean loss, and mean Dice of nearest-neighbour labels if there are labels.

    Each process takes every `count`-th pair. The Dice is a mean over the scored labels of a pair
    that occur in either map, then over pairs.
    """
    network.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=ranks.device)
    for index in range(ranks.rank, len(data), ranks.count):
        batch = collate([data[index]], ranks.device)
        with autocast:
            found = network(batch.moving, batch.fixed)
        flow = found[0] if isinstance(found, tuple) else found
        sums[:2] += torch.stack([objective(found, batch)[0], flow.new_ones(())])
        score = mean_dice(flow, batch, data.data.labels)
        if score is not None:
            sums[2:] += torch.tensor([score, 1.0]).to(sums)
    network.train()
    loss, pairs, overlap, scored = ranks.total(sums).tolist()
    return {"loss": loss / pairs, **({"dice": overlap / scored} if scored else {})}


def mean_dice(flow: Tensor, batch: Batch, labels: tuple[int, ...]) -> float | None:
    """Mean Dice of a batch of one pair, None without labels to score."""
    if batch.fixed_labels is None or batch.moving_labels is None:
        return None
    warped = warp(batch.moving_labels.double(), flow, "nearest").round().int()
    fixed, moved = (x[0, 0].cpu().numpy() for x in (batch.fixed_labels, warped))
    score = mean_known(dice(fixed, moved, labels or None).values())
    return None if math.isnan(score) else score
