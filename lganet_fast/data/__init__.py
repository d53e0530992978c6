"""Data sets in the layouts that people have them in, as pairs of prepared volumes."""

from __future__ import annotations

from ..config.loading import Config
from ..config.schema import SPLITS
from ..errors import InputError
from .check import check
from .dataset import PairDataset
from .layouts import find_cases
from .prefetch import Prefetcher
from .sample import Sample
from .sampler import ShardedSampler

__all__ = ["PairDataset", "Prefetcher", "Sample", "ShardedSampler", "check", "open_split"]


def open_split(config: Config, split: str, marks: bool = True) -> PairDataset:
    """The pairs of a split, "train", "val" or "test".

    marks: read labels, points and masks too, where there are any.
    Raises InputError where the data set is not laid out as configured.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return PairDataset(find_cases(config.data, split), config.data, marks)
