"""The attention of the coarsest level in evaluation, in a few launches: what `nn.lgam` computes.

The projections to query, key and value are one product; what follows an attention is one
`feed_forward`, which also normalises for the attention that comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import attention, derived, feed_forward
from ..ops.fold import Layer, chained, side_by_side
from .lgam import WINDOW, LocalGlobalAttention, PositionAttention, tokens_of, volume_of

Pairs = list[tuple[Tensor, Tensor]]


def linear(layer: nn.Module) -> Layer:
    """Weight and bias of a linear layer or of a convolution of one voxel."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert bias is None or isinstance(bias, Tensor)
    return weight.flatten(1), bias


def typed(layer: Layer, dtype: torch.dtype) -> Layer:
    """The layer with weights of a type."""
    weight, bias = layer
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def position_weights(part: PositionAttention, dtype: torch.dtype) -> Layer:
    """The layer that gives q, k and v side by side, q and k widened by zeros to the width of v."""
    parts = (part.query_conv, part.key_conv, part.value_conv)
    whole = side_by_side([linear(p) for p in parts], len(part.value_conv.weight))
    return typed(whole, dtype)


def position_attention(x: Tensor, part: PositionAttention) -> Tensor:
    """Gamma * softmax(q^T k) v + x over all voxels, (B, C, H, W, D), channels_last_3d."""
    weights = derived(position_weights, part, dtype=x.dtype)
    q, k, v = F.linear(tokens_of(x), *weights).chunk(3, 2)
    gamma = part.gamma.to(x.dtype)
    return torch.addcmul(x, gamma.view(1, 1, 1, 1, 1), volume_of(attention(q, k, v, 1.0), x))


def attention_weights(part: LocalGlobalAttention, local: bool) -> tuple[Layer, Pairs]:
    """The layer that gives q, k and v, and the layers behind the attention.

    Linear layers with nothing between them are one: the last of the projection and the first of the
    feed-forward layers.
    """
    own = part.gsa if local else part.lsa
    heads = side_by_side([linear(own.q), linear(own.k), linear(own.v)])
    projections = [m for m in own.proj.modules() if isinstance(m, nn.Linear)]
    before, last = [linear(m) for m in projections[:-1]], linear(projections[-1])
    first, second = linear(part.ffn[0]), linear(part.ffn[2])
    layers = [*before, chained(last, first), second]
    return heads, [(weight, bias) for weight, bias in layers if bias is not None]


@dataclass(frozen=True)
class Step:
    """One attention and what follows it: `attention_weights`, and the layer norm before it."""

    local: bool
    heads: Layer
    layers: Pairs
    norm: tuple[Tensor, Tensor]


def step(part: LocalGlobalAttention, local: bool, dtype: torch.dtype) -> Step:
    """A step with its weights in a type."""
    heads, layers = attention_weights(part, local)
    pairs = [(weight.to(dtype), bias.to(dtype)) for weight, bias in layers]
    norm = part.ln.weight.to(dtype), part.ln.bias.to(dtype)
    return Step(local, typed(heads, dtype), pairs, norm)


def local_global_attention(x: Tensor, parts: Sequence[LocalGlobalAttention]) -> Tensor:
    """What modules in a row make of x, (B, C, H, W, D) -> the same, channels_last_3d.

    No gradient, no dropout.
    """
    size = x.shape[2:]
    counts = tuple(max(n // WINDOW, 1) for n in size)
    published, scale = parts[0].token_order == "published", parts[0].lsa.scale
    both = [[derived(step, p, local=k, dtype=x.dtype) for k in (False, True)] for p in parts]
    steps = [one for pair in both for one in pair * 2]
    norms = [one.norm for one in steps]
    tokens, normed = feed_forward(tokens_of(x), None, [], norms[0], published)
    for n, one in enumerate(steps):
        assert normed is not None
        q, k, v = F.linear(normed, *one.heads).chunk(3, 2)
        if not one.local:
            found = attention(q, k, v, scale)
        elif published:
            found = attention(q, k, v, scale, counts[0] * counts[1] * counts[2])
        else:
            found = attention(q, k, v, scale, counts, volume=tuple(size))  # type: ignore[arg-type]
        following = norms[n + 1] if n + 1 < len(norms) else None
        tokens, normed = feed_forward(tokens, found, one.layers, following, published)
    return volume_of(tokens, x)
