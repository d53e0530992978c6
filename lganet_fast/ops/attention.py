"""Attention inside windows of tokens."""

from __future__ import annotations

from torch import Tensor

from . import check, reference
from .dispatch import choose_backend


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    windows: int | tuple[int, int, int] = 1,
    dropout_p: float = 0.0,
    volume: tuple[int, int, int] | None = None,
    backend: str | None = None,
) -> Tensor:
    """softmax(q k^T * scale) v inside each window (paper 2.3, local-global attention).

    q, k: (B, N, c) and v: (B, N, d), one float type; c and d may differ.
    windows: without `volume`, a count that divides N: window j is the j-th run of N / windows
        tokens. With `volume=(H, W, D)`, H W D = N, a triple of counts: boxes of
        ceil(H / counts[0]) x ... voxels, the last along each axis cut short by the border.
    dropout_p: probability in [0, 1) of dropping an attention weight.
    Returns (B, N, d). Raises ValueError or TypeError naming the argument that does not fit.
    """
    check.shape("q", q, ("B", "N", "c"))
    check.floating("q", q)
    check.shape("k", k, q.shape)
    check.shape("v", v, (*q.shape[:2], "d"))
    for name, x in (("k", k), ("v", v)):
        check.floating(name, x, (q.dtype,))
        check.together(name, x, "q", q)
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p must be in [0, 1), got {dropout_p}")
    check_windows(q.shape[1], windows, volume)
    choose_backend("attention", q.device.type, backend)
    return reference.attention(q, k, v, scale, windows, dropout_p, volume)


def check_windows(
    tokens: int, windows: int | tuple[int, int, int], volume: tuple[int, int, int] | None
) -> None:
    """Require windows to split the tokens as `attention` says."""
    if volume is None:
        check.at_least("windows", windows, 1)  # type: ignore[arg-type]
        if tokens % windows:  # type: ignore[operator]
            raise ValueError(f"windows must divide the {tokens} tokens, got {windows}")
        return
    if len(volume) != 3 or volume[0] * volume[1] * volume[2] != tokens:
        raise ValueError(f"volume must be a triple that holds the {tokens} tokens, got {volume}")
    if isinstance(windows, int) or len(windows) != 3:
        raise ValueError(f"windows must be a triple of counts where volume is given, got {windows}")
    for size, count in zip(volume, windows, strict=True):
        if not 1 <= count <= size:
            raise ValueError(f"windows must be from 1 to the axis length {size}, got {count}")
