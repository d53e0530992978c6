"""A checkpoint's network on a pair of images, in the axis order that it was trained on."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ..errors import InputError
from .checkpoint import Checkpoint, load

FARTHEST = 1e6  # voxels: no flow within a volume is longer


@torch.no_grad()
def network_flow(
    checkpoint: Checkpoint, moving: Tensor, fixed: Tensor, keep: bool = False
) -> Tensor:
    """The network's flow (B, 3, H, W, D), in voxels, for images (B, 1, H, W, D).

    The network gets the images in the axis order of the checkpoint's card: see `backwards`.
    keep: keep the network's features of the fixed image for the next call (`models.atlas`).
    Raises InputError if a number of the flow is not finite or beyond FARTHEST.
    """
    model, turned = checkpoint.model.to(fixed), backwards(checkpoint)
    if turned:
        moving, fixed = reverse_axes(moving), reverse_axes(fixed)
    if keep:
        flow = model.onto(moving, model.atlas.of(model, fixed)).to(fixed)
    else:
        flow = model(moving, fixed).to(fixed)
    if not (flow.abs() <= FARTHEST).all():
        raise InputError(
            f"the flow of the checkpoint's {model.title} has numbers that are not finite or beyond "
            f"{FARTHEST:g} voxels: its weights are damaged, or its training failed"
        )
    return turned_back(flow) if turned else flow


def backwards(checkpoint: Checkpoint) -> bool:
    """Whether the card's axis order begins with z: trained on arrays from SimpleITK."""
    return checkpoint.card.axis_order.lower().startswith("z")


def reverse_axes(x: Tensor) -> Tensor:
    """(B, C, H, W, D) -> (B, C, D, W, H)."""
    return x.permute(0, 1, 4, 3, 2).contiguous()


def turned_back(flow: Tensor) -> Tensor:
    """A flow between images with reversed axes, converted to the original axes."""
    return reverse_axes(flow).flip(1)


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Load a checkpoint for images of one channel. Raises InputError for any other file."""
    checkpoint = load(path)
    channels = checkpoint.model.config["in_channel"]
    if channels != 1:
        raise InputError(f"{path} is for images of {channels} channels, a pair has 1")
    return checkpoint
