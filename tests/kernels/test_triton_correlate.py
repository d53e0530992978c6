"""Local correlation by Triton: where it is taken and where not, and on a GPU what it computes."""

import sys

import pytest
import torch
from ops_checks import CHANNELS_LAST
from test_triton_attention import (
    GPU_TOLERANCES,
    cuda,  # noqa: F401
    needs_gpu,
    relative_errors,
)

from lganet_fast.ops import correlate


def test_taken_on_cuda(cuda, monkeypatch):  # noqa: F811
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    called = []
    module = sys.modules["lganet_fast.ops.correlate"]
    run = module.fused
    monkeypatch.setattr(module, "fused", lambda *a: called.append(a) or run(*a))
    x = cuda(2, 8, 3, 4, 5, memory_format=CHANNELS_LAST)
    out = correlate(x, x, 2)
    assert len(called) == 1
    assert out.shape == (2, 125, 3, 4, 5)
    assert out.is_contiguous(memory_format=CHANNELS_LAST)


@pytest.mark.parametrize(
    ("channels", "radius", "reason"),
    [(65, 1, "it takes up to 64 channels, got 65"), (8, 3, "it takes a radius of up to 2, got 3")],
)
def test_calls_it_is_not_made_for(cuda, monkeypatch, channels, radius, reason):  # noqa: F811
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    x = cuda(1, channels, 3, 4, 5)
    assert correlate(x, x, radius).shape == (1, (2 * radius + 1) ** 3, 3, 4, 5)
    with pytest.raises(RuntimeError, match=reason):
        correlate(x, x, radius, backend="triton")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", GPU_TOLERANCES)
@pytest.mark.parametrize("memory_format", [CHANNELS_LAST, torch.contiguous_format])
@pytest.mark.parametrize(("channels", "radius"), [(8, 1), (64, 1), (12, 2)])
def test_on_the_gpu(channels, radius, memory_format, dtype):
    torch.manual_seed(0)
    maps = [torch.randn(1, channels, 19, 22, 18) for _ in range(2)]
    maps = [x.to(dtype).to(memory_format=memory_format) for x in maps]
    errors = relative_errors(lambda x, y, **b: correlate(x, y, radius, **b), maps)
    assert max(errors) <= GPU_TOLERANCES[dtype]
