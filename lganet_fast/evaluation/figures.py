"""Figures of an evaluation, as PNG: slices and levels of one case, box plots of all cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..config.loading import Config
from ..data import Sample
from ..models import LGANetPlusPlus
from ..report.panels import draw_lattice, foreground, round_length
from ..report.planes import PLANES, Plane, Views
from ..runtime.files import atomic, make_folder
from ..volumes.resample import channels_last
from .levels import LEVELS, level_flows
from .methods import Method, moved_image
from .scores import METRICS
from .statistics import Table, column

DPI = 150
ROW = 1.9  # inches, height of a row of slices
BOXES = 24  # labels in one row of boxes
LINE, ACCENT = "#1f4e79", "#d1495b"
GREY, HEAT, LENGTH = "gray", "magma", "viridis"


def draw(
    folder: Path,
    seen: Sample,
    full: Sample,
    method: Method,
    config: Config,
    methods: Mapping[str, Table],
    labels: Sequence[Mapping[str, Any]],
) -> None:
    """Write slices.png, levels.png (of LGANet++), metrics.png and labels.png (with labels).

    seen, full: the pair to draw, at the network's resolution and at that of the results. methods:
    name -> cases. labels: rows of labels.csv.
    """
    make_folder(folder)
    save(slices(full, method.flow(seen, full), config), folder / "slices.png")
    if method.checkpoint is not None and isinstance(method.checkpoint.model, LGANetPlusPlus):
        flows = level_flows(method.checkpoint, *seen.tensors(method.device))
        save(levels(seen, flows, config), folder / "levels.png")
    save(metric_boxes(methods), folder / "metrics.png")
    if labels:
        save(label_boxes(labels), folder / "labels.png")


def slices(sample: Sample, flow: Tensor, config: Config) -> Figure:
    """Three planes of a pair: the images, the residuals before and after, the deformed lattice.

    flow: (1, 3, H, W, D) in voxels.
    """
    views = Views(sample.grid, _centred_on(sample))
    warped = moved_image(sample.moving, flow, config.evaluate)
    before, after = (np.abs(x - sample.fixed) for x in (sample.moving, warped))
    low, high = _window(sample.fixed)
    limit = float(np.percentile(before, 99.5)) or 1.0
    titles = [
        "Moving",
        "Fixed",
        "Warped",
        f"|Moving - fixed|\nMAE {before.mean():.4f}",
        f"|Warped - fixed|\nMAE {after.mean():.4f}",
        "Deformed lattice",
    ]
    figure, axes = _planes(views, titles, sample.name)
    for plane, row in zip(PLANES, axes, strict=True):
        for data, ax in zip((sample.moving, sample.fixed, warped), row, strict=False):
            views.show(ax, plane, views.cut(data, plane), GREY, (low, high))
        for data, ax in zip((before, after), row[3:], strict=False):
            views.show(ax, plane, views.cut(data, plane), HEAT, (0, limit))
        _lattice(row[5], views, plane, _mm(flow, sample))
        for ax in row:
            views.frame(ax, plane)
    _bar(figure, axes[-1][3:5], axes[-1][4].images[0], "absolute difference of intensity")
    return figure


def levels(sample: Sample, flows: Sequence[Tensor], config: Config) -> Figure:
    """The axial plane of the flow at each level: its length, the lattice, the residual.

    flows: from `level_flows`.
    """
    views = Views(sample.grid, _centred_on(sample))
    plane = PLANES[2]
    fields = [_mm(flow, sample) for flow in flows]
    lengths = [np.linalg.norm(field, axis=-1) for field in fields]
    residuals = [
        np.abs(moved_image(sample.moving, flow, config.evaluate) - sample.fixed) for flow in flows
    ]
    longest = float(max(np.percentile(x, 99.9) for x in lengths)) or 1.0
    limit = float(np.percentile(np.abs(sample.moving - sample.fixed), 99.5)) or 1.0
    titles = [
        f"Level {level} (1/{2 ** (level - 1)})\nMAE {residual.mean():.4f}"
        for level, residual in zip(LEVELS, residuals, strict=True)
    ]
    width, height = views.size(plane)
    figure, axes = _grid(3, len(LEVELS), width / height, titles, sample.name)
    for length, field, residual, column_ in zip(lengths, fields, residuals, axes.T, strict=True):
        views.show(column_[0], plane, views.cut(length, plane), LENGTH, (0, longest))
        _lattice(column_[1], views, plane, field)
        views.show(column_[2], plane, views.cut(residual, plane), HEAT, (0, limit))
        for ax in column_:
            views.frame(ax, plane)
    for row, text in zip(axes, ("Displacement", "Lattice", "|Warped - fixed|"), strict=True):
        row[0].set_ylabel(text)
    _bar(figure, axes[0], axes[0][0].images[0], "mm", "right")
    _bar(figure, axes[2], axes[2][0].images[0], "intensity", "right")
    return figure


def metric_boxes(methods: Mapping[str, Table]) -> Figure:
    """A panel per metric with a box per method, over its cases."""
    shown = [m for m in METRICS if any(len(column(rows, m.key)) for rows in methods.values())]
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    figure = _figure(across * max(2.6, 0.7 * len(methods) + 1.4), down * 2.9)
    for place, metric in enumerate(shown, start=1):
        ax = figure.add_subplot(down, across, place)
        known = {name: column(rows, metric.key) for name, rows in methods.items()}
        known = {name: values for name, values in known.items() if len(values)}
        _boxes(ax, list(known.values()))
        ax.set_title(metric.label)
        if not any(values.any() for values in known.values()):
            ax.set_ylim(0, 1)
        ax.set_xticks(range(1, len(known) + 1), list(known), rotation=25, ha="right")
    return figure


def label_boxes(labels: Sequence[Mapping[str, Any]]) -> Figure:
    """A box per label: its Dice over the cases."""
    values: dict[int, list[float]] = {}
    for row in labels:
        if not np.isnan(row["dice"]):
            values.setdefault(row["label"], []).append(row["dice"])
    names = sorted(values)
    parts = [names[i : i + BOXES] for i in range(0, len(names), BOXES)] or [[]]
    figure = _figure(9.0, 2.1 * len(parts) + 0.4)
    for place, part in enumerate(parts, start=1):
        ax = figure.add_subplot(len(parts), 1, place)
        _boxes(ax, [np.array(values[name]) for name in part])
        ax.set_xticks(range(1, len(part) + 1), [str(name) for name in part])
        ax.set_xlim(0.3, min(len(names), BOXES) + 0.7)
        ax.set_ylim(-0.02, 1.02)
        ax.set_ylabel("DSC")
    ax.set_xlabel("Label")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, completely or not at all."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def _boxes(ax: Any, values: Sequence[NDArray]) -> None:
    """Boxes at 1, 2, ...: quartiles, whiskers to 1.5 box lengths, the mean as a dot."""
    if not values:
        return
    ax.boxplot(
        list(values),
        widths=0.55,
        showmeans=True,
        patch_artist=True,
        boxprops={"facecolor": "#dbe6f1", "edgecolor": LINE},
        whiskerprops={"color": LINE},
        capprops={"color": LINE},
        medianprops={"color": ACCENT, "linewidth": 1.4},
        meanprops={
            "marker": "o",
            "markerfacecolor": LINE,
            "markeredgecolor": LINE,
            "markersize": 3,
        },
        flierprops={"marker": ".", "markersize": 4, "markeredgecolor": LINE},
    )
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _grid(down: int, across: int, ratio: float, titles: Sequence[str], name: str) -> Any:
    """A figure and its axes (down, across) for pictures of one ratio of width to height."""
    figure = _figure(across * ROW * ratio + 0.9, down * ROW + 0.9)
    axes = figure.subplots(down, across, squeeze=False)
    _bare(axes, titles)
    figure.suptitle(name)
    return figure, axes


def _planes(views: Views, titles: Sequence[str], name: str) -> Any:
    """A figure and its axes (plane, title), each row as high as its plane."""
    heights = [views.size(plane)[1] for plane in PLANES]
    width = max(views.size(plane)[0] for plane in PLANES)
    scale = ROW / max(heights)
    figure = _figure(len(titles) * width * scale + 0.4, sum(heights) * scale + 1.3)
    axes = figure.subplots(len(PLANES), len(titles), height_ratios=heights, squeeze=False)
    _bare(axes, titles)
    for plane, row in zip(PLANES, axes, strict=True):
        row[0].set_ylabel(plane.name)
    figure.align_ylabels(axes[:, 0])
    figure.suptitle(name)
    return figure, axes


def _bare(axes: Any, titles: Sequence[str]) -> None:
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_visible(False)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=9)


def _bar(figure: Figure, axes: Any, image: Any, label: str, location: str = "bottom") -> None:
    bar = figure.colorbar(image, ax=list(axes), location=location, fraction=0.05, pad=0.02)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _lattice(ax: Any, views: Views, plane: Plane, field: NDArray) -> None:
    side = round_length(float(views.extent.max()) / 24)
    draw_lattice(ax, views, plane, field, side, LINE)


def _mm(flow: Tensor, sample: Sample) -> NDArray:
    """The flow as a displacement (H, W, D, 3) in RAS+ mm."""
    return channels_last(flow.cpu().float()) @ sample.affine[:3, :3].T


def _centred_on(sample: Sample) -> NDArray:
    if sample.fixed_labels is not None:
        return sample.fixed_labels != 0
    return foreground(sample.fixed)


def _window(data: NDArray) -> tuple[float, float]:
    low, high = np.percentile(data, (0.5, 99.8))
    return float(low), float(high if high > low else low + 1)
