"""What a setting may be: rules that accept a value, or say what is wanted instead."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class RefusedError(Exception):
    """A value that breaks its rule."""


@dataclass(frozen=True)
class Rule:
    """wanted: completes "must be ...". accept: the value as it is kept; raises RefusedError."""

    wanted: str
    accept: Callable[[Any], Any]


def choice(*allowed: str) -> Rule:
    """One of some words."""

    def accept(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise RefusedError
        return value

    return Rule("one of " + ", ".join(map(repr, allowed)), accept)


def text() -> Rule:
    """Any text."""
    return Rule("text", _of_type(str))


def flag() -> Rule:
    """True or false."""
    return Rule("true or false", _of_type(bool))


def whole(low: int | None = None) -> Rule:
    """A whole number, from `low` on."""

    def accept(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise RefusedError
        if abs(value) >= 2**63 or (low is not None and value < low):
            raise RefusedError
        return value

    return Rule("a whole number" + ("" if low is None else f" from {low} on"), accept)


def real(low: float | None = None, below: float | None = None, above: bool = False) -> Rule:
    """A finite number, from `low` on (above it where `above`), and less than `below`."""

    def accept(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError
        if not math.isfinite(value):
            raise RefusedError
        if low is not None and (value < low or (above and value == low)):
            raise RefusedError
        if below is not None and value >= below:
            raise RefusedError
        return float(value)

    wanted = "a number"
    if low is not None:
        wanted += f" above {low:g}" if above else f" from {low:g} on"
    if below is not None:
        wanted += f" below {below:g}" if low is None else f" and below {below:g}"
    return Rule(wanted, accept)


def listed(item: Rule, length: int | None = None, empty: bool = True) -> Rule:
    """A list of what another rule accepts, kept as a tuple."""

    def accept(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not (value or empty):
            raise RefusedError
        if length is not None and len(value) not in ((0, length) if empty else (length,)):
            raise RefusedError
        return tuple(item.accept(x) for x in value)

    size = "a list" if length is None else f"a list of {length}"
    return Rule(f"{size}, each {item.wanted}", accept)


def either(wanted: str, *rules: Rule) -> Rule:
    """What any of some rules accepts, the first that does."""

    def accept(value: Any) -> Any:
        for rule in rules:
            try:
                return rule.accept(value)
            except RefusedError:
                continue
        raise RefusedError

    return Rule(wanted, accept)


def span(wanted: str, number: Rule) -> Rule:
    """Two ascending numbers."""
    pair = listed(number, length=2, empty=False)

    def accept(value: Any) -> tuple[Any, Any]:
        low, high = pair.accept(value)
        if not low < high:
            raise RefusedError
        return low, high

    return Rule(wanted, accept)


def values(*words: str) -> Rule:
    """What is done to image values: a word, or a window with its two ends."""
    number = real()

    def window(value: Any) -> tuple[str, float, float]:
        if not isinstance(value, list | tuple) or len(value) != 3:
            raise RefusedError
        kind = choice("clip", "percentile").accept(value[0])
        low, high = (number.accept(x) for x in value[1:])
        if not low < high or (kind == "percentile" and not 0 <= low < high <= 100):
            raise RefusedError
        return kind, low, high

    names = ", ".join(map(repr, words))
    wanted = f"{names}, ['clip', low, high] or ['percentile', low, high] with low < high"
    return either(wanted, choice(*words), Rule("", window))


def share() -> Rule:
    """A count, or a fraction of all."""
    return either("a count (2) or a fraction below 1 (0.1)", whole(0), real(0, below=1))


def _of_type(kind: type) -> Callable[[Any], Any]:
    def accept(value: Any) -> Any:
        if not isinstance(value, kind):
            raise RefusedError
        return value

    return accept
