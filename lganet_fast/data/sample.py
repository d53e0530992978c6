"""One prepared pair, the input of the network and the scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..volumes.grid import Array, Grid


@dataclass(frozen=True, eq=False)
class Sample:
    """A moving and a fixed image, prepared; fields that a data set lacks are None.

    name: such as "S02_to_S01", moving to fixed. moving, fixed: (H, W, D) float32, cropped, scaled
    and pooled as configured. labels: int32 on the same grids. points: (N, 3) float64 in voxels of
    these arrays, paired by row; some may lie outside a crop. masks: bool.
    flow: (3, H, W, D), the true flow in voxels, of synthetic pairs.
    affine, moving_affine: (4, 4) float64, from voxels of these arrays to RAS+ mm, of the fixed and
    the moving image.
    """

    name: str
    moving: NDArray[np.float32]
    fixed: NDArray[np.float32]
    affine: Array
    moving_labels: NDArray[np.int32] | None = None
    fixed_labels: NDArray[np.int32] | None = None
    moving_points: Array | None = None
    fixed_points: Array | None = None
    moving_mask: NDArray[np.bool_] | None = None
    fixed_mask: NDArray[np.bool_] | None = None
    moving_affine: Array | None = None
    flow: NDArray[np.float32] | None = None

    @property
    def grid(self) -> Grid:
        """The grid of both arrays, from the fixed image."""
        first, second, third = self.fixed.shape
        return Grid((first, second, third), self.affine)

    def tensors(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """(moving, fixed), each (1, 1, H, W, D), on the device."""
        moving, fixed = (torch.from_numpy(x)[None, None] for x in (self.moving, self.fixed))
        return moving.to(device), fixed.to(device)
