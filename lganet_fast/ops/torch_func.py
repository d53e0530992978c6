"""torch.func's transforms of operators that are opaque to PyTorch.

An operator registered with torch.library has a gradient for autograd alone: torch.func.grad refuses
it, and forward-mode differentiation would take its derivative to be zero. Under a transform it runs
as an autograd.Function instead, which has a rule for each of them: vmap is a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

P = ParamSpec("P")
R = TypeVar("R")

NO_JVP = (
    "{} has no forward-mode derivative (torch.func.jvp): use reverse mode, torch.func.vjp or jacrev"
)


def transforming() -> bool:
    """Whether a transform of torch.func or forward-mode differentiation is active.

    Inside one a tensor may stand for a batch: its strides and `requires_grad` mean nothing then.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def tracing() -> bool:
    """Whether torch.jit.trace is recording, which cannot record Python functions of autograd."""
    return torch._C._get_tracing_state() is not None


def no_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Mark results as without gradient."""
    ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))


def no_double_backward(*_: Any) -> NoReturn:
    """Refuse to differentiate a compiled backward."""
    raise RuntimeError(
        "the compiled operators have no second derivative: use backend='reference' for it"
    )


def transformable(
    run: Callable[P, R],
    setup_context: Callable[..., None] = no_gradient,
    backward: Callable[..., Any] = no_double_backward,
    name: str | None = None,
) -> Callable[P, R]:
    """`run`, which torch.func's transforms go through.

    run: takes tensors, not in lists, and other things by position, and gives one tensor or a tuple.
    It only ever sees plain tensors. setup_context, backward: as torch.library.register_autograd
    takes them; what they do to tensors must be transformable itself. name: of errors.
    """
    called = name or str(getattr(run, "__name__", run))

    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        def one(n: int) -> Any:
            pairs = zip(args, in_dims, strict=True)
            return through.apply(*(x.select(d, n) if type(d) is int else x for x, d in pairs))

        found = [one(n) for n in range(info.batch_size)]
        if isinstance(found[0], Tensor):
            return torch.stack(found), 0
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True)), (0,) * len(found[0])

    def jvp(*_: Any) -> NoReturn:
        raise RuntimeError(NO_JVP.format(called))

    parts = {
        "forward": run,
        "setup_context": setup_context,
        "backward": backward,
        "vmap": vmap,
        "jvp": jvp,
    }
    members = {key: staticmethod(part) for key, part in parts.items()}
    through: Any = type(called, (torch.autograd.Function,), members)

    @wraps(run)
    def call(*args: P.args, **options: P.kwargs) -> R:
        return through.apply(*args) if transforming() else run(*args, **options)

    return call
