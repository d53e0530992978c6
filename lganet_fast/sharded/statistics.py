"""Order statistics and the foreground of an image that lies in slabs."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..volumes.intensity import BRIGHT, SAMPLED, Window, lowest, plane_counts, shown_box
from .group import Group

DIGIT, DIGITS = 8, (24, 16, 8, 0)  # bits of a digit; its place in a number of 32 bits


def nth(group: Group, keys: Tensor, n: int) -> int:
    """The n-th smallest, from 0, of all processes' keys (N,) int32.

    Digit by digit from the highest: each is found by counting, and other keys drop out.
    """
    found = 0
    for place in DIGITS:
        digits = (keys >> place) & 255
        if place == DIGITS[0]:
            digits = (digits + 128) & 255  # negative numbers first
        counts = group.total(torch.bincount(digits, minlength=256))
        below = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        digit = int(torch.searchsorted(below, torch.tensor(n, device=below.device), right=True)) - 1
        n -= int(below[digit])
        keys = keys[digits == digit]
        found |= (digit ^ (128 if place == DIGITS[0] else 0)) << place
    return found - (1 << 32) if found >> 31 else found


def ordered(values: Tensor) -> Tensor:
    """Keys int32 in the order of float32 values, and back from keys seen as float32."""
    bits = values.view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def value_of(key: int) -> float:
    """The float32 number of a key."""
    bits = ordered(torch.tensor([key], dtype=torch.int32).view(torch.float32))
    return float(bits.view(torch.float32))


def median(group: Group, values: Tensor) -> Tensor:
    """The median of all processes' float32 values except NaN, as `torch.nanmedian` takes it."""
    keys = ordered(values[~values.isnan()])
    count = int(group.sum(len(keys)))
    if not count:
        return values.new_tensor(math.nan)
    return values.new_tensor(value_of(nth(group, keys, (count - 1) // 2)))


def percentile(group: Group, values: Tensor, percent: float) -> float:
    """The percentile of all processes' float32 values (N,), linear between neighbours."""
    keys, count = ordered(values), int(group.sum(len(values)))
    at = (count - 1) * percent / 100
    first = math.floor(at)
    low, high = (value_of(nth(group, keys, min(n, count - 1))) for n in (first, first + 1))
    return low + (high - low) * (at - first)


def window_of(group: Group, data: NDArray[np.float32], size: int) -> Window:
    """`volumes.intensity.window_of` of an image of which this process has the planes (X, Y, z).

    size: planes of the whole image.
    """
    shape = (*data.shape[:2], size)
    count = math.prod(shape)
    index = np.arange(0, count, max(1, count // SAMPLED))  # of the whole image, last axis fastest
    rows, plane = np.divmod(index, size)
    first, end = group.own(size)
    mine = (plane >= first) & (plane < end)
    some = np.zeros(len(index))
    some[mine] = data.reshape(-1, end - first)[rows[mine], plane[mine] - first]
    low = lowest(group.total(torch.from_numpy(some)).numpy())
    above = data[data > low]
    if not group.sum(above.size):
        low = min(row[0] for row in group.rows([float(data.min())]))
        above = data[data > low]
    return Window(float(low), percentile(group, torch.from_numpy(above), BRIGHT))


def foreground_box(
    group: Group, data: NDArray[np.float32], size: int, low: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """`volumes.intensity.foreground_box`; data, size: as in `window_of`."""
    *sides, own = plane_counts(data > low)
    last = np.zeros(size, own.dtype)
    first, end = group.own(size)
    last[first:end] = own
    ends = np.cumsum([len(line) for line in sides])
    counts = group.total(torch.from_numpy(np.concatenate([*sides, last])))
    return shown_box(np.split(counts.numpy(), ends))
