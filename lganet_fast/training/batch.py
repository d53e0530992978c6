"""Samples combined into the network's input."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import Pairs, Prefetcher, Sample, ShardedSampler
from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Batch:
    """B pairs: images (B, 1, H, W, D) float32, label maps (B, 1, H, W, D) int32 or None.

    flow: the true flow (B, 3, H, W, D) in voxels, or None.
    """

    names: list[str]
    moving: Tensor
    fixed: Tensor
    moving_labels: Tensor | None
    fixed_labels: Tensor | None
    flow: Tensor | None = None


def collate(samples: Sequence[Sample], device: torch.device) -> Batch:
    """Combine samples into a batch. Raises InputError if they differ in size."""
    names, sizes = [s.name for s in samples], {s.fixed.shape for s in samples}
    if len(sizes) > 1:
        found = ", ".join("x".join(map(str, size)) for size in sorted(sizes))
        raise InputError(
            f"pairs of one batch must have one size, got {found} in {', '.join(names)}: "
            "set data.crop, or train.batch to 1"
        )

    def stack(arrays: Sequence[NDArray]) -> Tensor:
        joined = arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
        return torch.from_numpy(joined)[:, None].to(device)

    def known(name: str) -> Tensor | None:
        arrays = [getattr(s, name) for s in samples]
        return None if any(a is None for a in arrays) else stack(arrays)

    moving, fixed = stack([s.moving for s in samples]), stack([s.fixed for s in samples])
    flow = known("flow")
    return Batch(
        names,
        moving,
        fixed,
        known("moving_labels"),
        known("fixed_labels"),
        None if flow is None else flow[:, 0],
    )


def batches(
    data: Pairs, sampler: ShardedSampler, size: int, workers: int, device: torch.device
) -> Generator[Batch]:
    """Endless batches, read ahead; the sampler's state is that after the last batch returned."""

    def samples() -> Generator[Sample]:
        while True:
            yield from Prefetcher(data, sampler, workers)

    endless = samples()
    while True:
        yield collate([next(endless) for _ in range(size)], device)
