"""The CUDA operators on a device, against the reference on the CPU in float64."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from ops_checks import check_same, kink_free, uniform, values_and_gradients

from lganet_fast.ops import compose, integrate, native, warp

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(not native.KERNELS["cuda"], reason=f"no CUDA: {native.missing('cuda')}"),
]

TOLERANCES = {  # type of the image, with the tolerance of values and gradients
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.bfloat16: 2**-7,
    torch.float16: 2**-10,
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}


@contextmanager
def repeatable():
    """Run as torch.use_deterministic_algorithms(True) asks."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def on_device(operation, *inputs):
    """Values and gradients of the compiled operator, computed on the device."""

    def run(*xs):
        moved = (x.cuda() for x in xs)  # the copy keeps the memory format
        return operation(*moved, backend="native").cpu()

    return values_and_gradients(run, *inputs)


def check(operation, *inputs, tolerance):
    """Values and gradients, in the first input's type, with and without sums that repeat."""
    wide = values_and_gradients(
        lambda *xs: operation(*xs, backend="reference"), *(x.double() for x in inputs)
    )
    types = [inputs[0].dtype, *(x.dtype for x in inputs)]
    expected = [x.to(t) for x, t in zip(wide, types, strict=True)]
    check_same(on_device(operation, *inputs), expected, [tolerance] * len(types))
    with repeatable():
        first, second = (on_device(operation, *inputs) for _ in range(2))
    assert all(map(torch.equal, first, second))
    check_same(first, expected, [max(tolerance, 1e-9)] * len(types))


def flow_like(number_type, *size, seed=2, reach=3.0):
    flow = uniform(2, 3, *size, seed=seed, low=-reach, high=reach)
    return kink_free(flow + 0.011).to(number_type)


@pytest.mark.parametrize("image_type", TOLERANCES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["trilinear", "nearest"])
@pytest.mark.parametrize("channels", [1, 3, 16, 72])
def test_warp(channels, mode, padding, layout, image_type):
    image = uniform(2, channels, 9, 8, 17, seed=1).to(image_type)
    flow = flow_like(torch.promote_types(image_type, torch.float32), 7, 8, 19)
    image, flow = (x.contiguous(memory_format=FORMATS[layout]) for x in (image, flow))

    def run(i, f, backend):
        out = warp(i, f, mode, padding, backend)
        return out + 0 * f.sum().to(out.dtype)  # a gradient where "nearest" has none

    check(run, image, flow, tolerance=TOLERANCES[image_type])


@pytest.mark.parametrize("number_type", [torch.float64, torch.float32])
@pytest.mark.parametrize("layout", FORMATS)
def test_compose(layout, number_type):
    flows = (flow_like(number_type, 9, 8, 33, seed=s) for s in (1, 2))
    flows = (x.contiguous(memory_format=FORMATS[layout]) for x in flows)
    check(compose, *flows, tolerance=TOLERANCES[number_type])


@pytest.mark.parametrize("number_type", [torch.float64, torch.float32])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("size", [(18, 22, 18), (128, 128, 130)])
def test_integrate(size, layout, number_type):
    """A volume whose steps are one launch, and one that no device holds at once.

    Of the millions of positions in the large one some would be a rounding away from a voxel, where
    the gradient jumps: its flows stay between voxels in both steps.
    """
    velocity = flow_like(number_type, *size)[:1]
    if size[0] > 18:
        velocity = 0.1 + velocity.abs() / 8
    velocity = velocity.contiguous(memory_format=FORMATS[layout])
    for steps in (0, 1, 7) if size[0] == 18 else (2,):
        check(
            lambda v, backend, steps=steps: integrate(v, steps, backend),
            velocity,
            tolerance=10 * TOLERANCES[number_type],
        )


def test_runs_on_the_current_stream():
    image, flow = uniform(1, 1, 64, 64, 64).float(), flow_like(torch.float32, 64, 64, 64)[:1]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        moved = image.cuda(non_blocking=True), flow.cuda(non_blocking=True)
        out = warp(*moved, backend="native")
    stream.synchronize()
    check_same([out.cpu()], [warp(image, flow, backend="reference")], [2e-5])


@pytest.mark.parametrize("operation", [warp, compose])
def test_operator_is_well_formed_on_a_device(operation):
    first, second = (flow_like(torch.float64, 3, 4, 9, seed=s).cuda() for s in (1, 2))
    extra = (False, False) if operation is warp else ()
    leaves = first.requires_grad_(), second.requires_grad_()
    torch.library.opcheck(getattr(torch.ops.lganet_fast, operation.__name__), (*leaves, *extra))
