"""The flow that a trained network predicts for a pair, on the pair's working grid."""

from __future__ import annotations

import os
import re

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .grid import Grid
from .models.checkpoint import PUBLISHED_CARD, Card, Checkpoint, load
from .optimize import taper
from .workspace import MARGIN, Workspace

SAME_SPACING = 0.1  # relative difference of voxel sizes that a network is not warned about


def card_warnings(card: Card, grid: Grid) -> list[str]:
    """What the network is given otherwise than its card says. grid: the working grid."""
    found = []
    trained = [float(x) for x in re.findall(r"\d+(?:\.\d+)?", card.spacing)]
    backwards = card.axis_order.lower().startswith("z")
    own = grid.spacing[::-1] if backwards else grid.spacing
    if len(trained) in (1, 3) and not np.allclose(own, trained, rtol=SAME_SPACING):
        found.append(
            f"the network was trained on voxels of {card.spacing}, and is given voxels of "
            f"{' x '.join(f'{x:.3g}' for x in own)} mm"
        )
    if card.intensity not in ("unknown", "range", PUBLISHED_CARD.intensity):
        found.append(
            f"the network was trained on intensities by {card.intensity}, and is given background "
            "0 and foreground of about 1"
        )
    return found


def predict(checkpoint: Checkpoint, work: Workspace) -> Tensor:
    """The network's flow: (1, 3, H, W, D) in voxels of the working grid, 0 at its border.

    The images go in as the workspace holds them, background 0 and foreground of about unit
    intensity.
    """
    flow = network_flow(checkpoint, work.moving, work.fixed)
    return flow * taper(work.grid.shape, MARGIN).to(flow)


@torch.no_grad()
def network_flow(checkpoint: Checkpoint, moving: Tensor, fixed: Tensor) -> Tensor:
    """The network's flow (B, 3, H, W, D), in voxels, for images (B, 1, H, W, D).

    The images go in in the axis order that the checkpoint's card names: see `backwards`.
    """
    model = checkpoint.model.to(fixed)
    if not backwards(checkpoint):
        return model(moving, fixed).to(fixed)
    return turned_back(model(reverse_axes(moving), reverse_axes(fixed)).to(fixed))


def backwards(checkpoint: Checkpoint) -> bool:
    """Whether the card's axis order begins with z: trained on arrays that SimpleITK handed out."""
    return checkpoint.card.axis_order.lower().startswith("z")


def reverse_axes(x: Tensor) -> Tensor:
    """(B, C, H, W, D) -> (B, C, D, W, H)."""
    return x.permute(0, 1, 4, 3, 2).contiguous()


def turned_back(flow: Tensor) -> Tensor:
    """A flow found between images with reversed axes, on the images as they were."""
    return reverse_axes(flow).flip(1)


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """A checkpoint for images of one channel. Raises InputError for any other file."""
    checkpoint = load(path)
    channels = checkpoint.model.config["in_channel"]
    if channels != 1:
        raise InputError(f"{path} is for images of {channels} channels, a pair has 1")
    return checkpoint
