"""Images to be resampled only, one or several on one grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .grid import Grid, Volume
from .nifti import Source, noted_grid, open_image, without_nan
from .values import read_values

STEP_UNITS = {8: "sec", 16: "msec", 24: "usec", 32: "hz", 40: "ppm", 48: "rads"}  # of NIfTI


@dataclass(frozen=True, eq=False)
class Series:
    """Volumes on one grid, to be resampled: values of any range, in their stored type.

    data: (X, Y, Z, N). step: from one volume to the next, 0 if unknown. unit: of the step.
    """

    data: NDArray
    grid: Grid
    name: str
    step: float = 0.0
    unit: str = "unknown"

    def volumes(self) -> Iterator[Volume]:
        """The volumes, one after the other."""
        for number in range(self.data.shape[3]):
            yield Volume(self.data[..., number], self.grid, self.name)


def load_series(source: Source, role: str) -> Series:
    """Read an image or a series (X, Y, Z, N) to be resampled, not registered.

    NaN becomes background, with a warning. Arguments as in `load_image`. Raises InputError if it
    is unreadable, not of real numbers, or has values that are infinite or beyond float32.
    """
    image, label = open_image(source, role)
    grid = noted_grid(image, label, series=True)
    data = without_nan(read_values(image, label), label)
    if data.dtype.kind == "f" and max(data.max(), -data.min()) > np.finfo(np.float32).max:
        raise InputError(f"{label} has values beyond float32")
    data = data.reshape(*grid.shape, -1)
    if data.shape[3] == 1 or not isinstance(image, nib.Nifti1Pair):
        return Series(data, grid, label)
    step, unit = float(image.header["pixdim"][4]), int(image.header["xyzt_units"]) & 56
    known = np.isfinite(step) and step > 0
    return Series(data, grid, label, step if known else 0.0, STEP_UNITS.get(unit, "unknown"))
