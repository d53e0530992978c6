"""Pairs of synthetic images with their labels and the flow between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...config.schema import SPLITS, DataSection, SyntheticSection
from ...ops import warp
from ..sample import Sample
from .contrast import image_of
from .labels import brain, shapes
from .noise import Deformation, Size, Source

HELD_OUT = 8  # pairs of the splits "val" and "test"
STRIDE = 1_000_003  # between the seeds of two runs: more than pairs of a run


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair; images and label maps (1, 1, H, W, D) float32.

    Images in [0, 1] with background 0; labels are whole numbers, 0 for none. flow: (1, 3, H, W, D)
    in voxels: warp(moving, flow) resembles fixed.
    """

    moving: Tensor
    fixed: Tensor
    moving_labels: Tensor
    fixed_labels: Tensor
    flow: Tensor


@torch.no_grad()
def draw(source: Source, section: SyntheticSection) -> Pair:
    """Draw a pair: one label map, deformed twice, each an image in a contrast of its own.

    Deterministic by `source`, on its device.
    """
    size: Size = section.size
    anatomy = not source.chance(section.shapes)
    labels = (brain if anatomy else shapes)(source, size, section.spacing)
    still, moved = (
        Deformation(source, size, float(section.spacing), section.deformation) for _ in range(2)
    )
    maps = [warp(labels, one.flow(), "nearest") for one in (still, moved)]
    fixed, moving = (image_of(source, one, anatomy) for one in maps)
    kept = chosen(source, int(labels.max()) + 1, section.labels)
    fixed_labels, moving_labels = (kept[one.long()] for one in maps)
    return Pair(moving, fixed, moving_labels, fixed_labels, still.flow_to(moved))


def chosen(source: Source, count: int, most: int) -> Tensor:
    """For each of `count` labels itself, or 0; at most so many are kept, any with equal chance."""
    order = torch.argsort(source.uniform(count - 1))[:most] + 1
    kept = torch.zeros(count, device=source.device)
    kept[order] = order.to(kept)
    return kept


class SyntheticPairs(Dataset[Sample]):
    """Pairs of a split, drawn on access: `len` and `[i]`, a Sample. Pair i is always the same.

    split: "train" has `section.pairs` pairs, "val" and "test" a few others. data: for its seed.
    """

    def __init__(self, section: SyntheticSection, data: DataSection, split: str) -> None:
        self.section, self.data = section, data
        self.split = SPLITS.index(split)

    def __len__(self) -> int:
        """Number of pairs."""
        return HELD_OUT if self.split else self.section.pairs

    def __getitem__(self, index: int) -> Sample:
        """One pair."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        seed = (self.data.seed * STRIDE + index) * len(SPLITS) + self.split
        pair = draw(Source(seed), self.section)
        moving, fixed, moving_labels, fixed_labels = (
            x[0, 0].numpy()
            for x in (pair.moving, pair.fixed, pair.moving_labels, pair.fixed_labels)
        )
        affine = np.diag([*[float(self.section.spacing)] * 3, 1.0])
        return Sample(
            f"{SPLITS[self.split]} {index}",
            moving,
            fixed,
            affine,
            moving_labels=moving_labels.astype(np.int32),
            fixed_labels=fixed_labels.astype(np.int32),
            moving_affine=affine,
            flow=pair.flow[0].numpy(),
        )
