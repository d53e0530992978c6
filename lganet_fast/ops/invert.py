"""Invert: find the points that a displacement field maps to given points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import check, native, reference
from .dispatch import choose_backend
from .memory_format import empty_in_format_of
from .torch_func import transformable

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@torch.no_grad()
def invert(
    field: Tensor,
    goal: Tensor,
    start: Tensor,
    step: Sequence[float] = IDENTITY,
    metric: Sequence[float] = IDENTITY,
    tolerance: float = 1e-3,
    shrink: float = 0.9,
    patience: int = 4,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The flow u with u + field(p + u) = goal at every voxel p, by u <- u - step @ error.

    field: (B, 3, h, w, d), float32 or float64, in voxels, read trilinearly and kept at its edge's
    value outside. goal, start: (B, 3, H, W, D), in voxels from p; start is a guess of u.
    step, metric: (3, 3) matrices row by row. A point is solved if |metric @ error| is at most
    `tolerance`, and given up after `patience` iterations, and one more, that did not reduce its
    smallest error to `shrink` times itself.
    Returns u (B, 3, H, W, D), at unsolved points that of the smallest error, and which points are
    solved (B, H, W, D). Has no gradient.
    Chen et al., Med. Phys. 2008, with a matrix for the step.
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.flow("field", field)
    check.shape("goal", goal, (field.shape[0], 3, "H", "W", "D"))
    check.shape("start", start, goal.shape)
    for name, x in (("goal", goal), ("start", start)):
        check.floating(name, x, (field.dtype,))
        check.together(name, x, "field", field)
    step, metric = (m.tolist() if hasattr(m, "tolist") else m for m in (step, metric))
    for name, matrix in (("step", step), ("metric", metric)):
        check.several(name, matrix, (9,))
        for value in matrix:
            check.number(name, value)
    for name, value in (("tolerance", tolerance), ("shrink", shrink)):
        check.number(name, value, 0)
    check.at_least("patience", patience, 0)
    if 0 in field.shape[2:]:
        raise ValueError(f"field must hold voxels, got shape {tuple(field.shape)}")
    choice = choose_backend("invert", field.device.type, backend).backend
    call = (field, goal, start, list(step), list(metric), tolerance, shrink, patience)
    return (by_reference if choice == "reference" else run)(*call)


by_reference = transformable(reference.invert)


if native.LOADED:

    @torch.library.register_fake("lganet_fast::invert")
    def _(
        field: Tensor,
        goal: Tensor,
        start: Tensor,
        step: list[float],
        metric: list[float],
        tolerance: float,
        shrink: float,
        patience: int,
    ) -> tuple[Tensor, Tensor]:
        solved = goal.new_empty((goal.shape[0], *goal.shape[2:]), dtype=torch.bool)
        return empty_in_format_of(start, *start.shape), solved

    run = transformable(torch.ops.lganet_fast.invert, name="invert")
