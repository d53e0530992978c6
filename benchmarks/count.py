"""`python -m benchmarks.count`: the work of the network on a CUDA device, counted without one.

The network runs on fake "cuda" tensors, with Triton and the compiled operators that have a CUDA
source. Every dispatched operator is recorded with the bytes that it must move (inputs read once,
results written once) and its multiplications and additions. Views and allocations launch nothing.
"""

from __future__ import annotations

import argparse
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lganet_fast import ops
from lganet_fast.models import LGANetPlusPlus, PublishedLGANetPlusPlus
from lganet_fast.models.published import Warp
from lganet_fast.ops import convolve_on_cuda, native, triton, tuned

from . import ROOT
from . import published as op_for_op
from .case import IXI_OASIS, LPBA40, Size, shown

ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift")
VIEWS = ("_unsafe_view", "_reshape_alias", "split", "unbind", "chunk")  # not marked as such
OVERWRITES = ("copy_", "fill_", "zero_")  # write their first argument without reading it
NOTHING = ("promote_types", "device", "is_same_size", "sym_size", "dim")


@dataclass(frozen=True)
class Conv:
    """A 3^3 convolution: channels, voxels of the whole batch, the shape (B, H, W, D)."""

    operation: str
    inputs: int
    outputs: int
    shape: tuple[int, ...]

    @property
    def voxels(self) -> int:
        """The voxels of the whole batch."""
        return math.prod(self.shape)

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * 27 * self.inputs * self.outputs * self.voxels

    def bytes(self, itemsize: int) -> int:
        """The minimum: both maps once, and the weights."""
        maps = self.voxels * (self.inputs + self.outputs)
        return itemsize * (maps + 27 * self.inputs * self.outputs)


@dataclass
class Count:
    """By operator: dispatched calls, calls that launch a kernel, bytes and multiply-adds.

    convolutions: the 3^3 convolutions in order.
    """

    dispatched: Counter[str] = field(default_factory=Counter)
    launching: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    convolutions: list[Conv] = field(default_factory=list)

    def totals(self) -> dict[str, float]:
        """The sums: calls, GB, GFLOP."""
        return {
            "dispatched": self.dispatched.total(),
            "launching": self.launching.total(),
            "convolutions": len(self.convolutions),
            "gigabytes": round(self.bytes.total() / 1e9, 3),
            "gflop": round(self.operations.total() / 1e9, 2),
        }


class Counting(TorchDispatchMode):
    """Counts the operators dispatched inside the `with` block, on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), keywords: Any = None):
        """Record and run the call."""
        keywords = keywords or {}
        out = operator(*args, **keywords)
        name = str(operator).removeprefix("aten.")
        self.count.dispatched[name] += 1
        if launches(operator):
            self.count.launching[name] += 1
            self.count.bytes[name] += moved(operator, args, keywords, out)
            self.count.operations[name] += flop(operator, args, keywords, out)
            self.count.convolutions += convolutions(operator, args, out)
        return out


def launches(operator: Any) -> bool:
    """Whether an operator launches a kernel; views and allocations do not."""
    stem = operator._schema.name.split("::")[-1]
    if operator.namespace == "prim" or stem in (*ALLOCATIONS, *VIEWS, *NOTHING):
        return False
    return not any(r.alias_info and not r.alias_info.is_write for r in operator._schema.returns)


def tensors(*trees: Any) -> list[Tensor]:
    """All tensors in the arguments."""
    return [x for x in tree_leaves(trees) if isinstance(x, Tensor)]


def stored(x: Tensor) -> int:
    """The bytes of a tensor's distinct elements."""
    sides = zip(x.shape, x.stride(), strict=True)
    return x.element_size() * math.prod(n for n, step in sides if step or n == 0)


def moved(operator: Any, args: Sequence[Any], keywords: dict[str, Any], out: Any) -> int:
    """The minimum of bytes that a call reads and writes."""
    overwrites = operator._schema.name.split("::")[-1] in OVERWRITES
    read, written = [], tensors(out)
    for place, argument in enumerate(operator._schema.arguments):
        value = args[place] if place < len(args) else keywords.get(argument.name)
        found = tensors(value)
        changed = argument.alias_info is not None and argument.alias_info.is_write
        if not (changed and (overwrites or argument.is_out)):
            read += found
        if changed:
            written += [x for x in found if not any(x is y for y in written)]
    return sum(map(stored, read)) + sum(map(stored, written))


def attention_flop(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **_: Any) -> int:
    """Multiply-adds of our attention: two products of every pair of tokens of a window."""
    windows = math.prod(rest[2])
    batch, tokens, width = q.shape
    return 2 * batch * tokens * tokens // windows * (width + v.shape[2])


