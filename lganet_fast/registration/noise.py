"""The noise level of images, so that a search does not fit noise."""

from __future__ import annotations

import torch
from torch import Tensor


def noise_of(image: Tensor) -> Tensor:
    """A robust estimate of the standard deviation of noise in the foreground of an image.

    image: (1, 1, H, W, D). From the median of the finest diagonal differences, which are mostly
    noise (Donoho and Johnstone, 1994). 0 without foreground.
    """
    detail, shown = image, image > 0
    for axis in (2, 3, 4):
        if image.shape[axis] == 1:
            continue
        half = image.shape[axis] // 2
        pairs = [x.unfold(axis, 2, 2).narrow(axis, 0, half) for x in (detail, shown)]
        detail = (pairs[0][..., 1] - pairs[0][..., 0]) / 2**0.5
        shown = pairs[1].all(-1)
    spread = torch.where(shown, detail.abs(), torch.nan).nanmedian() / 0.6745
    return spread.nan_to_num(0.0)


def noise_between(fixed: Tensor, moving: Tensor) -> Tensor:
    """The standard deviation of noise that a search must not fit.

    That of the noisier image (1, 1, H, W, D) if noise explains the difference of the unregistered
    images; reduced in proportion if they differ by more than noise.
    """
    parts = torch.stack([noise_of(fixed), noise_of(moving)])
    apart = torch.where((fixed > 0) | (moving > 0), (fixed - moving).abs(), torch.nan)
    spread = apart.nanmedian().nan_to_num(0.0) / 0.6745
    share = parts.norm() / spread.clamp_min(torch.finfo(spread.dtype).tiny)
    return parts.max() * share.clamp_max(1)
