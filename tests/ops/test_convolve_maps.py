"""The compiled convolution for CUDA, without a GPU: packed weights, tiles, checks of arguments."""

import pytest
import torch

from lganet_fast.ops import convolve_maps, convolve_packs, native
from lganet_fast.ops.convolve_packs import DTYPES

needs_native = pytest.mark.skipif(not native.LOADED, reason=str(native.REASON))
CHANNELS = [(1, 3), (8, 8), (12, 40), (24, 24), (27, 8), (64, 64)]


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
def test_packed_weights_have_each_number_once_and_zeros_beside(inputs, outputs, precision):
    weight = torch.randn(outputs, inputs, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    packed = convolve_packs.pack(weight, precision)
    assert packed.shape == (convolve_maps.packed_size(inputs, outputs, precision),)
    numbers = weight.to(DTYPES[precision]).flatten()
    if precision == "tf32":
        numbers = convolve_packs.round_tf32(numbers)
    if precision == "float32":
        large = convolve_packs.round_tf32(numbers)
        numbers = torch.cat((large, convolve_packs.round_tf32(numbers - large)))
    found = packed[packed != 0].sort().values
    assert torch.equal(found, numbers[numbers != 0].sort().values)


def test_float32_is_packed_with_all_its_bits():
    weight = torch.randn(8, 8, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    parts = convolve_packs.pack(weight, "float32").view(-1, 2, 2).sum(1).flatten()
    wanted = weight.flatten()
    found = parts[parts != 0].sort().values
    torch.testing.assert_close(found, wanted.sort().values, rtol=2**-22, atol=0)
    tf32 = convolve_packs.pack(weight, "tf32")
    assert ((tf32.view(torch.int32) & 0x1FFF) == 0).all()


def test_weights_of_another_shape_cannot_be_packed():
    with pytest.raises(ValueError, match=r"expected \(outputs, inputs, 3, 3, 3\)"):
        convolve_packs.pack(torch.zeros(8, 8, 3, 3, 1), "tf32")


@needs_native
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_every_shape_has_tiles_and_no_two_are_the_same(precision, capability):
    for inputs, outputs in CHANNELS:
        for size in ((144, 176, 144), (18, 22, 18), (1, 1, 1)):
            tiles = convolve_maps.configs(inputs, outputs, precision, size, capability)
            assert 1 <= len(tiles) <= 8
            assert len(set(tiles)) == len(tiles)
            assert all(tile > 0 for tile in tiles)


@needs_native
def test_tiles_of_what_cannot_be_computed_are_an_error():
    with pytest.raises(RuntimeError, match="size must be three numbers"):
        convolve_maps.configs(8, 8, "float16", (8, 8))
    with pytest.raises(RuntimeError, match="expected 1 to 65535"):
        convolve_maps.configs(0, 8, "float16", (8, 8, 8))


def call(**changes):
    """One call with tensors that have no numbers."""
    maps = [torch.empty(2, c, 4, 5, 6, dtype=torch.float16, device="meta") for c in (8, 16)]
    size = convolve_maps.packed_size(24, 16, "float16")
    arguments = {
        "maps": maps,
        "packed": torch.empty(size, dtype=torch.float16, device="meta"),
        "bias": torch.empty(16, device="meta"),
        "outputs": 16,
        "precision": "float16",
        **changes,
    }
    return convolve_maps.forward(
        arguments.pop("maps"), arguments.pop("packed"), arguments.pop("bias"), **arguments
    )


@needs_native
@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_shapes_of_the_results(given, moments):
    place = torch.empty(2, 16, 4, 5, 6, dtype=torch.float16, device="meta") if given else None
    out, found = call(moments=moments, out=place)
    assert out.shape == (2, 16, 4, 5, 6)
    assert out is place or out.is_contiguous(memory_format=torch.channels_last_3d)
    assert found.shape == ((2, 2, 16) if moments else (0,))
    assert found.dtype == torch.float32


def meta(*size, dtype=torch.float16):
    return torch.empty(size, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"maps": []}, ValueError, "expected 1 to 3 maps, got 0"),
        (
            {"maps": [meta(2, 24, 4, 5, 6, dtype=torch.float32)]},
            TypeError,
            "x must be torch.float16",
        ),
        ({"maps": [meta(2, 8, 4, 5, 6), meta(2, 16, 4, 5, 7)]}, ValueError, "x must have shape"),
        ({"packed": meta(8)}, ValueError, r"packed must have shape \(11520,\), got \(8,\)"),
        ({"bias": meta(16)}, TypeError, "bias must be torch.float32"),
        ({"norm": meta(2, 2, 16, dtype=torch.float32)}, ValueError, "norm must have shape"),
        ({"mask": meta(2, 16, 4, 5, 6)}, ValueError, "mask must have shape"),
        ({"add": meta(1, 16, 4, 5, 6)}, ValueError, "add must have shape"),
        ({"times": meta(2, 16, 4, 5, 6, dtype=torch.float32)}, TypeError, "times must be"),
        ({"out": meta(2, 8, 4, 5, 6)}, ValueError, "out must have shape"),
        ({"precision": "float64"}, KeyError, "float64"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(changes, error, text):
    with pytest.raises(error, match=text):
        call(**changes)
