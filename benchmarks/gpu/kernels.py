"""Compares the convolutions of every path, and the other operations, with float64 on the GPU.

Results are written to memory filled with NaN, and must be repeatable bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lganet_fast import ops
from lganet_fast.ops import tuned
from lganet_fast.ops.convolve import Norm, convolve_moments
from lganet_fast.ops.dispatch import refusals
from lganet_fast.runtime.files import reason

from ..case import flow, image
from ..count import Conv
from .clock import off, poison, tf32
from .paths import PATHS, TOLERANCES, Given, Problem, forced, legal, right, there
from .shapes import TINY, TYPES, pairs
from .survive import Trail, broken, each
from .work import Work

SHAPES = ((2, 5, 7, 33), (1, 20, 22, 40))  # one with borders everywhere, one with many blocks
SIZE = (22, 18, 26)


def run(work: Work) -> None:
    """Report wrong results, results that are not repeatable, and missing paths."""

    def items(trail: Trail) -> Iterator[Any]:
        paths, missing = there(work.device)
        trail.add("missing", why=missing)
        yield from calls(work.device)
        yield from cases(work, paths)

    each(work, items, described, partial(done, work.device), lambda trail: told(work, trail))


def told(work: Work, trail: Trail) -> None:
    """Store the findings so far."""
    rows, crashed = trail.rows("checked"), trail.rows("crashed")
    worst: dict[str, float | None] = {}
    for row in rows:
        before, error = worst.get(row["what"], 0.0), row["error"]
        worst[row["what"]] = None if error is None or before is None else max(before, error)
    work.put(
        now=True,
        missing=next((row["why"] for row in trail.rows("missing")), {}),
        checked=len(rows),
        worst=worst,
        wrong=[row for row in rows if row["wrong"]] + crashed,
        **{"not repeating": [row for row in rows if row["repeats"] is False]},
    )


def described(item: Any) -> tuple[str, dict[str, Any]]:
    """The path and description of an item: an operation or a convolution."""
    if isinstance(item, str):
        return item, {}
    problem, path, config = item
    return path, {**problem.conv.__dict__, "type": problem.type, "config": config}


def done(device: str, trail: Trail, item: Any) -> None:
    """Check one item."""
    if isinstance(item, str):
        for row in operation(item, device):
            trail.add("checked", **row)
        return
    problem, path, config = item
    conv = problem.conv
    row = {**conv.__dict__, "type": problem.type, "path": path, "config": config}
    row["what"] = f"{path} {conv.operation} {problem.type}"
    try:
        error, repeats = check(problem, path, config, device)
    except Exception as failure:
        if broken(failure):
            raise
        trail.add("checked", **row, error=None, failed=reason(failure), wrong=True, repeats=None)
        return
    if path == "cudnn":  # PyTorch may sum by atomics
        repeats = True
    wrong = not error <= TOLERANCES[problem.type]
    trail.add("checked", **row, error=error, wrong=wrong, repeats=repeats)


def cases(work: Work, paths: list[str]) -> Iterator[tuple[Problem, str, Any]]:
    """Our paths before PyTorch's, first configurations before others."""
    found = pairs()[-3:-2] if work.dry else pairs()
    ordered = sorted(paths, key=lambda name: name == "cudnn")
    for rank in range(8):
        for type in TYPES[:2] if work.dry else TYPES:
            for inputs, outputs in found:
                for operation in tuned.OPERATIONS:
                    for shape in [(1, *TINY)] if work.dry else SHAPES:
                        problem = Problem(Conv(operation, inputs, outputs, shape), type)
                        for path in ordered:
                            configs = legal(path, problem)
                            if rank < len(configs) and not (path == "cudnn" and rank):
                                yield problem, path, configs[rank]


