"""The network in several ways, all with the same weights."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from lganet_fast.models import LGANetPlusPlus, PublishedLGANetPlusPlus
from lganet_fast.models.published_format import with_dead
from lganet_fast.ops import use_backend

from .case import Call, Size


def pair(size: Size, dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    """Moving and fixed image, (1, 1, H, W, D), always float32 in [0, 1]; autocast converts them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 1, *(n // 6 for n in size), generator=generator)
    both = F.interpolate(coarse, size=size, mode="trilinear").to(device)
    return both[:1], both[1:]


def lean(size: Size, device: str, checkpoint: str | None = None) -> nn.Module:
    """Our network, always with the same random weights, without dropout."""
    torch.manual_seed(0)
    return LGANetPlusPlus(size, dropout=0.0, checkpoint=checkpoint).to(device)


def published(size: Size, device: str) -> nn.Module:
    """The published network with the same weights, without dropout."""
    network = PublishedLGANetPlusPlus(size, dropout=0.0)
    network.load_state_dict(with_dead(lean(size, "cpu"), size))
    return network.to(device)


def under(backend: str, dtype: torch.dtype, device: str, call: Call) -> Call:
    """The call on a backend, under autocast for half types."""

    def run(*inputs: Tensor) -> Tensor:
        narrow = nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype)
        with use_backend(backend), narrow:
            out: Tensor = call(*inputs)
        return out

    return run


@cache
def multiply_adds(size: Size) -> float:
    """Multiplications and additions of our network's convolutions and matrix products.

    Counted in the reference on fake tensors; other operators are not counted.
    """
    network = lean(size, "cpu").eval()
    fake, counter = FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False)
    with fake, counter, use_backend("reference"), torch.no_grad():
        network(*torch.empty(2, 1, 1, *size))
    return float(counter.get_total_flops())
