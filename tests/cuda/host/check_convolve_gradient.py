"""The gradients of the convolution to its weights and bias, run on the host, against float64."""

from __future__ import annotations

import os

import host_convolve_gradient as host
import pytest
import torch
import torch.nn.functional as F
from ops_checks import CHANNELS_LAST, WRONG_GRADIENTS, uniform

ALL = bool(os.environ.get("LGANET_FAST_ALL_CONVOLUTIONS"))
TYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "tf32": torch.float32,
    "float32": torch.float32,
}
SHAPES = [(5, 1), (3, 2), (3, 3), (5, 2)]  # of a warp's sums; LINES: of a box, in height and width
LINES = [(4, 4), (2, 4), (4, 8), (8, 8)]
FITTING = {"float16": 4, "bfloat16": 4, "tf32": 3, "float32": 2}  # so many of the shapes
LARGE = (
    3,
    228 * 1024,
    227 * 1024,
)  # a device: processors, bytes of shared memory of each, of a block
TOLERANCE = 4e-6


def config(shape, lines=(2, 4)):
    return 1 + SHAPES.index(shape) + len(SHAPES) * LINES.index(lines)


def sliced(x, before=0, after=0):
    """The same channels as a part of a wider map whose others are NaN."""
    wide = torch.full((x.shape[0], before + x.shape[1] + after, *x.shape[2:]), torch.nan)
    wide = wide.to(x.dtype).contiguous(memory_format=CHANNELS_LAST)
    part = wide[:, before : before + x.shape[1]]
    return part.copy_(x)


def numbers(*shape, seed, kind):
    return sliced(uniform(*shape, seed=seed).to(TYPES[kind]))


def rounded(x, kind):
    """What the products read of floats."""
    if kind != "tf32":
        return x
    return (x.view(torch.int32) + 0x1000).bitwise_and(-0x2000).view(torch.float32)


def run(kind, x, grad, *, norm=None, slope=1.0, mask=None, at=(5, 1), lines=(2, 4), device=LARGE):
    """Both gradients by the kernels, for one tensor x or several."""
    maps = [x] if isinstance(x, torch.Tensor) else x
    inputs, outputs = sum(t.shape[1] for t in maps), grad.shape[1]
    weight = torch.full((outputs, inputs, 3, 3, 3), torch.nan)
    bias = torch.full((outputs,), torch.nan)
    split = kind == "float32"
    which = config(at, lines)
    done = host.gradient(maps, grad, norm, slope, mask, split, which, device, weight, bias)
    assert done[1], "the box does not fit"
    return (weight, bias), done


def expected(kind, x, grad, *, norm=None, slope=1.0, mask=None):
    """The same by PyTorch in float64, from numbers rounded as the kernels round them."""
    x = torch.cat([x] if isinstance(x, torch.Tensor) else x, 1)
    if norm is not None:
        shift, scale = norm[:, :, :, None, None, None]
        x = F.leaky_relu((x.float() - shift) * scale, slope).to(x.dtype)
    if mask is not None:
        grad = torch.where(mask > 0, grad, 0)
    leaves = [
        torch.zeros(grad.shape[1], x.shape[1], 3, 3, 3).double().requires_grad_(),
        torch.zeros(grad.shape[1]).double().requires_grad_(),
    ]
    out = F.conv3d(rounded(x, kind).double(), *leaves, padding=1)
    weight, _ = torch.autograd.grad(out, leaves, rounded(grad, kind).double())
    return weight, grad.double().sum((0, 2, 3, 4))


def differs(found, right, tolerance=TOLERANCE):
    """Whether either gradient is off, relative to its largest number; a NaN is."""
    return [
        not (x.double() - y).abs().max() <= tolerance * y.abs().max()
        for x, y in zip(found, right, strict=True)
    ]


def check(kind, x, grad, *, at=(5, 1), lines=(2, 4), device=LARGE, **more):
    found, done = run(kind, x, grad, at=at, lines=lines, device=device, **more)
    assert differs(found, expected(kind, x, grad, **more)) == [False, False]
    return done


