"""Attention by Triton: where it is taken and where not, and on a GPU what it computes."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lganet_fast.ops import attention, choose_backend, explain, triton


@pytest.fixture
def cuda(monkeypatch):
    """Tensors that claim to be on a CUDA device and hold nothing."""
    monkeypatch.setattr(triton, "INSTALLED", True)
    with FakeTensorMode():
        yield lambda *shape, **how: torch.empty(*shape, device="cuda", **how)


def test_taken_on_cuda(cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    called = []
    module = sys.modules["lganet_fast.ops.attention"]
    run = module.fused
    monkeypatch.setattr(module, "fused", lambda *a: called.append(a) or run(*a))
    q, v = cuda(2, 12, 8, dtype=torch.float16), cuda(2, 12, 16, dtype=torch.float16)
    assert attention(q, q, v, 0.5, 3, dropout_p=0.1).shape == v.shape
    assert attention(q, q, v, 0.5).shape == v.shape  # PyTorch's
    assert attention(q.float(), q.float(), v.float(), 0.5, 3).dtype == torch.float32  # and this
    ((*_, scale, counts, dropout_p, volume),) = called
    assert (scale, counts, dropout_p, volume) == (0.5, (3, 1, 1), 0.1, (3, 1, 4))


@pytest.mark.parametrize(
    ("width", "dtype", "reason"),
    [
        (129, torch.float32, "tokens may be up to 128 wide, got 129"),
        (8, torch.float64, "it computes in float32, got float64"),
    ],
)
def test_tokens_it_is_not_made_for(cuda, monkeypatch, width, dtype, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    v = cuda(1, 4, width, dtype=dtype)
    assert attention(v, v, v, 1.0).shape == v.shape
    with pytest.raises(RuntimeError, match=f"'triton' cannot run attention on cuda: {reason}"):
        attention(v, v, v, 1.0, backend="triton")


def refusal(device="cuda", operation="attention"):
    return choose_backend(operation, device).refused.get("triton")


def test_reasons(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    device = SimpleNamespace(major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: device)
    monkeypatch.setattr(triton, "INSTALLED", True)
    assert refusal() is None
    assert refusal("cpu") == "it needs a CUDA device"
    assert refusal(operation="warp") == "it has no Triton kernel"
    device.major, device.minor = 7, 5
    assert refusal() == "it needs compute capability 8.0, got 7.5"
    monkeypatch.setattr(triton, "INSTALLED", False)
    assert refusal() == "triton is not installed"


@pytest.mark.parametrize(
    ("operation", "call", "reason"),
    [
        ("attention", {"width": 129}, "tokens may be up to 128 wide, got 129"),
        ("attention", {"dtype": torch.float64}, "it computes in float32, got float64"),
        ("attention", {"windows": 1}, "PyTorch's own is faster over one window"),
        ("attention", {"dtype": torch.float32}, "PyTorch's own is faster in float32"),
        ("attention", {"voxels": 2**31}, "it takes fewer than 2^31 voxels, got 2147483648"),
        ("correlate", {"channels": 65}, "it takes up to 64 channels, got 65"),
        ("correlate", {"radius": 3}, "it takes a radius of up to 2, got 3"),
        ("correlate", {"voxels": 2**31}, "it takes fewer than 2^31 voxels, got 2147483648"),
    ],
)
def test_explained(monkeypatch, operation, call, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(triton, "INSTALLED", True)
    assert explain(operation, "cuda").startswith(f"{operation} on cuda: triton")
    line = explain(operation, "cuda", **call)
    assert line.startswith(f"{operation} on cuda: ")
    assert f"(triton: {reason}" in line


def test_the_cpu_does_not_import_triton(tmp_path):
    code = (
        "import sys, torch; from lganet_fast.ops import attention, correlate;"
        "x = torch.zeros(1, 4, 2); attention(x, x, x, 1.0); x = torch.zeros(1, 2, 3, 3, 3);"
        "correlate(x, x); print([name for name in sys.modules if name.startswith('triton')])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def relative_errors(operation, inputs):
    """Errors of the result and of each gradient on the GPU, relative to the largest number."""
    found = []
    for backend, dtype in (("triton", inputs[0].dtype), ("reference", torch.float64)):
        leaves = [x.cuda().to(dtype).requires_grad_() for x in inputs]
        out = operation(*leaves, backend=backend)
        weights = torch.arange(out.numel(), device="cuda").sin().view(out.shape)
        grads = torch.autograd.grad((out.double() * weights).sum(), leaves)
        found.append([x.double() for x in (out, *grads)])
    return [((x - y).abs().max() / y.abs().max()).item() for x, y in zip(*found, strict=True)]


GPU_TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", GPU_TOLERANCES)
@pytest.mark.parametrize(
    ("tokens", "widths", "how"),
    [
        (27 * 264, (64, 64), {"windows": 27}),
        (22 * 18 * 18, (64, 64), {"windows": (3, 3, 3), "volume": (22, 18, 18)}),
        (2001, (8, 64), {}),
        (500, (100, 128), {}),
    ],
)
def test_on_the_gpu(tokens, widths, how, dtype):
    torch.manual_seed(0)
    inputs = [torch.randn(1, tokens, w).to(dtype) for w in (widths[0], *widths)]
    errors = relative_errors(lambda q, k, v, **b: attention(q, k, v, 0.3, **how, **b), inputs)
    assert max(errors) <= GPU_TOLERANCES[dtype]
