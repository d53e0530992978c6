"""An image with scaled intensities, and its resampling to a working grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..volumes.grid import Array, Grid, Volume
from ..volumes.intensity import foreground_box, window_of
from ..volumes.resample import pull

BRIGHTEST = 1.5  # times the foreground's range: brighter voxels are clipped to it


def carried(grid: Grid, affine: Array) -> Grid:
    """A grid of moving points where an affine, from fixed to moving points, takes it from."""
    return Grid(grid.shape, np.linalg.inv(affine) @ grid.affine)


@dataclass(frozen=True, eq=False)
class Seen:
    """An image with scaled intensities, and the box of its foreground.

    image: from 0, the background, to about 1. first, last: (3,) voxel indices of the foreground.
    """

    image: Volume
    first: Array
    last: Array

    @classmethod
    def of(cls, volume: Volume) -> Seen:
        """Scale a volume and find its foreground."""
        window = window_of(volume.data)
        first, last = foreground_box(volume.data, window.low)
        data = window.scaled(volume.data, BRIGHTEST)
        return cls(Volume(data, volume.grid, volume.name), first.astype(float), last.astype(float))

    @property
    def cut(self) -> list[tuple[bool, bool]]:
        """Per axis, whether the first and the last face cut through the anatomy.

        A 2D image shows nothing beside its plane, and nothing is looked for there.
        """
        ends = np.array(self.image.grid.shape) - 1
        faces = zip(self.first, self.last, ends, strict=True)
        return [(n > 0 and f == 0, n > 0 and e == n) for f, e, n in faces]

    def blurred(self, grid: Grid) -> Seen:
        """The image at the resolution of a coarser grid."""
        coarser = grid.spacing.mean() / self.image.grid.spacing
        sigma = np.where(coarser > 1.2, 0.5 * coarser, 0)
        if not sigma.any():
            return self
        from scipy.ndimage import gaussian_filter  # slow to load, and often not needed

        data = gaussian_filter(self.image.data, sigma)
        return replace(self, image=Volume(data, self.image.grid, self.image.name))

    def on(self, grid: Grid, affine: Array, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The image on a grid, and its weight: 0 beyond the faces that cut through anatomy.

        affine: (4, 4), from the grid's points to the image's, in RAS+ mm. The weight is None if it
        is 1 everywhere. Beyond the faces that cut through anatomy the image keeps the value at the
        face, so that there is no edge; beyond the other faces it is background.
        """
        own = self.image.grid
        moved = carried(own, affine)
        if not np.any(self.cut):
            return pull(Volume(self.image.data, moved, self.image.name), grid, device), None
        rim = np.eye(4)
        rim[:3, 3] = -1
        x, y, z = own.shape
        around = Grid((x + 2, y + 2, z + 2), moved.affine @ rim)
        data = np.pad(self.image.data, 1, mode="edge")
        weight = np.ones(around.shape, np.float32)
        for axis, faces in enumerate(self.cut):
            for face, cut in zip((0, -1), faces, strict=True):
                (weight if cut else data).swapaxes(0, axis)[face] = 0
        image, counts = (
            pull(Volume(values, around, self.image.name), grid, device, "border")
            for values in (data, weight)
        )
        return image, counts
