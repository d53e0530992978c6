"""The noise level of images, so that a search does not fit noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Median: TypeAlias = Callable[[Tensor], Tensor]  # of the numbers above or equal to 0, without NaN


def noise_of(image: Tensor, median: Median = torch.nanmedian) -> Tensor:
    """A robust estimate of the standard deviation of noise in the foreground of an image.

    image: (1, 1, H, W, D). From the median of the finest diagonal differences, which are mostly
    noise (Donoho and Johnstone, 1994). 0 without foreground. median: see `noise_between`.
    """
    detail, shown = image, image > 0
    for axis in (2, 3, 4):
        if image.shape[axis] == 1:
            continue
        half = image.shape[axis] // 2
        pairs = [x.unfold(axis, 2, 2).narrow(axis, 0, half) for x in (detail, shown)]
        detail = (pairs[0][..., 1] - pairs[0][..., 0]) / 2**0.5
        shown = pairs[1].all(-1)
    spread = median(torch.where(shown, detail.abs(), torch.nan)) / 0.6745
    return spread.nan_to_num(0.0)


def noise_between(fixed: Tensor, moving: Tensor, median: Median = torch.nanmedian) -> Tensor:
    """The standard deviation of noise that a search must not fit.

    That of the noisier image (1, 1, H, W, D) if noise explains the difference of the unregistered
    images; reduced in proportion if they differ by more than noise. median: of the images, also
    where these are parts of them.
    """
    parts = torch.stack([noise_of(fixed, median), noise_of(moving, median)])
    apart = torch.where((fixed > 0) | (moving > 0), (fixed - moving).abs(), torch.nan)
    spread = median(apart).nan_to_num(0.0) / 0.6745
    share = parts.norm() / spread.clamp_min(torch.finfo(spread.dtype).tiny)
    return parts.max() * share.clamp_max(1)