def case(kind, inputs, outputs, size, batch=1, seed=0):
    return tuple(
        numbers(batch, channels, *size, seed=seed + i, kind=kind)
        for i, channels in enumerate((inputs, outputs))
    )


def norm_of(x, seed=7):
    """Moments, (2, B, C): shift and scale."""
    moments = uniform(2, x.shape[0], x.shape[1], seed=seed).float()
    moments[1] = 1 + 0.5 * moments[1]
    return moments


@pytest.mark.parametrize(
    ("inputs", "outputs", "shape"),
    [
        *((8, 8, (5, 1)), (1, 3, (5, 1)), (3, 12, (5, 1)), (16, 8, (5, 1)), (27, 8, (5, 1))),
        *((16, 16, (3, 2)), (12, 24, (3, 3)), (24, 24, (3, 3)), (32, 16, (5, 2)), (24, 8, (5, 2))),
        (40, 24, (3, 2)),
    ],
)
@pytest.mark.parametrize("kind", TYPES if ALL else ["bfloat16", "tf32"])
def test_channels(kind, inputs, outputs, shape):
    at = shape if shape in SHAPES[: FITTING[kind]] else (3, 2)
    check(kind, *case(kind, inputs, outputs, (2, 3, 9)), at=at)


if ALL:
    CHANNELS = (1, 3, 8, 12, 16, 24, 27, 32, 48, 64, 96, 128, 192)

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("kind", TYPES)
    @pytest.mark.parametrize("outputs", CHANNELS)
    @pytest.mark.parametrize("inputs", CHANNELS)
    def test_all_channels(inputs, outputs, kind, shape):
        if shape in SHAPES[: FITTING[kind]] and inputs * outputs <= 128 * 128:
            check(kind, *case(kind, inputs, outputs, (2, 3, 5)), at=shape)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 40), (9, 1, 3), (2, 9, 8), (5, 3, 17)])
@pytest.mark.parametrize("kind", ["float16", "tf32"])
def test_sizes(kind, size):
    check(kind, *case(kind, 8, 8, size, batch=2))


@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("kind", ["bfloat16", "float32"])
def test_boxes(kind, lines):
    check(kind, *case(kind, 8, 8, (5, 9, 7)), lines=lines)


@pytest.mark.parametrize("kind", ["float16", "tf32"])
def test_boxes_that_hold_a_part_of_the_depth(kind):
    """The taps of the last axis reach over the boxes' ends."""
    small = (2, 2 * 17 * 1024, 16 * 1024)
    blocks, depth = check(kind, *case(kind, 8, 8, (3, 5, 43), batch=2), device=small)
    assert blocks == 4
    assert 8 <= depth < 40


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_norm_and_mask(kind, normed, masked):
    x, grad = case(kind, 12, 8, (3, 4, 9), batch=2)
    norm = norm_of(x) if normed else None
    mask = numbers(*grad.shape, seed=5, kind=kind).relu() if masked else None
    check(kind, x, grad, norm=norm, slope=0.1, mask=mask)


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        *(("float32", (8, 16)), ("float16", (8, 8, 8)), ("float32", (3, 5, 8))),
        *(("float16", (1, 1, 25)), ("float32", (6, 6)), ("float16", (16, 3))),
        *(("float32", (24, 24, 24)), ("float16", (8, 16))),
    ],
)
def test_maps_side_by_side(kind, channels):
    """Several maps count as one, each a slice of a wider one, at whatever address."""
    size = (2, 3, 5)
    maps = [numbers(1, c, *size, seed=i, kind=kind) for i, c in enumerate(channels)]
    grad = sliced(numbers(1, 8, *size, seed=9, kind=kind), 3, 2)
    mask = sliced(numbers(1, 8, *size, seed=8, kind=kind).relu(), 1)
    norm = norm_of(torch.cat(maps, 1))
    for before, after in ((0, 0), (8, 8), (1, 2)):
        parts = [sliced(x, before, after) for x in maps]
        check(kind, parts, grad, norm=norm, slope=0.2, mask=mask)


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_masked_out_does_not_matter(kind):
    x, grad = case(kind, 8, 8, (3, 5, 9))
    mask = numbers(*grad.shape, seed=5, kind=kind).relu()
    found, _ = run(kind, x, grad, mask=mask)
    spoiled, _ = run(kind, x, torch.where(mask > 0, grad, torch.nan), mask=mask)
    assert all(torch.equal(a, b) for a, b in zip(found, spoiled, strict=True))


