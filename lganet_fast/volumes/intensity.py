"""The range of an image's intensities, and its foreground.

Robust against a few outliers (dead or hot pixels, a metal clip) and the noise of the air around a
body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .grid import Array

FEW = 0.1  # per cent of an image's voxels at either end that may be outliers
BINS = 256
DARK = 0.15  # fraction of the range, from below, that contains the background's level
NOISE = 5.0  # standard deviations above that level that noise does not reach
LOUDEST = 0.1  # fraction of the range: higher noise cannot be told from anatomy
BRIGHT = 99.0  # per cent of the foreground's voxels below `high`
SPECKS = 3  # voxels: a plane with fewer foreground voxels counts as empty
SAMPLED = 1 << 20  # voxels from which the background is estimated


@dataclass(frozen=True)
class Window:
    """The range of an image: `low` where the foreground begins, `high` near its brightest."""

    low: float
    high: float

    def scaled(self, data: NDArray, top: float) -> NDArray[np.float32]:
        """Scale the data, `low` to 0 and `high` to 1, and clip to [0, top]."""
        out = np.subtract(data, self.low, dtype=np.float32)
        out /= self.high - self.low
        return np.clip(out, 0, top, out=out)


def window_of(data: NDArray) -> Window:
    """The range of an image that is not constant.

    The background is the peak of the histogram if the peak is at the dark end and narrow (exact
    values, or the noise of air); else the darkest values except outliers.
    """
    values = data.reshape(-1)
    low = lowest(values[:: max(1, values.size // SAMPLED)].astype(np.float64))
    above = data[data > low]
    if not above.size:
        low = float(data.min())
        above = data[data > low]
    return Window(float(low), float(np.percentile(above, BRIGHT)))


def lowest(some: Array) -> float:
    """Where the foreground begins, from a sample (N,) of an image's values."""
    dark, bright = np.percentile(some, (FEW, 100 - FEW))
    return background(some, dark, bright) if dark < bright else float(dark)


def background(values: Array, dark: float, bright: float) -> float:
    """The highest value that counts as background, of values mostly in `dark` to `bright`."""
    values = values.clip(dark, bright)
    counts, edges = np.histogram(values, BINS, (dark, bright))
    peak = int(counts.argmax())
    if peak >= DARK * BINS:
        return dark
    level = np.median(values[(values >= edges[peak]) & (values <= edges[peak + 1])])
    # Values below the level are noise; half of a normal distribution lies within 0.6745 of it.
    spread = np.median(level - values[values <= level]) / 0.6745
    reach = NOISE * spread
    return float(level + reach) if reach <= LOUDEST * (bright - dark) else dark


def foreground_box(data: NDArray, low: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last index, per axis, of the planes with values above `low`."""
    return shown_box(plane_counts(data > low))


def plane_counts(present: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Per axis, the number of true voxels in each plane."""
    return [np.count_nonzero(present, axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]


def shown_box(planes: Sequence[NDArray[np.intp]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last plane, per axis, that are not nearly empty; planes: see `plane_counts`."""
    ends = []
    for counts in planes:
        shows = np.flatnonzero(counts >= min(SPECKS, counts.max()))
        ends.append((shows[0], shows[-1]))
    first, last = np.array(ends).T
    return first, last
