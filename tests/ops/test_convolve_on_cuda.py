"""What the convolution asks of its paths on CUDA, on the CPU: stand-ins for the kernels compute it.

The kernels themselves are checked in kernels/interpreted/ and cuda/host/.
"""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from ops_checks import close, uniform

from lganet_fast.ops import (
    convolve_gradients,
    convolve_maps,
    convolve_on_cuda,
    convolve_split,
    reference,
    tuned,
)
from lganet_fast.ops import convolve_training as training
from lganet_fast.ops.convolve_on_cuda import Norm, Work

WIDE = torch.float64  # the stand-ins compute in it
SIZE = (4, 3, 5)


def whole(maps, weight, bias, norm, slope, relu, add, times, mask):
    """The convolution with all that it can do, by PyTorch."""
    x = torch.cat(list(maps), 1)
    x = x if norm is None else reference.normalised(x, norm, slope)
    x = x if mask is None else torch.where(mask > 0, x, 0)
    y = F.conv3d(x, weight, bias, padding=1)
    y = y.relu() if relu else y
    y = y if add is None else y + add
    return y if times is None else y * times


def triton_forward(
    maps, packed, bias, norm, slope, relu, add, times, moments, outputs, config, *, mask, kind
):
    """What kernels.convolve.forward is to compute; the weights are packed as they are."""
    assert (outputs, config, kind) == (len(packed), 3, "float64")
    y = whole(maps, packed, bias, norm, slope, relu, add, times, mask)
    return y, (reference.moments(y) if moments else None)


def compiled_forward(maps, packed, bias, *, outputs, precision, moments, config, **rest):
    """What convolve_maps.forward is to compute."""
    assert (outputs, config, precision) == (len(packed), 3, "float64")
    y = whole(maps, packed, bias.to(WIDE), **rest)
    return y, (reference.moments(y) if moments else y.new_empty(0))


def to_weight(x, grad, mask):
    """The gradient to the weight."""
    grad = grad if mask is None else torch.where(mask > 0, grad, 0)
    size = (grad.shape[1], x.shape[1], 3, 3, 3)
    return torch.nn.grad.conv3d_weight(x, size, grad, padding=1), grad.sum((0, 2, 3, 4))


STAND_INS = {
    "convolve": SimpleNamespace(
        forward=triton_forward,
        pack=lambda weight, dtype, precision: weight.to(dtype),
        weight_gradient=lambda maps, grad, mask, config, kind: to_weight(maps[0], grad, mask)[0],
    ),
    "epilogue": SimpleNamespace(bias_gradient=lambda grad, mask: to_weight(grad, grad, mask)[1]),
}


@pytest.fixture(params=["cudnn", "triton", "native"])
def path(request, monkeypatch):
    """Every convolution by one path, which is a stand-in."""
    entry = tuned.Entry(request.param, 3 if request.param != "cudnn" else 0, 1.0)
    for module in (convolve_on_cuda, training):
        monkeypatch.setattr(module, "path", lambda *_: entry)
    monkeypatch.setattr(convolve_on_cuda.triton, "kernels", STAND_INS.get)
    monkeypatch.setattr(convolve_maps, "forward", compiled_forward)
    monkeypatch.setattr(convolve_maps, "pack", lambda weight, precision: weight)
    monkeypatch.setattr(
        convolve_gradients,
        "weight_gradient",
        lambda maps, grad, *, precision, mask, config: to_weight(maps[0], grad, mask),
    )
    return request.param


def map_of(channels, seed):
    return uniform(2, channels, *SIZE, seed=seed).contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("parts", [(4,), (2, 1, 1)])
@pytest.mark.parametrize("moments", [False, True])
def test_all_that_it_can_do(path, parts, moments):
    maps = [map_of(n, seed) for seed, n in enumerate(parts)]
    weight, bias = uniform(3, 4, 3, 3, 3, seed=4), uniform(3, seed=5)
    norm = Norm(uniform(2, 2, 4, seed=6), 0.1)
    add, times = map_of(3, 7), map_of(3, 8)
    wanted = whole(maps, weight, bias, *norm, True, add, times, None)
    kept = [x.clone() for x in maps]
    work = Work(weight, bias, True, norm, add, times, moments)
    found, about = convolve_on_cuda.convolve_on_cuda(maps, work, None)
    close(found, wanted, 1e-6 if path == "native" else 1e-12)  # bias in float32
    assert all(torch.equal(x, y) for x, y in zip(maps, kept, strict=True))
    assert (about is not None) == moments
    if about is not None:
        close(about, reference.moments(found))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("needed", ["xwb", "x", "wb"])
def test_gradients(path, relu, needed):
    x, weight, bias = map_of(4, 0), uniform(3, 4, 3, 3, 3, seed=1), uniform(3, seed=2)
    given = [t.requires_grad_(n in needed) for t, n in zip((x, weight, bias), "xwb", strict=True)]
    leaves = [t for t in given if t.requires_grad]
    wanted, found = F.conv3d(*given, padding=1), training.convolve(*given, relu, None)
    wanted = wanted.relu() if relu else wanted
    tolerance = 1e-6 if path == "native" else 1e-12
    close(found.detach(), wanted.detach(), tolerance)
    grad = map_of(3, 3)
    for one, other in zip(
        torch.autograd.grad(found, leaves, grad),
        torch.autograd.grad(wanted, leaves, grad),
        strict=True,
    ):
        close(one, other, tolerance)


