"""Mutual information of two images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, joint_histogram, native
from .dispatch import choose_backend
from .local_ncc import result_type
from .torch_func import transforming

LEAST_BINS, MOST_BINS = 4, 256


def mutual_information(
    a: Tensor,
    b: Tensor,
    bins: int = 32,
    weight: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Mutual information in nats of two images' intensities, differentiable in both images.

    The joint histogram has a cubic B-spline as Parzen window in both images (Thevenaz and Unser,
    2000; Mattes et al., 2003, whose window of the fixed image has order zero and no gradient).

    a, b: (B, C, H, W, D), one float type, values in [0, 1]; those outside count as 0 or 1, and
    outside and at the ends the gradient is 0. bins: 4 to 256 per image, of which [0, 1] spans
    bins - 3. weight: (B, 1, H, W, D), not negative, how much each voxel counts; alike where
    omitted. Every channel of every volume has its own histogram; their values are averaged, each
    by the sum of its weights.
    Returns a scalar of at least 0, 0 where either image is constant; float64 for float64 images,
    else float32. The gradient to weight is the reference's, whatever the backend.
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.two_images(a, b, weight)
    check.at_least("bins", bins, LEAST_BINS)
    if bins > MOST_BINS:
        raise ValueError(f"bins must be at most {MOST_BINS}, got {bins}")
    if choose_backend("mutual_information", a.device.type, backend).backend != "native":
        return joint_histogram.mutual_information(a, b, bins, weight)
    if weight is not None:
        if transforming() or (weight.requires_grad and torch.is_grad_enabled()):
            return joint_histogram.mutual_information(a, b, bins, weight)
        weight = weight.to(result_type(a))
    return run(a, b, weight, bins)[0]


def results_like(a: Tensor, b: Tensor, weight: Tensor | None, bins: int) -> tuple[Tensor, Tensor]:
    """Empty tensors of the shapes of the value and of the table of its slopes."""
    table = a.new_empty((*a.shape[:2], bins, bins), dtype=torch.float64)
    return a.new_empty((), dtype=result_type(a)), table


def gradients_like(
    grad: Tensor,
    a: Tensor,
    b: Tensor,
    weight: Tensor | None,
    slopes: Tensor,
    need_a: bool,
    need_b: bool,
) -> tuple[Tensor, Tensor]:
    """Empty tensors of the gradients' shapes, those that are needed."""
    return (
        torch.empty_like(a) if need_a else a.new_empty(0),
        torch.empty_like(b) if need_b else b.new_empty(0),
    )


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep the images and the slope of the value by each entry of the joint histogram."""
    a, b, weight, _ = inputs
    _, slopes = output
    ctx.mark_non_differentiable(slopes)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(a, b, weight, slopes)


def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    """The requested gradients."""
    if grad is None:
        return (None,) * 4
    need_a, need_b = ctx.needs_input_grad[:2]
    grad_a, grad_b = run_backward(grad, *ctx.saved_tensors, need_a, need_b)
    return grad_a if need_a else None, grad_b if need_b else None, None, None


if native.LOADED:
    torch.library.register_fake("lganet_fast::mutual_information", results_like)
    torch.library.register_fake("lganet_fast::mutual_information_backward", gradients_like)
    run = native.operator("mutual_information", backward, save)
    run_backward = native.operator("mutual_information_backward")
