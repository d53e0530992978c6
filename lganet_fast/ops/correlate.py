"""Local 3D correlation of two feature maps."""

from __future__ import annotations

from torch import Tensor

from . import check, reference
from .dispatch import choose_backend


def correlate(x: Tensor, y: Tensor, radius: int = 1, backend: str | None = None) -> Tensor:
    """Mean over channels of x(p) y(p + o) for each offset o (paper 2.3 and 2.4).

    x, y: (B, C, H, W, D), one float type; y counts as zero outside the volume.
    Returns (B, (2 radius + 1)^3, H, W, D), offsets in lexicographic order, first axis slowest.
    Raises ValueError or TypeError naming the argument that does not fit.
    """
    check.shape("x", x, ("B", "C", "H", "W", "D"))
    check.floating("x", x)
    check.shape("y", y, x.shape)
    check.floating("y", y, (x.dtype,))
    check.together("y", y, "x", x)
    check.at_least("radius", radius, 1)
    choose_backend("correlate", x.device.type, backend)
    return reference.correlate(x, y, radius)
