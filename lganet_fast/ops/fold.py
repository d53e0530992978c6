"""Linear layers folded into fewer: pure functions of weights (outputs, inputs) and biases.

Products are taken in float64 and rounded once, so that what is folded computes what the layers in a
row do to their own accuracy. Whoever calls them on the same weights again should keep the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Layer = tuple[Tensor, Tensor | None]


def chained(first: Layer, second: Layer) -> tuple[Tensor, Tensor]:
    """The layer that is `first` and then `second`, with nothing between them."""
    (weight, bias), (mix, shift) = first, second
    whole = (mix.double() @ weight.double()).to(weight.dtype)
    offset = mix.new_zeros(len(mix), dtype=torch.float64)
    if bias is not None:
        offset = offset + mix.double() @ bias.double()
    if shift is not None:
        offset = offset + shift.double()
    return whole, offset.to(weight.dtype)


def side_by_side(layers: Sequence[Layer], width: int = 0) -> Layer:
    """One layer whose outputs are those of all layers in a row, each padded to `width` by zeros.

    Without a bias where none of the layers has one.
    """
    weights, biases = [], []
    for weight, bias in layers:
        more = max(width - len(weight), 0)
        weights.append(F.pad(weight, [0, 0, 0, more]))
        given = weight.new_zeros(len(weight)) if bias is None else bias
        biases.append(F.pad(given, [0, more]))
    if all(bias is None for _, bias in layers):
        return torch.cat(weights), None
    return torch.cat(weights), torch.cat(biases)
