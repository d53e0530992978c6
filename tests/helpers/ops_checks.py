"""Common parts of the tests of operations: inputs, tolerances, and gradient checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

from lganet_fast.ops import native

needs_native = pytest.mark.skipif(not native.LOADED, reason=f"not compiled: {native.REASON}")
BACKENDS = ["reference", pytest.param("native", marks=needs_native)]
CHANNELS_LAST = torch.channels_last_3d

Wrong = Callable[[Tensor], Tensor]
WRONG_GRADIENTS: dict[str, Wrong] = {
    "zero": torch.zeros_like,
    "scaled": lambda grad: 1.001 * grad,
    "shifted": lambda grad: grad.roll(1, -1),
}


def uniform(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Seeded float64 numbers between `low` and `high`."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def kink_free(flow: Tensor, margin: float = 0.02) -> Tensor:
    """The flow with each component at least `margin` away from any whole number of voxels.

    Finite differences of trilinear interpolation are wrong there, because its slope jumps.
    """
    whole = flow.floor()
    return whole + margin + (1 - 2 * margin) * (flow - whole)


def close(actual: Tensor, expected: NDArray | Tensor, tolerance: float = 1e-12) -> None:
    """Assert equal shapes, finite values and an absolute difference of at most `tolerance`."""
    expected = np.asarray(expected, np.float64)
    values = actual.detach().double().numpy()
    assert values.shape == expected.shape
    assert np.isfinite(values).all()
    assert np.abs(values - expected).max(initial=0) <= tolerance


def check_gradient(operation: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Compare autograd with central differences in float64; raises GradcheckError."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    gradcheck(operation, leaves, eps=1e-6, atol=1e-7, rtol=1e-5)


class Distort(torch.autograd.Function):
    """The identity with a wrong gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, wrong: Wrong) -> Tensor:
        ctx.wrong = wrong
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.wrong(grad), None


def check_gradient_strictly(operation: Callable[..., Tensor], *inputs: Tensor) -> None:
    """`check_gradient`, and a check that it rejects a wrong gradient of any single input."""
    check_gradient(operation, *inputs)
    for position in range(len(inputs)):
        for name, wrong in WRONG_GRADIENTS.items():

            def distorted(*xs: Tensor, at: int = position, wrong: Wrong = wrong) -> Tensor:
                return operation(
                    *(Distort.apply(x, wrong) if i == at else x for i, x in enumerate(xs))
                )

            try:
                check_gradient(distorted, *inputs)
            except GradcheckError:
                continue
            raise AssertionError(f"a {name} gradient of input {position} was accepted")


def check_compiles(operation: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Check that it compiles to one graph with the values and gradients of the eager call."""
    torch.compiler.reset()
    compiled = torch.compile(operation, fullgraph=True, backend="aot_eager")
    results = []
    for run in (operation, compiled):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        out = run(*leaves)
        out.square().sum().backward()
        results.append([out, *(leaf.grad for leaf in leaves)])
    for eager, graph in zip(*results, strict=True):
        close(graph, eager.detach())


def strided(x: Tensor) -> Tensor:
    """The same values with a stride of 2 along the last axis."""
    wide = x.new_full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan)
    wide[..., ::2] = x
    return wide[..., ::2]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "strided": strided,
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "channels_last_3d": lambda x: x.contiguous(memory_format=torch.channels_last_3d),
}


def warp_oracle(
    image: NDArray, flow: NDArray, mode: str = "trilinear", padding: str = "zeros"
) -> NDArray:
    """`ops.warp` by scipy, in float64."""
    identity = np.stack(np.meshgrid(*map(np.arange, flow.shape[2:]), indexing="ij"))
    out = np.empty((*image.shape[:2], *flow.shape[2:]))
    for b in range(image.shape[0]):
        for c in range(image.shape[1]):
            out[b, c] = map_coordinates(
                image[b, c].astype(np.float64),
                identity + flow[b],
                order={"trilinear": 1, "nearest": 0}[mode],
                mode={"zeros": "grid-constant", "border": "nearest"}[padding],
            )
    return out


def values_and_gradients(operation: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The result, and the gradients of its sum with seeded random weights to each input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = operation(*leaves)
    out.backward(uniform(*out.shape, seed=9).to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def check_same(
    actual: Sequence[Tensor], expected: Sequence[Tensor], tolerances: Sequence[float]
) -> None:
    """Assert equal types and shapes and, relative to the largest value, small differences."""
    for x, y, tolerance in zip(actual, expected, tolerances, strict=True):
        assert x.dtype == y.dtype
        scale = max(y.abs().max().item(), 1e-30) if y.numel() else 1
        close(x.double() / scale, y.double() / scale, tolerance)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
