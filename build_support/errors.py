"""Errors of compilers."""

from __future__ import annotations


class NotPossibleError(Exception):
    """Something cannot be compiled here; the message says why."""


def first_error(text: str) -> str:
    """The first line with an error in a compiler's output, else its first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
