"""Local normalised cross-correlation of two images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, native, reference
from .dispatch import choose_backend
from .torch_func import transforming


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
    1e-5 is absolute. The gradient to weight is the reference's, whatever the backend.
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.two_images(a, b, weight)
    check.at_least("window", window, 1)
    if window % 2 == 0:
        raise ValueError(f"window must be odd, got {window}")
    if choose_backend("local_ncc", a.device.type, backend).backend != "native":
        return reference.local_ncc(a, b, window, weight)
    if weight is not None:
        if transforming() or (weight.requires_grad and torch.is_grad_enabled()):
            return reference.local_ncc(a, b, window, weight)
        weight = weight.to(result_type(a))
    wanted = torch.is_grad_enabled()
    need_a, need_b = (wanted and (x.requires_grad or transforming()) for x in (a, b))
    return run(a, b, weight, window, need_a, need_b)[0]


def result_type(a: Tensor) -> torch.dtype:
    """The type of the sums and of the result."""
    return torch.promote_types(a.dtype, torch.float32)


def results_like(
    a: Tensor, b: Tensor, weight: Tensor | None, window: int, need_a: bool, need_b: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Empty tensors of the shapes of the value and of its gradients, those that are needed."""
    dtype = result_type(a)
    return (
        a.new_empty((), dtype=dtype),
        torch.empty_like(a, dtype=dtype) if need_a else a.new_empty(0, dtype=dtype),
        torch.empty_like(b, dtype=dtype) if need_b else b.new_empty(0, dtype=dtype),
    )


def gradients_like(
    grad: Tensor, a: Tensor, b: Tensor, unit_a: Tensor, unit_b: Tensor
) -> tuple[Tensor, Tensor]:
    """Empty tensors of the gradients' shapes."""
    return torch.empty_like(unit_a, dtype=a.dtype), torch.empty_like(unit_b, dtype=b.dtype)


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keep the gradients that the forward found on its way."""
    a, b, *_, need_a, need_b = inputs
    _, unit_a, unit_b = output
    ctx.found = need_a, need_b
    ctx.mark_non_differentiable(unit_a, unit_b)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(a, b, unit_a, unit_b)


def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    """The requested gradients."""
    if grad is None:
        return (None,) * 6
    need_a, need_b = ctx.needs_input_grad[:2]
    if need_a > ctx.found[0] or need_b > ctx.found[1]:
        raise RuntimeError(
            "local_ncc was called without need_a or need_b for a gradient now needed"
        )
    grad_a, grad_b = run_backward(grad, *ctx.saved_tensors)
    return grad_a if need_a else None, grad_b if need_b else None, None, None, None, None


if native.LOADED:
    torch.library.register_fake("lganet_fast::local_ncc", results_like)
    torch.library.register_fake("lganet_fast::local_ncc_backward", gradients_like)
    run = native.operator("local_ncc", backward, save)
    run_backward = native.operator("local_ncc_backward")
