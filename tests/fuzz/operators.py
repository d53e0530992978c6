"""`python -m tests.fuzz.operators --inputs N --seed S`: a table of what N random calls came to.

Each runs by the reference and by the compiled operators. Both must refuse it with one error, or
both give results and gradients that agree: no worse than the reference in the numbers' own type is
against the reference in float64. The compiled one runs with one thread or several. A processor that
crashes leaves the call's number on stderr.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
import warnings
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lganet_fast.errors import LONGEST
from lganet_fast.ops import use_backend

from .calls import Call, draw

SLOW = 20.0  # seconds of the processor from which on a call counts as hanging
FAULTS = ("acceptance", "message", "crash", "value", "gradient", "hang")
TOLERANCE = {
    torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2
}  # fmt: skip
REFUSALS = (ValueError, TypeError)
CONVERGED = 2e-3  # what `invert` may miss by
CANCELLED = 1e-3  # of the reference's variances of flat images, in float64 too
# What is multiplied by 0 is not looked at, or by PyTorch's kernel.
LOOSE = ("attention", "resize", "warp", "warp_sum", "compose", "integrate", "invert")


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of nested arguments or results, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    return [x for part in tree for x in leaves(part)] if isinstance(tree, list | tuple) else []


def mapped(tree: Any, change: Any) -> Any:
    """The arguments with each tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {name: mapped(part, change) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(part, change) for part in tree)
    return tree


def kept(x: Tensor, grad: bool, wide: bool) -> Tensor:
    """A copy in the same layout where it has no gap, a leaf perhaps, in float64 perhaps."""
    x = x.detach()
    if wide and x.dtype.is_floating_point:
        x = x.double()
    elif not grad:
        return x if 0 in x.stride() else x.clone()
    return x.requires_grad_() if grad and x.dtype.is_floating_point else x


def outcome(call: Call, backend: str, grad: bool, wide: bool = False) -> Any:
    """The results and gradients, or the exception; the reference's with one thread."""
    torch.set_num_threads(call.threads if backend == "native" else 1)
    given = mapped(call.given, lambda x: kept(x, grad, wide))
    try:
        with use_backend(backend):
            results = [x for x in leaves(call.run(**given)) if x.dtype.is_floating_point]
    except Exception as error:
        return error
    if not grad:
        return [x.detach() for x in results], []
    loose = [x for x in results if x.requires_grad]
    wanted = [x for x in leaves(given) if x.requires_grad]
    seeds = [torch.linspace(-1, 1.5, x.numel()).reshape(x.shape).to(x) for x in loose]
    found: Any = [None] * len(wanted)
    if loose and wanted:
        found = torch.autograd.grad(loose, wanted, seeds, allow_unused=True)
    return [x.detach() for x in results], [
        torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)
    ]


def differs(call: Call, found: Tensor, own: Tensor, exact: Tensor, scale: float) -> bool:
    """Whether a compiled result is wrong, given that of the reference in the same type and wider.

    Numbers that are not finite may spoil more than they must: a convolution computes in tiles, and
    a voxel's neighbours may count 0 times. What spoils less is wrong, but where it is LOOSE.
    """
    if found.shape != own.shape or found.dtype != own.dtype:
        return True
    found, own, exact = (x.double() for x in (found, own, exact))
    overflow = exact.isfinite() & ~own.isfinite()
    missed = found.isfinite() & ~own.isfinite() & ~overflow
    if missed.any() and not (call.odd and call.operation in LOOSE):
        return True
    if (own.isfinite() & ~found.isfinite()).any() and not call.odd:
        return True
    spoilt = call.odd - {"flow"} if call.operation == "invert" else call.odd
    if spoilt and call.operation in ("integrate", "invert"):
        return False  # each step reads where the one before has found
    there = found.isfinite() & own.isfinite() & exact.isfinite()
    if not there.any():
        return False
    found, own, exact = (x[there] for x in (found, own, exact))
    allowed = TOLERANCE[narrowest(call)] * scale + 3 * (own - exact).abs().max().item()
    if call.operation == "invert":
        allowed += CONVERGED
    if call.operation == "local_ncc":
        allowed += CANCELLED * scale
    return bool((found - exact).abs().max().item() > allowed)


def scale_of(call: Call, results: list[Tensor]) -> float:
    """What errors are measured by: the largest result, and how far inputs lie from zero."""

    def largest(tensors: list[Tensor]) -> float:
        real = [x for x in tensors if x.dtype.is_floating_point]
        found = [x[x.isfinite()].double().abs() for x in real]
        return max((x.max().item() for x in found if x.numel()), default=0.0)

    floor = 1.0 if call.operation == "norm_act" else 1e-3  # a constant has no digits there
    inputs = max(largest(leaves(call.given)), 1.0)
    inputs = 1e3 * inputs if call.odd else min(inputs, 1e3)
    if call.operation == "attention":
        inputs *= inputs  # weights of products that cancel
    return max(largest(results), floor) * inputs


