"""A picture of how a network registers one pair."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from torch import Tensor, nn

from ..data import Sample
from ..ops import warp
from ..report.panels import Panel, Pictured, foreground, image, panels, windowed
from ..report.planes import Views
from ..runtime.files import atomic
from ..transforms.field import DisplacementField
from ..transforms.jacobian import jacobian_determinant
from ..volumes.grid import Volume
from ..volumes.resample import channels_last, turned
from .batch import collate

INCHES = 9.0  # width of the picture
DPI = 110


@torch.no_grad()
def draw_pair(
    path: Path,
    network: nn.Module,
    sample: Sample,
    device: torch.device,
    precision: torch.autocast,
    title: str,
) -> None:
    """Write a PNG of how a network, on a device and in a precision, registers a pair."""
    batch = collate([sample], device)
    network.eval()
    with precision:
        flow = network(batch.moving, batch.fixed)
    network.train()
    draw(path, sample, warp(batch.moving, flow), flow, title)


def draw(path: Path, sample: Sample, warped: Tensor, flow: Tensor, title: str) -> None:
    """Write a PNG: fixed, moving, warped, difference and grid in three planes each.

    warped: (1, 1, H, W, D), the moving image warped by the flow (1, 3, H, W, D), in voxels.
    Both images are drawn on the fixed grid.
    """
    grid = sample.grid
    displacement = channels_last(turned(grid.affine[:3, :3], flow.detach().cpu().float()))
    transform = DisplacementField(displacement, grid)
    fixed = Volume(sample.fixed, grid, "fixed")
    moved = warped[0, 0].detach().cpu().float().numpy()
    views = Views(grid, foreground(sample.fixed))
    det = jacobian_determinant(displacement, grid)
    shown = panels(views, Pictured(fixed, sample.moving, moved, transform, det))
    unmoved = image(views, *windowed(sample.moving))
    shown.insert(1, Panel("Moving image", "What is registered.", views.draw(unmoved)))
    page(path, shown, title)


def page(path: Path, shown: list[Panel], title: str) -> None:
    """Write panels below each other, a row per panel."""
    rows = [[imread(io.BytesIO(png)) for png in panel.pictures] for panel in shown]
    heights = [max(p.shape[0] for p in row) for row in rows]
    width = max(sum(p.shape[1] for p in row) for row in rows)
    scale = INCHES / width
    gap = 0.3  # inches above each row, for its title
    total = sum(h * scale + gap for h in heights) + gap
    figure = Figure(figsize=(INCHES, total), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.text(0.005, 1 - 0.2 / total, title, fontsize=10, fontweight="bold")
    top = total - gap
    for panel, row, height in zip(shown, rows, heights, strict=True):
        figure.text(0.005, (top - 0.22) / total, panel.title, fontsize=9)
        bottom, left = top - gap - height * scale, 0.0
        for picture in row:
            box = (left / width, bottom / total, picture.shape[1] / width, height * scale / total)
            axes = figure.add_axes(box)
            axes.set_axis_off()
            axes.imshow(np.asarray(picture), aspect="equal")
            left += picture.shape[1]
        top = bottom
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
