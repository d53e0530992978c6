"""The network on the GPU: compared with stored runs, and its graph with the eager forward."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lganet_fast.models import LGANetPlusPlus, PublishedLGANetPlusPlus
from lganet_fast.ops import integrate

from ..case import flow
from ..networks import pair
from .clock import graph_of, tf32
from .stand_in import lean
from .work import Work

SIZE = (48, 48, 48)
MODES = ("float64", "float32", "tf32", "float16", "bfloat16", "whole float16", "whole bfloat16")
OTHER = (48, 56, 64)


def run(work: Work) -> None:
    """Compare with the stored outputs in each type, then check graphs."""
    try:
        work.put(golden=golden(work))
    except FileNotFoundError as error:
        work.put(golden={"not there": str(error)})
    for name, check in GRAPH_CHECKS.items():
        if work.left() < 1:
            return
        try:
            work.put(**{name: check(work)})
        except Exception as error:
            work.put(**{name: f"failed: {str(error).splitlines()[0][:300]}"})


def golden(work: Work) -> dict[str, Any]:
    """The largest and mean error of the flow in voxels, relative to the published network."""
    folder = os.environ.get("LGANET_GOLDEN")
    if not folder:
        raise FileNotFoundError("LGANET_GOLDEN names no folder of reference outputs")
    rules = module_at(Path(folder) / "fill.py")
    stored = np.load(Path(folder) / f"official_{'x'.join(map(str, SIZE))}.npz")
    with torch.device("meta"):
        shapes = PublishedLGANetPlusPlus(SIZE).named_parameters()
        values = rules.fill({name: tuple(p.shape) for name, p in shapes})
    state = {name: torch.from_numpy(x) for name, x in values.items()}
    images = [torch.from_numpy(stored[name])[None, None] for name in ("moving", "fixed")]
    right = torch.from_numpy(stored["flow"]).double()
    found: dict[str, Any] = {}
    for mode in ("float32",) if work.dry else MODES:
        network = LGANetPlusPlus(SIZE, dropout=0.0).eval()
        network.load_state_dict(state)
        call, inputs = in_mode(network.to(work.device), images, mode)
        with torch.no_grad(), tf32(mode == "tf32"):
            results = [call(*inputs) for _ in range(4)]  # the later ones may use a graph
        error = (results[0].cpu().double() - right).abs()
        same = all(torch.equal(results[0], x) for x in results)
        row = {"largest": float(error.max()), "mean": float(error.mean()), "repeats": same}
        found[mode] = row
        work.put(golden=found)
    return found


def in_mode(
    network: nn.Module, images: list[Tensor], mode: str
) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """The network and its inputs in a type; "whole": converted to it, without autocast."""
    device = next(network.parameters()).device
    *whole, name = mode.split()
    dtype = torch.float32 if name == "tf32" else getattr(torch, name)
    stays = whole or dtype in (torch.float32, torch.float64)
    inputs = [x.to(device, dtype if stays else torch.float32) for x in images]
    if stays:
        return network.to(dtype), inputs

    def call(*inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype):
            out: Tensor = network(*inputs)
        return out

    return call, inputs


def module_at(path: Path) -> Any:
    """The module of a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def graphs(allowed: bool) -> Iterator[None]:
    """Allow forwards to run as graphs, or not."""
    before = os.environ.pop("LGANET_FAST_GRAPH", None)
    if not allowed:
        os.environ["LGANET_FAST_GRAPH"] = "0"
    try:
        yield
    finally:
        os.environ.pop("LGANET_FAST_GRAPH", None)
        if before is not None:
            os.environ["LGANET_FAST_GRAPH"] = before


def number_of_graphs(network: nn.Module) -> int | None:
    """The number of graphs of a network; None for networks without graphs."""
    known = getattr(getattr(network, "graphs", None), "known", None)
    return None if known is None else sum(hasattr(x, "graph") for x in known.values())


def twice(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[Tensor], Tensor]:
    """Four results with graphs allowed, one without."""
    with torch.no_grad():
        with graphs(True):
            results = [network(*inputs) for _ in range(4)]
        with graphs(False):
            return results, network(*inputs)


def graph_is_eager(work: Work) -> dict[str, Any]:
    """Check equality bit for bit, with new weights and two shapes; results must not alias."""
    device = work.device
    network = lean(SIZE, device).eval()
    inputs, others = (pair(size, torch.float32, device) for size in (SIZE, OTHER))
    found: dict[str, Any] = {}
    results, eager = twice(network, inputs)
    found["equal"] = all(torch.equal(x, eager) for x in results)
    found["own memory"] = len({x.data_ptr() for x in results}) == len(results)
    found["graphs"] = number_of_graphs(network)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(1.01)
    again, eager_again = twice(network, inputs)
    found["equal with new weights"] = all(torch.equal(x, eager_again) for x in again)
    found["new weights matter"] = not torch.equal(eager, eager_again)
    _, other_eager = twice(network, others)
    with torch.no_grad(), graphs(True):
        turns = [network(*x) for _ in range(3) for x in (inputs, others)]
    found["two shapes in turn"] = all(
        torch.equal(x, right)
        for x, right in zip(turns, [eager_again, other_eager] * 3, strict=True)
    )
    return found


def two_threads(work: Work) -> dict[str, Any]:
    """Two threads use one network at once, each on its own stream."""
    network = lean(SIZE, work.device).eval()
    inputs = [pair(SIZE, torch.float32, work.device), pair(SIZE, torch.float32, work.device)[::-1]]
    rights = [twice(network, x)[1] for x in inputs]
    if not work.dry:
        torch.cuda.synchronize()  # the streams below do not wait for this one
    equal: list[bool] = []

    def use(number: int) -> None:
        stream = nullcontext() if work.dry else torch.cuda.stream(torch.cuda.Stream())
        with stream, torch.no_grad():
            for _ in range(3 if work.dry else 10):
                equal.append(torch.equal(network(*inputs[number]), rights[number]))

    threads = [threading.Thread(target=use, args=(number,)) for number in (0, 1)]
    with graphs(True):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {"equal": all(equal), "calls": len(equal)}


def integrate_captured(work: Work) -> str:
    """Whether a cooperative launch on the whole device can be part of a graph."""
    velocity = flow((18, 22, 18), work.device).detach()
    right = integrate(velocity)
    if work.dry:
        return "not tried: no GPU"
    out = torch.empty_like(right)
    graph = graph_of(lambda: out.copy_(integrate(velocity)))
    out.fill_(torch.nan)
    graph.replay()
    return "yes" if torch.equal(out, right) else "its replay is wrong"


GRAPH_CHECKS: dict[str, Callable[[Work], Any]] = {
    "graph": graph_is_eager,
    "integrate captured": integrate_captured,
    "threads": two_threads,
}
