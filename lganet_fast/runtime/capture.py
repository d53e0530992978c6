"""Shared by all captures of CUDA graphs: one at a time, and clean-up after a failed capture."""

from __future__ import annotations

import threading
from typing import Any

import torch

ALONE = threading.RLock()  # held by captures, and by threads that may synchronise
UNFINISHED: list[Any] = []  # graphs whose capture failed: PyTorch's allocators still refer to them


def abandon(graph: Any, pool: Any, stream: Any) -> None:
    """Release the resources of a failed capture.

    If CUDA could not end the capture, PyTorch has not ended it in its allocator and its random
    number generator. This function ends it in the allocator, and the next successful capture in the
    generator; the graph must stay alive, because the allocators' filters refer to it.
    """
    try:
        torch._C._cuda_endAllocateToPool(stream.device.index, pool)
    except RuntimeError:  # PyTorch has ended it already
        graph.reset()
        return
    UNFINISHED.append(graph)
    torch._C._cuda_releasePool(stream.device.index, pool)
    with torch.cuda.graph(torch.cuda.CUDAGraph(), None, stream, capture_error_mode="thread_local"):
        torch.zeros((), device=stream.device)
