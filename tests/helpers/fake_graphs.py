"""CUDA graphs on CPU tensors: a capture records the operators, a replay repeats them.

As on a device, a replay reads and writes the same memory as the capture.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lganet_fast.models import graphed
from lganet_fast.runtime import capture

SYNCHRONISES = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten._unique2.default}


class Recorder(TorchDispatchMode):
    """Runs and records every operator; raises an error for those that a capture does not allow."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in SYNCHRONISES:
            raise RuntimeError(f"{func} is not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class Stream:
    """A stream, or an event. There is nothing to wait for on the CPU."""

    device = torch.device("cpu", 0)

    def __init__(self, device=None):
        self.waited = 0

    def wait_stream(self, other):
        pass

    def wait_event(self, event):
        event.waited += 1

    def record_event(self, event=None):
        return event or Stream()

    def synchronize(self):
        self.waited += 1


class FakeCuda:
    """Replaces the functions of `torch.cuda` for graphs. captures, replays: their numbers."""

    def __init__(self):
        self.captures, self.replays, self.capturing = 0, 0, False
        self.handles, self.ended, self.released = 0, [], []
        self.free = 2**40
        self.unjoined = False  # whether captures fail, as in cudaStreamEndCapture
        self.stream = Stream()
        cuda = self

        class CUDAGraph:
            """A recorded graph."""

            def __init__(self):
                self.calls = []

            def replay(self):
                cuda.replays += 1
                cuda.repeat(self.calls)

            def reset(self):
                self.calls = []

        self.CUDAGraph = CUDAGraph

    @contextmanager
    def graph(self, graph, pool=None, stream=None, **options):
        """Record the operators inside the block."""
        assert not self.capturing
        self.capturing = True
        recorder = Recorder()
        try:
            with recorder:
                yield
            if self.unjoined and pool is not None:
                raise RuntimeError("capturing stream has unjoined work")
        finally:
            self.capturing = False
        graph.calls = recorder.calls
        self.captures += 1

    @staticmethod
    @torch.no_grad()
    def repeat(calls):
        """Run recorded operators again, with results in the memory of the capture."""
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            for func, args, kwargs, out in calls:
                again = func(*args, **kwargs)
                for kept, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                        kept.copy_(new)

    def graph_pool_handle(self):
        """A new handle."""
        self.handles += 1
        return self.handles

    def end_allocate(self, device, pool):
        """Like PyTorch's allocator: an error after the end of the capture."""
        if not self.unjoined:
            raise RuntimeError("not currently recording to mempool_id")
        self.ended.append(pool)


@pytest.fixture(name="cuda")
def fake_cuda(monkeypatch):
    """Makes `graphed` treat CPU tensors like those on CUDA."""
    fake = FakeCuda()
    stand_ins = {
        "CUDAGraph": fake.CUDAGraph,
        "graph": fake.graph,
        "graph_pool_handle": fake.graph_pool_handle,
        "is_current_stream_capturing": lambda: fake.capturing,
        "Stream": Stream,
        "stream": lambda stream: nullcontext(),
        "current_stream": lambda device=None: fake.stream,
        "device": lambda device: nullcontext(),
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device: (fake.free, 2**40),
        "memory_reserved": lambda device: 0,
        "memory_allocated": lambda device: 0,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.cuda.graphs, "graph_pool_handle", fake.graph_pool_handle)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", fake.end_allocate)
    release = lambda device, pool: fake.released.append(pool)  # noqa: E731
    monkeypatch.setattr(torch._C, "_cuda_releasePool", release)
    monkeypatch.setattr(graphed, "DEVICES", ("cpu",))
    monkeypatch.setattr(capture, "UNFINISHED", [])
    monkeypatch.setattr(graphed, "STREAMS", {})
    return fake
