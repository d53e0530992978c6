"""Planes that other processes own: fetched, with the gradient that goes back to the owners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .group import Group, Span, talking


def planes(x: Tensor, group: Group, size: int, wanted: Sequence[Span]) -> Tensor:
    """Any planes of an axis of `size`, from the processes that own them.

    x: (..., d), the planes of this process. wanted: of each process, also where it owns none of
    them; every process gives the same. Returns (..., hi - lo), the planes `wanted` by this process.
    The gradient of every fetched plane is added to that of its owner.
    """
    if group.count == 1:
        first, end = wanted[0]
        return x if (first, end) == (0, size) else x[..., first:end]
    out: Tensor = Fetch.apply(x, group, group.spans(size), list(wanted))
    return out


def beside(group: Group, size: int, width: int) -> list[Span]:
    """The planes of each process with a halo of `width` planes, within the volume."""
    return [(max(a - width, 0), min(b + width, size)) for a, b in group.spans(size)]


def common(one: Span, other: Span) -> Span:
    """The planes in both ranges; the end is the start where there are none."""
    first = max(one[0], other[0])
    return first, max(first, min(one[1], other[1]))


class Fetch(torch.autograd.Function):
    """Fetching planes; its adjoint sends them back and adds them up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, owned: list[Span], wanted: list[Span]) -> Tensor:
        """Each process sends of what it owns, and receives of what it wants."""
        ctx.given = group, owned, wanted
        out = x.new_empty(*x.shape[:-1], wanted[group.rank][1] - wanted[group.rank][0])
        for part, (first, end) in swapped(x, group, owned, wanted):
            start = wanted[group.rank][0]
            out[..., first - start : end - start] = part
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Each process sends what it wanted to its owners, which add it up in the ranks' order."""
        group, owned, wanted = ctx.given
        start, stop = owned[group.rank]
        out = grad.new_zeros(*grad.shape[:-1], stop - start)
        for part, (first, end) in swapped(grad, group, wanted, owned):
            out[..., first - start : end - start] += part
        return out, None, None, None


def swapped(
    x: Tensor, group: Group, have: Sequence[Span], want: Sequence[Span]
) -> list[tuple[Tensor, Span]]:
    """The parts that all processes have of the planes wanted here, in the order of ranks.

    x: (..., d), the planes `have` of this process. Returns each part with its planes.
    """
    start = have[group.rank][0]
    parts, calls, sent = {}, [], []
    for other in range(group.count):
        first, end = common(have[group.rank], want[other])
        if end > first:
            part = x[..., first - start : end - start]
            if other == group.rank:
                parts[other] = part
            else:
                sent.append(part.contiguous())  # kept until it is sent
                calls.append(dist.P2POp(dist.isend, sent[-1], other))
        first, end = common(have[other], want[group.rank])
        if end > first and other != group.rank:
            parts[other] = x.new_empty(*x.shape[:-1], end - first)
            calls.append(dist.P2POp(dist.irecv, parts[other], other))
    if calls:
        with talking():
            for call in dist.batch_isend_irecv(calls):
                call.wait()
    mine = want[group.rank]
    return [(parts[rank], common(have[rank], mine)) for rank in sorted(parts)]
