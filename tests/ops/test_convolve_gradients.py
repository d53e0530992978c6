"""The compiled gradients of the convolution's weights, without a GPU: configurations, arguments."""

import pytest
import torch

from lganet_fast.ops import convolve_gradients, native
from lganet_fast.ops.convolve_packs import DTYPES

pytestmark = pytest.mark.skipif(not native.LOADED, reason=str(native.REASON))
CHANNELS = [(1, 3), (8, 8), (27, 8), (24, 24), (64, 64), (192, 192)]


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("masked", [False, True])
def test_every_shape_has_configurations_and_no_two_are_the_same(precision, capability, masked):
    for inputs, outputs in CHANNELS:
        for size in ((144, 176, 144), (18, 22, 18), (1, 1, 1)):
            found = convolve_gradients.configs(
                inputs, outputs, precision, size, capability, masked=masked
            )
            assert len(set(found)) == len(found) >= 2
            assert all(1 <= config <= 16 for config in found)


def test_configurations_of_what_cannot_be_computed_are_an_error():
    with pytest.raises(RuntimeError, match="expected three sizes"):
        convolve_gradients.configs(8, 8, "float16", (8, 8))
    with pytest.raises(RuntimeError, match="must be positive"):
        convolve_gradients.configs(0, 8, "float16", (8, 8, 8))


def meta(*size, dtype=torch.float16):
    return torch.empty(size, dtype=dtype, device="meta")


def call(**changes):
    """One call with tensors that have no numbers."""
    arguments = {
        "maps": [meta(2, 8, 4, 5, 6), meta(2, 16, 4, 5, 6)],
        "grad": meta(2, 12, 4, 5, 6),
        "precision": "float16",
        **changes,
    }
    return convolve_gradients.weight_gradient(
        arguments.pop("maps"), arguments.pop("grad"), **arguments
    )


def test_shapes_of_the_results():
    weight, bias = call(mask=meta(2, 12, 4, 5, 6), norm=meta(2, 2, 24, dtype=torch.float32))
    assert weight.shape == (12, 24, 3, 3, 3)
    assert bias.shape == (12,)
    assert weight.dtype == bias.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"maps": []}, ValueError, "expected 1 to 3 maps, got 0"),
        ({"maps": [meta(2, 8, 4, 5, 7)]}, ValueError, "x must have shape"),
        (
            {"maps": [meta(2, 8, 4, 5, 6, dtype=torch.float32)]},
            TypeError,
            "x must be torch.float16",
        ),
        ({"precision": "tf32"}, TypeError, "grad must be torch.float32"),
        ({"norm": meta(2, 2, 16, dtype=torch.float32)}, ValueError, "norm must have shape"),
        ({"mask": meta(2, 24, 4, 5, 6)}, ValueError, "mask must have shape"),
        ({"precision": "float64"}, KeyError, "float64"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(changes, error, text):
    with pytest.raises(error, match=text):
        call(**changes)
