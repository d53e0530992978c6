"""Launches the attention kernels on tokens in windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .attention_kernels import forward_kernel, key_kernel, query_kernel
from .launch import launch, padded, wide

LOG2_E = math.log2(math.e)


class Call:
    """The common arguments of the kernels for q, k (B, N, c), v (B, N, d) and their windows.

    The tokens fill `volume`; windows are boxes of it, `counts` of them along each axis.
    """

    def __init__(
        self,
        tokens: tuple[Tensor, Tensor, Tensor],
        seed: Tensor | None,
        scale: float,
        counts: Sequence[int],
        dropout_p: float,
        volume: Sequence[int],
    ) -> None:
        q, k, v = tokens
        box = [-(-size // count) for size, count in zip(volume, counts, strict=True)]
        windows = math.prod(-(-size // b) for size, b in zip(volume, box, strict=True))
        self.windows, self.longest = q.shape[0] * windows, math.prod(box)
        self.arguments = {
            "q": q,
            "k": k,
            "v": v,
            "seed": seed,
            "threshold": round(dropout_p * 2**32) - 2**31,
            "keep_scale": 1 / (1 - dropout_p),
            "scale": scale * LOG2_E,
            "bucket": padded(self.longest),
            "tokens": q.shape[1],
            "place": (windows, *volume, *box),
            "C": q.shape[2],
            "D": v.shape[2],
            "BLOCK_C": padded(q.shape[2], 16),
            "BLOCK_D": padded(v.shape[2], 16),
            "BOXES": list(volume[1:]) != box[1:],
            "DROPOUT": seed is not None,
            "TF32": torch.backends.cuda.matmul.fp32_precision == "tf32",
        }

    def run(self, kernel: Any, *strided: Tensor, **more: Any) -> None:
        """Launch a kernel, one program per tile of a window. strided: read by their strides."""
        launch(
            kernel,
            lambda meta: self.windows * -(-self.longest // meta["BLOCK_M"]),
            **self.arguments,
            **more,
            strides=tuple(step for x in strided for step in (x.stride(0), x.stride(2))),
            TOKENS=tuple(x.stride(1) for x in strided),
            WIDE=wide(*strided),
        )


def forward(
    q: Tensor, k: Tensor, v: Tensor, seed: Tensor | None, *cut: Any
) -> tuple[Tensor, Tensor]:
    """The result (B, N, d) and, for the backward, the base-2 log-sum-exp (B, N) in float32.

    cut: scale, counts, dropout_p, volume. seed: one int64, or None without dropout.
    """
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    if out.numel():
        Call((q, k, v), seed, *cut).run(forward_kernel, q, k, v, out=out, lse=lse)
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    seed: Tensor | None,
    *cut: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients to q, k and v; `cut` as in `forward`."""
    grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)]
    if not out.numel():
        return grads[0].zero_(), grads[1].zero_(), grads[2]
    delta = torch.empty_like(lse)
    call = Call((q, k, v), seed, *cut)
    saved = {"grad": grad, "lse": lse, "delta": delta}
    call.run(query_kernel, q, k, v, grad, **saved, out=out, grad_q=grads[0])
    call.run(key_kernel, q, k, v, grad, **saved, grad_k=grads[1], grad_v=grads[2])
    return grads[0], grads[1], grads[2]
