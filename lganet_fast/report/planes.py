"""Three planes through a volume, drawn in radiological orientation."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nibabel import orientations
from numpy.typing import NDArray

from ..volumes.grid import Array, Grid

_orient: Any = orientations  # nibabel's functions carry no types
WIDTH = 1440  # pixels of the three planes side by side


@dataclass(frozen=True)
class Plane:
    """A plane across axis `axis` of an array in RAS+ order.

    letters: anatomical direction at the left, right, top and bottom of the picture.
    """

    name: str
    axis: int
    letters: str

    @property
    def across(self) -> tuple[int, int]:
        """Array axes of the picture's horizontal and vertical direction."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second


PLANES = (Plane("Sagittal", 0, "APSI"), Plane("Coronal", 1, "RLSI"), Plane("Axial", 2, "RLAP"))


class Views:
    """PLANES through one point of a grid, reoriented to the nearest RAS+ orientation.

    grid: of every array that is drawn. mask: (X, Y, Z); the planes pass through its centre of mass,
    or through the middle of the grid if the mask is empty.
    """

    def __init__(self, grid: Grid, mask: NDArray) -> None:
        self._turn = _orient.io_orientation(grid.affine)
        back = _orient.inv_ornt_aff(self._turn, grid.shape)
        turned = self._turned(mask)
        self.grid = Grid(turned.shape, grid.affine @ back)
        self.centre = _centre_of_mass(turned if turned.any() else np.ones_like(turned))
        self.extent: Array = np.array(self.grid.shape) * self.grid.spacing
        shape = self.grid.shape
        flat = [plane for plane in PLANES if min(shape[axis] for axis in plane.across) > 1]
        self.planes = flat if shape.count(1) == 1 else list(PLANES)  # of a 2D image its own
        self._dots_per_mm = WIDTH / sum(self.size(plane)[0] for plane in self.planes)

    def size(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a plane in mm."""
        width, height = (float(self.extent[axis]) for axis in plane.across)
        return width, height

    def spacing(self, plane: Plane) -> tuple[float, float]:
        """Horizontal and vertical voxel spacing of a plane in mm."""
        dx, dy = (float(self.grid.spacing[axis]) for axis in plane.across)
        return dx, dy

    def cut(self, data: NDArray, plane: Plane) -> NDArray:
        """(horizontal, vertical, ...) values of `data` (X, Y, Z, ...) in a plane, in RAS+ order."""
        turned = self._turned(data)
        return turned[(slice(None),) * plane.axis + (self.centre[plane.axis],)]

    def show(self, axes: Any, plane: Plane, values: NDArray, cmap: Any, limits: Any) -> None:
        """Draw (horizontal, vertical) values of a plane in colours, voxel by voxel."""
        (width, height), (dx, dy) = self.size(plane), self.spacing(plane)
        box = (-dx / 2, width - dx / 2, -dy / 2, height - dy / 2)
        low, high = limits
        axes.imshow(
            values.T,
            cmap=cmap,
            vmin=low,
            vmax=high,
            origin="lower",
            extent=box,
            interpolation="nearest",
        )

    def frame(self, axes: Any, plane: Plane, aspect: str = "equal") -> None:
        """Set the axes' directions to the plane's letters, and their limits to the volume."""
        (width, height), (dx, dy) = self.size(plane), self.spacing(plane)
        # The horizontal axis points to the letter on the left: anterior, or the patient's right.
        axes.set(xlim=(width - dx / 2, -dx / 2), ylim=(-dy / 2, height - dy / 2), aspect=aspect)

    def draw(self, paint: Callable[[Any, Plane], None]) -> list[bytes]:
        """A PNG per plane. `paint` draws on axes in mm, the first voxel's centre at (0, 0)."""
        return [self._picture(paint, plane) for plane in self.planes]

    def _turned(self, data: NDArray) -> NDArray:
        return np.asarray(_orient.apply_orientation(data, self._turn))

    def _picture(self, paint: Callable[[Any, Plane], None], plane: Plane) -> bytes:
        width, height = self.size(plane)
        pixels = [max(1, round(side * self._dots_per_mm)) for side in (width, height)]
        figure = Figure(figsize=(pixels[0] / 100, pixels[1] / 100), dpi=100, facecolor="black")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        paint(axes, plane)
        self.frame(axes, plane, "auto")
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()


def _centre_of_mass(mask: NDArray) -> tuple[int, int, int]:
    x, y, z = (
        round(float(np.average(np.arange(n), weights=(mask != 0).sum(tuple({0, 1, 2} - {axis})))))
        for axis, n in enumerate(mask.shape)
    )
    return x, y, z
