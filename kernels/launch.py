"""What every launch shares: the choice of a configuration, and the widths of offsets."""

from collections.abc import Mapping
from typing import Any

import torch
import triton
from torch import Tensor

OFFSETS_32 = 2**31  # from this many numbers on, offsets take 64 bits


def launch(kernel: Any, programs: Any, **arguments: Any) -> None:
    """Run an autotuned kernel on the device of its tensors.

    `programs(meta)` counts the programs of a configuration.

    Which configuration wins a race changes the order of sums, so where results must repeat bit
    for bit the first that fits runs.
    """

    def grid(meta: Mapping[str, Any]) -> tuple[int]:
        return (programs(meta),)

    with torch.cuda.device_of(next(x for x in arguments.values() if isinstance(x, Tensor))):
        if torch.are_deterministic_algorithms_enabled():
            first = kernel.early_config_prune(kernel.configs, {}, **arguments)[0]
            kernel.fn[grid](**arguments, **first.all_kwargs())
        else:
            kernel[grid](**arguments)


def wide(*tensors: Tensor) -> bool:
    """Whether an offset inside one item of any batch (B, ...) may pass 2^31.

    Where the item is as it is given, or without gaps, as results are.
    """

    def last(x: Tensor) -> int:
        steps = zip(x.shape[1:], x.stride()[1:], strict=True)
        return max(sum((n - 1) * step for n, step in steps), x.shape[1:].numel())

    return any(last(x) >= OFFSETS_32 for x in tensors)


def padded(width: int, least: int = 1) -> int:
    """The length of a block that holds `width` numbers: a power of two."""
    return max(triton.next_power_of_2(width), least)


def start(kernel: Any, programs: int, warps: int = 4, **arguments: Any) -> None:
    """Run a kernel that has one configuration on the device of its tensors."""
    with torch.cuda.device_of(next(x for x in arguments.values() if isinstance(x, Tensor))):
        kernel[(programs,)](**arguments, num_warps=warps)
