"""The compiled warp: against the reference, in every layout and type that it has code for."""

from __future__ import annotations

import pytest
import torch
from ops_checks import close, kink_free, needs_native, uniform, values_and_gradients

from lganet_fast.ops import warp

pytestmark = needs_native

PADDINGS = ["zeros", "border"]
MODES = ["trilinear", "nearest"]


def inputs(image_size, flow_size, batch=2, channels=2, reach=3.0):
    image = uniform(batch, channels, *image_size, seed=1)
    return image, kink_free(uniform(batch, 3, *flow_size, seed=2, low=-reach, high=reach))


def check_both(operation, *inputs, tolerances):
    """Compare values and gradients, the last argument of `operation` being the backend."""
    results = [
        values_and_gradients(lambda *xs, name=name: operation(*xs, name), *inputs)
        for name in ("native", "reference")
    ]
    values, gradients = tolerances
    most = [values] + [gradients] * len(inputs)
    for actual, expected, tolerance in zip(*results, most, strict=True):
        assert actual.dtype == expected.dtype
        close(actual, expected.double(), tolerance * max(1, expected.abs().max().item()))


TOLERANCES = {  # type of the image, with the tolerance of values and of gradients
    torch.float64: (1e-12, 1e-10),
    torch.float32: (2e-5, 2e-5),
    torch.bfloat16: (2**-8, 2**-7),
    torch.float16: (2**-11, 2**-10),
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}


@pytest.mark.parametrize("image_type", TOLERANCES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_compiled_against_reference(mode, padding, layout, image_type):
    for channels, size, other in [(1, (5, 6, 19), (5, 6, 19)), (3, (4, 5, 8), (3, 7, 9)),
                                  (13, (3, 4, 17), (4, 4, 5)), (16, (1, 3, 1), (3, 3, 3)),
                                  (5, (1, 1, 1), (2, 1, 1))]:  # fmt: skip
        image, flow = inputs(size, other, channels=channels)
        image = image.to(image_type).contiguous(memory_format=FORMATS[layout])
        flow = (flow + 0.011).to(torch.promote_types(image_type, torch.float32))
        check_both(
            lambda i, f, name: warp(i, f, mode, padding, name),
            image,
            flow,
            tolerances=TOLERANCES[image_type],
        )


@pytest.mark.parametrize("layout", FORMATS)
def test_results_keep_the_memory_format(layout):
    form = FORMATS[layout]
    image, flow = (x.contiguous(memory_format=form) for x in inputs((4, 5, 6), (4, 5, 6)))
    leaves = image.requires_grad_(), flow.requires_grad_()
    out = warp(*leaves, backend="native")
    assert out.is_contiguous(memory_format=form)
    grads = torch.ops.lganet_fast.warp_backward(out, *leaves, False, False, True, True)
    assert all(grad.is_contiguous(memory_format=form) for grad in grads)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("nearest", [False, True])
def test_operator_is_well_formed(nearest, layout):
    image, flow = (
        x.contiguous(memory_format=FORMATS[layout]).requires_grad_()
        for x in inputs((3, 4, 5), (3, 4, 6), channels=5)
    )
    torch.library.opcheck(torch.ops.lganet_fast.warp, (image, flow, nearest, False))
    grad = uniform(2, 5, 3, 4, 6).contiguous(memory_format=FORMATS[layout])
    for asked in [(True, True), (True, False), (False, True)]:
        torch.library.opcheck(
            torch.ops.lganet_fast.warp_backward,
            (grad, image.detach(), flow.detach(), nearest, False, *asked),
        )


def test_gradient_of_one_number_for_all():
    """`sum` passes back a gradient that is expanded from one number, with strides of zero."""
    image, flow = inputs((3, 4, 9), (3, 4, 9), channels=8)
    for form in FORMATS.values():
        check = image.contiguous(memory_format=form)
        grads = torch.ops.lganet_fast.warp_backward(
            torch.ones(()).double().expand_as(image), check, flow, False, False, True, True
        )
        dense = torch.ops.lganet_fast.warp_backward(
            torch.ones_like(check), check, flow, False, False, True, True
        )
        for one, other in zip(grads, dense, strict=True):
            close(one, other)


def test_offsets_past_32_bits():
    """Planes 2^31 numbers apart: memory that is reserved, not used."""
    try:
        image = torch.empty_strided((1, 1, 2, 3, 4), (1, 1, 2**31, 4, 1), dtype=torch.bfloat16)
    except RuntimeError:
        pytest.skip("too little memory to reserve")
    dense, flow = inputs((2, 3, 4), (2, 3, 4), batch=1, channels=1)
    image.copy_(dense)
    flow = flow.float()
    for mode in MODES:
        assert torch.equal(warp(image, flow, mode), warp(dense.bfloat16(), flow, mode))
    grad = torch.ones(1, 1, 2, 3, 4, dtype=torch.bfloat16)
    gradients = (
        torch.ops.lganet_fast.warp_backward(grad, read, flow, False, False, False, True)[1]
        for read in (image, dense.bfloat16())
    )
    assert torch.equal(*gradients)
