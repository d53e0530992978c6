"""3^3 convolution against PyTorch's in float64: values, gradients, layouts, borders, types."""

import pytest
import torch
import torch.nn.functional as F

from lganet_fast.ops import convolve
from lganet_fast.ops.native import LOADED

CASES = [  # inputs, outputs, volume
    (24, 24, (9, 21, 19)),
    (8, 8, (27, 5, 40)),
    (27, 8, (5, 6, 7)),
    (1, 8, (3, 18, 50)),
    (10, 3, (26, 17, 1)),
    (64, 3, (1, 1, 33)),
    (48, 48, (4, 5, 6)),
    (5, 19, (2, 35, 97)),
]


def parts(inputs, outputs, size, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, inputs, *size, generator=generator).to(dtype)
    weight = torch.randn(outputs, inputs, 3, 3, 3, generator=generator) / (27 * inputs) ** 0.5
    bias = torch.randn(outputs, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    return tuple(t.to(dtype).requires_grad_() for t in (x, weight, bias))


@pytest.mark.parametrize(("inputs", "outputs", "size"), CASES)
def test_values_and_gradients(inputs, outputs, size):
    given = parts(inputs, outputs, size)
    exact = [t.detach().double().requires_grad_() for t in given]
    found, wanted = convolve(*given), F.conv3d(*exact, padding=1)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=3e-5)
    grad = torch.randn(
        wanted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    one = torch.autograd.grad(found, given, grad.float())
    other = torch.autograd.grad(wanted, exact, grad)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("inplace", [False, True])
def test_relu(inplace):
    given = parts(8, 8, (6, 9, 7))
    wanted = convolve(*given).relu()
    found = convolve(*given, relu=True)
    assert torch.equal(found, wanted)
    grad = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, given, grad),
        torch.autograd.grad(wanted, given, grad),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    x, weight, bias = (t.detach() for t in given)
    bias[3] = torch.nan
    out = convolve(x.clone(), weight, bias, inplace=inplace, relu=True)
    assert out[:, 3].isnan().all()  # as torch.relu
    assert torch.equal(out[:, :3], wanted[:, :3])


def test_other_layouts_and_types():
    x, weight, bias = (t.detach() for t in parts(8, 8, (5, 6, 7)))
    for given in (x.contiguous(), x[:, :, ::2]):
        wanted = F.conv3d(given, weight, bias, padding=1)
        torch.testing.assert_close(convolve(given, weight, bias), wanted, rtol=0, atol=3e-5)
        strided = weight.flip(4).flip(4).transpose(0, 1).contiguous().transpose(0, 1)
        torch.testing.assert_close(convolve(given, strided, bias), wanted, rtol=0, atol=3e-5)
    assert convolve(*(t.double() for t in (x, weight, bias))).dtype == torch.float64
    half = convolve(*(t.bfloat16() for t in (x, weight, bias)))
    assert half.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolve(x, weight, bias).dtype == torch.bfloat16
    assert convolve(x[:0], weight, bias).shape == (0, 8, 5, 6, 7)


@pytest.mark.skipif(not LOADED, reason="needs the compiled operators")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [(75, 50, 40), (49, 33, 7), (1, 17, 3), (30, 1, 20)])
def test_in_place_takes_the_memory_only_without_a_gradient(size, threads):
    x, weight, bias = parts(8, 8, size)
    wanted = convolve(x, weight, bias)
    assert torch.equal(convolve(x, weight, bias, inplace=True), wanted)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            place = x.detach().clone(memory_format=torch.preserve_format)
            out = convolve(place, weight, bias, inplace=True)
            assert convolve(place, weight[:4], bias[:4], inplace=True).shape[1] == 4
    finally:
        torch.set_num_threads(before)
    assert out.data_ptr() == place.data_ptr()
    assert torch.equal(out, wanted)


def test_a_wrong_shape_is_refused():
    x, weight, bias = parts(8, 8, (4, 4, 4))
    with pytest.raises(ValueError, match=r"weight must have shape \(outputs, 8, 3, 3, 3\)"):
        convolve(x, weight[:, :4], bias)


@pytest.mark.skipif(not LOADED, reason="needs the compiled operators")
def test_the_operator_is_well_formed():
    torch.library.opcheck(
        torch.ops.lganet_fast.convolve.default,
        (*parts(4, 3, (3, 4, 5)), True),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )
    x, weight, bias = (t.detach() for t in parts(4, 4, (3, 4, 5)))
    torch.library.opcheck(torch.ops.lganet_fast.convolve_.default, (x, weight, bias, True))
