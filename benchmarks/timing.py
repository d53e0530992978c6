"""Times several ways to do the same in turn."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Ready = Callable[[], Callable[[], Any]]
LEAST_SAMPLE = 0.005  # seconds of a sample, for which shorter calls are repeated
MOST_ROUNDS = 15


@dataclass
class Times:
    """Seconds per call of each way and round, and the result of its first call."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def interleave(
    ways: Mapping[str, Ready], *, rounds: int, seconds: float, warm: bool, device: str
) -> Times:
    """Time A B C, A B C, ..., so that a temporary slowdown of the machine affects all ways.

    rounds: at least; more within `seconds`. warm: call each way once before. A way that raises an
    exception is not called again; its message is kept.
    """
    times = Times()
    repeats = dict.fromkeys(ways, 1)

    def sample(name: str) -> float | None:
        try:
            calls = [ways[name]() for _ in range(repeats[name])]
            wait(device)
            started = time.perf_counter()
            for call in calls:
                out = call()
            wait(device)
            spent = (time.perf_counter() - started) / len(calls)
        except Exception as error:  # the other ways are still measured
            text = str(error).strip().splitlines() or [type(error).__name__]
            times.failed[name] = text[0][:200]
            return None
        times.first.setdefault(name, out)
        return spent

    if warm:
        for name in ways:
            first = sample(name)
            again = first if first is None or first > 10 * LEAST_SAMPLE else sample(name)
            repeats[name] = min(100, max(1, math.ceil(LEAST_SAMPLE / (again or LEAST_SAMPLE))))
    started, done = time.perf_counter(), 0
    while done < rounds or (done < MOST_ROUNDS and time.perf_counter() - started < seconds):
        for name in ways:
            spent = None if name in times.failed else sample(name)
            if spent is not None:
                times.seconds.setdefault(name, []).append(spent)
        done += 1
    for name in times.failed:
        times.seconds.pop(name, None)
    return times


def wait(device: str) -> None:
    """Wait until the device has finished all work."""
    if device == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(baseline: list[float], own: list[float]) -> Spread:
    """The speed-up: median and quartiles of the rounds' ratios."""
    return spread([a / b for a, b in zip(baseline, own, strict=True)])


_readings: deque[float] = deque()


def recorded() -> float:
    """A clock for pytest-benchmark that replays measured times."""
    return _readings.popleft()


def replay(benchmark: Any, seconds: list[float]) -> None:
    """Pass the samples to a `benchmark` fixture whose timer is `recorded`."""
    _readings.clear()
    for length in seconds:
        _readings.extend((0.0, length))
    benchmark.pedantic(lambda: None, rounds=len(seconds))
