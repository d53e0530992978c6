"""Two images on the working grid that a search makes alike, with the weights of their voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..ops import warp
from ..runtime.device import numbers
from ..volumes.grid import Array, Grid, Volume
from ..volumes.resample import pull
from .noise import noise_between
from .pair import Masks
from .seen import Seen, carried


@dataclass(frozen=True, eq=False)
class Channel:
    """A fixed and a moving image on the working grid.

    fixed, moving: (1, C, H, W, D); an image has background 0 and a foreground of about unit range.
    weights: (1, 1, H, W, D) of the fixed and of the moving image, in [0, 1]; None for 1 everywhere.
    noise: see `noise_between`. weight: in the objective.
    """

    fixed: Tensor
    moving: Tensor
    weights: tuple[Tensor | None, Tensor | None]
    noise: float = 0.0
    weight: float = 1.0

    def after(self, flow: Tensor) -> Channel:
        """The same with the moving image warped by a flow (1, 3, H, W, D)."""
        fixed, moving = self.weights
        weights = (fixed, None if moving is None else warp(moving, flow))
        return replace(self, moving=warp(self.moving, flow), weights=weights)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a channel is made: the working grid, a device and a type.

    affine: (4, 4), fixed to moving points in RAS+ mm.
    """

    grid: Grid
    affine: Array
    device: torch.device
    dtype: torch.dtype

    def pull(self, volume: Volume, moving: bool) -> Tensor:
        """A volume of the fixed or moving side on the working grid, (1, 1, H, W, D) float32."""
        own = carried(volume.grid, self.affine) if moving else volume.grid
        return pull(Volume(volume.data, own, volume.name), self.grid, self.device)


def channel_of(
    fixed: Seen, moving: Seen, masks: Masks, place: Place, weight: float = 1.0
) -> Channel:
    """The channel of two images. weight: in the objective.

    masks: of the fixed and of the moving side, non-zero where voxels count; outside its grid a mask
    is 0. Raises InputError if the moving image has no foreground there, or the masks cover nothing.
    """
    grid, device = place.grid, place.device
    first, fixed_weight = fixed.blurred(grid).on(grid, np.eye(4), device)
    second, moving_weight = moving.blurred(grid).on(grid, place.affine, device)
    shown = weighted(second, moving_weight)
    weights = [fixed_weight, moving_weight]
    for side, mask in enumerate(masks):
        if mask is not None:
            values = Volume(mask.data.astype(np.float32), mask.grid, mask.name)
            weights[side] = weighted(place.pull(values, bool(side)), weights[side])
    full = [(w == 1).all() for w in weights if w is not None]
    shows, noise, *everywhere = numbers([shown.any(), noise_between(first, second), *full])
    if not shows:
        raise InputError(
            f"{moving.image.name} does not overlap the foreground of {fixed.image.name}; "
            "try initial rigid or affine"
        )
    if masks != (None, None):
        names = fixed.image.name, moving.image.name
        check_masks(masks, names, (first, second), weights)
    answers = iter(everywhere)
    kept = [None if w is None or next(answers) else w.to(place.dtype) for w in weights]
    images = first.to(place.dtype), second.to(place.dtype)
    return Channel(*images, (kept[0], kept[1]), noise, weight)


def weighted(image: Tensor, weight: Tensor | None) -> Tensor:
    """An image times its weight; None: 1 everywhere."""
    return image if weight is None else image * weight


def check_masks(
    masks: Masks,
    names: tuple[str, str],
    images: tuple[Tensor, Tensor],
    weights: Sequence[Tensor | None],
) -> None:
    """Raise InputError if the masks leave nothing to compare.

    names, images, weights: of the fixed and of the moving image on the working grid.
    """
    both = weighted(weighted(torch.ones_like(images[0]), weights[0]), weights[1])
    counts = [weighted(*x).any() for x in zip(images, weights, strict=True)]
    *counted, common = numbers([*counts, both.any()])
    for name, mask, some in zip(names, masks, counted, strict=True):
        if mask is not None and not some:
            raise InputError(
                f"{mask.name} does not overlap the foreground of {name}: it must be non-zero "
                "where the similarity counts"
            )
    if not common:
        raise InputError("the masks leave no place that counts in both images")
