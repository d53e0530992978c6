"""A network's evaluation forward as one CUDA graph: hundreds of kernels at the cost of one launch.

The first call of a kind runs operator by operator, which compiles and tunes its kernels; the second
is captured; every later call copies its inputs in, replays, and copies the result out, so that
results never share memory. Calls are of one kind if everything that selects the kernels agrees:
shapes, types, device, autocast, backend, and PyTorch's switches of precision.

Graphs are dropped when weights are written to or moved in memory. While a graph is captured,
another thread must not call torch.cuda.synchronize, which CUDA refuses then; LGANET_FAST_GRAPH=0
turns graphs off.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from enum import Enum, auto
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import _get_current_function_mode_stack as function_modes
from torch.utils._device import DeviceContext

from ..ops.dispatch import requested_backend
from ..ops.torch_func import tracing
from ..runtime.capture import ALONE, abandon
from ..runtime.files import reason
from .weights import Stand, Weights

Function: TypeAlias = Callable[..., Tensor]

DEVICES = ("cuda",)
KEPT = 4  # kinds of call kept by a network
STREAMS: dict[torch.device, Any] = {}  # on which graphs are captured


class Seen(Enum):
    """The state of a kind of call without a graph."""

    ONCE = auto()
    BROKEN = auto()  # it could not be captured


class Graphs:
    """The graphs of one network. A copy of it, by deepcopy or pickle, has none.

    voxel_bytes: peak memory of a forward per voxel of an image in float32. A call is captured if
    twice its memory is free: the graph keeps its memory as long as it lives. Graphs of one network
    share the memory.
    """

    def __init__(self, voxel_bytes: int) -> None:
        self.voxel_bytes = voxel_bytes
        self.lock = threading.Lock()
        self.weights: Weights | None = None
        self.known: OrderedDict[Hashable, Graph | Seen] = OrderedDict()
        self.stand = Stand((), frozenset(), 0)
        self.done: Any = None  # the event behind the last replay
        self.warned = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Graphs, (self.voxel_bytes,)

    def __call__(self, module: nn.Module, function: Function, *inputs: Tensor) -> Tensor:
        """The result of function(*inputs): a tensor that nothing else refers to.

        module: whose weights the function reads. inputs: on one device.
        """
        if torch.compiler.is_compiling() or not suitable(module, inputs):
            return function(*inputs)
        with self.lock:
            kind = kind_of(inputs)
            known = self.known.get(kind) if self.steady(module) else Seen.BROKEN
            if known is Seen.ONCE and self.roomy(inputs):
                known = self.keep(kind, self.captured(function, inputs))
            if isinstance(known, Graph):
                self.known.move_to_end(kind)
                return self.replayed(known, inputs)
        if known is not None:
            return function(*inputs)
        with ALONE:
            result = function(*inputs)
        with self.lock:
            if kind not in self.known:  # as another thread may have been faster
                self.keep(kind, Seen.ONCE)
        return result

    def steady(self, module: nn.Module) -> bool:
        """Whether the module may run as a graph; graphs of changed weights are dropped.

        A graph would read the changed weights, but old results derived from them (`ops.derived`).
        """
        if self.weights is None or not self.weights.are_of(module):
            self.weights = Weights(module)
        stand = self.weights.stand()
        if stand is not None and stand != self.stand:
            self.forget()
            self.stand = stand
        return stand is not None

    def forget(self) -> None:
        """Drop all graphs and their memory."""
        self.finish()
        self.known.clear()
        self.done = None

    def finish(self) -> None:
        """Wait for the last replay."""
        if self.done is not None:
            self.done.synchronize()

    def keep(self, kind: Hashable, known: Graph | Seen) -> Graph | Seen:
        """Remember the graph or state of a kind of call, and drop the least recently used."""
        self.known[kind] = known
        self.known.move_to_end(kind)
        if len(self.known) > KEPT:
            self.finish()
            self.known.popitem(last=False)
        return known

    def roomy(self, inputs: Sequence[Tensor]) -> bool:
        """Whether twice the memory of the call is free."""
        x = inputs[0]
        numbers = x.shape[0] * x.shape[2:].numel() * max(x.element_size() / 4, 1)
        unused = torch.cuda.memory_reserved(x.device) - torch.cuda.memory_allocated(x.device)
        return torch.cuda.mem_get_info(x.device)[0] + unused >= 2 * numbers * self.voxel_bytes

    def captured(self, function: Function, inputs: Sequence[Tensor]) -> Graph | Seen:
        """Capture the graph of a call; if that fails, warn the first time."""
        device = inputs[0].device
        with ALONE, torch.cuda.device(device):
            if device not in STREAMS:
                STREAMS[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            pools = [graph.pool for graph in self.known.values() if isinstance(graph, Graph)]
            # the handle of a pool whose graphs are all gone must not be used again
            pool = pools[0] if pools else torch.cuda.graph_pool_handle()
            try:
                return Graph(function, inputs, pool, STREAMS[device])
            except Exception as error:  # whatever it is, operator by operator it may not matter
                why = reason(error)
            torch.cuda.empty_cache()
        if not self.warned:
            self.warned = True
            warnings.warn(f"the network runs without a CUDA graph: {why}", stacklevel=6)
        return Seen.BROKEN

    def replayed(self, graph: Graph, inputs: Sequence[Tensor]) -> Tensor:
        """The graph's result, after all queued work of any stream on the graphs' memory."""
        stream = torch.cuda.current_stream(inputs[0].device)
        if self.done is not None:
            stream.wait_event(self.done)
        result = graph(inputs)
        self.done = stream.record_event(self.done)
        return result


class Graph:
    """One call as a CUDA graph, with its own copy of the inputs.

    pool: the handle of the memory that graphs share. stream: where they are captured.
    """

    def __init__(
        self, function: Function, inputs: Sequence[Tensor], pool: Any, stream: Any
    ) -> None:
        kind, grad = inputs[0].device.type, torch.is_grad_enabled()
        autocast, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        self.pool, self.graph = pool, torch.cuda.CUDAGraph()
        here = torch.cuda.current_stream()
        stream.wait_stream(here)
        with (
            torch.cuda.stream(stream),  # and back: torch.cuda.graph stays there where it fails
            torch.inference_mode(False),
            torch.set_grad_enabled(grad),
            torch.autocast(kind, dtype, autocast, cache_enabled=False),
        ):
            self.inputs = [torch.empty_like(x) for x in inputs]
            self.copy(inputs)
            function(*self.inputs)  # makes what this thread and this stream still lack
            here.wait_stream(stream)
            try:
                with torch.cuda.graph(self.graph, pool, stream, capture_error_mode="thread_local"):
                    self.output = function(*self.inputs)
            except Exception:
                abandon(self.graph, pool, stream)
                raise

    def copy(self, inputs: Sequence[Tensor]) -> None:
        """Copy the inputs' values."""
        for mine, x in zip(self.inputs, inputs, strict=True):
            mine.copy_(x)

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The result for some inputs, in memory of its own."""
        self.copy(inputs)
        self.graph.replay()
        return self.output.clone()


def suitable(module: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether a call may run as a graph in this thread's current state."""
    return (
        inputs[0].device.type in DEVICES
        and not module.training
        and os.environ.get("LGANET_FAST_GRAPH") != "0"
        and {Tensor, nn.Parameter}.issuperset(map(type, inputs))
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in inputs))
        and not getattr(module, "_is_replica", False)  # of nn.DataParallel: no parameters
        and not _has_any_global_hook()  # type: ignore[no-untyped-call]
        and not tracing()
        and not torch.is_anomaly_enabled()
        and torch._C._functorch.maybe_current_level() is None
        and forward_ad._current_level < 0
        and torch._C._len_torch_dispatch_stack() == 0
        and all(isinstance(mode, DeviceContext) for mode in function_modes())  # type: ignore[no-untyped-call]
        and not torch.cuda.is_current_stream_capturing()
    )


def kind_of(inputs: Sequence[Tensor]) -> Hashable:
    """Everything that selects a call's kernels."""
    device = inputs[0].device
    cudnn = torch.backends.cudnn
    return (
        device,
        *((x.shape, x.dtype) for x in inputs),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled(device.type),
        torch.get_autocast_dtype(device.type),
        requested_backend(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cuda.matmul.fp32_precision,
        cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
    )
