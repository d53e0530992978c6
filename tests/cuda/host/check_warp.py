"""The kernels of warp and compose, run on the host, against the reference in float64."""

from __future__ import annotations

import host_warp
import pytest
import torch
from ops_checks import kink_free, uniform

from lganet_fast.ops import reference
from lganet_fast.ops.memory_format import empty_in_format_of

FORMATS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}
TOLERANCES = {  # type of the image, with the tolerance of values and of gradients
    torch.float64: (1e-12, 1e-11),
    torch.float32: (3e-6, 1e-5),
    torch.bfloat16: (2**-8, 2**-8),
    torch.float16: (2**-11, 2**-11),
}
CASES = {  # channels, size of the image, size of the flow, whether it is float64
    "one channel": (1, (5, 6, 19), (5, 6, 19)),
    "other size": (3, (4, 5, 8), (3, 7, 9)),
    "packs": (16, (4, 3, 5), (2, 3, 9)),
    "many packs": (72, (2, 3, 3), (3, 1, 4)),
    "one voxel thick": (8, (1, 3, 1), (3, 2, 3)),
}


def close(actual, expected, tolerance):
    """Compare values relative to the largest."""
    assert actual.shape == expected.shape
    scale = max(expected.abs().max().item(), 1e-30)
    assert ((actual.double() - expected).abs().max() / scale).item() <= tolerance


def inputs(case, image_type, form, reach=3.0):
    channels, size, other = CASES[case]
    image = uniform(2, channels, *size, seed=1).to(image_type)
    flow = kink_free(uniform(2, 3, *other, seed=2, low=-reach, high=reach) + 0.011)
    grad = uniform(2, channels, *other, seed=3).to(image_type)
    flow = flow.to(torch.promote_types(image_type, torch.float32))
    return (x.contiguous(memory_format=form) for x in (image, flow, grad))


def expected(image, flow, grad, mode, padding):
    """The reference's values and gradients, computed in float64."""
    leaves = [x.double().requires_grad_() for x in (image, flow)]
    out = reference.warp(*leaves, mode, padding)
    return out.detach(), *torch.autograd.grad(out, leaves, grad.double())


def forward(image, flow, *, nearest=False, border=False, add_flow=False, wide=False):
    out = empty_in_format_of(image, *image.shape[:2], *flow.shape[2:]).fill_(torch.nan)
    host_warp.warp(image, flow, out, nearest, border, add_flow, wide)
    return out


def backward(grad, image, flow, *, fixed=False, need=(True, True), wide=False, **options):
    """The gradients as the operator makes them: sums in the working type or in whole numbers."""
    for_image = empty_in_format_of(image, *image.shape).fill_(torch.nan) if need[0] else None
    for_flow = torch.full_like(flow, torch.nan) if need[1] else None
    sums = whole = None
    if need[0] and fixed:
        whole = torch.zeros(image.numel() + 1, dtype=torch.int64)
    elif need[0]:
        sums = torch.zeros_like(for_image, dtype=flow.dtype)
    modes = (options.get(name, False) for name in ("nearest", "border", "add_flow"))
    host_warp.warp_backward(
        grad, image, flow, sums, whole, for_image, for_flow, *modes, wide
    )  # fmt: skip
    return for_image, for_flow


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["trilinear", "nearest"])
@pytest.mark.parametrize(
    ("case", "image_type"),
    [
        *((case, torch.float64) for case in CASES),
        *((case, t) for case in ("one channel", "packs") for t in list(TOLERANCES)[1:]),
    ],
)
def test_against_reference(case, mode, padding, form, image_type):
    image, flow, grad = inputs(case, image_type, FORMATS[form])
    out, for_image, for_flow = expected(image, flow, grad, mode, padding)
    values, gradients = TOLERANCES[image_type]
    options = {"nearest": mode == "nearest", "border": padding == "border"}
    close(forward(image, flow, **options), out, values)
    if mode == "nearest":  # the gradient to the flow is zero, without a kernel
        close(backward(grad, image, flow, need=(True, False), **options)[0], for_image, gradients)
        return
    both = backward(grad, image, flow, **options)
    for actual, right in zip(both, (for_image, for_flow), strict=True):
        close(actual, right, gradients)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("case", ["one channel", "packs"])
def test_gradients_are_computed_only_where_asked(case, form):
    image, flow, grad = inputs(case, torch.float64, FORMATS[form])
    both = backward(grad, image, flow)
    torch.testing.assert_close(backward(grad, image, flow, need=(True, False))[0], both[0])
    assert torch.equal(backward(grad, image, flow, need=(False, True))[1], both[1])


