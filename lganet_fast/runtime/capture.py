"""What all captures of CUDA graphs share: one at a time, and tidying up after one that failed."""

from __future__ import annotations

import threading
from typing import Any

import torch

ALONE = threading.RLock()  # held by captures, and by what may synchronise in other threads
UNFINISHED: list[Any] = []  # graphs whose capture broke: PyTorch's allocators may still ask them


def abandon(graph: Any, pool: Any, stream: Any) -> None:
    """Give back what a capture that failed held.

    Where CUDA could not end it, PyTorch has not told its allocator and its random number generator
    that it is over. The first is told here, and the second by a capture that ends well; the graph
    must live on, as the allocators' filters refer to it.
    """
    try:
        torch._C._cuda_endAllocateToPool(stream.device.index, pool)
    except RuntimeError:  # it has been told
        graph.reset()
        return
    UNFINISHED.append(graph)
    torch._C._cuda_releasePool(stream.device.index, pool)
    with torch.cuda.graph(torch.cuda.CUDAGraph(), None, stream, capture_error_mode="thread_local"):
        torch.zeros((), device=stream.device)
