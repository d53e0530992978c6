"""A step that is done over and over: launch by launch, or recorded on a CUDA device and replayed.

A step is a function without arguments or result: all that changes from one to the next lies in
tensors that it changes in place, so that the launches of one serve for all.
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
Recorder = Callable[[Step], Step]  # does not run the step, and returns what does what it did
WARM = 1  # steps before the recording: they load kernels and open libraries, which a graph cannot

log = logging.getLogger(__name__)


def recorder_for(device: torch.device) -> Recorder | None:
    """The recorder of a device; None where it has none or LGANET_FAST_GRAPH is 0."""
    if device.type != "cuda" or os.environ.get("LGANET_FAST_GRAPH") == "0":
        return None
    return partial(cuda_graph, device)


def cuda_graph(device: torch.device, step: Step) -> Step:
    """Record the launches of a step on a device as one CUDA graph."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    pool = torch.cuda.graph_pool_handle()
    stream.wait_stream(torch.cuda.current_stream(device))
    with ALONE, torch.cuda.stream(stream):  # which makes its device the current one
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
    """A step to be called many times; recorded after WARM calls where there is a recorder.

    A step that cannot be recorded goes on as it began.
    """

    def __init__(self, step: Step, record: Recorder | None) -> None:
        self.step, self.record, self.calls = step, record, 0

    def __call__(self) -> None:
        """Do the step once."""
        if self.record is not None and self.calls == WARM:
            try:
                self.step = self.record(self.step)
            except RuntimeError as error:
                log.debug("not recorded, it goes on launch by launch: %s", error)
            self.record = None
        self.calls += 1
        self.step()
