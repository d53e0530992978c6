"""norm_act and the convolution by Triton: where taken, and on a GPU what they compute."""

import sys

import pytest
import torch
import torch.nn.functional as F
from ops_checks import CHANNELS_LAST
from test_triton_attention import (
    GPU_TOLERANCES,
    cuda,  # noqa: F401
    needs_gpu,
    relative_errors,
)

from lganet_fast.ops import norm_act

KINDS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("inplace", [False, True])
def test_norm_act_is_taken_on_cuda(cuda, monkeypatch, inplace):  # noqa: F811
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    called = []
    module = sys.modules["lganet_fast.ops.norm_act"]
    name = "fused_" if inplace else "fused"
    run = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a: called.append(a) or run(*a))
    x = cuda(2, 8, 3, 4, 5, dtype=torch.bfloat16, memory_format=CHANNELS_LAST)
    out = norm_act(x, 0.1, inplace)
    assert len(called) == 1
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert out.is_contiguous(memory_format=CHANNELS_LAST)


def test_norm_act_in_float64_is_the_references(cuda, monkeypatch):  # noqa: F811
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    x = cuda(2, 8, 3, 4, 5, dtype=torch.float64)
    assert norm_act(x, 0.1).dtype == torch.float64
    with pytest.raises(RuntimeError, match="it computes in float32, got float64"):
        norm_act(x, 0.1, backend="triton")


def test_offsets_into_a_large_batch_take_64_bits(monkeypatch):
    """The convolution's voxels are numbered through the batch, of which no item is large."""
    pytest.importorskip("triton")
    from lganet_fast.kernels import convolve

    asked = []
    monkeypatch.setattr(convolve, "run", lambda *_, **given: asked.append(given["WIDE"]))
    for batch in (8, 9):
        x = torch.empty(batch, 32, 200, 200, 200, device="meta").to(memory_format=CHANNELS_LAST)
        packed = torch.empty(9, 32, 3, 32, device="meta")
        convolve.forward([x], packed, config=0)
        convolve.weight_gradient([x], x, config=0)
    assert asked == [False, False, True, True]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", GPU_TOLERANCES)
@pytest.mark.parametrize("memory_format", [CHANNELS_LAST, torch.contiguous_format])
@pytest.mark.parametrize("channels", [3, 8, 24, 64])
def test_norm_act_on_the_gpu(channels, memory_format, dtype):
    torch.manual_seed(0)
    x = (torch.randn(2, channels, 19, 22, 18) * 3 + 5).to(dtype).to(memory_format=memory_format)
    errors = relative_errors(lambda x, **b: norm_act(x, 0.1, **b), [x])
    assert max(errors) <= GPU_TOLERANCES[dtype]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "tf32", "float32"])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 8), (24, 24), (27, 8), (64, 64), (24, 3)])
def test_convolution_on_the_gpu(inputs, outputs, kind):
    """Every configuration of the forward and both gradients."""
    from lganet_fast.kernels import convolve as kernels

    torch.manual_seed(0)
    dtype = KINDS.get(kind, torch.float32)
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "tf32": 3e-3, "float32": 2e-5}[kind]
    device = torch.cuda.get_device_capability()

    def volume(channels):
        x = torch.randn(2, channels, 9, 10, 36, device="cuda").to(dtype)
        return x.to(memory_format=CHANNELS_LAST)

    x, grad = volume(inputs), volume(outputs)
    weight = torch.randn(outputs, inputs, 3, 3, 3, device="cuda").to(dtype) / (27 * inputs) ** 0.5
    wide = [t.double().requires_grad_() for t in (x, weight)]
    right = F.conv3d(*wide, padding=1)
    to_x, to_weight = torch.autograd.grad(right, wide, grad.double())

    def check(found, right):
        assert ((found.double() - right).abs().max() / right.abs().max()).item() <= tolerance

    packed = kernels.pack(weight, dtype, kind)
    for how in kernels.configs(inputs, outputs, kind, device):
        check(kernels.forward([x], packed, config=how, kind=kind)[0], right)
    packed = kernels.pack(kernels.mirrored(weight), dtype, kind)
    for how in kernels.configs(outputs, inputs, kind, device):
        check(kernels.forward([grad], packed, config=how, kind=kind)[0], to_x)
    for how in kernels.weight_configs(inputs, outputs, kind, device):
        check(kernels.weight_gradient([x], grad, config=how, kind=kind), to_weight)
