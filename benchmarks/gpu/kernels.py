"""Every convolution of every path against float64 on the card, and the other operations too.

Results are written into memory that held NaN, and must repeat bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lganet_fast import ops
from lganet_fast.ops import tuned
from lganet_fast.ops.dispatch import refusals

from ..case import flow, image
from ..count import Conv
from .clock import off, poison, tf32
from .paths import PATHS, TOLERANCES, Given, Problem, legal, right
from .shapes import TINY, TYPES, pairs
from .work import Work

SHAPES = ((2, 5, 7, 33), (1, 20, 22, 40))  # borders everywhere, and many blocks
SIZE = (22, 18, 26)


def run(work: Work) -> None:
    """Tell what is wrong, what does not repeat, and what is not there."""
    wrong: list[dict[str, Any]] = []
    moving: list[dict[str, Any]] = []
    worst: dict[str, float] = {}
    missing = {name: path.missing(work.device) for name, path in PATHS.items()}
    for row in operations(work):
        wrong += [row] if row["wrong"] else []
        worst[row["what"]] = row["error"]
    checked = 0
    work.put(missing={name: why for name, why in missing.items() if why})
    for problem, path, config in cases(work, [n for n, why in missing.items() if why is None]):
        if work.left() < 1:
            break
        what = {**problem.conv.__dict__, "type": problem.type, "path": path, "config": config}
        try:
            error, repeats = check(problem, path, config, work.device)
        except Exception as failure:
            wrong.append({**what, "failed": str(failure).splitlines()[0][:200]})
            continue
        checked += 1
        if not error <= TOLERANCES[problem.type]:
            wrong.append({**what, "error": error})
        if not repeats and path != "cudnn":  # PyTorch's may sum by atomics
            moving.append(what)
        name = f"{path} {problem.conv.operation} {problem.type}"
        worst[name] = max(worst.get(name, 0.0), error)
        work.put(checked=checked, worst=worst, wrong=wrong, **{"not repeating": moving})
    work.put(checked=checked, worst=worst, wrong=wrong, **{"not repeating": moving})


def cases(work: Work, paths: list[str]) -> Iterator[tuple[Problem, str, Any]]:
    """Our own paths before PyTorch's, first configurations before others."""
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
    expected = right(problem, given)
    call = PATHS[path].run(problem, config, given)
    results = []
    for _ in range(3):
        poison(device, 2**24)
        results.append(call().clone())
    equal = all(torch.equal(results[0], x) for x in results[1:])
    return max(off(x, expected) for x in results), equal


def operations(work: Work) -> Iterator[dict[str, Any]]:
    """Each other operation on each backend that has it, in float32 and bfloat16."""
    device = work.device
    for name, (call, inputs) in calls(device).items():
        for type, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
            kept = [x.to(type) if x.dim() != 5 or x.shape[1] != 3 else x for x in inputs]
            wide = [x.double() for x in kept]
            expected = call(*wide, backend="reference")
            for backend in ("native", "triton"):
                if backend in refusals(name, device):
                    continue
                row = {"what": f"{name} {backend} {str(type)[6:]}"}
                try:
                    poison(device, 2**24)
                    with tf32(False):
                        results = [call(*kept, backend=backend) for _ in range(3)]
                    error = max(off(x, expected) for x in results)
                    same = all(torch.equal(results[0], x) for x in results[1:])
                except Exception as failure:
                    text = str(failure).splitlines()[0][:200]
                    yield {**row, "error": None, "failed": text, "wrong": True}
                    continue
                yield {**row, "error": error, "wrong": not (error <= tolerance and same)}


def calls(device: str) -> dict[str, tuple[Callable[..., Tensor], list[Tensor]]]:
    """What is called with what; three channels are a flow, which stays float32."""
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
