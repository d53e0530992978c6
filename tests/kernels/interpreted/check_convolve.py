"""kernels.convolve in the interpreter, against PyTorch's convolution in float64.

LGANET_FAST_ALL_TRITON=1 takes every configuration of many pairs of channels; without it, a few.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from interpreter import on_the_cpu  # noqa: F401
from ops_checks import CHANNELS_LAST, uniform

from lganet_fast.kernels import convolve as kernels
from lganet_fast.kernels import launch

ALL = os.environ.get("LGANET_FAST_ALL_TRITON") == "1"
TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# Products of exact numbers with sums in float32; what is stored is rounded once more. TF32 is not
# rounded to by the interpreter, but by the kernels where numbers pass through registers.
TOLERANCES = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 3e-6, "tf32": 1e-3}
DEVICES = ((8, 0), (8, 9), (9, 0), (12, 0)) if ALL else ((9, 0),)
SLOPE = 0.1


def volume(channels, seed, kind="float32", size=(3, 2, 5), batch=1, wider=0):
    """A map, or some channels of one that has `wider` more."""
    x = uniform(batch, channels + wider, *size, seed=seed).to(TYPES.get(kind, torch.float32))
    return x.contiguous(memory_format=CHANNELS_LAST)[:, wider // 2 :][:, :channels]


class Case:
    """One convolution: its tensors, what the kernels find and what is right."""

    def __init__(self, channels, outputs, kind="float32", size=(3, 2, 5), batch=1, **how):
        channels = channels if isinstance(channels, tuple) else (channels,)
        self.channels, self.outputs, self.kind, self.how = sum(channels), outputs, kind, how
        dtype, wider = TYPES.get(kind, torch.float32), how.get("wider", 0)
        shape = {"kind": kind, "size": size, "batch": batch, "wider": wider}
        self.maps = [volume(c, seed, **shape) for seed, c in enumerate(channels, 1)]
        weight = uniform(outputs, self.channels, 3, 3, 3, seed=5) / (9 * self.channels) ** 0.5
        self.weight = weight.to(dtype)
        self.bias = uniform(outputs, seed=6).float() if how.get("bias", True) else None
        self.norm = None
        if how.get("norm"):
            shift = uniform(batch, self.channels, seed=7)
            scale = uniform(batch, self.channels, seed=8, low=0.5, high=2)
            self.norm = torch.stack([shift, scale]).float()
        self.mask = volume(self.channels, 9, **shape) if how.get("mask") else None
        self.add = volume(outputs, 10, **shape) if how.get("add") else None
        self.times = volume(outputs, 11, **shape) if how.get("times") else None
        self.grad = volume(outputs, 12, **shape)

    def input(self):
        """What is convolved, in float64."""
        x = torch.cat(self.maps, 1).double()
        if self.mask is not None:
            x = torch.where(self.mask > 0, x, 0)
        if self.norm is not None:
            shift, scale = self.norm.double()[..., None, None, None]
            x = F.leaky_relu((x - shift) * scale, SLOPE)
            x = x.to(self.maps[0].dtype).double() if self.kind in TYPES else x
        return x

    def right(self):
        """The result in float64."""
        bias = None if self.bias is None else self.bias.double()
        y = F.conv3d(self.input(), self.weight.double(), bias, padding=1)
        y = y.relu() if self.how.get("relu") else y
        y = y if self.add is None else y + self.add.double()
        return y if self.times is None else y * self.times.double()

    def found(self, config=0, out=None):
        """The kernel's result and moments."""
        return kernels.forward(
            self.maps,
            kernels.pack(self.weight, self.maps[0].dtype, self.kind),
            self.bias,
            self.norm,
            SLOPE,
            bool(self.how.get("relu")),
            self.add,
            self.times,
            True,
            self.outputs,
            config,
            mask=self.mask,
            kind=self.kind,
            out=out,
        )

    def check(self, config=0, out=None):
        """Compare values and moments; every number of a result that was not there is written."""
        y, moments = self.found(config, out)
        right = self.right()
        tolerance = TOLERANCES[self.kind] * right.abs().max().item()
        torch.testing.assert_close(y.double(), right, rtol=0, atol=tolerance)
        for wrong in (right.roll(1, -1), right.flip(1), 1.01 * right, right.roll(1, 2)):
            if not torch.equal(wrong, right):
                assert (y.double() - wrong).abs().max() > tolerance
        y = y.double()
        var = y.var((2, 3, 4), correction=0)
        expected = torch.stack([y.mean((2, 3, 4)), 1 / (var + 1e-5).sqrt()]).float()
        torch.testing.assert_close(moments, expected, rtol=1e-5, atol=1e-6)

    def check_weights(self, config=0, mask=None):
        """Compare the gradient to the weight."""
        weight = self.weight.double().requires_grad_()
        grad = self.grad if mask is None else torch.where(mask > 0, self.grad, 0)
        F.conv3d(self.input(), weight, padding=1).backward(grad.double())
        found = kernels.weight_gradient(
            self.maps, self.grad, mask, self.norm, SLOPE, config, kind=self.kind
        )
        assert found.dtype == torch.float32
        # operands are what they are, so that only TF32's rounding and float32's sums are left
        tolerance = 1e-3 if self.kind == "tf32" else 5e-6
        if self.kind in TYPES and self.norm is not None:
            tolerance = TOLERANCES[self.kind]  # the normalised number may round the other way
        tolerance *= weight.grad.abs().max().item()
        torch.testing.assert_close(found.double(), weight.grad, rtol=0, atol=tolerance)
        for wrong in (weight.grad.flip(2), weight.grad.flip(4), 1.01 * weight.grad):
            assert (found.double() - wrong).abs().max() > tolerance