def correlate_flop(x: Tensor, y: Tensor, radius: int, *rest: Any, **_: Any) -> int:
    """Multiply-adds of our correlation."""
    return 2 * x.numel() * (2 * radius + 1) ** 3


OWN: dict[str, Callable[..., int]] = {
    "lganet_fast_triton::attention": attention_flop,
    "lganet_fast_triton::correlate": correlate_flop,
}


def flop(operator: Any, args: Sequence[Any], keywords: dict[str, Any], out: Any) -> int:
    """Multiplications and additions of an operator with products; 0 for others."""
    own = OWN.get(operator._schema.name)
    if own is not None:
        return int(own(*args, **keywords))
    rule = flop_registry.get(operator._overloadpacket)
    if rule is None:
        return sum(conv.operations for conv in convolutions(operator, args, out))
    return int(rule(*args, **keywords, out_val=out))


def convolutions(operator: Any, args: Sequence[Any], out: Any) -> list[Conv]:
    """The 3^3 convolutions of a call, PyTorch's or ours."""
    name = operator._schema.name.split("::")[-1]
    names = ("convolve_input_gradient", "convolve_weight_gradient")
    if name in ("convolution_backward", "convolve_backward"):
        grad, _, weight = args[:3]
        wanted = args[10] if name == "convolution_backward" else args[5:]
        found = [name for name, want in zip(names, wanted, strict=False) if want]
    elif name in ("convolution", "cudnn_convolution", "convolve", "convolve_maps"):
        (grad, *_), first = tensors(out), args[0]
        if isinstance(first, list):  # of maps, with packed weights
            inputs = sum(x.shape[1] for x in first)
            return [Conv("convolve", inputs, grad.shape[1], (len(grad), *grad.shape[2:]))]
        weight, found = args[1], ["convolve"]
    else:
        return []
    if weight.dim() != 5 or tuple(weight.shape[2:]) != (3, 3, 3):
        return []
    shape = (grad.shape[0], *grad.shape[2:])
    return [Conv(name, weight.shape[1], weight.shape[0], shape) for name in found]


def efficient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """PyTorch's attention as one operator, as on CUDA; without a device it is decomposed."""
    kept = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))
    run = torch.ops.aten._scaled_dot_product_efficient_attention
    out: Tensor = run(q, k, v, attn_mask, kept, dropout_p, is_causal, scale=scale)[0]
    return out


CONV3D = F.conv3d


def in_rows(x: Tensor, weight: Tensor, *args: Any, **keywords: Any) -> Tensor:
    """A convolution by cuDNN in channels_last_3d, which bfloat16 without a device is not."""
    out: Tensor = CONV3D(x, weight, *args, **keywords)
    last = torch.channels_last_3d
    if out.requires_grad or out.dtype != torch.bfloat16:
        return out
    return torch.empty(out.shape, dtype=out.dtype, device=out.device, memory_format=last)


@contextmanager
def as_on_cuda(path: str = "cudnn") -> Iterator[None]:
    """Let the operations choose as on a machine with a new GPU and everything compiled for it.

    path: the fastest path of all convolutions, a name in `ops.tuned`.
    """
    entry = None if path == "cudnn" else tuned.Entry(path, 0, 1.0)
    compiled = frozenset(n for n in native.COMPILED if (ROOT / "csrc" / n / f"{n}.cu").exists())
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(native.KERNELS, {"cuda": compiled}))
        stack.enter_context(mock.patch.object(triton, "INSTALLED", True))
        stack.enter_context(mock.patch.object(triton, "too_old", return_value=None))
        stack.enter_context(mock.patch.object(convolve_on_cuda, "capability", return_value=(9, 0)))
        stack.enter_context(mock.patch.object(tuned, "winner", return_value=entry))
        stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", efficient))
        stack.enter_context(mock.patch.object(F, "conv3d", in_rows))
        stack.enter_context(mock.patch.dict(os.environ, {"LGANET_FAST_GRAPH": "0"}))
        yield


@contextmanager
def narrowed(dtype: torch.dtype | None) -> Iterator[None]:
    """torch.autocast, also without the device."""
    if dtype is None:
        yield
        return
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def faked(network: nn.Module) -> nn.Module:
    """The network with fake parameters on "cuda"; call it inside a FakeTensorMode."""
    for module in network.modules():
        for name, p in module._parameters.items():
            if p is not None:
                fake = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype, device="cuda")
                module._parameters[name] = nn.Parameter(fake)
        for name, b in module._buffers.items():
            if b is not None:
                fake = torch.empty_strided(b.shape, b.stride(), dtype=b.dtype, device="cuda")
                module._buffers[name] = fake
    return network