@pytest.mark.parametrize("image_type", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mode", ["trilinear", "nearest"])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("case", ["one channel", "packs"])
def test_whole_number_sums(case, form, mode, image_type):
    image, flow, grad = inputs(case, image_type, FORMATS[form])
    flow = flow / 8  # many voxels add to each sum
    for scale in (1, 1e-30):
        small = (grad.double() * scale).to(image_type)
        right = expected(image, flow, small, mode, "border")[1]
        options = {"nearest": mode == "nearest", "border": True, "need": (True, False)}
        found = [backward(small, image, flow, fixed=True, **options)[0] for _ in range(2)]
        close(found[0], right, max(TOLERANCES[image_type][1], 1e-10))
        assert torch.equal(*found)


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_whole_number_sums_of_a_gradient_that_is_not_finite(bad):
    image, flow, grad = inputs("one channel", torch.float32, torch.contiguous_format)
    grad[0, 0, 1, 2, 3] = bad
    assert backward(grad, image, flow, fixed=True, need=(True, False))[0].isnan().all()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("case", ["one channel", "packs"])
@pytest.mark.parametrize("nearest", [False, True])
def test_64_bit_indices(nearest, case, form):
    """The same kernels with the other type of index."""
    image, flow, grad = inputs(case, torch.float64, FORMATS[form])
    results = [
        (
            forward(image, flow, nearest=nearest, wide=wide),
            *backward(grad, image, flow, nearest=nearest, wide=wide, need=(True, not nearest)),
        )
        for wide in (False, True)
    ]
    for narrow, wide in zip(*results, strict=True):
        assert (
            narrow is wide is None
            or torch.equal(narrow, wide)
            or (narrow - wide).abs().max() < 1e-12
        )


def test_index_type_follows_the_strides():
    """Planes 2^31 numbers apart, in memory that is reserved and not used."""
    try:
        image = torch.empty_strided((1, 1, 2, 3, 4), (1, 1, 2**31, 4, 1), dtype=torch.bfloat16)
    except RuntimeError:
        pytest.skip("too little memory to reserve")
    dense = uniform(1, 1, 2, 3, 4).bfloat16()
    image.copy_(dense)
    flow = uniform(1, 3, 2, 3, 4, seed=1).float()
    assert torch.equal(forward(image, flow), forward(dense, flow))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last_3d", "strided"])
@pytest.mark.parametrize("number_type", [torch.float64, torch.float32])
def test_compose(number_type, layout):
    first, second, grad = (
        kink_free(uniform(2, 3, 4, 5, 9, seed=s, low=-2, high=2)).to(number_type) for s in range(3)
    )
    if layout == "strided":
        first, second, grad = (
            torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0]
            for x in (first, second, grad)
        )
    else:
        form = FORMATS[layout]
        first, second, grad = (x.contiguous(memory_format=form) for x in (first, second, grad))
    leaves = [x.double().requires_grad_() for x in (first, second)]
    out = reference.compose(*leaves)
    right = torch.autograd.grad(out, leaves, grad.double())
    values, gradients = TOLERANCES[number_type]
    close(forward(first, second, add_flow=True), out.detach(), values)
    for fixed in (False, True):
        found = backward(grad, first, second, add_flow=True, fixed=fixed)
        for actual, expected in zip(found, right, strict=True):
            close(actual, expected, max(gradients, 1e-10 if fixed else 0))


def test_expanded_gradient():
    """`sum` passes back one number with strides of zero."""
    for form in FORMATS.values():
        image, flow, grad = inputs("packs", torch.float64, form)
        one = torch.ones(()).double().expand_as(grad)
        dense = backward(torch.ones_like(grad), image, flow)
        for x, y in zip(backward(one, image, flow), dense, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("shift", [1e30, -1e30, torch.inf, -torch.inf, torch.nan])
def test_positions_far_away(shift, nearest, border, channels, form):
    """Zero outside, or the border's value; NaN counts as a position before the axis."""
    image = uniform(1, channels, 3, 4, 5).float().contiguous(memory_format=FORMATS[form])
    flow = torch.full((1, 3, 3, 4, 5), shift)
    end = -1 if shift > 0 else 0
    value = image[0, :, end, end, end] if border else torch.zeros(channels)
    out = forward(image, flow, nearest=nearest, border=border)
    assert torch.equal(out, value[None, :, None, None, None].expand(1, -1, 3, 4, 5))
    for_image, for_flow = backward(
        torch.ones_like(out), image, flow, nearest=nearest, border=border, need=(True, not nearest)
    )
    assert for_image.sum() == (out.numel() if border else 0)
    assert for_flow is None or (for_flow == 0).all()