PAIRS = [(8, 8), (24, 24), (27, 3)]
if ALL:
    PAIRS += [(5, 20), (27, 8), (16, 3)]
    PAIRS += [(a, b) for a in (1, 8, 16, 32, 48, 64, 96) for b in (3, 8, 16, 32, 48, 64)]
    PAIRS += [(128, 128), (64, 128), (128, 32), (192, 64), (24, 3), (96, 96)]
KINDS = ("float16", "bfloat16", "tf32", "float32")


@pytest.mark.parametrize("kind", KINDS if ALL else ["float16"])
@pytest.mark.parametrize(("inputs", "outputs"), PAIRS)
def test_pairs_of_channels(inputs, outputs, kind):
    """Every configuration of some devices where all are asked for, else the first."""
    case = Case(inputs, outputs, kind, norm=True, batch=2)
    seen = set()
    for device in DEVICES:
        for how in kernels.configs(inputs, outputs, kind, device)[: None if ALL else 1]:
            if how[:4] not in seen:
                case.check(how)
            seen.add(how[:4])


def pairs_of_the_network():
    """Channels of its convolutions, each pair with one of the types; every third, or all."""
    file = Path(__file__).parents[3] / "benchmarks" / "gpu_questions.json"
    calls = json.loads(file.read_text(encoding="utf-8"))["convolutions"].values()
    rows = [row for one in calls for row in one["kernels"] if row["operation"] == "convolve"]
    pairs = sorted({(row["inputs"], row["outputs"]) for row in rows})
    found = [(*pair, KINDS[k % len(KINDS)]) for k, pair in enumerate(pairs)]
    return found if ALL else found[::3]


@pytest.mark.parametrize(("inputs", "outputs", "kind"), pairs_of_the_network())
def test_pairs_of_the_network(inputs, outputs, kind):
    case = Case(inputs, outputs, kind, size=(2, 2, 5), norm=True)
    case.check(kernels.configs(inputs, outputs, kind, (9, 0))[0])


@pytest.mark.parametrize("kind", KINDS if ALL else ["bfloat16"])
@pytest.mark.parametrize(("inputs", "outputs"), PAIRS)
def test_gradient_to_the_weight(inputs, outputs, kind):
    case = Case(inputs, outputs, kind, norm=True, batch=2)
    mask = volume(outputs, 13, kind, batch=2)
    seen = set()
    for device in DEVICES:
        for how in kernels.weight_configs(inputs, outputs, kind, device)[: None if ALL else 1]:
            if how[:3] not in seen:
                case.check_weights(how, mask)
            seen.add(how[:3])


TILES = [
    kernels.Config(group, rows, step, block, 4, 2, precision)
    for group in (1, 2, 4)
    for rows, step, block, precision in ((32, 16, 8, "tf32x3"), (64, 32, 16, "ieee"))
]


@pytest.mark.parametrize("how", TILES, ids=str)
@pytest.mark.parametrize("size", [(4, 3, 7), (1, 1, 1), (2, 5, 8)] if ALL else [(3, 4, 7)])
def test_tiles_and_borders(how, size):
    """Blocks of outputs that do not fill, groups past the last voxel, steps past the last input."""
    Case(6, 12, size=size, batch=2).check(how)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"bias": False, "relu": True},
        {"relu": True, "add": True},
        {"times": True},
        {"add": True, "times": True, "norm": True, "relu": True},
        {"mask": True, "bias": False},
        {"wider": 8, "add": True, "times": True, "norm": True},
        {"wider": 4, "mask": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["float32", "tf32"] if ALL else ["float32"])
def test_what_comes_before_and_after(how, kind):
    Case(8, 8, kind, batch=2, **how).check()


@pytest.mark.parametrize(("channels", "norm"), [((8, 8), False), ((3, 16, 8), True)])
def test_several_maps(channels, norm):
    case = Case(channels, 8, norm=norm, batch=2, wider=8)
    case.check()
    case.check_weights()


def test_the_result_may_be_some_channels_of_a_wider_map():
    case = Case(8, 8)
    wider = torch.full((1, 24, 3, 2, 5), torch.nan).contiguous(memory_format=CHANNELS_LAST)
    case.check(out=wider[:, 8:16])
    assert wider[:, :8].isnan().all()
    assert wider[:, 16:].isnan().all()


