"""The pictures of the quality-control page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from ..transforms.field import DisplacementField
from ..volumes.grid import Array, Volume
from ..volumes.intensity import Window, window_of
from .planes import Plane, Views

FIXED_COLOUR, MOVED_COLOUR, FOLD_COLOUR, LATTICE_COLOUR = "#35d0ff", "#ffa02e", "#ff00c8", "#ffd84d"
GREY = ("gray", (0, 1))
Paint = Callable[[Any, Plane], None]


@dataclass(frozen=True)
class Panel:
    """One view of the result: a PNG for each of the three planes.

    light: the pictures have a light background. ramp: colours of a scale from low to high.
    ticks: labels of the scale's low end, middle and high end. keys: (colour, meaning) of lines.
    """

    title: str
    caption: str
    pictures: list[bytes]
    light: bool = False
    ramp: tuple[str, ...] = ()
    ticks: tuple[str, str, str] = ("", "", "")
    keys: tuple[tuple[str, str], ...] = ()


def foreground(data: NDArray) -> NDArray[np.bool_]:
    """Voxels brighter than the mean: in CT and MR the body without the air around it."""
    if data.min() == data.max():
        return np.zeros(data.shape, bool)
    held = window_of(data).scaled(data, 1)
    return np.asarray(held > held.mean(dtype=np.float64))


@dataclass(frozen=True, eq=False)
class Pictured:
    """The data of the pictures; every array is on the fixed grid (X, Y, Z).

    before, after: the moving image, unregistered and warped. transform: a field on that grid. det:
    its Jacobian determinant. The labels are None if there are none.
    """

    fixed: Volume
    before: NDArray
    after: NDArray
    transform: DisplacementField
    det: Array
    fixed_labels: NDArray | None = None
    labels_before: NDArray | None = None
    labels_after: NDArray | None = None


def panels(views: Views, shown: Pictured) -> list[Panel]:
    """Every panel of the page."""
    (still,) = windowed(shown.fixed.data)
    warped, unmoved = windowed(shown.after, shown.before)
    out = [
        Panel("Fixed image", "The target.", views.draw(image(views, still))),
        Panel("Warped image", "The moving image, registered.", views.draw(image(views, warped))),
        _checkerboard(views, still, warped),
        *_differences(views, still, unmoved, warped),
        _lattice(views, warped, shown.transform),
        _jacobian(views, shown.det),
    ]
    for when, moved in (("before", shown.labels_before), ("after", shown.labels_after)):
        if moved is not None:
            out.append(_contours(views, still, shown.fixed_labels, moved, when))
    return out


def windowed(data: NDArray, *others: NDArray) -> list[NDArray[np.float32]]:
    """`data` and others on one scale, 0 and 1 at the ends of the range of `data`."""
    constant = data.min() == data.max()
    window = Window(float(data.min()), float(data.min()) + 1) if constant else window_of(data)
    return [window.scaled(x, 2) for x in (data, *others)]


def image(views: Views, data: NDArray) -> Paint:
    """Draw a volume scaled by `windowed`."""
    return lambda axes, plane: views.show(axes, plane, views.cut(data, plane), *GREY)


def _checkerboard(views: Views, still: NDArray, warped: NDArray) -> Panel:
    side = float(views.extent.max()) / 10

    def paint(axes: Any, plane: Plane) -> None:
        pair = views.cut(still, plane), views.cut(warped, plane)
        squares = (
            np.arange(n) * step // side
            for n, step in zip(pair[0].shape, views.spacing(plane), strict=True)
        )
        odd = np.add.outer(*squares) % 2 == 1
        views.show(axes, plane, np.where(odd, *pair[::-1]), *GREY)

    caption = f"Fixed and warped in alternate squares of {side:.3g} mm. Edges should continue."
    return Panel("Checkerboard", caption, views.draw(paint))


def _differences(views: Views, still: NDArray, unmoved: NDArray, warped: NDArray) -> list[Panel]:
    inside = foreground(still)
    differences = {"before": unmoved - still, "after": warped - still}
    spread = [np.percentile(np.abs(d[inside]), 99) for d in differences.values() if inside.any()]
    limit = float(max(spread, default=0.0)) or 1.0

    def painter(difference: NDArray) -> Paint:
        return lambda axes, plane: views.show(
            axes, plane, views.cut(difference, plane), "RdBu_r", (-limit, limit)
        )

    caption = "Moving minus fixed, each on its own range. One colour scale before and after."
    return [
        Panel(
            f"Difference {when}",
            caption,
            views.draw(painter(difference)),
            light=True,
            ramp=_ramp("RdBu_r"),
            ticks=(f"\N{MINUS SIGN}{limit:.2g}", "0", f"+{limit:.2g}"),
        )
        for when, difference in differences.items()
    ]


def _lattice(views: Views, warped: NDArray, transform: DisplacementField) -> Panel:
    side = round_length(float(views.extent.max()) / 24)

    def paint(axes: Any, plane: Plane) -> None:
        views.show(axes, plane, views.cut(warped, plane), *GREY)
        draw_lattice(axes, views, plane, transform.displacement, side, LATTICE_COLOUR)

    caption = f"A straight lattice of {side:g} mm in the moving image, deformed by the transform."
    return Panel("Deformed grid", caption, views.draw(paint))


def draw_lattice(
    axes: Any, views: Views, plane: Plane, displacement: NDArray, side: float, colour: str
) -> None:
    """Draw the lines that a displacement (X, Y, Z, 3), in RAS+ mm, maps to a straight lattice.

    side: distance in mm between the lattice's lines.
    """
    to_steps = np.linalg.inv(views.grid.affine[:3, :3])
    steps = views.cut(displacement, plane) @ to_steps.T
    dx, dy = views.spacing(plane)
    xs, ys = (np.arange(n) * step for n, step in zip(steps.shape, (dx, dy), strict=False))
    moved_x = xs[:, None] + steps[..., plane.across[0]] * dx
    moved_y = ys + steps[..., plane.across[1]] * dy
    for position in (moved_x, moved_y):
        if min(position.shape) < 2:
            continue
        first, last = np.floor(position.min() / side), np.ceil(position.max() / side)
        levels = side * np.arange(first, last + 1)
        axes.contour(xs, ys, position.T, levels=levels, colors=colour, linewidths=1.0)


def _jacobian(views: Views, det: Array) -> Panel:
    folded = ~(det > 0)
    logs = np.log2(np.where(folded, 1, det)).astype(np.float32)
    limit = float(np.clip(np.percentile(np.abs(logs), 99.5), 0.2, 3))
    mark = ListedColormap([FOLD_COLOUR])

    def paint(axes: Any, plane: Plane) -> None:
        views.show(axes, plane, views.cut(logs, plane), "PuOr", (-limit, limit))
        marks = views.cut(folded, plane)
        views.show(axes, plane, np.where(marks, 1.0, np.nan), mark, (0, 1))

    count = int(folded.sum())
    return Panel(
        "Jacobian determinant",
        "Volume in the moving image per volume in the fixed image, on a log scale. "
        "Above 1 the moving image is compressed, below 1 expanded.",
        views.draw(paint),
        light=True,
        ramp=_ramp("PuOr"),
        ticks=(f"{2**-limit:.2f}", "1", f"{2**limit:.2f}"),
        keys=((FOLD_COLOUR, f"folded, {count:,} voxels in the volume"),),
    )


def _contours(
    views: Views, still: NDArray, fixed: NDArray | None, moved: NDArray, when: str
) -> Panel:
    drawn = [(moved, MOVED_COLOUR, "moving labels")]
    if fixed is not None:
        drawn.insert(0, (fixed, FIXED_COLOUR, "fixed labels"))

    def paint(axes: Any, plane: Plane) -> None:
        views.show(axes, plane, views.cut(still, plane), *GREY)
        for labels, colour, _ in drawn:
            lines = _edges(views.cut(labels, plane), views.spacing(plane))
            codes = np.tile([Path.MOVETO, Path.LINETO], len(lines))
            outline = Path(lines.reshape(-1, 2), codes)  # as one path: ten times faster than many
            style = {"edgecolor": colour, "linewidth": 1.2, "antialiased": False}
            axes.add_artist(PathPatch(outline, fill=False, **style))  # add_patch measures it

    return Panel(
        f"Labels {when}",
        "Outlines over the fixed image, the moving ones on top.",
        views.draw(paint),
        keys=tuple((colour, meaning) for _, colour, meaning in drawn),
    )


def _edges(labels: NDArray, spacing: tuple[float, float]) -> Array:
    """(N, 2, 2) mm ends of the voxel sides between different labels."""
    i, j = np.nonzero(labels[1:] != labels[:-1])
    upright = np.stack([[i + 0.5, j - 0.5], [i + 0.5, j + 0.5]]).transpose(2, 0, 1)
    i, j = np.nonzero(labels[:, 1:] != labels[:, :-1])
    level = np.stack([[i - 0.5, j + 0.5], [i + 0.5, j + 0.5]]).transpose(2, 0, 1)
    return np.concatenate([upright, level]) * spacing


def _ramp(name: str) -> tuple[str, ...]:
    return tuple(to_hex(c) for c in matplotlib.colormaps[name](np.linspace(0, 1, 9)))


def round_length(length: float) -> float:
    """The nearest of 1, 2, 5, 10, ... in mm."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(min((m * power for m in (1, 2, 5, 10)), key=lambda m: abs(np.log(m / length))))
