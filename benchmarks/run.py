"""One run of the suite: measures each piece of work once and collects the rows."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lganet_fast.runtime import hardware
from lganet_fast.runtime.files import reason

from . import memory, timing
from .case import MODES, Case, ready, shown, traffic
from .floors import rates
from .results import Row

KINDS = ("full", "quick", "guard")
ROUNDS = {"full": 5, "quick": 2, "guard": 1}  # at most, of a case's own number
SECONDS = {"full": 1.5, "quick": 0.5, "guard": 2.0}  # of a group, for rounds beyond the minimum


@dataclass(frozen=True)
class Variant:
    """The measurement of one test: a case on a device, in a mode, in one way.

    index: of the case in CASES of its file.
    """

    case: Case
    index: int
    device: str
    mode: str
    way: str

    @property
    def id(self) -> str:
        """The id of the test."""
        way = self.way.replace(", ", "_").replace(" ", "_")
        return f"{self.device}-{self.case.id}-{self.mode}-{way}"

    @property
    def group(self) -> tuple[str, ...]:
        """The fields shared by variants that are timed in turn."""
        return (self.case.operation, self.case.id, self.device, self.mode)

    def row(self) -> Row:
        """A row without results."""
        case = self.case
        kind = (case.operation, shown(case.size), case.detail, case.type, self.device, self.mode)
        return Row(*kind, self.way, case.baseline)

    def refusal(self) -> str | None:
        """Why it cannot run here, or None."""
        if self.device == "cuda" and not torch.cuda.is_available():
            return no_cuda()
        return self.case.ways[self.way].refusal(self.device)


@cache
def no_cuda() -> str:
    """Why there is no CUDA device."""
    return str(hardware.cuda_devices()["reason"])


@dataclass
class Run:
    """The rows so far, and their samples.

    kind: of KINDS. result_bytes: of each case's result, from its forward. inputs: of the latest
    case, shared by its modes.
    """

    kind: str
    rows: dict[Variant, Row] = field(default_factory=dict)
    samples: dict[Variant, list[float]] = field(default_factory=dict)
    result_bytes: dict[tuple[str, ...], int] = field(default_factory=dict)
    inputs: dict[tuple[str, ...], tuple[Tensor, ...]] = field(default_factory=dict)

    def measure(self, variants: list[Variant]) -> None:
        """Time the variants of one group in turn and measure their peaks."""
        case, device, mode = variants[0].case, variants[0].device, variants[0].mode
        refused = {v: v.refusal() for v in variants}
        able = {v.way: v for v in variants if refused[v] is None}
        if not able:
            self.rows |= {v: v.row().refused("not run", why or "") for v, why in refused.items()}
            return
        calls, failed, key = {}, {}, variants[0].group[:3]
        for way in able:
            try:
                if key not in self.inputs:
                    self.inputs = {key: case.inputs_on(device)}
                calls[way] = ready(case, way, mode, device, self.inputs[key])
            except Exception as error:  # the other ways are still measured
                failed[way] = reason(error)
        times = timing.interleave(
            calls,
            rounds=min(case.rounds, ROUNDS[self.kind]),
            seconds=SECONDS[self.kind],
            warm=case.warm or device == "cuda",
            device=device,
        )
        calls.clear()
        gc.collect()
        failed |= times.failed | disagreements(case, mode, times)
        peaks = self.peaks([v for way, v in able.items() if way not in failed], failed)
        for variant in variants:
            row, why_not = variant.row(), refused[variant]
            if why_not is not None:
                self.rows[variant] = row.refused("not run", why_not)
            elif row.way in failed:
                self.rows[variant] = row.refused("failed", failed[row.way])
            else:
                self.samples[variant] = times.seconds[row.way]
                row = with_ratios(row, times, peaks)
                self.rows[variant] = self.with_floor(row, variant, times.first[row.way])

    def peaks(self, variants: list[Variant], failed: dict[str, str]) -> dict[str, int]:
        """The peak memory of each way, if wanted; a process that dies counts as failed."""
        found: dict[str, int] = {}
        for variant in variants:
            case, way, mode = variant.case, variant.way, variant.mode
            if not self.wants_memory(variant):
                continue
            if variant.device == "cuda":
                found[way] = memory.on_cuda(case, way, mode)
                continue
            threads = torch.get_num_threads()
            task = memory.Task(case.operation, variant.index, case.size, way, mode, threads)
            try:
                found[way] = memory.of_fresh_process(task)
            except memory.NotMeasuredError as error:
                failed[way] = f"in a separate process: {error}"
        return found

    def wants_memory(self, variant: Variant) -> bool:
        """Whether to measure the peak; not with torch.compile, whose memory would count."""
        case = variant.case
        if not case.memory or variant.mode == "backward" or case.ways[variant.way].slow_start:
            return False
        return self.kind == "full" or (self.kind == "quick" and case.operation == "model")

    def with_floor(self, row: Row, variant: Variant, out: Any) -> Row:
        """The row with its floor, and with other values that the call returned."""
        case, mode = variant.case, variant.mode
        if isinstance(out, dict):
            return replace(row, **out)
        if self.kind == "guard":
            return row
        key = variant.group[:3]
        if mode == "forward" and isinstance(out, Tensor):
            self.result_bytes[key] = out.nbytes
        moved: float | None = None
        if key in self.result_bytes:
            moved = traffic(self.inputs[key], mode, self.result_bytes[key])
        share = {"backward": 2, "full": 3}.get(mode, 1)
        operations = None if case.work is None else share * case.work(case.size)
        if moved is None and operations is None:
            return row
        floor = rates(variant.device, case.dtype).floor(moved or 0, operations or 0)
        return replace(row, bytes=moved, operations=operations, floor=floor)


def disagreements(case: Case, mode: str, times: timing.Times) -> dict[str, str]:
    """The ways whose result differs from that of the baseline; they count as failed."""
    expected = first_tensor(times.first.get(case.baseline))
    if case.tolerance is None or expected is None or mode in MODES[1:]:
        return {}
    scale = float(expected.abs().max()) or 1.0
    found = {}
    for way, out in times.first.items():
        own = first_tensor(out)
        error = float("inf") if own is None else float((own - expected).abs().max()) / scale
        if not error <= case.tolerance:  # NaN too
            found[way] = (
                f"its result differs from that of {case.baseline} by {error:.1e} of the largest "
                "value"
            )
    return found


def first_tensor(out: object) -> Tensor | None:
    """The first tensor of a result, in float32."""
    if isinstance(out, tuple):
        out = out[0]
    return out.detach().float() if isinstance(out, Tensor) else None


def with_ratios(row: Row, times: timing.Times, peaks: dict[str, int]) -> Row:
    """The row with its times and peak, and their ratios to those of the baseline."""
    own, base = times.seconds[row.way], times.seconds.get(row.baseline)
    middle = timing.spread(own)
    row = replace(row, rounds=len(own), median=middle.median, low=middle.low, high=middle.high)
    if base is not None:
        against = timing.ratio(base, own)
        row = replace(row, ratio=against.median, ratio_low=against.low, ratio_high=against.high)
    if row.way in peaks:
        row = replace(row, peak=peaks[row.way])
        if row.baseline in peaks:
            row = replace(row, memory_ratio=peaks[row.baseline] / max(1, peaks[row.way]))
    return row
