"""`python -m tests.fuzz.operators --inputs N --seed S`: a table of what N random calls came to.

Each runs by the reference and by the compiled operators. Both must refuse it with one error, or
both give results and gradients that agree: no worse than the reference in the numbers' own type is
against the reference in float64. A processor that crashes leaves the call's number on stderr.
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

from lganet_fast.ops import use_backend

from .calls import Call, draw

SLOW = 20.0  # seconds from which on a call counts as hanging
FAULTS = ("acceptance", "message", "crash", "shape or type", "value", "gradient", "hang")
TOLERANCE = {
    torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2
}  # fmt: skip
REFUSALS = (ValueError, TypeError)


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
    """The results and gradients, or the exception."""
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


def spread(call: Call) -> bool:
    """Whether numbers that are not finite may spoil more by compiled operators than they must.

    A convolution computes in tiles; trilinear weights of 0 are multiplied with what they weigh.
    """
    return bool(call.odd)


def differs(call: Call, found: Tensor, own: Tensor, exact: Tensor) -> bool:
    """Whether a compiled result is wrong, given that of the reference in the same type and wider."""
    found, own, exact = (x.double() for x in (found, own, exact))
    overflow = exact.isfinite() & ~own.isfinite()
    if (found.isfinite() & ~own.isfinite() & ~overflow).any():
        return True
    if (own.isfinite() & ~found.isfinite()).any() and not spread(call):
        return True
    there = found.isfinite() & own.isfinite() & exact.isfinite()
    if not there.any():
        return False
    found, own, exact = (x[there] for x in (found, own, exact))
    scale = max(exact.abs().max().item(), 1e-6)
    allowed = TOLERANCE[call_type(call)] * scale + 3 * (own - exact).abs().max().item()
    return bool((found - exact).abs().max().item() > allowed)


def call_type(call: Call) -> torch.dtype:
    """The narrowest type of the arguments."""
    types = {x.dtype for x in leaves(call.given)} & set(TOLERANCE)
    return max(types, key=TOLERANCE.__getitem__)


def trial(call: Call, grad: bool) -> str:
    """Run a call: "refused", "equal" or one of FAULTS."""
    started = time.monotonic()
    own, found = outcome(call, "reference", grad), outcome(call, "native", grad)
    if time.monotonic() - started > SLOW:
        return "hang"
    for one in (own, found):
        if isinstance(one, Exception) and not isinstance(one, REFUSALS):
            return "crash"
    if isinstance(own, Exception) or isinstance(found, Exception):
        if type(own) is not type(found):
            return "acceptance"
        fine = str(own) == str(found) and len(str(own)) <= 300 and str(own).isprintable()
        return "refused" if fine else "message"
    exact = outcome(call, "reference", grad, wide=True)
    for part, fault in enumerate(("value", "gradient")):
        for one, other, wide in zip(found[part], own[part], exact[part], strict=True):
            if one.shape != other.shape or one.dtype != other.dtype:
                return "shape or type"
            if differs(call, one, other, wide):
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
    return f"{call.operation}({given}) odd={sorted(call.odd)}"


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
    torch.set_num_threads(1)
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
