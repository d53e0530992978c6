"""Data sets in common layouts, as pairs of prepared volumes."""

from __future__ import annotations

from .dataset import PairDataset, Pairs, open_files, open_split
from .inspection import check
from .prefetch import Prefetcher
from .sample import Sample
from .sampler import ShardedSampler

__all__ = [
    "PairDataset",
    "Pairs",
    "Prefetcher",
    "Sample",
    "ShardedSampler",
    "check",
    "open_files",
    "open_split",
]