def narrowest(call: Call) -> torch.dtype:
    """The narrowest type of the arguments."""
    types = {x.dtype for x in leaves(call.given)} & set(TOLERANCE)
    return max(types, key=TOLERANCE.__getitem__)


def comparable(call: Call, found: list[Tensor], exact: list[Tensor]) -> bool:
    """Whether gradients say anything: not of what is spoilt, nor where rounding takes a side."""
    if call.odd and not all(x.isfinite().all() for x in found):
        return False
    if call.operation == "norm_act":
        return not any((x.abs() < 1e-4).any() for x in exact)
    half = narrowest(call) in (torch.bfloat16, torch.float16)
    if call.operation == "convolve" and call.given["relu"] is True:
        return not call.odd and not half
    if call.operation == "attention":
        return not call.odd & {"huge", "1e30"}
    return call.operation != "weigh" or not half


def refusal(call: Call, own: Any, found: Any) -> str | None:
    """What two outcomes come to of which one is an exception; None where none is."""
    if not isinstance(own, Exception) and not isinstance(found, Exception):
        return None
    absent = isinstance(found, RuntimeError) and str(found).startswith("backend 'native' cannot")
    if absent and any(x.is_meta for x in leaves(call.given)):
        return "refused"  # by name; "auto" takes the reference there
    if any(isinstance(x, Exception) and not isinstance(x, REFUSALS) for x in (own, found)):
        return "crash"
    if type(own) is not type(found):
        return "acceptance"
    fine = str(own) == str(found) and len(str(own)) <= LONGEST and str(own).isprintable()
    return "refused" if fine else "message"


def trial(call: Call, grad: bool) -> str:
    """Run a call: "refused", "equal" or one of FAULTS."""
    started = time.process_time()
    own, found = outcome(call, "reference", grad), outcome(call, "native", grad)
    if time.process_time() - started > SLOW:
        return "hang"
    refused = refusal(call, own, found)
    if refused or any(x.is_meta for x in found[0]):
        return refused or "equal"
    exact = outcome(call, "reference", grad, wide=True)
    for part, fault in enumerate(("value", "gradient")):
        if part and not comparable(call, found[0], exact[0]):
            break
        scale = scale_of(call, exact[part])
        three = zip(found[part], own[part], exact[part], strict=True)
        if any(differs(call, *tensors, scale) for tensors in three):
            return fault
    return "equal"


def described(call: Call) -> str:
    """The arguments in words."""

    def words(x: Any) -> str:
        if isinstance(x, Tensor):
            name = str(x.dtype).removeprefix("torch.")
            return f"{name}{list(x.shape)}/{list(x.stride())}"
        if isinstance(x, list | tuple):
            return "[" + ", ".join(map(words, x)) + "]"
        return repr(x)

    given = ", ".join(f"{name}={words(x)}" for name, x in call.given.items())
    return f"{call.operation}({given}) odd={sorted(call.odd)} threads={call.threads}"


def fuzz(
    inputs: int, seed: int, only: int | None = None, quiet: bool = False
) -> dict[str, Counter[str]]:
    """What became of so many calls, by operation; each has a seed of its own."""
    table: dict[str, Counter[str]] = {}
    for turn in range(inputs) if only is None else [only]:
        random = np.random.default_rng((seed, turn))
        call, grad = draw(random), bool(random.random() < 0.6)
        if only is not None:
            print(described(call), f"grad={grad}", file=sys.stderr)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = trial(call, grad)
        if result in FAULTS:
            print(f"{result}: {turn}: {described(call)}, grad={grad}")
            for name in ("reference", "native"):
                error = outcome(call, name, grad)
                if isinstance(error, Exception):
                    print(f"  {name}: {type(error).__name__}: {error}"[:300])
        table.setdefault(call.operation, Counter())[result] += 1
        if not quiet and turn % 500 == 499:
            print(f"{turn + 1} of {inputs}", file=sys.stderr)
    return table


def main() -> int:
    """Print the table; 1 where there is any fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.operators", description=__doc__)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one call to run alone")
    options = parser.parse_args()
    faulthandler.enable()
    table = fuzz(options.inputs, options.seed, options.only)
    columns = ("equal", "refused", *FAULTS)
    print(f"{'operation':<18}" + "".join(f"{name:>15}" for name in columns))
    total: Counter[str] = Counter()
    for row, counts in sorted(table.items()):
        total += counts
        print(f"{row:<18}" + "".join(f"{counts[name]:>15}" for name in columns))
    print(f"{'all':<18}" + "".join(f"{total[name]:>15}" for name in columns))
    return int(any(total[name] for name in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