@pytest.mark.parametrize("kind", TYPES)
def test_half_maps_may_give_a_float32_result(kind):
    """Which is not rounded: products of half numbers are exact, sums are float32's."""
    case = Case((8, 8), 3, kind, relu=True)
    out = torch.full((1, 3, 3, 2, 5), torch.nan).contiguous(memory_format=CHANNELS_LAST)
    found, _ = case.found(out=out)
    assert found is out
    right = case.right()
    torch.testing.assert_close(out.double(), right, rtol=0, atol=3e-6 * right.abs().max().item())


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_gradient_to_the_input(kind):
    """The same kernel with mirrored weights, and the ReLU's result as a mask."""
    case = Case(8, 12, kind, batch=2)
    mask = volume(12, 13, kind, batch=2)
    x = case.input().requires_grad_()
    grad = torch.where(mask > 0, case.grad, 0)
    F.conv3d(x, case.weight.double(), padding=1).backward(grad.double())
    packed = kernels.pack(kernels.mirrored(case.weight), mask.dtype, kind)
    found, none = kernels.forward([case.grad], packed, outputs=8, mask=mask, kind=kind)
    assert none is None
    tolerance = TOLERANCES[kind] * x.grad.abs().max().item()
    torch.testing.assert_close(found.double(), x.grad, rtol=0, atol=tolerance)


def test_tf32_is_rounded_to_the_nearest():
    """As far as registers see the numbers: weights always, inputs where they are normalised."""
    case = Case(16, 8, "tf32", norm=True, bias=False)
    exact = Case(16, 8, "float32", norm=True, bias=False).right()

    def rounded(x):
        bits = x.float().contiguous().view(torch.int32)
        return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).double()

    right = F.conv3d(rounded(case.input()), rounded(case.weight), padding=1)
    found = case.found()[0].double()
    assert (found - right).abs().max() < 2e-5 < (found - exact).abs().max()


def test_offsets_of_64_bits(monkeypatch):
    case = Case(8, 8, norm=True)
    (narrow, _), weights = case.found(), kernels.weight_gradient(case.maps, case.grad)
    monkeypatch.setattr(launch, "OFFSETS_32", 1)
    assert torch.equal(case.found()[0], narrow)
    assert torch.equal(kernels.weight_gradient(case.maps, case.grad), weights)


def test_splits_of_the_voxels_are_summed_in_one_order():
    """A gradient from many parts, bit for bit the same twice; the last part is not full."""
    case = Case(2, 3, size=(9, 10, 13))
    how = kernels.WeightConfig(32, 8, 32, 4, 2, "ieee")
    assert how.splits(2, 3, 1, 1170) > 1
    case.check_weights(how)
    first, second = (kernels.weight_gradient(case.maps, case.grad, config=how) for _ in range(2))
    assert torch.equal(first, second)


def test_empty():
    x = torch.zeros(0, 8, 3, 2, 5)
    packed = kernels.pack(torch.zeros(4, 8, 3, 3, 3), torch.float32)
    y, moments = kernels.forward([x], packed, outputs=4, moments=True)
    assert y.shape == (0, 4, 3, 2, 5)
    assert moments.shape == (2, 0, 4)
    grad = kernels.weight_gradient([x], y)
    assert torch.equal(grad, torch.zeros(4, 8, 3, 3, 3))


def test_configurations():
    """At most six of a kind, none twice, and tiles that the model knows the cost of."""
    for kind in KINDS:
        for device in ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0), (13, 0)):
            for inputs, outputs in ((1, 8), (27, 8), (24, 3), (64, 64), (192, 64), (128, 128)):
                for found in (kernels.configs, kernels.weight_configs):
                    some = found(inputs, outputs, kind, device)
                    assert 1 <= len(some) <= 6
                    assert len(set(some)) == len(some)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"maps": 4}, "1 to 3 maps, got 4"),
        ({"channels": 9}, "packed weights must be"),
        ({"add": (1, 4, 3, 2, 5)}, "add must have shape"),
        ({"mask": (1, 4, 3, 2, 5)}, "a mask must have the shape"),
        ({"contiguous": True}, "must be channels_last_3d"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(change, error):
    x = volume(change.get("channels", 8), 1)
    x = x.contiguous() if "contiguous" in change else x
    packed = kernels.pack(torch.zeros(8, 8, 3, 3, 3), torch.float32)
    more = {n: torch.zeros(change[n]) for n in ("add", "mask") if n in change}
    with pytest.raises(ValueError, match=error):
        kernels.forward([x] * change.get("maps", 1), packed, outputs=8, **more)


def test_types_that_do_not_fit():
    with pytest.raises(TypeError, match=r"bfloat16 or float32, got torch\.float64"):
        kernels.kind_of(torch.float64)
    packed = kernels.pack(torch.zeros(8, 8, 3, 3, 3), torch.float16)
    with pytest.raises(TypeError, match="weights must be of the maps' type"):
        kernels.forward([volume(8, 1)], packed)
