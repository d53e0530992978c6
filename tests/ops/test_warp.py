"""ops.warp against scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_checks import (
    BACKENDS,
    LAYOUTS,
    check_compiles,
    check_gradient_strictly,
    close,
    kink_free,
    uniform,
    warp_oracle,
)

from lganet_fast.ops import use_backend, warp

SIZES = [(5, 6, 7), (1, 4, 5), (4, 1, 1), (1, 1, 1), (2, 9, 3)]
PADDINGS = ["zeros", "border"]
MODES = ["trilinear", "nearest"]


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def inputs(image_size, flow_size, batch=2, channels=2, reach=3.0):
    image = uniform(batch, channels, *image_size, seed=1)
    return image, kink_free(uniform(batch, 3, *flow_size, seed=2, low=-reach, high=reach))


def test_by_hand():
    image = torch.tensor([[[[[10.0, 20.0, 40.0]]]]])
    flow = torch.zeros(1, 3, 1, 1, 3)
    flow[:, 2] = torch.tensor([0.5, -2.0, 0.25])
    assert warp(image, flow).flatten().tolist() == [15.0, 0.0, 30.0]
    assert warp(image, flow, padding="border").flatten().tolist() == [15.0, 10.0, 40.0]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_values(size, mode, padding):
    image, flow = inputs(size, size)
    if mode == "nearest":
        flow += 0.011  # off the ties, where rounding up and to even are both right
    close(warp(image, flow, mode, padding), warp_oracle(image.numpy(), flow.numpy(), mode, padding))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("image_size", "flow_size"), [*product(SIZES[:3], SIZES[:3])])
def test_image_of_another_size(image_size, flow_size, padding):
    image, flow = inputs(image_size, flow_size)
    expected = warp_oracle(image.numpy(), flow.numpy(), "trilinear", padding)
    close(warp(image, flow, padding=padding), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("far", [1e3, -1e6, 1e20])
def test_far_outside(far, mode):
    image, flow = uniform(1, 2, 3, 4, 5), torch.full((1, 3, 3, 4, 5), far, dtype=torch.float64)
    close(warp(image, flow, mode, "zeros"), np.zeros(image.shape))
    corner = image[:, :, -1, -1, -1] if far > 0 else image[:, :, 0, 0, 0]
    close(warp(image, flow, mode, "border"), corner.reshape(1, 2, 1, 1, 1).expand_as(image))


@pytest.mark.parametrize("image_type", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_images(image_type):
    image, flow = inputs((7, 6, 5), (7, 6, 5))
    image, flow = image.to(image_type), flow.float()
    out = warp(image, flow)
    assert out.dtype == image_type
    expected = warp_oracle(image.double().numpy(), flow.numpy())
    close(out, expected, 2e-5 + torch.finfo(image_type).eps / 2)


def test_mixed_types_compute_in_the_wider():
    image, flow = inputs((4, 5, 6), (4, 5, 6))
    out = warp(image, flow.float())
    assert out.dtype == torch.float64
    close(out, warp_oracle(image.numpy(), flow.float().double().numpy()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    image, flow = inputs((4, 5, 6), (4, 5, 6))
    lay = LAYOUTS[layout]
    assert torch.equal(warp(lay(image), lay(flow)), warp(image, flow))


@pytest.mark.parametrize("image_type", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("image_shape", "flow_shape"),
    [
        ((0, 2, 4, 5, 6), (0, 3, 4, 5, 6)),
        ((1, 0, 4, 5, 6), (1, 3, 4, 5, 6)),
        ((1, 2, 4, 0, 6), (1, 3, 4, 5, 6)),
        ((1, 2, 4, 5, 6), (1, 3, 0, 5, 6)),
    ],
)
def test_empty(image_shape, flow_shape, image_type):
    image = torch.ones(image_shape, dtype=image_type, requires_grad=True)
    flow = torch.ones(flow_shape, requires_grad=True)
    out = warp(image, flow)
    assert out.shape == (*image_shape[:2], *flow_shape[2:])
    assert out.dtype == image_type
    assert not out.any()
    out.sum().backward()
    assert not image.grad.any()
    assert not flow.grad.any()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(2, 3, 4), (1, 3, 2)])
def test_gradient(size, padding):
    image, flow = inputs(size, size, batch=1, channels=1, reach=1.5)
    check_gradient_strictly(lambda i, f: warp(i, f, padding=padding), image, flow)


def test_gradient_of_nearest():
    image, flow = inputs((2, 3, 4), (2, 3, 4), batch=1)
    flow = 0.011 + flow
    check_gradient_strictly(lambda i: warp(i, flow, "nearest"), image)
    flow.requires_grad_()
    warp(image, flow, "nearest").sum().backward()
    assert not flow.grad.any()


def test_second_derivative_is_right_or_refused():
    leaves = [x.requires_grad_() for x in inputs((2, 3, 2), (2, 3, 2), batch=1, channels=1)]
    refusal = None
    try:
        torch.autograd.gradgradcheck(warp, leaves, atol=1e-6)
    except RuntimeError as error:  # older torch has no derivative of its backward
        refusal = str(error)
    assert refusal is None or "not implemented" in refusal or "no second" in refusal


@pytest.mark.parametrize("mode", MODES)
def test_compiles(mode):
    check_compiles(lambda i, f: warp(i, f, mode, "border"), *inputs((4, 5, 6), (4, 5, 6)))


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 6)] * 3),
    mode=st.sampled_from(MODES),
    padding=st.sampled_from(PADDINGS),
    seed=st.integers(0, 9999),
)
def test_zero_flow_is_the_identity(size, mode, padding, seed):
    image = uniform(1, 2, *size, seed=seed)
    close(warp(image, torch.zeros(1, 3, *size).double(), mode, padding), image)


@settings(max_examples=25, deadline=None)
@given(shift=st.tuples(*[st.integers(-7, 7)] * 3), mode=st.sampled_from(MODES))
def test_whole_shifts(shift, mode):
    image = uniform(1, 1, 5, 4, 6)
    flow = torch.tensor(shift, dtype=torch.float64).reshape(1, 3, 1, 1, 1).expand(1, 3, 5, 4, 6)
    padded = np.pad(image[0, 0].numpy(), 7)
    part = padded[tuple(slice(7 + s, 7 + s + n) for s, n in zip(shift, (5, 4, 6), strict=True))]
    close(warp(image, flow, mode)[0, 0], part, 1e-11)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("mode", MODES)
def test_a_flow_that_is_no_position_reads_outside(mode, bad):
    image = uniform(1, 2, 3, 4, 9).float().requires_grad_()
    flow = torch.full((1, 3, 3, 4, 9), 0.25)
    flow[0, 1, 1, 2, 3:5] = bad
    flow.requires_grad_()
    out = warp(image, flow, mode)
    out.sum().backward()
    assert not out[0, :, 1, 2, 3:5].any()
    assert not flow.grad[0, :, 1, 2, 3:5].any()
    assert out.isfinite().all()
    assert image.grad.isfinite().all()
    assert flow.grad.isfinite().all()
    assert warp(image, flow, mode, "border").isfinite().all()


def test_only_the_gradients_that_are_asked_for():
    image, flow = inputs((3, 4, 5), (3, 4, 5))
    for wants_image, wants_flow in [(True, False), (False, True)]:
        leaves = (
            image.clone().requires_grad_(wants_image), flow.clone().requires_grad_(wants_flow)
        )  # fmt: skip
        warp(*leaves).sum().backward()
        assert [leaf.grad is not None for leaf in leaves] == [wants_image, wants_flow]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"flow": torch.zeros(1, 2, 4, 4, 4)},
            ValueError,
            r"flow must have shape \(B, 3, H, W, D\)",
        ),
        ({"flow": torch.zeros(1, 3, 4, 4, 4).int()}, TypeError, "flow must be float32, float64"),
        ({"flow": torch.zeros(1, 3, 4, 4, 4).half()}, TypeError, "flow must be .*, got float16"),
        ({"flow": [1]}, TypeError, "flow must be a torch.Tensor, got list"),
        ({"image": torch.zeros(4, 4, 4)}, ValueError, r"image must have shape \(1, C, h, w, d\)"),
        ({"image": torch.zeros(2, 1, 4, 4, 4)}, ValueError, r"image .* got \(2, 1, 4, 4, 4\)"),
        ({"image": torch.zeros(1, 1, 4, 4, 4).long()}, TypeError, "image must be .* got int64"),
        (
            {"flow": torch.zeros(1, 3, 4, 4, 4, device="meta")},
            ValueError,
            "flow must be on image's",
        ),
        ({"mode": "cubic"}, ValueError, "mode must be one of trilinear, nearest, got 'cubic'"),
        ({"padding": "wrap"}, ValueError, "padding must be one of zeros, border, got 'wrap'"),
        ({"backend": "fast"}, ValueError, "backend must be one of auto"),
    ],
)
def test_errors(change, error, message):
    good = {"image": torch.zeros(1, 1, 4, 4, 4), "flow": torch.zeros(1, 3, 4, 4, 4)}
    warp(**good)
    with pytest.raises(error, match=message):
        warp(**good | change)
