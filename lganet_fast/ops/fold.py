"""Linear layers folded into fewer: pure functions of weights (outputs, inputs) and biases.

In the type of the weights: of float64 they make what computes the same to that accuracy.
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
    offset = mix.new_zeros(len(mix)) if shift is None else shift
    return mix @ weight, offset if bias is None else mix @ bias + offset


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
