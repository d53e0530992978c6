"""The compiled ops.local_ncc against the reference."""

from __future__ import annotations

import pytest
import torch
from ops_checks import (
    CHANNELS_LAST,
    check_same,
    needs_native,
    uniform,
    values_and_gradients,
)

from lganet_fast.ops import local_ncc

pytestmark = needs_native


def images(*shape):
    return uniform(*shape, seed=1, low=0), uniform(*shape, seed=2, low=0)


@pytest.mark.parametrize("level", [1e6, 1e6 + 0.3, 12345.6])
@pytest.mark.parametrize("window", [3, 5, 7, 9])
def test_flat_background_of_any_intensity_has_no_noise(window, level):
    """Away from the border a flat background adds nothing, and has no gradient, whatever it is."""
    a = torch.full((1, 1, 26, 27, 28), level)
    inside = torch.zeros_like(a)
    reach = window // 2
    inside[..., reach:-reach, reach:-reach, reach:-reach] = 1
    b = (a * 1.7).requires_grad_()
    value = local_ncc(a, b, window, inside, backend="native")
    value.backward()
    assert value.item() == 0
    assert (b.grad == 0).all()


SHAPES = [(1, 1, 7, 6, 5), (2, 2, 1, 4, 3), (2, 3, 9, 12, 37), (1, 1, 47, 5, 3), (3, 1, 18, 1, 70)]
TOLERANCES = {
    torch.float64: (1e-12, 1e-10, 1e-10),
    torch.float32: (2e-5, 2e-5, 2e-5),
    torch.bfloat16: (2e-5, 5e-3, 5e-3),
    torch.float16: (2e-5, 2e-3, 2e-3),
}


def run(backend, a, b, window, weight=None):
    return values_and_gradients(lambda a, b: 8 * local_ncc(a, b, window, weight, backend), a, b)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("window", [1, 5, 9])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_against_reference(shape, window, weighted, dtype):
    a, b = (t.to(dtype) for t in images(*shape))
    weight = uniform(shape[0], 1, *shape[2:], seed=4, low=0) if weighted else None
    expected = run("reference", a, b, window, weight)
    check_same(run("native", a, b, window, weight), expected, TOLERANCES[dtype])


def test_compiled_keeps_the_memory_format():
    a, b = (t.contiguous(memory_format=CHANNELS_LAST) for t in images(2, 3, 4, 5, 6))
    _, *grads = run("native", a, b, 3)
    assert all(grad.is_contiguous(memory_format=CHANNELS_LAST) for grad in grads)
    check_same(grads, run("reference", a, b, 3)[1:], (1e-10, 1e-10))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("needed", [(True, True), (False, True), (True, False)])
def test_operator_is_well_formed(needed, dtype):
    pair = [
        t.to(dtype).requires_grad_(n) for t, n in zip(images(1, 2, 4, 3, 5), needed, strict=True)
    ]
    torch.library.opcheck(torch.ops.lganet_fast.local_ncc.default, (*pair, None, 3, *needed))
    _, *units = torch.ops.lganet_fast.local_ncc(*(t.detach() for t in pair), None, 3, *needed)
    arguments = (torch.full((), 2.0).to(units[0]), *(t.detach() for t in pair), *units)
    torch.library.opcheck(torch.ops.lganet_fast.local_ncc_backward.default, arguments)


def test_the_gradient_to_the_weight_is_the_references():
    a, b = images(1, 1, 4, 4, 4)
    found = []
    for backend in ("native", "reference"):
        weight = torch.ones_like(a).requires_grad_()
        local_ncc(a, b, 3, weight, backend=backend).backward()
        found.append(weight.grad)
    assert found[0].any()
    assert torch.equal(*found)