def check(problem: Problem, path: str, config: Any, device: str) -> tuple[float, bool]:
    """The error against float64, and whether three results are equal."""
    given = Given.of(problem, device)
    entry = tuned.Entry(path, config, 1.0)

    def with_all(part: int) -> Tensor:
        with torch.no_grad(), tf32(problem.type == "tf32"), forced(entry):
            return everything(given)[part]

    calls = [(PATHS[path].run(problem, config, given), right(problem, given))]
    if problem.conv.operation == "convolve":
        wide = everything(given.wide())
        calls += [(partial(with_all, part), wide[part]) for part in (0, 1)]
    found = [compared(call, expected, device) for call, expected in calls]
    return largest([error for error, _ in found]), all(same for _, same in found)


def largest(errors: list[float]) -> float:
    """The largest; NaN if any is."""
    return max(errors) if all(error >= 0 for error in errors) else math.nan


def compared(call: Callable[[], Tensor], expected: Tensor, device: str) -> tuple[float, bool]:
    """The largest error of three results, NaN if one has NaN, and whether they are equal."""
    results = []
    for _ in range(3):
        poison(device, 2**24)
        results.append(call().clone())
    error = largest([off(x, expected) for x in results])
    return error, all(torch.equal(results[0], x) for x in results[1:])


def everything(given: Given) -> tuple[Tensor, Tensor]:
    """The results of a convolution with two maps, norm, ReLU, sum and product, and of a plain one
    with moments.
    """
    weight, bias, grad = given.weight, given.bias, given.grad
    batch, inputs = given.x.shape[:2]
    first = max(8, inputs // 16 * 8)
    two = inputs > first and inputs % 8 == 0
    maps = [given.x[:, :first], given.x[:, first:]] if two else given.x
    float_type = torch.promote_types(given.x.dtype, torch.float32)
    steps = torch.linspace(0.5, 1.5, 2 * batch * inputs, dtype=float_type, device=grad.device)
    norm = Norm(steps.view(2, batch, inputs), 0.1)
    more = {"norm": norm, "relu": True, "add": grad, "times": grad.flip(4)}
    return ops.convolve(maps, weight, bias, **more), convolve_moments(maps, weight, bias)[1]


def operation(name: str, device: str) -> Iterator[dict[str, Any]]:
    """Check another operation on each of its backends, in float32 and bfloat16."""
    call, inputs = calls(device)[name]
    for type, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
        kept = [x.to(type) if x.dim() != 5 or x.shape[1] != 3 else x for x in inputs]
        expected = call(*(x.double() for x in kept), backend="reference")
        for backend in ("native", "triton"):
            if backend in refusals(name, device):
                continue
            row = {"what": f"{name} {backend} {str(type)[6:]}"}
            try:
                with tf32(False):
                    run = partial(call, *kept, backend=backend)
                    error, same = compared(run, expected, device)
            except Exception as failure:
                if broken(failure):
                    raise
                yield {
                    **row,
                    "error": None,
                    "failed": reason(failure),
                    "wrong": True,
                    "repeats": None,
                }
                continue
            yield {**row, "error": error, "wrong": not error <= tolerance, "repeats": same}


def calls(device: str) -> dict[str, tuple[Callable[..., Tensor], list[Tensor]]]:
    """Functions and arguments by name; three channels are a flow, which stays float32."""
    x, y = (image(SIZE, torch.float32, device, 8, seed).detach() for seed in (0, 1))
    moved, second = flow(SIZE, device).detach(), -flow(SIZE, device).detach() / 2
    one, two = (image(SIZE, torch.float32, device, 1, seed).detach() for seed in (2, 3))
    tokens = torch.randn(3, 1, 297, 64, generator=torch.Generator().manual_seed(0)).to(device)
    found: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
        "warp": (ops.warp, [x, moved]),
        "compose": (ops.compose, [moved, second]),
        "integrate": (ops.integrate, [moved]),
        "correlate": (ops.correlate, [x, y]),
        "norm_act": (lambda x, backend: ops.norm_act(x, 0.1, backend=backend), [x]),
        "resize": (lambda x, backend: ops.resize(x, [41, 35, 51], backend=backend), [x]),
        "local_ncc": (lambda a, b, backend: ops.local_ncc(a, b, backend=backend), [one, two]),
        "attention": (
            lambda q, k, v, backend: ops.attention(q, k, v, 0.3, backend=backend),
            [*tokens],
        ),
    }
    return found
