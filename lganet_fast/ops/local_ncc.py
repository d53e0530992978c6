"""Local normalised cross-correlation of two images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, native, reference
from .dispatch import choose_backend


def local_ncc(
    a: Tensor,
    b: Tensor,
    window: int = 9,
    weight: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Mean over voxels of cross^2 / (var_a var_b + 1e-5), window^3 sums (paper eq. 10, squared).

    a, b: (B, C, H, W, D), one float type; both count as zero outside, and the sums divide by
    window^3 at the border too. window: odd. weight: (B, 1, H, W, D), how much each voxel counts in
    the mean; alike where omitted. Returns a scalar in [0, 1], 1 where they agree;
    float64 for float64 images, else float32. Intensities of about unit range are expected: the
    1e-5 is absolute. Raises ValueError or TypeError naming the argument that does not fit; a weight
    that needs a gradient fits the reference alone.
    """
    check.shape("a", a, ("B", "C", "H", "W", "D"))
    check.floating("a", a)
    check.shape("b", b, a.shape)
    check.floating("b", b, (a.dtype,))
    check.together("b", b, "a", a)
    check.at_least("window", window, 1)
    if window % 2 == 0:
        raise ValueError(f"window must be odd, got {window}")
    if weight is not None:
        check.shape("weight", weight, (a.shape[0], 1, *a.shape[2:]))
        check.together("weight", weight, "a", a)
    if choose_backend("local_ncc", a.device.type, backend).backend != "native":
        return reference.local_ncc(a, b, window, weight)
    if weight is not None:
        if weight.requires_grad and torch.is_grad_enabled():
            raise ValueError("weight must not require a gradient except with backend='reference'")
        weight = weight.to(result_type(a))
    return torch.ops.lganet_fast.local_ncc(a, b, weight, window)


def result_type(a: Tensor) -> torch.dtype:
    """The type of the sums and of the result."""
    return torch.promote_types(a.dtype, torch.float32)


def value_like(a: Tensor, b: Tensor, weight: Tensor | None, window: int) -> Tensor:
    """An empty tensor of the result's shape."""
    return a.new_empty((), dtype=result_type(a))


def gradients_like(
    grad: Tensor,
    a: Tensor,
    b: Tensor,
    weight: Tensor | None,
    window: int,
    need_a: bool,
    need_b: bool,
) -> tuple[Tensor, Tensor]:
    """Empty tensors of the gradients' shapes."""
    return (
        torch.empty_like(a) if need_a else a.new_empty(0),
        torch.empty_like(b) if need_b else b.new_empty(0),
    )


def save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, int], output: Tensor) -> None:
    """Keep the inputs: the moments are cheaper to find again than to store."""
    a, b, weight, ctx.window = inputs
    ctx.save_for_backward(a, b, weight)


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    """The gradients asked for."""
    need_a, need_b, need_weight, _ = ctx.needs_input_grad
    if need_weight:
        raise RuntimeError("local_ncc has no gradient to weight: use backend='reference' for it")
    grad_a, grad_b = torch.ops.lganet_fast.local_ncc_backward(
        grad, *ctx.saved_tensors, ctx.window, need_a, need_b
    )
    return grad_a if need_a else None, grad_b if need_b else None, None, None


if native.LOADED:
    torch.library.register_fake("lganet_fast::local_ncc", value_like)
    torch.library.register_fake("lganet_fast::local_ncc_backward", gradients_like)
    torch.library.register_autograd("lganet_fast::local_ncc", backward, setup_context=save)
    native.forbid_double_backward("local_ncc_backward")
