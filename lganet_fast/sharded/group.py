"""The processes of a sharded registration: who owns which planes, sums, and errors of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import InputError
from ..runtime.files import reason
from ..runtime.ranks import Ranks

T = TypeVar("T")
Span: TypeAlias = tuple[int, int]  # first plane, and the plane after the last
WAIT = timedelta(seconds=25)  # for an answer of another process, which does the same work
STAGE = timedelta(hours=2)  # for the slowest process at the end of reading or writing


@contextmanager
def talking() -> Iterator[None]:
    """Turn an error of torch.distributed into an InputError of one line."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            f"another process has ended, or does not answer: {reason(error)}"
        ) from error


def spans_of(size: int, count: int) -> list[Span]:
    """The planes of each of `count` processes: contiguous, numbers that differ by one at most."""
    return [(size * rank // count, size * (rank + 1) // count) for rank in range(count)]


@dataclass(frozen=True, eq=False)
class Group:
    """The processes, as one of them sees them.

    stages: a group of torch.distributed for objects of the CPU that waits as long as a stage may
    take; None where there is one process.
    """

    ranks: Ranks
    stages: Any = None

    @classmethod
    def of(cls, ranks: Ranks) -> Group:
        """The group of processes that `runtime.ranks.join` has joined."""
        if ranks.count == 1:
            return cls(ranks)
        with talking():
            return cls(ranks, dist.new_group(backend="gloo", timeout=STAGE))

    @property
    def rank(self) -> int:
        """The rank of this process."""
        return self.ranks.rank

    @property
    def count(self) -> int:
        """The number of processes."""
        return self.ranks.count

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.ranks.device

    def spans(self, size: int) -> list[Span]:
        """The planes of each process, of an axis of `size` planes."""
        return spans_of(size, self.count)

    def own(self, size: int) -> Span:
        """The planes of this process."""
        return self.spans(size)[self.rank]

    def cut(self, x: Tensor) -> Tensor:
        """The planes of this process, of a whole (..., D)."""
        first, end = self.own(x.shape[-1])
        return x[..., first:end].contiguous()

    def total(self, x: Tensor) -> Tensor:
        """The sum of every process's tensor; the same bits in all of them."""
        if self.count == 1:
            return x
        out = x.detach().to(self.device, copy=True).contiguous()
        with talking():
            dist.all_reduce(out)
        return out.to(x.device)

    def rows(self, values: list[float]) -> list[list[float]]:
        """Every process's few numbers, in the order of ranks."""
        table = torch.zeros(self.count, len(values), dtype=torch.float64)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        return self.total(table).tolist()

    def sum(self, value: float) -> float:
        """The sum of every process's number, in float64."""
        return float(sum(row[0] for row in self.rows([value])))

    def objects(self, value: T) -> list[T]:
        """Every process's object, in the order of ranks, at the end of a stage."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with talking():
            dist.all_gather_object(found, value, group=self.stages)
        return found

    def stage(self, work: Callable[[], T]) -> T:
        """The result of this process's part of a stage, once all have done theirs.

        Raises InputError, in all of them, if the work of any has raised one.
        """
        found, message = None, None
        try:
            found = work()
        except InputError as error:
            message = str(error)
        for rank, text in enumerate(self.objects(message)):
            if text is not None:
                raise InputError(text if rank == self.rank else f"process {rank}: {text}")
        return found  # type: ignore[return-value]
