"""Times of forward and training step in every way, measured in turn."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..case import IXI_OASIS, LPBA40, Size, shown
from ..timing import interleave, spread
from .clock import off
from .stand_in import SMALL
from .ways import forwards, steps
from .work import Work

GROUPS = (  # size, type, whether a step; the most important first
    (LPBA40, "float32", False),
    (IXI_OASIS, "float32", False),
    (LPBA40, "bfloat16", False),
    (IXI_OASIS, "bfloat16", False),
    (LPBA40, "float32", True),
    (LPBA40, "float16", False),
    (LPBA40, "bfloat16", True),
    (IXI_OASIS, "float32", True),
    (IXI_OASIS, "bfloat16", True),
    (IXI_OASIS, "float16", False),
    (LPBA40, "float16", True),
    (IXI_OASIS, "float16", True),
)
ROUNDS, SECONDS = 5, 2.0  # minimum, and time for further rounds
COMPILED = (IXI_OASIS, LPBA40)  # sizes at which the published network is compiled, in float32


def groups(work: Work) -> list[tuple[Size, str, bool]]:
    """The groups to time, in order."""
    if work.dry:
        return [(SMALL, "float32", False), (SMALL, "bfloat16", True)]
    return list(GROUPS[:4] if work.quick else GROUPS)


def run(work: Work) -> None:
    """Time the groups until the time is over."""
    found: dict[str, Any] = {}
    done = work.part("compiled").get("compiled", {})
    for size, type, step in groups(work):
        name = f"{shown(size)} {type} {'step' if step else 'forward'}"
        if work.left() < 2:
            found[name] = {"not run": "no time was left"}
            continue
        ways = (steps if step else forwards)(size, type, work.device)
        if not done.get(f"{shown(size)} {type}"):
            ways.pop("published compiled", None)
        found[name] = group(work, ways)
        work.put(groups=found)
    work.put(groups=found)


def group(work: Work, ways: dict[str, Callable[[], Callable[[], Tensor]]]) -> dict[str, Any]:
    """Medians, quartiles, ratios to the first way, peaks, and differences of results."""
    calls, failed, peaks = {}, {}, {}
    for name, build in ways.items():
        if work.left() < 2:
            failed[name] = "no time was left"
            continue
        try:
            calls[name], peaks[name] = built(build, work.device)
        except Exception as error:  # the other ways are still measured
            failed[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    times = interleave(
        {name: lambda call=call: call for name, call in calls.items()},  # type: ignore[misc]
        rounds=1 if work.dry else ROUNDS,
        seconds=0 if work.dry else min(SECONDS, work.left() / 2),
        warm=not work.dry,
        device=work.device,
    )
    failed |= times.failed
    base = next(iter(ways))
    rows: dict[str, Any] = {}
    for name, seconds in times.seconds.items():
        middle = spread(seconds)
        row = {"median ms": 1e3 * middle.median, "low ms": 1e3 * middle.low}
        row |= {"high ms": 1e3 * middle.high, "rounds": len(seconds), "peak MB": peaks[name]}
        if base in times.seconds:
            ratios = [a / b for a, b in zip(times.seconds[base], seconds, strict=True)]
            row["ratio"] = statistics.median(ratios)
            row["off"] = off(times.first[name].float(), times.first[base].float())
        rows[name] = row
    calls.clear()
    gc.collect()
    if work.device == "cuda":
        torch.cuda.empty_cache()
    return {"ways": rows, "failed": failed}


def built(
    build: Callable[[], Callable[[], Tensor]], device: str
) -> tuple[Callable[[], Tensor], float | None]:
    """A way, and its peak memory in MB to build and call it, with weights."""
    if device != "cuda":
        return build(), None
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call = build()
    call()
    torch.cuda.synchronize()
    return call, (torch.cuda.max_memory_allocated() - before) / 1e6


def compile_beside(work: Work) -> None:
    """Compile the published network in advance, so that its code is on disk."""
    found: dict[str, float] = {}
    if work.dry:
        work.put(compiled=found, what="nothing is compiled without a GPU")
        return
    for size in COMPILED:
        started = time.monotonic()
        forwards(size, "float32", work.device)["published compiled"]()
        found[f"{shown(size)} float32"] = time.monotonic() - started
        work.put(now=True, compiled=found)
