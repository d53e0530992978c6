"""The flow that a trained network predicts for a pair, on the pair's working grid."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from .errors import InputError
from .models.checkpoint import Checkpoint, load
from .optimize import taper
from .workspace import MARGIN, Workspace


@torch.no_grad()
def predict(checkpoint: Checkpoint, work: Workspace) -> Tensor:
    """The network's flow: (1, 3, H, W, D) in voxels of the working grid, 0 at its border.

    The images go in as the workspace holds them, background 0 and foreground of about unit
    intensity, in the axis order that the checkpoint's card names: reversed where it begins with z,
    as of a network trained on arrays that SimpleITK handed out.
    """
    model = checkpoint.model.to(work.fixed)
    backwards = checkpoint.card.axis_order.lower().startswith("z")
    images = [reverse_axes(x) if backwards else x for x in (work.moving, work.fixed)]
    flow = model(*images).to(work.fixed)
    if backwards:
        flow = reverse_axes(flow).flip(1)
    return flow * taper(work.grid.shape, MARGIN).to(flow)


def reverse_axes(x: Tensor) -> Tensor:
    """(B, C, H, W, D) -> (B, C, D, W, H)."""
    return x.permute(0, 1, 4, 3, 2).contiguous()


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """A checkpoint for images of one channel. Raises InputError for any other file."""
    checkpoint = load(path)
    channels = checkpoint.model.config["in_channel"]
    if channels != 1:
        raise InputError(f"{path} is for images of {channels} channels, a pair has 1")
    return checkpoint
