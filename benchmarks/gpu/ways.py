"""The ways of forward and training step that are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lganet_fast import ops
from lganet_fast.models.published import Warp

from .. import published as op_for_op
from ..case import Size
from ..networks import pair, under
from ..test_training_step import step_of
from .network import graphs
from .stand_in import lean, published

Call = Callable[[], Tensor]
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def forwards(size: Size, type: str, device: str) -> dict[str, Callable[[], Call]]:
    """Functions that build each way: a call that returns the flow."""
    dtype, inputs = TYPES[type], pair(size, torch.float32, device)

    def eager(call: Callable[..., Tensor], inputs: tuple[Tensor, ...] = inputs) -> Call:
        def run() -> Tensor:
            with torch.no_grad():
                return call(*inputs)

        return run

    def theirs() -> Call:
        return eager(under("reference", dtype, device, published(size, device).eval()))

    def ours(allowed: bool) -> Call:
        run = eager(under("auto", dtype, device, lean(size, device).eval()))
        return with_graphs(run, allowed)

    def half(allowed: bool) -> Call:
        network = lean(size, device).eval().to(dtype)
        run = eager(network, tuple(x.to(dtype) for x in inputs))
        return with_graphs(run, allowed)

    found: dict[str, Callable[[], Call]] = {
        "published": theirs,
        "eager": lambda: ours(False),
        "graph": lambda: ours(True),
        "published graph": lambda: captured(theirs(), device),
        "published compiled": lambda: compiled(theirs()),
    }
    if type != "float32":
        found |= {"half eager": lambda: half(False), "half": lambda: half(True)}
    return found


def with_graphs(run: Call, allowed: bool) -> Call:
    """The call with graphs allowed or not, after four calls to capture a graph."""

    def call() -> Tensor:
        with graphs(allowed):
            return run()

    for _ in range(4 if allowed else 1):
        call()
    return call


def captured(run: Call, device: str) -> Call:
    """The call as a CUDA graph with fixed inputs, whose result is copied."""
    if device != "cuda":
        return run
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()

    def call() -> Tensor:
        graph.replay()
        return out.clone()

    return call


def compiled(run: Call) -> Call:
    """torch.compile of the call, with CUDA graphs on a GPU."""
    faster: Any = torch.compile(run, mode="reduce-overhead", dynamic=False)

    def call() -> Tensor:
        out: Tensor = faster().clone()
        return out

    for _ in range(3):
        call()
    return call


def steps(size: Size, type: str, device: str) -> dict[str, Callable[[], Call]]:
    """Functions that build each training step: a call that returns the loss before it."""
    dtype, inputs = TYPES[type], pair(size, torch.float32, device)

    def taking(network: nn.Module, backend: str, dissimilarity: Any, warp: Any) -> Call:
        step = step_of(autocasted(network, dtype, device), dissimilarity, warp)

        def call() -> Tensor:
            with ops.use_backend(backend):
                out: Tensor = step(*inputs)
            return out

        call()
        return call

    def theirs() -> Call:
        warp = Warp(size).to(device)
        return taking(published(size, device), "reference", op_for_op.local_ncc, warp)

    def ours(checkpoint: str | None) -> Call:
        return taking(lean(size, device, checkpoint), "auto", ops.local_ncc, ops.warp)

    def as_graphs() -> Call:
        from lganet_fast.training.graph import Graphed

        network = lean(size, device).train()
        narrow = torch.autocast(device, dtype, dtype != torch.float32, cache_enabled=False)
        graphed = Graphed(network, narrow, (1, 1, *size), torch.device(device))
        adam = torch.optim.Adam(network.parameters(), lr=1e-4)

        def call() -> Tensor:
            adam.zero_grad(set_to_none=False)
            flow = graphed(*inputs).float()
            loss = 1 - ops.local_ncc(inputs[1], ops.warp(inputs[0], flow))
            loss = loss + ops.gradient_loss(flow)
            loss.backward()
            adam.step()
            return loss.detach()

        call()
        return call

    return {
        "published": theirs,
        "eager": lambda: ours(None),
        "graph": as_graphs,
        "blocks": lambda: ours("blocks"),
    }


class Autocasted(nn.Module):
    """A network under autocast; the flow is not converted."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self.network, self.dtype, self.device = network, dtype, device

    def forward(self, *inputs: Tensor) -> Tensor:
        """The flow."""
        with torch.autocast(self.device, self.dtype):
            out: Tensor = self.network(*inputs)
        return out.float()


def autocasted(network: nn.Module, dtype: torch.dtype, device: str) -> nn.Module:
    """The network, under autocast for half types."""
    return network if dtype == torch.float32 else Autocasted(network, dtype, device)
