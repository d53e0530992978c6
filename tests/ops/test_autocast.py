"""Autocast: the operations compute in the types they are given, inside it as outside."""

from __future__ import annotations

import pytest
import torch
from ops_checks import BACKENDS, uniform, values_and_gradients

from lganet_fast import ops

IMAGE, FLOW = uniform(1, 4, 5, 6, 7).float(), uniform(1, 3, 5, 6, 7, seed=1).float()
BIAS = uniform(2, 3, 3, 3).float()
CALLS = {
    "warp": (ops.warp, IMAGE, FLOW),
    "compose": (ops.compose, FLOW, FLOW),
    "integrate": (ops.integrate, FLOW),
    "correlate": (ops.correlate, IMAGE, IMAGE),
    "local_ncc": (ops.local_ncc, IMAGE, IMAGE.flip(2)),
    "mutual_information": (ops.mutual_information, IMAGE, IMAGE.flip(2)),
    "gradient_loss": (ops.gradient_loss, FLOW),
    "resize": (lambda x, **options: ops.resize(x, (8, 9, 3), **options), IMAGE),
    "norm_act": (ops.norm_act, IMAGE),
    "neighbour_attention": (ops.neighbour_attention, IMAGE, IMAGE.flip(2), BIAS),
}


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operation", CALLS)
def test_autocast_changes_nothing(operation, backend, kind):
    function, *inputs = CALLS[operation]

    def call(*xs):
        return function(*xs, backend=backend)

    expected = values_and_gradients(call, *inputs)
    with torch.autocast("cpu", kind):
        found = values_and_gradients(call, *inputs)
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == torch.float32
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)
