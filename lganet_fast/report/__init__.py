"""The contents of report.json, the quality page of a result, and its pictures.

Imports transforms and the rooms before it; loads Matplotlib only to draw.
"""

from typing import Any

from ..lazy import attach

__all__ = [
    "Report",
    "qc_page",
]

_load = attach(
    __name__,
    {
        "Report": "contents",
        "qc_page": "page",
    },
)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return _load(name)
