"""Argument checks shared by the operations: an error names what was wrong and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST = 1e300  # that a number among the arguments may be
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def shape(name: str, x: Tensor, expected: Sequence[int | str]) -> None:
    """Require x to have `expected` shape; a string there names an axis of any length."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    found = x.shape
    fits = len(found) == len(expected)
    for want, length in zip(expected, found):  # noqa: B905 - a keyword takes time, in every call
        if want != length and type(want) is not str:
            fits = False
    if not fits:
        wanted = ", ".join(map(str, expected))
        raise ValueError(f"{name} must have shape ({wanted}), got {tuple(found)}")


def floating(name: str, x: Tensor, allowed: Sequence[torch.dtype] = FLOATS) -> None:
    """Require one of the `allowed` float types."""
    if x.dtype not in allowed:
        names = ", ".join(str(d).removeprefix("torch.") for d in allowed)
        raise TypeError(f"{name} must be {names}, got {str(x.dtype).removeprefix('torch.')}")


def together(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Require both tensors on one device."""
    if x.device != other.device:
        raise ValueError(f"{name} must be on {other_name}'s device {other.device}, got {x.device}")


def two_images(a: Tensor, b: Tensor, weight: Tensor | None) -> None:
    """Require images a and b (B, C, H, W, D) of one type, and weight (B, 1, H, W, D) or None."""
    shape("a", a, ("B", "C", "H", "W", "D"))
    floating("a", a)
    shape("b", b, a.shape)
    floating("b", b, (a.dtype,))
    together("b", b, "a", a)
    if weight is not None:
        shape("weight", weight, (a.shape[0], 1, *a.shape[2:]))
        together("weight", weight, "a", a)


def choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Require one of the `allowed` names."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def at_least(name: str, value: object, least: int) -> None:
    """Require an integer from `least` on, and below 2^31."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def flag(name: str, value: bool) -> None:
    """Require True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def number(name: str, value: float, low: float = -LARGEST, high: float = LARGEST) -> None:
    """Require a finite number, from `low` to `high` where these are given."""
    if not isinstance(value, float | int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if isinstance(value, int) and abs(value) > 2**53:  # more than float64 holds
        raise ValueError(f"{name} must be a number within 2^53 or a float, got {value!r}")
    if not low <= value <= high:
        bounds = "finite" if high == LARGEST else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be {bounds}, got {value!r}")


def several(name: str, value: object, counts: Sequence[int]) -> None:
    """Require a list or a tuple of one of so many things."""
    if not isinstance(value, list | tuple) or len(value) not in counts:
        got = f"{len(value)}" if isinstance(value, list | tuple) else repr(value)
        allowed = " or ".join(map(str, counts))
        raise ValueError(f"{name} must be a list or a tuple of {allowed}, got {got}")


def flow(name: str, x: Tensor) -> None:
    """Require a (B, 3, H, W, D) flow in float32 or float64."""
    shape(name, x, ("B", 3, "H", "W", "D"))
    floating(name, x, (torch.float32, torch.float64))


def norm(name: str, given: tuple[Tensor, float], channels: Sequence[int], x: Tensor) -> None:
    """Require moments (2, B, C), float32 or float64, beside x, and a slope in [0, 1].

    channels: B and C of the map that is read through them.
    """
    several(name, given, (2,))
    moments, slope = given
    shape(f"{name}[0]", moments, (2, *channels))
    floating(f"{name}[0]", moments, (torch.float32, torch.float64))
    together(f"{name}[0]", moments, "x", x)
    number(f"{name}[1]", slope, 0, 1)
