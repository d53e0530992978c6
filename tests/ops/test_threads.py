"""Compiled operations give the same bits, gradients too, however many threads share the work.

Only convolve's gradient to the weight is summed up once per thread. Volumes are large enough for
several tasks each, and flows lead far from where they start.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from ops_checks import (
    CHANNELS_LAST,
    check_same,
    needs_native,
    threads,
    uniform,
    values_and_gradients,
)

from lganet_fast import ops
from lganet_fast.ops import native

SIZE = (34, 33, 31)  # more than four tasks of 8192 voxels


def flow(seed: int) -> torch.Tensor:
    return 9 * uniform(2, 3, *SIZE, seed=seed)


def image(channels: int, seed: int = 0) -> torch.Tensor:
    return uniform(2, channels, *SIZE, seed=seed)


CASES = {
    "compose": (ops.compose, flow(1), flow(2)),
    "convolve": (ops.convolve, image(4), uniform(8, 4, 3, 3, 3), uniform(8)),
    "correlate": (ops.correlate, image(16), image(16, 1)),
    "gradient_loss": (ops.gradient_loss, flow(1)),
    "integrate": (lambda v: ops.integrate(v, 5), flow(1)),
    "invert": (ops.invert, flow(1) / 9, flow(2) / 9, flow(3) / 9),
    "local_ncc": (ops.local_ncc, image(1), image(1, 1)),
    "mutual_information": (ops.mutual_information, image(1), image(1, 1)),
    "neighbour_attention": (ops.neighbour_attention, image(12), image(12, 1), uniform(2, 3, 3, 3)),
    "norm_act": (ops.norm_act, image(5)),
    "resize": (lambda x: ops.resize(x, (45, 44, 62)), image(3)),
    "warp": (ops.warp, image(2), flow(1)),
    "warp of many channels": (ops.warp, image(24), flow(1)),
}


def test_every_compiled_operation_is_here():
    assert {name.split()[0] for name in CASES} >= set(native.COMPILED)


@needs_native
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
@pytest.mark.parametrize("name", CASES)
def test_same_bits_with_any_number_of_threads(name, memory_format):
    operation, *inputs = CASES[name]
    inputs = [
        x.float().contiguous(memory_format=memory_format) if x.ndim == 5 else x.float()
        for x in inputs
    ]
    results = []
    for count in (1, 3, 7):
        with threads(count):
            run = operation if name == "invert" else partial(values_and_gradients, operation)
            results.append(run(*inputs))
    for other in results[1:]:
        if name == "convolve":
            check_same(other, results[0], [0, 0, 4e-5, 0])
        else:
            assert all(map(torch.equal, results[0], other))
