"""Local normalised cross-correlation of two images."""

from __future__ import annotations

from torch import Tensor

from . import check, reference
from .dispatch import choose_backend


def local_ncc(
    a: Tensor,
    b: Tensor,
    window: int = 9,
    weight: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Mean over voxels of cross^2 / (var_a var_b + 1e-5), window^3 sums (paper eq. 10, squared).

    a, b: (B, C, H, W, D), one float type; both count as zero outside, and the sums divide by
    window^3 at the border too. window: odd. weight: (B, 1, H, W, D), how much each voxel counts in
    the mean; alike where omitted. Returns a scalar in [0, 1], 1 where they agree;
    float64 for float64 images, else float32. Intensities of about unit range are expected: the
    1e-5 is absolute. Raises ValueError or TypeError naming the argument that does not fit.
    """
    check.shape("a", a, ("B", "C", "H", "W", "D"))
    check.floating("a", a)
    check.shape("b", b, a.shape)
    check.floating("b", b, (a.dtype,))
    check.together("b", b, "a", a)
    check.at_least("window", window, 1)
    if window % 2 == 0:
        raise ValueError(f"window must be odd, got {window}")
    if weight is not None:
        check.shape("weight", weight, (a.shape[0], 1, *a.shape[2:]))
        check.together("weight", weight, "a", a)
    choose_backend("local_ncc", a.device.type, backend)
    return reference.local_ncc(a, b, window, weight)
