"""Transfers between the CPU and a device, and every wait.

The work of a CUDA device is queued. Only reading values waits, for all queued work. All such reads
of a registration go through the functions here, so that they can be counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

CPU = torch.device("cpu")


def sent(x: NDArray[Any] | Tensor, like: Tensor) -> Tensor:
    """Copy a CPU array or tensor to the type and device of `like`, without a wait.

    The source may be freed or changed at once.
    """
    return torch.as_tensor(x).to(like.dtype).to(like.device, non_blocking=True)


def placed(x: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device, without a wait."""
    return torch.from_numpy(x).to(device, non_blocking=True)


def fetched(x: Tensor) -> NDArray[Any]:
    """A tensor's values; on the CPU they share its memory. Waits for a device."""
    return (x if x.device.type == "cpu" else x.contiguous().cpu()).numpy()


def numbers(parts: Iterable[Tensor]) -> list[float]:
    """The values of some tensors of one element, in one wait."""
    return torch.stack([part.reshape(()).double() for part in parts]).tolist()


def true_places(mask: Tensor) -> Tensor:
    """(N,) indices of the true elements of the flattened mask. Waits for their number."""
    return mask.flatten().nonzero()[:, 0]