def test_maps_that_lie_otherwise_are_copied():
    x = torch.empty(2, 6, 3, 4, 5)
    last = x.contiguous(memory_format=torch.channels_last_3d)
    in_rows = convolve_on_cuda.in_rows
    for fits in (last, last[:, 1:3], last[1:], last[:1, :, :1], x[:1, :1], None):
        assert in_rows(fits) is fits
    for other in (x, x[:, :1], last[:, :, ::2], last[..., :4]):
        copy = in_rows(other)
        assert copy.shape == other.shape
        assert copy.is_contiguous(memory_format=torch.channels_last_3d)


def test_what_cudnn_takes_and_gives_is_brought_into_rows(monkeypatch):
    """Contiguous maps and weights give a contiguous result, which the pass behind cannot read."""

    def finish(y, bias, relu, add, times, moments):
        for x in (y, add, times):
            assert convolve_on_cuda.in_rows(x) is x
        y += bias[:, None, None, None]
        y.copy_((y.relu() + add) * times)
        return reference.moments(y)

    def normalise(x, moments, slope, out):
        assert convolve_on_cuda.in_rows(x) is x
        out.copy_(reference.normalised(x, moments, slope))

    monkeypatch.setattr(convolve_on_cuda, "swept", lambda _: True)
    monkeypatch.setattr(convolve_on_cuda, "finish", finish)
    monkeypatch.setattr(convolve_on_cuda, "normalise", normalise)
    x, weight, bias = uniform(2, 4, *SIZE), uniform(3, 4, 3, 3, 3, seed=1), uniform(3, seed=2)
    add, times = uniform(2, 3, *SIZE, seed=3), uniform(2, 3, *SIZE, seed=4)
    norm = Norm(uniform(2, 2, 4, seed=5), 0.1)
    kept = x.clone()
    for through in (None, norm):
        wanted = whole([x], weight, bias, *(through or (None, 1.0)), True, add, times, None)
        work = Work(weight, bias, True, through, add, times, True)
        found, about = convolve_on_cuda.by_cudnn([x], work, False)
        close(found, wanted, 1e-12)
        close(about, reference.moments(wanted))
    assert torch.equal(x, kept)


def test_second_derivatives_are_refused(path):
    x, weight, bias = map_of(4, 0).requires_grad_(), uniform(3, 4, 3, 3, 3), uniform(3)
    out = training.convolve(x, weight, bias, False, None)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("there", [True, False])
def test_the_measured_winner_is_taken_where_it_can_run(monkeypatch, there):
    winner = tuned.Entry("triton", 2, 5.0)
    monkeypatch.setattr(convolve_on_cuda, "capability", lambda _: (9, 0))
    asked = []
    monkeypatch.setattr(tuned, "winner", lambda *key: asked.append(key) or winner)
    refused = {} if there else {"triton": "triton is not installed"}
    monkeypatch.setattr(convolve_on_cuda, "refusals", lambda *_, **__: refused)
    weight = torch.empty(8, 24, 3, 3, 3)
    x = torch.empty(2, 24, 16, 16, 16, dtype=torch.bfloat16)
    found = convolve_on_cuda.path("convolve", weight, x)
    assert found == (winner if there else convolve_on_cuda.CUDNN)
    assert asked == [("convolve", 24, 8, "bfloat16", 2 * 16**3, (9, 0))]
    assert convolve_on_cuda.path("convolve", weight, x.double()) == convolve_on_cuda.CUDNN
    assert convolve_on_cuda.path("convolve", weight, x, "reference").path == "cudnn"


def test_cudnn_runs_where_nothing_was_measured(monkeypatch):
    monkeypatch.setattr(convolve_on_cuda, "capability", lambda _: (9, 0))
    monkeypatch.setattr(tuned, "winner", lambda *_: None)
    weight, x = torch.empty(8, 24, 3, 3, 3), torch.empty(1, 24, 8, 8, 8)
    assert convolve_on_cuda.path("convolve", weight, x) == convolve_on_cuda.CUDNN


@pytest.mark.parametrize(("tf32", "parts"), [(True, 2), (False, 3)])
def test_float32_weights_on_a_bfloat16_map(monkeypatch, tf32, parts):
    """As close to float64 as the sum of the weight's parts is to the weight: 2^-16, 2^-24."""
    asked = []

    def forward(maps, packed, bias, *_, mask, kind, out):
        asked.append(len(maps))
        assert (kind, out.dtype, packed.dtype) == ("bfloat16", torch.float32, torch.bfloat16)
        x = torch.cat(list(maps), 1).to(WIDE)
        return out.copy_(F.conv3d(x, packed.to(WIDE), bias.to(WIDE), padding=1).relu()), None

    pack = lambda weight, dtype, precision: weight.to(dtype)  # noqa: E731
    stand_in = SimpleNamespace(forward=forward, pack=pack)
    monkeypatch.setattr(convolve_on_cuda.triton, "kernels", lambda name: stand_in)
    monkeypatch.setattr(convolve_split, "path", lambda *_: tuned.Entry("triton", 3, 1.0))
    monkeypatch.setattr(convolve_split, "precision", lambda _: "tf32" if tf32 else "float32")
    x, weight, bias = map_of(4, 0).bfloat16(), uniform(3, 4, 3, 3, 3, seed=1), uniform(3, seed=2)
    weight, bias = (weight / 30).float(), bias.float()
    assert convolve_split.splits(x, weight)
    assert not convolve_split.splits(x.half(), weight)
    found = convolve_split.convolve_split(x, weight, bias, True)
    assert asked == [parts]
    assert found.dtype == torch.float32
    wanted = F.conv3d(x.to(WIDE), weight.to(WIDE), bias.to(WIDE), padding=1).relu()
    error = (found - wanted).abs().max().item()
    assert error < (2e-5 if tf32 else 5e-7)
    assert error > 0
