"""Warp: read an image where a flow points."""

from __future__ import annotations

from torch import Tensor

from . import check, reference
from .dispatch import choose_backend


def warp(
    image: Tensor,
    flow: Tensor,
    mode: str = "trilinear",
    padding: str = "zeros",
    backend: str | None = None,
) -> Tensor:
    """image(p + flow(p)) at every voxel p of the flow's grid (paper 2.5, spatial transformer).

    image: (B, C, h, w, d), any float type. Usually of the flow's size, but need not be.
    flow: (B, 3, H, W, D), float32 or float64, in voxels, channels in the order of the axes.
    mode: "trilinear" or "nearest". padding: "zeros" (a corner outside contributes 0) or "border".
    Returns (B, C, H, W, D) in the image's type. Voxel centres lie at integer coordinates.
    Raises ValueError or TypeError naming the argument that does not fit.
    """
    check.flow("flow", flow)
    check.shape("image", image, (flow.shape[0], "C", "h", "w", "d"))
    check.floating("image", image)
    check.together("flow", flow, "image", image)
    check.choice("mode", mode, ("trilinear", "nearest"))
    check.choice("padding", padding, ("zeros", "border"))
    choose_backend("warp", image.device.type, backend)
    return reference.warp(image, flow, mode, padding)
