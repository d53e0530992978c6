"""Times of kernels, without the time of launches from Python."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]
COPIES = 64  # of the inputs, at most
CACHE = 2**26  # bytes of the last-level cache, if unknown


def graph_of(call: Call) -> Any:
    """The call as a CUDA graph, after a warm-up."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        call()
    return graph


def per_call(calls: Sequence[Call], device: str, seconds: float = 0.02, rounds: int = 3) -> float:
    """Median seconds of a call. The calls run in turn, so that no inputs are in a cache.

    On CUDA they run as one graph if they can be captured. seconds: of each round, about.
    """

    def all_of_them() -> None:
        for call in calls:
            call()

    run: Call = all_of_them
    run()
    if device == "cuda":
        torch.cuda.synchronize()
        try:
            run = graph_of(all_of_them).replay
        except RuntimeError:  # a call that cannot be captured is timed with its launches
            torch.cuda.synchronize()
        run()
    elapsed = timed(run, 1, device)
    times = max(1, min(1000, int(seconds / max(elapsed, 1e-7))))
    found = [timed(run, times, device) / times for _ in range(rounds)]
    return statistics.median(found) / len(calls)


def timed(run: Call, times: int, device: str) -> float:
    """Seconds of `times` runs."""
    if device != "cuda":
        started = time.perf_counter()
        for _ in range(times):
            run()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def copies(bytes: int, device: str) -> int:
    """The number of copies of inputs of `bytes` that exceed the last-level cache."""
    if device != "cuda":
        return 1
    cache = getattr(torch.cuda.get_device_properties(), "L2_cache_size", CACHE) or CACHE
    return max(1, min(COPIES, -(-2 * cache // max(bytes, 1))))


def poison(device: str, bytes: int = 2**28) -> None:
    """Fill the memory of the next results with NaN, to detect numbers that are not written."""
    if device != "cuda":
        return
    held = [torch.full((bytes // 4,), torch.nan, device=device)]
    held += [torch.full((2**k,), torch.nan, device=device) for k in range(7, 20) for _ in range(8)]
    del held


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow cuDNN and cuBLAS to round the factors of float32 to TF32, or not."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision
    matmul.fp32_precision = conv.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision, conv.fp32_precision = before


def off(found: Tensor, right: Tensor) -> float:
    """The largest difference, relative to the largest expected value; NaN if any value is NaN."""
    scale = float(right.abs().max()) or 1.0
    return float((found.to(right) - right).abs().max()) / scale
