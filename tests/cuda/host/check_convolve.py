"""The convolution of convolve.cuh, run on the host, against PyTorch's in float64."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, replace

import host_convolve
import pytest
import torch
import torch.nn.functional as F
from ops_checks import uniform

from lganet_fast.ops import convolve_packs
from lganet_fast.ops.convolve_packs import DTYPES, round_tf32

TOLERANCES = {"float16": 2**-11, "bfloat16": 2**-8, "tf32": 1e-4, "float32": 2e-6}
ALL = bool(os.environ.get("LGANET_FAST_ALL_CUDA"))


@dataclass(frozen=True)
class Case:
    """One call; sizes are channels of each map, outputs, and (B, H, W, D)."""

    maps: tuple[int, ...] = (8,)
    outputs: int = 8
    size: tuple[int, int, int, int] = (1, 3, 4, 9)
    precision: str = "float16"
    norm: bool = False
    relu: bool = False
    add: bool = False
    times: bool = False
    moments: bool = False
    mask: bool = False
    wider: int = 0  # channels before and behind those of each tensor that is read or written
    tile: tuple[int, int, int] | None = None  # None: one with two warps or more for most sizes
    whole: bool | None = None  # None: where it is possible
    processors: int = 2


def within(x, wider, fill=torch.nan):
    """The same numbers as channels of a wider map that has `fill` around them."""
    size = list(x.shape)
    size[1] += 2 * wider
    full = torch.full(size, fill, dtype=x.dtype).to(memory_format=torch.channels_last_3d)
    if not wider and size[1] == 1:  # no strides of its own
        full = torch.full((size[0], *size[2:], 1), fill, dtype=x.dtype).permute(0, 4, 1, 2, 3)
    part = full[:, wider : wider + x.shape[1]]
    part.copy_(x)
    return full, part


def aligned(x):
    return x.data_ptr() % 16 == 0 and x.stride(4) * x.element_size() % 16 == 0


def inputs_of(case):
    """Tensors of random numbers, in float64."""
    batch, *size = case.size
    made = {"maps": [uniform(batch, c, *size, seed=5 + i) for i, c in enumerate(case.maps)]}
    inputs = sum(case.maps)
    made["weight"] = uniform(case.outputs, inputs, 3, 3, 3, seed=1) / (9 * inputs) ** 0.5
    made["bias"] = uniform(case.outputs, seed=2)
    for i, name in enumerate(("add", "times")):
        wanted = getattr(case, name)
        made[name] = uniform(batch, case.outputs, *size, seed=10 + i) if wanted else None
    made["mask"] = uniform(batch, inputs, *size, seed=12).relu() if case.mask else None
    norm = torch.stack((uniform(batch, inputs, seed=3) / 3, 1 + uniform(batch, inputs, seed=4) / 2))
    made["norm"] = norm.float() if case.norm else None
    return made


def rounded(x, precision):
    """To what the products read."""
    x = x.to(DTYPES[precision])
    return (round_tf32(x.contiguous()) if precision == "tf32" else x).double()


def expected(case, made):
    """The result in float64, of what is rounded where the kernel rounds."""
    dtype = DTYPES[case.precision]
    x = torch.cat([m.to(dtype) for m in made["maps"]], 1).double()
    if case.norm:
        shift, scale = (n.double()[:, :, None, None, None] for n in made["norm"])
        x = F.leaky_relu((x - shift) * scale, 0.1)
    if case.mask:
        x = torch.where(made["mask"].to(dtype) > 0, x, 0.0)
    weight = rounded(made["weight"].float(), case.precision)
    y = F.conv3d(rounded(x.float(), case.precision), weight, padding=1)
    y += made["bias"].float().double()[:, None, None, None]
    y = y.relu() if case.relu else y
    y = y + made["add"].to(dtype).double() if case.add else y
    return y * made["times"].to(dtype).double() if case.times else y


def run(case, made, limit=99 * 1024):
    """The result and the moments, and that nothing is written beside the result."""
    dtype = DTYPES[case.precision]
    batch, *size = case.size
    exact, inputs = case.precision == "float32", sum(case.maps)

    def cast(x):
        return None if x is None else within(x.to(dtype), case.wider)[1]

    full, out = within(torch.full((batch, case.outputs, *size), torch.nan, dtype=dtype), case.wider)
    maps, add, times = [cast(x) for x in made["maps"]], cast(made["add"]), cast(made["times"])
    mask = cast(made["mask"])
    per = 16 // dtype.itemsize
    whole = all(map(aligned, maps)) and all(c % per == 0 for c in case.maps[:-1])
    whole = whole and (mask is None or aligned(mask))
    kind = convolve_packs.kind(inputs, case.outputs, case.precision)
    tile = case.tile or (4 if kind.columns == 8 and not exact else 2, 4, min(size[2], 64))
    code = tile[0] | tile[1] << 8 | tile[2] << 16
    moments = torch.full((2, batch, case.outputs), torch.nan) if case.moments else None
    host_convolve.convolve({
        "maps": maps, "whole": whole if case.whole is None else case.whole, "mask": mask,
        "packed": convolve_packs.pack(made["weight"].float(), case.precision),
        "bias": made["bias"].float(), "norm": made["norm"], "slope": 0.1, "relu": case.relu,
        "add": add, "times": times, "out": out, "moments": moments, "exact": exact,
        "wide": all(aligned(x) for x in (out, add, times) if x is not None),
        "inputs": inputs, "outputs": case.outputs, "tile": code, "limit": limit,
        "processors": case.processors,
    })  # fmt: skip
    beside = torch.cat((full[:, : case.wider], full[:, case.wider + case.outputs :]), 1)
    assert beside.isnan().all()
    return out, moments


def check(case):
    made = inputs_of(case)
    y, moments = run(case, made)
    reference = expected(case, made)
    error = (y.double() - reference).abs().max() / reference.abs().max()
    assert error.item() <= TOLERANCES[case.precision], f"{error.item():.1e}"
    if case.moments:
        stored = y.double().flatten(2)
        mean, variance = stored.mean(2), stored.var(2, correction=0)
        torch.testing.assert_close(moments[0].double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            moments[1].double(), (variance + 1e-5).rsqrt(), rtol=1e-5, atol=0
        )


CASES = {
    "8 to 8": Case(moments=True),
    "one input": Case((1,), 8, whole=False, norm=True),
    "three inputs": Case((3,), 16, precision="tf32", relu=True),
    "16 to 16": Case((16,), 16, (2, 5, 4, 11), norm=True, relu=True, add=True, moments=True),
    "24 to 24": Case((24,), 24, (1, 4, 3, 14), "bfloat16", norm=True, times=True, moments=True),
    "three maps": Case((8, 8, 16), 32, (1, 2, 3, 9), wider=8, add=True, times=True, moments=True),
    "uneven maps": Case((3, 8, 1), 12, wider=3, norm=True, add=True, moments=True),
    "27 of 32": Case((27,), 8, (1, 3, 5, 7), wider=8, relu=True),
    "heads": Case((24,), 3, (2, 3, 3, 8), times=True),
    "40 outputs": Case((16,), 40, add=True, moments=True),
    "two blocks of outputs": Case((8,), 64, (1, 2, 3, 8), norm=True),
    "masked": Case((16,), 8, mask=True),
    "masked and apart": Case((5,), 8, mask=True, wider=1),
    "masked TF32": Case((12,), 8, mask=True, precision="tf32", wider=4),
    "TF32": Case((24,), 24, (1, 3, 4, 14), "tf32", norm=True, relu=True, moments=True),
    "TF32, 32 outputs": Case((8, 12), 32, precision="tf32", add=True, times=True),
    "float32": Case((20,), 16, (2, 3, 4, 9), "float32", norm=True, moments=True),
    "float32, three outputs": Case((8, 8), 3, precision="float32", relu=True, add=True),
    "bfloat16": Case((48,), 48, (1, 2, 3, 9), "bfloat16", mask=True),
    "one voxel": Case((8,), 8, (1, 1, 1, 1), moments=True, processors=1),
    "a line": Case((8,), 8, (1, 1, 1, 40), moments=True),
    "many tiles": Case((16,), 8, (1, 9, 5, 20), tile=(4, 2, 6), moments=True, norm=True),
    "tall tiles": Case((8,), 16, (1, 9, 4, 9), tile=(8, 3, 5), processors=1),
    "a long tile": Case((8,), 8, (1, 4, 3, 70), tile=(4, 1, 64), moments=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_agrees_with_pytorch_in_float64(case):
    check(case)


@pytest.mark.parametrize("precision", DTYPES)
def test_one_wrong_weight_is_noticed(precision):
    case = Case((16,), 8, precision=precision)
    made = inputs_of(case)
    reference = expected(case, made)
    made["weight"][5, 9, 2, 0, 1] += 0.1
    error = (run(case, made)[0].double() - reference).abs().max() / reference.abs().max()
    assert error > 3 * TOLERANCES[precision]


def test_moments_repeat_bit_for_bit():
    case = Case((8,), 16, (1, 8, 4, 20), tile=(4, 2, 6), moments=True, processors=3)
    made = inputs_of(case)
    (first, moments), (again, same) = run(case, made), run(case, made)
    assert torch.equal(first, again)
    assert torch.equal(moments, same)


def test_mirrored_weights_give_the_gradient_to_the_input():
    """Through the ReLU that followed: its stored result is the mask of the gradient."""
    case = Case((16,), 8, (2, 3, 4, 9), "float32", mask=True)
    made = inputs_of(case)
    grad, stored = made["maps"][0].float().double(), made["mask"].float().double()
    weight = uniform(16, 8, 3, 3, 3, seed=6)
    x = uniform(2, 8, 3, 4, 9, seed=7).requires_grad_()
    y = F.conv3d(x, weight, padding=1)
    (wanted,) = torch.autograd.grad(y, x, torch.where(stored > 0, grad, 0.0))
    made["weight"], made["bias"] = weight.transpose(0, 1).flip(2, 3, 4), torch.zeros(8)
    error = (run(case, made)[0].double() - wanted).abs().max() / wanted.abs().max()
    assert error.item() <= TOLERANCES["float32"]


def test_kinds_are_those_of_the_packed_weights():
    for inputs, outputs, (precision, dtype) in itertools.product(
        range(1, 100), (1, 3, 8, 12, 16, 20, 24, 27, 32, 40, 48, 64, 96, 128), DTYPES.items()
    ):
        kind = convolve_packs.kind(inputs, outputs, precision)
        args = (inputs, outputs, dtype.itemsize, precision == "float32")
        assert host_convolve.kind(*args) == kind[1:3]


@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
def test_every_tile_of_the_model_gives_the_same(precision):
    """Also bit for bit: sums over channels have one order."""
    case = Case((8,), 16, (1, 3, 4, 10), precision)
    made = inputs_of(case)
    first = run(case, made)[0]
    tiles = host_convolve.tiles(8, 16, DTYPES[precision].itemsize, False, case.size[1:], 99 * 1024)
    assert len(tiles) > 3
    for code in tiles[-2:]:
        tile = (code & 255, code >> 8 & 255, code >> 16)
        assert torch.equal(run(replace(case, tile=tile), made)[0], first)


def test_every_shape_has_a_tile_wherever_it_may_run():
    """With 99 KiB of shared memory, the least of all devices."""
    for inputs, outputs in itertools.product((1, 8, 27, 64, 192), (3, 8, 24, 64, 192)):
        for size in ((1, 1, 1), (9, 11, 9), (144, 176, 144), (4, 4, 500)):
            for number_bytes, exact in ((2, False), (4, False), (4, True)):
                args = (inputs, outputs, number_bytes, exact, size)
                for limit in (99 * 1024, 227 * 1024):
                    assert host_convolve.tiles(*args, limit), (args, limit)


if ALL:
    SHAPES = ((1, 3, 5, 17), (2, 4, 4, 31), (1, 9, 3, 36))
    CHANNELS = ((1,), (3,), (8,), (16,), (24,), (27,), (32,), (48,), (64,), (8, 8), (8, 16, 24))

    @pytest.mark.parametrize("precision", DTYPES)
    @pytest.mark.parametrize("size", SHAPES)
    @pytest.mark.parametrize("outputs", [1, 3, 8, 16, 24, 32, 48])
    @pytest.mark.parametrize("maps", CHANNELS)
    def test_all(maps, outputs, size, precision):
        case = Case(maps, outputs, size, precision, norm=True, relu=True, moments=True)
        check(case)
        check(replace(case, add=True, times=True, norm=False, mask=True, wider=8))
