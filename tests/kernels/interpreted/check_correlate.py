"""ops.correlate by the Triton kernels, in the interpreter, against the reference in float64."""

from __future__ import annotations

import lganet_fast.kernels.correlate as kernels
import pytest
import torch
from interpreter import agree, on_the_cpu, results  # noqa: F401
from ops_checks import CHANNELS_LAST, LAYOUTS, uniform

from lganet_fast.kernels import launch
from lganet_fast.ops import correlate

FORMATS = {"contiguous": torch.Tensor.contiguous, "channels_last_3d": LAYOUTS["channels_last_3d"]}


def inputs(*shape, dtype=torch.float32):
    return [uniform(*shape, seed=s).to(dtype) for s in (1, 2)]


@pytest.mark.parametrize(
    ("of_x", "of_y"),
    [("channels_last_3d",) * 2, ("contiguous",) * 2, ("channels_last_3d", "contiguous")],
)
def test_values_and_gradients(of_x, of_y):
    x, y = inputs(2, 8, 3, 2, 4, dtype=torch.float64)
    agree(correlate, correlate, FORMATS[of_x](x), FORMATS[of_y](y))


@pytest.mark.parametrize(
    ("shape", "radius"),
    [((1, 12, 2, 1, 6), 2), ((1, 1, 5, 3, 2), 1), ((2, 3, 1, 1, 5), 1), ((1, 64, 3, 3, 2), 1)],
)
def test_shapes(shape, radius):
    x, y = map(FORMATS["channels_last_3d"], inputs(*shape))
    agree(lambda x, y: correlate(x, y, radius), lambda x, y: correlate(x, y, radius), x, y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(dtype):
    agree(
        correlate, correlate, *map(FORMATS["channels_last_3d"], inputs(1, 32, 3, 4, 3, dtype=dtype))
    )


@pytest.mark.parametrize("place", [2, 3])
def test_every_block(place, monkeypatch):
    """Those after the first, which every other check runs."""
    for kernel in (kernels.correlate_kernel, kernels.gradient_kernel):
        monkeypatch.setattr(
            kernel, "early_config_prune", lambda c, n, **a: kernels.fitting(c, n, **a)[:place][-1:]
        )
    agree(correlate, correlate, *map(FORMATS["channels_last_3d"], inputs(1, 8, 3, 4, 3)))


@pytest.mark.parametrize("layout", ["strided", "transposed"])
def test_layouts(layout):
    agree(correlate, correlate, *map(LAYOUTS[layout], inputs(1, 3, 2, 3, 4)))


def test_the_result_is_in_the_format_of_x():
    x, y = inputs(1, 8, 3, 4, 5)
    assert correlate(x, y).is_contiguous()
    out = correlate(FORMATS["channels_last_3d"](x), y)
    assert out.is_contiguous(memory_format=CHANNELS_LAST)


@pytest.mark.parametrize(
    ("radius", "width", "memory"),
    [(1, 32, "contiguous"), (1, 40, "channels_last_3d"), (2, 128, "channels_last_3d")],
)
def test_zeros_behind_the_offsets(radius, width, memory):
    maps = [FORMATS[memory](x) for x in inputs(2, 8, 3, 2, 4)]
    agree(*[lambda x, y: correlate(x, y, radius, width=width)] * 2, *maps)
    out = correlate(*maps, radius, width=width)
    assert out.shape[1] == width
    assert (out[:, (2 * radius + 1) ** 3 :] == 0).all()


@pytest.mark.parametrize("memory", FORMATS)
def test_offsets_of_64_bits(memory, monkeypatch):
    maps = [FORMATS[memory](x) for x in inputs(1, 8, 2, 3, 2)]
    narrow = results(correlate, maps, torch.ones(()))
    monkeypatch.setattr(launch, "OFFSETS_32", 1)
    for x, y in zip(results(correlate, maps, torch.ones(())), narrow, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4, 5), (1, 2, 0, 4, 5)])
def test_empty(shape):
    leaves = [x.requires_grad_() for x in inputs(*shape)]
    out = correlate(*leaves)
    out.sum().backward()
    assert out.shape == (shape[0], 27, *shape[2:])
    assert all(leaf.grad.shape == shape for leaf in leaves)


@pytest.mark.parametrize("place", [0, 1])
def test_gradients_only_where_asked_for(place):
    leaves = inputs(1, 2, 3, 4, 3)
    leaves[place].requires_grad_()
    correlate(*leaves).sum().backward()
    assert leaves[place].grad is not None
    assert leaves[1 - place].grad is None


def test_not_a_number_reaches_only_its_neighbours():
    x, y = inputs(1, 2, 7, 7, 7)
    y[0, 0, 3, 3, 3] = torch.nan
    bad = correlate(x, y).isnan().any(1)[0]
    assert bad[2:5, 2:5, 2:5].all()
    assert bad.sum() == 27


def test_second_derivative_is_refused():
    x, y = (a.requires_grad_() for a in inputs(1, 2, 2, 2, 1))
    (grad,) = torch.autograd.grad(correlate(x, y).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_operators():
    x, y = (FORMATS["channels_last_3d"](a) for a in inputs(1, 2, 2, 2, 2))
    operators = torch.ops.lganet_fast_triton
    grad = correlate(x, y)
    leaves = [a.clone().requires_grad_() for a in (x, y)]
    torch.library.opcheck(operators.correlate.default, (*leaves, 1, 28))
    torch.library.opcheck(operators.correlate_backward.default, (grad, x, y, 1, True, False))
