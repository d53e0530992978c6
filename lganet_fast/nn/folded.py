"""The attention of `nn.lgam` at the coarsest level in evaluation, in a few launches.

The projections to query, key and value are one product; the layers after an attention are one
`feed_forward`, which also normalises for the next attention. Folded weights are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import attention, derived, feed_forward
from ..ops.fold import chained, side_by_side
from .layers import in_type
from .lgam import WINDOW, LocalGlobalAttention, PositionAttention, tokens_of, volume_of


def position_weights(*parts: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The layer that gives q, k and gamma v side by side, all as wide as v.

    parts: weight and bias of query, key and value, then gamma.
    """
    *pairs, gamma = parts
    weights, biases = [w.double().flatten(1) for w in pairs[::2]], [b.double() for b in pairs[1::2]]
    weights[2], biases[2] = gamma * weights[2], gamma * biases[2]
    weight, bias = side_by_side(list(zip(weights, biases, strict=True)), len(weights[2]))
    assert bias is not None
    return weight.to(dtype), bias.to(dtype)


def position_attention(x: Tensor, part: PositionAttention) -> Tensor:
    """The module's result for x, (B, C, H, W, D), channels_last_3d. No gradient."""
    convs = (part.query_conv, part.key_conv, part.value_conv)
    parts = [p for conv in convs for p in conv.parameters()]
    weights = derived(position_weights, *parts, part.gamma, dtype=x.dtype)
    q, k, v = F.linear(tokens_of(x), *weights).chunk(3, 2)
    return x + volume_of(attention(q, k, v, 1.0), x)


def stacked(*weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight of one layer whose outputs are those of all layers in a row."""
    return torch.cat(weights).to(dtype)


def layers_behind(*parts: Tensor, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """The layers of a projection and of the feed-forward part, without those that fold into one.

    parts: weight and bias of each. Between the last of the projection and the first of the others
    lies nothing, so that the two are one.
    """
    layers = [
        (w.double().flatten(1), b.double()) for w, b in zip(parts[::2], parts[1::2], strict=True)
    ]
    *before, last, first, second = layers
    folded = [*before, chained(last, first), second]
    return [(weight.to(dtype), bias.to(dtype)) for weight, bias in folded]


Step = tuple[bool, Tensor, list[tuple[Tensor, Tensor]]]


def steps_of(part: LocalGlobalAttention, dtype: torch.dtype) -> list[Step]:
    """The two attentions of a round: whether local, the weight of q, k and v, the layers behind."""
    steps = []
    for local, own in ((False, part.lsa), (True, part.gsa)):
        heads = derived(stacked, own.q.weight, own.k.weight, own.v.weight, dtype=dtype)
        behind = [*own.proj.parameters(), *part.ffn.parameters()]
        steps.append((local, heads, derived(layers_behind, *behind, dtype=dtype)))
    return steps


def local_global_attention(x: Tensor, parts: Sequence[LocalGlobalAttention]) -> Tensor:
    """The result of a sequence of modules for x, (B, C, H, W, D), channels_last_3d.

    No gradient, no dropout.
    """
    size = x.shape[2:]
    counts = tuple(max(n // WINDOW, 1) for n in size)
    published = parts[0].token_order == "published"
    where: dict[str, Any] = {"windows": counts, "volume": tuple(size)}
    if published:
        where = {"windows": counts[0] * counts[1] * counts[2]}
    rounds = [part for part in parts for _ in range(2)]
    steps = [step for part in rounds for step in steps_of(part, x.dtype)]
    norms = [in_type(p.ln.weight, p.ln.bias, x.dtype) for p in rounds for _ in range(2)]
    tokens, normed = feed_forward(tokens_of(x), None, [], norms[0], published)
    for (local, heads, layers), norm in zip(steps, [*norms[1:], None], strict=True):
        assert normed is not None
        q, k, v = F.linear(normed, heads).chunk(3, 2)
        found = attention(q, k, v, parts[0].lsa.scale, **(where if local else {}))
        tokens, normed = feed_forward(tokens, found, layers, norm, published)
    return volume_of(tokens, x)