def backward(loss: Tensor) -> None:
    """loss.backward(), node by node: the engine would need streams of the device."""
    waiting: Counter[Any] = Counter()
    seen, found = {loss.grad_fn}, [loss.grad_fn]
    while found:
        for after, _ in edges(found.pop()):
            waiting[after] += 1
            if after not in seen:
                seen.add(after)
                found.append(after)
    gradients: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    ready = [loss.grad_fn]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            outs = differentiated(node, gradients.pop(node, {}))
            for (after, place), out in zip(edges(node), outs, strict=True):
                if out is not None:
                    gradient = fitted(out, after._input_metadata[place])
                    sums = gradients.setdefault(after, {})
                    sums[place] = sums[place] + gradient if place in sums else gradient
                waiting[after] -= 1
                if not waiting[after]:
                    ready.append(after)


def fitted(gradient: Tensor, like: Any) -> Tensor:
    """The gradient summed over broadcast axes, in the type of its tensor."""
    if gradient.shape != like.shape:
        gradient = gradient.sum_to_size(like.shape)
    return gradient if gradient.dtype == like.dtype else gradient.to(like.dtype)


def edges(node: Any) -> list[tuple[Any, int]]:
    """The nodes that receive a node's gradients."""
    return [(after, place) for after, place in node.next_functions if after is not None]


def differentiated(node: Any, given: dict[int, Tensor]) -> list[Tensor | None]:
    """The gradients for `edges(node)`. given: those to the node's results, by index."""
    if not given:
        return [None] * len(edges(node))
    if hasattr(node, "variable"):  # a parameter, whose gradient is copied if its strides differ
        grad, place = given[0], node.variable
        place.grad = (
            grad if grad.stride() == place.stride() else torch.empty_like(place).copy_(grad)
        )
        return []
    inputs = [given.get(place) for place in range(len(node._input_metadata))]
    if hasattr(node, "needs_input_grad"):  # written in Python: a gradient for each argument
        outs = zip(node.apply(*inputs), node.needs_input_grad, strict=True)
        return [gradient for gradient, wanted in outs if wanted]
    outs = node(*inputs)
    outs = outs if isinstance(outs, tuple) else (outs,)
    return [out for out, (after, _) in zip(outs, node.next_functions, strict=False) if after]


def of_network(
    size: Size,
    dtype: torch.dtype | None = None,
    step: bool = False,
    published: bool = False,
    path: str = "cudnn",
    atlas: bool = False,
) -> Count:
    """Count a later forward in evaluation, or forward, losses and backward of a training step.

    dtype: of autocast, None for float32. published: the published network, operator by operator.
    path: of our convolutions, "cudnn" or "triton". atlas: the fixed image's features are prepared.
    """
    kind = PublishedLGANetPlusPlus if published else LGANetPlusPlus
    network, warp = kind(size, dropout=0.0).train(step), Warp(size)
    backend = ops.use_backend("reference" if published else "auto")
    counting = Counting()
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_cuda(path), backend:
        faked(network)
        warp = faked(warp) if published else ops.warp
        moving, fixed = (torch.empty(1, 1, *size, device="cuda") for _ in range(2))
        dissimilarity = op_for_op.local_ncc if published else ops.local_ncc
        if not step:
            with torch.no_grad(), narrowed(dtype):
                call, last = (network.onto, network.prepare(fixed)) if atlas else (network, fixed)
                call(moving, last)  # which packs the weights, once
                with counting:
                    call(moving, last)
            return counting.count
        with counting:
            with narrowed(dtype):
                flow = network(moving, fixed)
            loss = 1 - dissimilarity(fixed, warp(moving, flow)) + ops.gradient_loss(flow)
            backward(loss)
    return counting.count


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.count", description=__doc__)
    parser.add_argument("--operators", action="store_true", help="operator by operator")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    """Print the sums of our and the published network, for both sizes, float32 and bfloat16."""
    given = parser().parse_args(words)
    print("size type mode network:", ", ".join(Count().totals()))
    for size in (IXI_OASIS, LPBA40):
        for dtype in (None, torch.bfloat16):
            for step in (False, True):
                for published in (True, False):
                    count = of_network(size, dtype, step, published)
                    words = [shown(size), str(dtype or torch.float32).removeprefix("torch.")]
                    words += ["step" if step else "forward", "published" if published else "ours"]
                    print(*words, end=": ")
                    print(*(f"{value:g}" for value in count.totals().values()), sep=", ")
                    for name, calls in count.launching.most_common() if given.operators else ():
                        moved = count.bytes[name] / 1e9
                        print(f"    {calls} {name}, {moved:.3f} GB")


if __name__ == "__main__":
    main()
