"""The processes of a run: one, or those started by torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import InputError
from .files import reason
from .machine import choose_device, set_threads

T = TypeVar("T")
WAIT = timedelta(days=7)  # for the slowest process: parts of a data set take hours


@dataclass(frozen=True)
class Ranks:
    """The process's rank, the number of processes and the device; rank 0 writes and prints."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """The share of this process in the items; all processes have the same list."""
        return list(items[self.rank :: self.count])

    def total(self, values: Tensor) -> Tensor:
        """The sum of every process's tensor, in its memory."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Every process's value in the order of ranks; only on rank 0, else an empty list."""
        if self.count == 1:
            return [value]
        values: list[Any] | None = [None] * self.count if self.first else None
        dist.gather_object(value, values)
        return values or []


@contextmanager
def join(device: str, threads: int, wait: timedelta = WAIT) -> Iterator[Ranks]:
    """Join the processes started by torchrun, by NCCL on GPUs and Gloo on CPUs, or run alone.

    A `join` inside another returns the same group, since torchrun's processes can join only once.

    device: "auto", "cpu", "cuda" or "cuda:N"; with several processes each uses the GPU of its local
    rank. threads: CPU threads per process; 0 for an equal share of all. wait: for the others, in
    every exchange.
    Raises InputError for a missing device, and if the other processes cannot be joined.
    """
    place = choose_device(device)
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    set_threads(threads or max(1, set_threads(None) // beside))
    if "RANK" not in os.environ:
        yield Ranks(0, 1, place)
        return
    if place.type == "cuda":
        place = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(place)
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), place)
        return
    try:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=wait)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"cannot join the other processes: {reason(error)}") from error
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()
