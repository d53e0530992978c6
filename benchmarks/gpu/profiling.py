"""The time of a forward by kernel, and by operator with its floor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ..case import IXI_OASIS, Size, shown
from .clock import timed
from .shapes import SIZES, operators
from .stand_in import SMALL
from .ways import forwards
from .work import Work, save

CALLS = 3  # profiled
KERNELS = 40  # of a run in the report; profile.json has all


def run(work: Work) -> None:
    """Profile our network, eager and as a graph, at both sizes in two types."""
    sizes = (SMALL,) if work.dry else SIZES
    types = ("float32",) if work.dry else ("float32", "bfloat16")
    runs: dict[str, Any] = {}
    for size in sizes:
        for type in types:
            for way in ("eager", "graph"):
                if work.left() < 2:
                    return
                name = f"{shown(size)} {type} {way}"
                call = forwards(size, type, work.device)[way]()
                runs[name] = one(work, call, size, type, way)
                brief = {n: {**r, "kernels": r["kernels"][:KERNELS]} for n, r in runs.items()}
                work.put(runs=brief)
                save(work.out / "profile.json", runs)
    work.put(runs=brief)


def one(work: Work, call: Callable[[], Tensor], size: Size, type: str, way: str) -> dict[str, Any]:
    """Profile a few calls. Times are of one call."""
    call()
    wall = timed(call, CALLS, work.device) / CALLS
    activities = [ProfilerActivity.CPU]
    if not work.dry:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, record_shapes=way == "eager") as profiled:
        for _ in range(1 if work.dry else CALLS):
            call()
        if not work.dry:
            torch.cuda.synchronize()
    times = 1 if work.dry else CALLS
    kernels = kernels_of(profiled, times, work.dry)
    busy = sum(row["us"] for row in kernels)
    found: dict[str, Any] = {
        "wall ms": 1e3 * wall,
        "busy ms": busy / 1e3,
        "gaps": 1 - busy / (1e6 * wall),
        "launches": sum(row["calls"] for row in kernels),
        "kernels": kernels,
    }
    if way == "eager":
        counted = operators(IXI_OASIS if work.dry else size, type)
        rates = work.part("card")
        found["operators"] = operators_of(profiled, times, counted, rates, type, work.dry)
        found["convolutions"] = convolutions_of(profiled, times, work.dry)
    return found


def kernels_of(profiled: Any, times: int, dry: bool) -> list[dict[str, Any]]:
    """All kernels, the slowest first; on the CPU all operators."""
    sums: dict[str, list[float]] = {}
    for event in profiled.events():
        on_device = "CUDA" in str(event.device_type)
        if on_device or dry:
            spent = event.self_cpu_time_total if dry else event.time_range.elapsed_us()
            row = sums.setdefault(event.name, [0, 0.0])
            row[0] += 1
            row[1] += spent
    ordered = sorted(sums.items(), key=lambda item: -item[1][1])
    return [
        {"kernel": name[:200], "calls": calls / times, "us": us / times}
        for name, (calls, us) in ordered
    ]


def spent(row: Any, dry: bool) -> float:
    """Microseconds of an operator's own kernels; on the CPU, of the operator itself."""
    return float(row.self_cpu_time_total if dry else row.self_device_time_total)


def operators_of(
    profiled: Any,
    times: int,
    counted: dict[str, dict[str, float]],
    rates: dict[str, Any],
    type: str,
    dry: bool,
) -> list[dict[str, Any]]:
    """Each operator with its time, its counted bytes and operations, and their floor at the GPU's
    measured rates.
    """
    products = rates.get("products", {}).get("tf32" if type == "float32" else type)
    totals: dict[str, dict[str, float]] = {}
    for name, values in counted.items():
        sums = totals.setdefault(stem(name), dict.fromkeys(values, 0.0))
        for kind, value in values.items():
            sums[kind] += value
    found = []
    for row in profiled.key_averages():
        us, name = spent(row, dry) / times, stem(row.key)
        if us <= 0:
            continue
        own: dict[str, Any] = {"operator": row.key[:120], "calls": row.count / times, "us": us}
        work = totals.get(PARENTS.get(name, name))
        if work:
            own |= {"MB": work["bytes"] / 1e6, "gflop": work["operations"] / 1e9}
            with contextlib.suppress(KeyError, TypeError, ZeroDivisionError):
                floor = max(work["bytes"] / rates["copy"], work["operations"] / products)
                own |= {"floor us": 1e6 * floor, "of floor": us / (1e6 * floor)}
        found.append(own)
    return sorted(found, key=lambda row: -row["us"])


PARENTS = {
    "cudnn_convolution": "convolution",
    "convolve_maps": "convolve",
}  # names of the same operator


def stem(name: str) -> str:
    """An operator's name without namespace and overload."""
    first, *rest = name.rsplit("::", maxsplit=1)[-1].split(".")
    return rest[0] if first.startswith("lganet_fast") else first


def convolutions_of(profiled: Any, times: int, dry: bool) -> list[dict[str, Any]]:
    """The profiled convolutions, by the shapes of their inputs."""
    found = []
    for row in profiled.key_averages(group_by_input_shape=True):
        us = spent(row, dry) / times
        if us > 0 and "convol" in row.key:
            shapes = [list(s) for s in row.input_shapes[:2] if s]
            found.append(
                {"operator": row.key[:120], "shapes": shapes, "calls": row.count / times, "us": us}
            )
    return sorted(found, key=lambda row: -row["us"])
