"""A step that is repeated: launch by launch, or recorded on a CUDA device and replayed.

A step is a function without arguments or result. All that changes between steps is in tensors that
it changes in place, so the recorded launches of one step are valid for all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch

from .capture import ALONE, abandon

Step = Callable[[], None]
Recorder = Callable[[Step], Step]  # records a step without running it; returns its replay
WARM = 1  # steps before the recording: they load kernels and libraries, which a graph cannot

log = logging.getLogger(__name__)


def recorder_for(device: torch.device) -> Recorder | None:
    """The recorder of a device; None if it has none or LGANET_FAST_GRAPH is 0."""
    if device.type != "cuda" or os.environ.get("LGANET_FAST_GRAPH") == "0":
        return None
    return partial(cuda_graph, device)


def cuda_graph(device: torch.device, step: Step) -> Step:
    """Record the launches of a step on a device as one CUDA graph."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    pool = torch.cuda.graph_pool_handle()
    stream.wait_stream(torch.cuda.current_stream(device))
    with ALONE, torch.cuda.stream(stream):  # also makes its device the current one
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            step()
            graph.capture_end()
        except Exception:
            with suppress(RuntimeError):
                graph.capture_end()
            abandon(graph, pool, stream)
            raise
    return graph.replay


class Repeated:
    """A step to be called many times; recorded after WARM calls if there is a recorder.

    A step that cannot be recorded continues to run launch by launch.
    """

    def __init__(self, step: Step, record: Recorder | None) -> None:
        self.step, self.record, self.calls = step, record, 0

    def __call__(self) -> None:
        """Do the step once."""
        if self.record is not None and self.calls == WARM:
            try:
                self.step = self.record(self.step)
            except RuntimeError as error:
                log.debug("not recorded, continues launch by launch: %s", error)
            self.record = None
        self.calls += 1
        self.step()
