"""The processes of a run: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..runtime import choose_device, set_threads


@dataclass(frozen=True)
class Ranks:
    """Which process of `count` runs here, and where; rank 0 is the one that writes and talks."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of every process's tensor, in its memory."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every process's value in the order of ranks; only on rank 0, else an empty list."""
        if self.count == 1:
            return [value]
        values = [None] * self.count if self.first else None
        dist.gather_object(value, values)
        return values or []


@contextmanager
def join(device: str, threads: int) -> Iterator[Ranks]:
    """Join the processes that torchrun started, by NCCL on GPUs and by Gloo on CPUs, or go alone.

    device: "auto", "cpu", "cuda" or "cuda:N"; of several processes each takes the GPU of its local
    rank. threads: CPU threads per process; 0 for an equal share of all.
    Raises InputError for a device that is not there.
    """
    place = choose_device(device)
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    set_threads(threads or max(1, set_threads(None) // beside))
    if "RANK" not in os.environ:
        yield Ranks(0, 1, place)
        return
    if place.type == "cuda":
        place = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()
