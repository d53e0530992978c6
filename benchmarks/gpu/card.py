"""The GPU: its properties and its rates of copies, products and launches."""

from __future__ import annotations

import os
from typing import Any

import torch

from lganet_fast.runtime import hardware

from .. import machine
from ..floors import best
from .clock import graph_of, tf32, timed
from .work import Work

QUERY = (
    "clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,clocks_throttle_reasons.active"
)


def run(work: Work) -> None:
    """Measure the rates with which later results are compared."""
    work.put(machine=machine.stamp(), variables=variables())
    if not work.dry:
        work.put(device=properties(), cudnn=torch.backends.cudnn.version())
        clocks = hardware.output_of("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader")
        work.put(clocks={"query": QUERY, "answer": clocks})
    work.put(copy=copy_rate(work), products=product_rates(work))
    work.put(**launches(work))


def variables() -> dict[str, str]:
    """The environment variables that affect the choice of kernels."""
    names = ("LGANET_FAST", "CUDA", "TORCH", "TRITON", "NVIDIA_TF32", "OMP_")
    return {k: v for k, v in os.environ.items() if k.startswith(names)}


def properties() -> dict[str, Any]:
    """The properties from CUDA."""
    found = torch.cuda.get_device_properties()
    names = ("name", "major", "minor", "total_memory", "multi_processor_count", "L2_cache_size")
    return {name: getattr(found, name, None) for name in names}


def copy_rate(work: Work) -> float:
    """Bytes read and written per second."""
    source = torch.zeros(2**20 if work.dry else 2**29, device=work.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best(lambda: target.copy_(source), work.device)


def product_rates(work: Work) -> dict[str, float]:
    """Multiplications and additions of matrices per second, by type."""
    side, found = 128 if work.dry else 8192, {}
    types = {"float32": torch.float32, "tf32": torch.float32}
    types |= {"bfloat16": torch.bfloat16, "float16": torch.float16}
    for name, dtype in types.items():
        a = torch.ones(side, side, device=work.device, dtype=dtype)
        with tf32(name == "tf32"):
            found[name] = 2 * side**3 / best(lambda a=a: torch.mm(a, a), work.device)  # type: ignore[misc]
    return found


def launches(work: Work, count: int = 1000) -> dict[str, float]:
    """Microseconds per small kernel, launched from Python and inside a graph."""
    x = torch.zeros(32, device=work.device)

    def many() -> None:
        for _ in range(count):
            x.add_(1)

    many()
    found = {"launch us": 1e6 * timed(many, 1, work.device) / count}
    if not work.dry:
        replay = graph_of(many).replay
        replay()
        found["launch in a graph us"] = 1e6 * timed(replay, 3, work.device) / count
    return found