@pytest.mark.parametrize("kind", TYPES)
def test_results_repeat(kind):
    x, grad = case(kind, 8, 8, (3, 5, 9))
    (first, _), (second, _) = (run(kind, x, grad) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("processors", [1, 2, 100])
def test_any_number_of_blocks(processors):
    x, grad = case("float16", 8, 8, (7, 9, 5), batch=2)
    blocks, _ = check("float16", x, grad, device=(processors, *LARGE[1:]))
    assert blocks == min(2 * processors, 24)  # as many as there are boxes at most


def test_floats_are_nearly_exact():
    """Split floats keep what TF32 would lose, also in long sums of one sign."""
    x, grad = (t.abs() for t in case("float32", 8, 8, (4, 8, 40)))
    right = expected("float32", x, grad)
    assert differs(run("float32", x, grad)[0], right, 1e-6) == [False, False]
    assert differs(run("tf32", x, grad)[0], right, 1e-6) == [True, False]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("channels", [(1, 3), (8, 8), (27, 8), (24, 24), (64, 64), (192, 192)])
def test_the_ranked_configurations_are_those_that_fit(channels, kind):
    volume, number_bytes, exact = [1, 36, 44, 36], TYPES[kind].itemsize, kind == "float32"
    every = {config(shape, lines) for shape in SHAPES[: FITTING[kind]] for lines in LINES}
    for kib in (227, 163, 99):
        ranked = host.ranked(
            *channels, volume, number_bytes, exact, [132, kib * 1024 + 1024, kib * 1024]
        )
        assert len(set(ranked)) == len(ranked) > 0
        assert set(ranked) <= every
    assert host.ranked(*channels, volume, number_bytes, exact, [132, 4096, 4096]) == []


def test_too_little_shared_memory():
    x, grad = case("float32", 32, 8, (3, 4, 9))
    with pytest.raises(AssertionError, match="does not fit"):
        run("float32", x, grad, lines=(8, 8), device=(3, 16384, 16384))


@pytest.mark.parametrize("name", WRONG_GRADIENTS)
@pytest.mark.parametrize("kind", TYPES)
def test_a_wrong_gradient_is_refused(name, kind):
    x, grad = case(kind, 8, 8, (3, 4, 9))
    right = expected(kind, x, grad)
    assert differs([WRONG_GRADIENTS[name](t) for t in run(kind, x, grad)[0]], right) == [True, True]


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_a_wrong_border_is_refused(axis):
    """Voxels beyond the border that are not zero, or a last one that is left out."""
    x, grad = case("float16", 8, 8, (3, 4, 9))
    found, _ = run("float16", x, grad)
    for wrong in (x, grad):
        spoiled = wrong.clone()
        spoiled.narrow(axis, spoiled.shape[axis] - 1, 1).zero_()
        pair = (spoiled, grad) if wrong is x else (x, spoiled)
        assert differs(found, expected("float16", *pair))[0]


def test_which_tensors_have_a_pitch():
    x = torch.zeros(2, 3, 4, 5, 6).contiguous(memory_format=CHANNELS_LAST)
    assert host.pitch(x) == 3
    assert host.pitch(x[:, 1:]) == 3
    assert host.pitch(x[:1, :, :1, :1]) == 3
    for other in (x.contiguous(), x[..., ::4], x[..., 1:], x[:, :, :, 1:], x[:, :1].expand_as(x)):
        assert host.pitch(other) == 0
    assert host.pitch(torch.zeros(1, 3, 1, 1, 1)) == 3
    assert host.pitch(torch.zeros(2, 1, 3, 4, 5)) == 1
