"""What went wrong, in the compiler's own words."""

from __future__ import annotations


class NotPossibleError(Exception):
    """Why something cannot be compiled here."""


def first_error(text: str) -> str:
    """The line of a compiler's output that tells most: its first error, else its first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
