"""Configurations of training and evaluation: their sections, rules and defaults, and TOML files.

Imports runtime.
"""

from typing import Any

from ..lazy import attach

__all__ = [
    "SECTIONS",
    "Config",
    "build",
    "dumps",
    "json_schema",
    "load",
    "read",
    "shipped",
]

_load = attach(
    __name__,
    {
        "Config": "loading",
        "SECTIONS": "loading",
        "build": "loading",
        "dumps": "loading",
        "json_schema": "reference",
        "load": "loading",
        "read": "loading",
        "shipped": "included",
    },
)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return _load(name)
