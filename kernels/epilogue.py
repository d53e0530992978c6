"""The steps after a convolution without bias in one pass: bias, ReLU, sum, product, moments."""

from __future__ import annotations

from torch import Tensor

from .launch import pitch
from .sweep import sweep


def epilogue(
    y: Tensor,
    bias: Tensor | None,
    relu: bool = False,
    add: Tensor | None = None,
    times: Tensor | None = None,
    moments: bool = False,
    out: Tensor | None = None,
) -> Tensor | None:
    """Compute (relu(y + bias) + add) * times in place, or to `out`, without the steps not given.

    y, add, times, out: (B, C, H, W, D), float16, bfloat16 or float32, channels_last_3d or some
    channels of such a map; bias: (C,), any of these types. Computed in float32, rounded once.
    Returns the moments of the stored values, (2, B, C) in float32, mean and 1 / sqrt(var + 1e-5),
    or None without `moments`. Raises ValueError for maps of another memory format.
    """
    if y.numel():
        pitch(y, "y")
    out = y if out is None else out
    return sweep(y, out, bias=bias, relu=relu, add=add, times=times, moments=moments)


def bias_gradient(grad: Tensor, mask: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """The gradient to the bias, (C,) in float32, of grad (B, C, H, W, D) where mask > 0.

    mask: the ReLU's result, or None. out: receives the masked gradient, if given; may be grad.
    Memory formats are those of `epilogue`.
    """
    pitch(grad, "grad")
    found = sweep(grad, out, mask=mask, moments=True)
    assert found is not None
    return found[0].sum(0) * grad.shape[2:].numel()
