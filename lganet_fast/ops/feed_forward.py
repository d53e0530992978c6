"""The layers behind an attention: linear layers, the residual around them, the next layer norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import check, reference, triton
from .dispatch import choose_backend

EPS = 1e-5  # of the layer norm


def feed_forward(
    x: Tensor,
    tokens: Tensor | None,
    layers: Sequence[tuple[Tensor, Tensor]],
    norm: tuple[Tensor, Tensor] | None = None,
    transposed: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """X plus the layers on the tokens, ReLU between them, and the layer norm of that (paper 2.3).

    x, tokens: (B, N, C), one float type. layers: weight (outputs, inputs) and bias (outputs,) of
    each of two or three in that type, the last with C outputs; or none, and no tokens: x alone.
    norm: weight and bias (C,) of a layer norm, eps 1e-5, or None for no second result.
    transposed: the second result is runs of C consecutive numbers of the normalised tokens as
    (B, C, N), channel after channel, which is the published order of tokens.
    Returns two (B, N, C). Raises ValueError or TypeError naming the invalid argument.
    """
    check.shape("x", x, ("B", "N", "C"))
    check.floating("x", x)
    check.several("layers", layers, (0, 2, 3))
    if (tokens is None) != (not layers):
        raise ValueError("tokens and layers must be given both or neither")
    for n, layer in enumerate(layers):
        check.several(f"layers[{n}]", layer, (2,))
    if norm is not None:
        check.several("norm", norm, (2,))
    check.flag("transposed", transposed)
    named: list[tuple[str, Tensor]] = []
    if tokens is not None:
        check.shape("tokens", tokens, x.shape)
        named.append(("tokens", tokens))
    inputs: int | str = x.shape[2]
    for n, (weight, bias) in enumerate(layers):
        outputs = x.shape[2] if n == len(layers) - 1 else "outputs"
        check.shape(f"layers[{n}][0]", weight, (outputs, inputs))
        check.shape(f"layers[{n}][1]", bias, weight.shape[:1])
        named += [(f"layers[{n}][0]", weight), (f"layers[{n}][1]", bias)]
        inputs = weight.shape[0]
    for name, part in zip(("norm[0]", "norm[1]"), norm or (), strict=False):
        check.shape(name, part, x.shape[2:])
        named.append((name, part))
    for name, part in named:
        check.floating(name, part, (x.dtype,))
        check.together(name, part, "x", x)
    flat = [part for layer in layers for part in layer]
    call = {
        "gradient": triton.gradient_asked(x, *(part for _, part in named)),
        "dtype": x.dtype,
        "width": max(x.shape[2], *(w.shape[0] for w, _ in layers[:-2]), 1),
        "voxels": x.shape[1],
    }
    if choose_backend("feed_forward", x.device.type, backend, **call).backend == "triton":
        own = x if tokens is None else tokens
        out, normed = fused(x, own, flat, norm or (), transposed)
        return (out if layers else x), (normed if norm else None)
    out = x if tokens is None else reference.feed_forward(x, tokens, layers)
    return out, (reference.layer_norm(out, *norm, transposed) if norm else None)


@torch.library.custom_op("lganet_fast_triton::feed_forward", mutates_args=())
def fused(
    x: Tensor,
    tokens: Tensor,
    weights: Sequence[Tensor],
    norm: Sequence[Tensor],
    transposed: bool,
) -> tuple[Tensor, Tensor]:
    """The operation by the Triton kernel; a result that is not asked for is empty."""
    out, normed = results_like(x, tokens, weights, norm, transposed)
    if x.numel() and (weights or norm):
        run = triton.kernels("feed_forward").forward
        run(x, tokens, weights, norm, EPS, transposed, out, normed)
    return out, normed


@fused.register_fake
def results_like(
    x: Tensor,
    tokens: Tensor,
    weights: Sequence[Tensor],
    norm: Sequence[Tensor],
    transposed: bool,
) -> tuple[Tensor, Tensor]:
    """Empty tensors of the results' shapes."""
    return (
        x.new_empty(x.shape if weights else 0),
        x.new_empty(x.shape if norm else 0),
    )
