"""The compiled ops.correlate against the reference."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from ops_checks import (
    CHANNELS_LAST,
    check_same,
    needs_native,
    uniform,
    values_and_gradients,
)

from lganet_fast.ops import correlate

pytestmark = needs_native


def inputs(*shape):
    return uniform(*shape, seed=1), uniform(*shape, seed=2)


FORMATS = [torch.contiguous_format, CHANNELS_LAST]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}
SHAPES = [(2, 3, 4, 5, 3), (1, 1, 1, 4, 5), (1, 37, 5, 3, 19), (1, 16, 6, 1, 2), (1, 68, 2, 2, 33)]


@pytest.mark.parametrize(("x_format", "y_format"), [*zip(FORMATS, FORMATS, strict=True), FORMATS])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "radius"), [*product(SHAPES, [1, 2]), (SHAPES[0], 3)])
def test_compiled_against_reference(shape, radius, dtype, x_format, y_format):
    x, y = (t.to(dtype) for t in inputs(*shape))
    pair = x.contiguous(memory_format=x_format), y.contiguous(memory_format=y_format)
    results = [
        values_and_gradients(lambda x, y, name=name: correlate(x, y, radius, name), *pair)
        for name in ("native", "reference")
    ]
    check_same(*results, 3 * [TOLERANCES[dtype]])
    formats = x_format, x_format, y_format
    for result, memory_format in zip(results[0], formats, strict=True):
        if shape[1] > 1:
            assert result.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("needed", [(True, True), (False, True), (True, False)])
def test_operator_is_well_formed(needed, dtype, memory_format):
    pair = [
        t.to(dtype).contiguous(memory_format=memory_format).requires_grad_(n)
        for t, n in zip(inputs(1, 2, 4, 3, 5), needed, strict=True)
    ]
    torch.library.opcheck(torch.ops.lganet_fast.correlate.default, (*pair, 1))
    plain = [t.detach() for t in pair]
    arguments = (correlate(*plain), *plain, 1, *needed)
    torch.library.opcheck(torch.ops.lganet_fast.correlate_backward.default, arguments)
