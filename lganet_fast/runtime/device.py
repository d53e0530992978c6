"""Between the CPU and a device: what is sent, and every wait.

The work of a CUDA device is queued. Only what asks it for values waits, for all that came before:
here are the functions that do, so that what a registration waits for can be counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

CPU = torch.device("cpu")


def sent(x: NDArray[Any] | Tensor, like: Tensor) -> Tensor:
    """An array or tensor of the CPU in the type and on the device of `like`, without a wait.

    It is copied from memory that may be freed or changed at once.
    """
    return torch.as_tensor(x).to(like.dtype).to(like.device, non_blocking=True)


def placed(x: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device, without a wait."""
    return torch.from_numpy(x).to(device, non_blocking=True)


def fetched(x: Tensor) -> NDArray[Any]:
    """A tensor's values; on the CPU they are the tensor's own memory. Waits for a device."""
    return (x if x.device.type == "cpu" else x.contiguous().cpu()).numpy()


def numbers(parts: Iterable[Tensor]) -> list[float]:
    """The values of some tensors of one element, in one wait."""
    return torch.stack([part.reshape(()).double() for part in parts]).tolist()


def true_places(mask: Tensor) -> Tensor:
    """(N,) places in the flattened mask that are true. Waits for their number."""
    return mask.flatten().nonzero()[:, 0]
