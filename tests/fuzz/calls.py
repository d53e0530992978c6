"""Random calls of every operation: at odd shapes, layouts, types and values, and wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lganet_fast import ops
from lganet_fast.ops import native

SIDES = (1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 9, 13, 16, 17)
LARGE_SIDES = (30, 31, 33, 35)  # more than three tasks of 8192 voxels, which threads share
LARGE = 0.02  # share of the calls of compiled operations that have such sides
CHANNELS = (1, 1, 2, 3, 4, 5, 8, 9, 16)
THREADS = (1, 1, 2, 3)
TYPES = (torch.float32,) * 5 + (torch.float64,) * 2 + (torch.bfloat16, torch.float16)
WIDE = (torch.float32, torch.float32, torch.float64)
WRONG_TYPES = (torch.int32, torch.bool, torch.complex64, torch.float16, torch.float64)
WRONG_THINGS = (None, "x", 1.5, -1, 0, True, float("nan"), [], (1, 2), 10**30, [None])
KINDS = ("plain",) * 6 + ("whole", "constant", "large", "small", "zero")
ODD = {  # values that a few elements get, and how often a tensor has some
    "nan": (float("nan"), 0.04),
    "inf": (float("inf"), 0.03),
    "-inf": (float("-inf"), 0.03),
    "huge": (1e19, 0.03),
    "1e30": (-1e30, 0.02),
}


@dataclass
class Draw:
    """What one call is drawn from, which odd values it got, and whether its volumes are large."""

    random: np.random.Generator
    odd: set[str] = field(default_factory=set)
    large: bool = False

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def one(self, of: Any) -> Any:
        return of[int(self.random.integers(len(of)))]

    def size(self, even: bool = False) -> tuple[int, ...]:
        """Sides of a volume, one of them 0 now and then."""
        if self.large:
            return tuple(self.one(LARGE_SIDES) for _ in range(3))
        sides = [self.one(SIDES) for _ in range(3)]
        if even:
            sides = [2 * min(n, 6) for n in sides]
        if self.chance(0.03):
            sides[int(self.random.integers(3))] = 0
        return tuple(sides)

    def count(self, of: Any = CHANNELS) -> int:
        return 0 if self.chance(0.01) else self.one(of)

    def batch(self) -> int:
        return self.one((1, 1, 1, 2, 3)) if not self.chance(0.03) else 0

    def map(
        self,
        *shape: int,
        dtype: torch.dtype | None = None,
        odd: bool = True,
        kinds: tuple[str, ...] = KINDS,
    ) -> Tensor:
        """A tensor of random values in a random layout."""
        dtype = dtype or self.one(TYPES)
        x = torch.from_numpy(self.random.standard_normal(shape))
        kind = self.one(kinds)
        if kind == "whole":
            x = x.mul(2).round()
        elif kind == "constant":
            x = torch.full_like(x, float(self.random.standard_normal()))
        elif kind == "large":
            x = 1000 + x
        elif kind in ("small", "zero"):
            x = x * (1e-4 if kind == "small" else 0)
        for name, (value, share) in ODD.items():
            if odd and x.numel() and self.chance(share):
                self.odd.add(name)
                places = self.random.integers(x.numel(), size=self.one((1, 1, 3)))
                x.view(-1)[places] = value
        return self.laid_out(x.to(dtype))

    def flow(self, *shape: int, dtype: torch.dtype | None = None, whole: bool = True) -> Tensor:
        """Displacements: within a voxel, whole ones, or far outside."""
        reach = self.one((0, 0.3, 1, 3, 3, 30, 1e4) if whole else (0.3, 1, 3, 10))
        reach = self.one((3, 10, 30)) if self.large else reach  # from one task's voxels to others'
        x = reach * torch.from_numpy(self.random.standard_normal(shape))
        if whole and self.chance(0.3):
            x = (2 * x).round() / self.one((1, 2))
        for value in (float("nan"), float("inf"), -float("inf"), 1e20, -3e38, 2.0**31):
            if x.numel() and self.chance(0.04):
                self.odd.add("flow")
                x.view(-1)[self.random.integers(x.numel(), size=2)] = value
        return self.laid_out(x.to(dtype or self.one(WIDE)))

    def laid_out(self, x: Tensor) -> Tensor:
        """The same values, elsewhere in memory."""
        kind = self.one(("plain", "plain", "last", "last", "gaps", "turned", "row", "offset"))
        if kind == "last" and x.dim() == 5:
            return x.contiguous(memory_format=torch.channels_last_3d)
        if kind == "gaps" and x.dim() and x.shape[-1]:
            return torch.stack([x, torch.full_like(x, float("nan"))], -1)[..., 0]
        if kind == "turned" and x.dim() > 1:
            return x.transpose(-1, 1).contiguous().transpose(-1, 1)
        if kind == "row" and x.dim() and x.shape[0] > 1:
            return x[:1].expand(x.shape)
        if kind == "offset":
            return torch.cat([x.new_zeros(1), x.reshape(-1)])[1:].view(x.shape)
        return x


@dataclass
class Call:
    """One call of an operation, with its arguments by name, and the threads of the compiled one."""

    operation: str
    run: Callable[..., Any]
    given: dict[str, Any]
    odd: set[str]
    wrong: bool = False
    threads: int = 1


def warp(d: Draw) -> dict[str, Any]:
    batch, size = d.batch(), d.size()
    return {
        "image": d.map(batch, d.count(), *(d.size() if d.chance(0.3) else size)),
        "flow": d.flow(batch, 3, *size),
        "mode": d.one(("trilinear", "trilinear", "nearest")),
        "padding": d.one(("zeros", "border")),
    }


def compose(d: Draw) -> dict[str, Any]:
    shape = (d.batch(), 3, *d.size())
    return {"first": d.flow(*shape), "second": d.flow(*shape)}


def integrate(d: Draw) -> dict[str, Any]:
    steps = d.one((0, 1, 2, 3, 7))  # rounding moves what is whole to either side at the second
    return {"velocity": d.flow(d.batch(), 3, *d.size(), whole=steps < 2), "steps": steps}


def correlate(d: Draw) -> dict[str, Any]:
    shape, dtype, radius = (d.batch(), d.count(), *d.size()), d.one(TYPES), d.one((1, 1, 1, 2))
    radius = 1 if d.large else radius  # else the reference takes gigabytes
    width = (2 * radius + 1) ** 3 + d.one((0, 5)) if d.chance(0.3) else None
    x, y = (d.map(*shape, dtype=dtype) for _ in range(2))
    return {"x": x, "y": y, "radius": radius, "width": width, "step": d.one((1, 1, 1, 2))}


def neighbour_attention(d: Draw) -> dict[str, Any]:
    heads, dtype = d.one((1, 2, 3)), d.one(TYPES)
    shape = (d.batch(), heads * d.count(), *d.size())
    q, k = (d.map(*shape, dtype=dtype) for _ in range(2))
    return {"q": q, "k": k, "bias": d.map(heads, 3, 3, 3, odd=False), "scale": 0.5}


def attention(d: Draw) -> dict[str, Any]:
    size, dtype, batch = d.size(), d.one(TYPES), d.batch()
    tokens, width = int(np.prod(size)), d.count()
    q, k = (d.map(batch, tokens, width, dtype=dtype) for _ in range(2))
    given = {"q": q, "k": k, "v": d.map(batch, tokens, d.count(), dtype=dtype), "scale": 0.4}
    if d.chance(0.5):
        return given | {
            "volume": size,
            "windows": tuple(d.one(range(1, max(n, 1) + 1)) for n in size),
        }
    return given | {"windows": d.one([n for n in range(1, 9) if tokens % n == 0])}


def local_ncc(d: Draw) -> dict[str, Any]:
    batch, size, dtype = d.batch(), d.size(), d.one(TYPES)
    a, b = (d.map(batch, d.one((1,)), *size, dtype=dtype) for _ in range(2))
    weight = d.map(batch, 1, *size, odd=False).abs() if d.chance(0.3) else None
    sizes = (3, 5, 9) if d.odd else (1, 3, 5, 9)  # in one voxel there is nothing to compare
    return {"a": a, "b": b, "window": d.one(sizes), "weight": weight}


def mutual_information(d: Draw) -> dict[str, Any]:
    batch, size, dtype = d.batch(), d.size(), d.one(TYPES)
    shape = batch, d.one((1, 1, 2)), *size
    a, b = (d.map(*shape, dtype=dtype) for _ in range(2))
    weight = d.map(batch, 1, *size, odd=False).abs() if d.chance(0.3) else None
    return {"a": a, "b": b, "bins": d.one((4, 5, 8, 32)), "weight": weight}


def gradient_loss(d: Draw) -> dict[str, Any]:
    return {"flow": d.map(d.batch(), 3, *d.size(), dtype=d.one(WIDE))}


def resize(d: Draw) -> dict[str, Any]:
    return {
        "x": d.map(d.batch(), d.count(), *d.size()), "size": d.size(), "factor": d.one((1.0, 2.0))
    }  # fmt: skip


def invert(d: Draw) -> dict[str, Any]:
    batch, size, dtype = d.batch(), d.size(), d.one(WIDE)
    goal, start = (d.flow(batch, 3, *size, dtype=dtype, whole=False) for _ in range(2))
    field = d.map(batch, 3, *(d.size() if d.chance(0.3) else size), dtype=dtype)
    return {"field": 0.05 * field, "goal": goal, "start": start}


def norm_act(d: Draw) -> dict[str, Any]:
    return {
        "x": d.map(d.batch(), d.count(), *d.size()),
        "slope": d.one((1.0, 0.1, 1e-3)),
        "inplace": d.chance(0.2),
    }


def convolve(d: Draw) -> dict[str, Any]:
    batch, size, dtype = d.batch(), d.size(), d.one(TYPES)
    widths = [d.count() for _ in range(d.one((1, 1, 1, 2, 3)))]
    inputs, outputs = sum(widths), d.count()
    relu = d.chance(0.5)
    kinds = ("plain", "plain", "large", "small") if relu else KINDS  # no sums that are exactly 0
    maps = [d.map(batch, n, *size, dtype=dtype, kinds=kinds) for n in widths]
    other = d.one(TYPES) if d.chance(0.1) else dtype
    given = {
        "x": maps if len(maps) > 1 or d.chance(0.3) else maps[0],
        "weight": d.map(outputs, inputs, 3, 3, 3, dtype=other, odd=False, kinds=kinds),
        "bias": d.map(outputs, dtype=dtype, odd=False),
        "inplace": d.chance(0.2),
        "relu": relu,
    }
    if d.chance(0.3):
        moments = d.map(2, batch, inputs, dtype=d.one(WIDE), odd=False, kinds=("plain",))
        given["norm"] = [moments, 0.1]
    for name in ("add", "times"):
        if d.chance(0.2):
            given[name] = d.map(batch, outputs, *size, dtype=dtype)
    return given


def pool(d: Draw) -> dict[str, Any]:
    batch, channels = d.batch(), d.count()
    x = d.map(batch, channels, *d.size(even=True))
    given = {"x": x, "kind": d.one(("mean", "max")), "keep": d.chance(0.3)}
    if d.chance(0.3):
        given["norm"] = [d.map(2, batch, channels, dtype=d.one(WIDE), odd=False), 0.1]
    return given


def warp_sum(d: Draw) -> dict[str, Any]:
    batch, size, dtype, wide = d.batch(), d.size(), d.one(TYPES), d.one(WIDE)
    shape, many = (batch, d.count(), *size), d.one((1, 2))
    return {
        "images": [d.map(*shape, dtype=dtype) for _ in range(many)],
        "flows": [d.flow(batch, 3, *size, dtype=wide) for _ in range(many)],
        "base": d.map(*shape, dtype=dtype) if d.chance(0.6) else None,
    }


def weigh(d: Draw) -> dict[str, Any]:
    batch, size, dtype, channels, many = d.batch(), d.size(), d.one(TYPES), d.count(), d.one((2, 3))
    hidden, width = d.count(), many * channels
    return {
        "maps": [d.map(batch, channels, *size, dtype=dtype) for _ in range(many)],
        "logits": d.map(batch, many, *size, dtype=dtype),
        "first": d.map(hidden, width, odd=False),
        "second": d.map(width, hidden, odd=False),
    }


def feed_forward(d: Draw) -> dict[str, Any]:
    shape, dtype = (d.batch(), d.count(SIDES), d.count()), d.one(TYPES)
    widths = [shape[2], *(d.count() for _ in range(d.one((1, 2)))), shape[2]]
    layers = [
        [d.map(b, a, dtype=dtype, odd=False), d.map(b, dtype=dtype, odd=False)]
        for a, b in pairwise(widths)
    ]
    without = d.chance(0.2)
    parts = [d.map(shape[2], dtype=dtype, odd=False) for _ in range(2)]
    return {
        "x": d.map(*shape, dtype=dtype),
        "tokens": None if without else d.map(*shape, dtype=dtype),
        "layers": [] if without else layers,
        "norm": parts if d.chance(0.7) else None,
        "transposed": d.chance(0.3),
    }


MAKERS = (
    warp, compose, integrate, correlate, neighbour_attention, attention, local_ncc,
    mutual_information, gradient_loss, resize, invert,
    norm_act, convolve, convolve, pool, warp_sum, weigh, feed_forward,
)  # fmt: skip


def spoilt(d: Draw, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with one of them wrong, as a rule."""
    name = d.one(list(given))
    value = given[name]
    if isinstance(value, list) and value and d.chance(0.8):
        part = int(d.random.integers(len(value)))
        new = spoilt(d, {"": value[part]})[""]
        return given | {name: [*value[:part], new, *value[part + 1 :]]}
    if not isinstance(value, Tensor) or d.chance(0.15):
        return given | {name: d.one(WRONG_THINGS)}
    kind = d.one(("type", "less", "more", "longer", "shorter", "meta", "first"))
    if kind == "type":
        value = value.to(d.one(WRONG_TYPES))
    elif kind == "less" and value.dim():
        value = value.sum(0)
    elif kind == "more":
        value = value[None]
    elif kind == "meta":
        value = value.to("meta")
    elif kind == "first":
        value = value.transpose(0, -1)
    elif value.dim():
        axis = int(d.random.integers(value.dim()))
        value = (
            torch.cat([value, value.narrow(axis, 0, min(1, value.shape[axis]))], axis)
            if kind == "longer"
            else value.narrow(axis, 0, max(value.shape[axis] - 1, 0))
        )
    return given | {name: value}


def solved(**given: Any) -> Any:
    """What `invert` finds where it finds it: elsewhere small differences grow."""
    flow, there = ops.invert(**given)
    there = there & (flow.abs() < 1e3).all(1)
    return flow * there[:, None], there.to(flow)


def draw(random: np.random.Generator) -> Call:
    """One call."""
    d = Draw(random)
    maker = d.one(MAKERS)
    d.large = maker.__name__ in native.COMPILED and d.chance(LARGE)
    given, wrong = maker(d), d.chance(0.2)
    if wrong:
        given = spoilt(d, given)
    name = maker.__name__
    if name == "convolve" and d.chance(0.15):
        name = "convolve_moments"
        given = {k: v for k, v in given.items() if k in ("x", "weight", "bias", "norm")}
    run = solved if name == "invert" else getattr(ops, name)
    return Call(name, run, given, d.odd, wrong, d.one(THREADS))
