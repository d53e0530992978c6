"""Scores of a result: overlap and surface distance of labels, folding, landmark errors.

Imports transforms and the rooms before it.
"""

from typing import Any

from ..lazy import attach

__all__ = [
    "Overlap",
    "dice",
    "folded_percent",
    "folded_percent_published",
    "folding",
    "hd95",
    "inverse_consistency",
    "overlap",
    "percentile",
    "sdlogj",
    "tre",
]

_load = attach(
    __name__,
    {
        "Overlap": "scores",
        "dice": "scores",
        "folded_percent": "scores",
        "folded_percent_published": "scores",
        "folding": "folding",
        "hd95": "surface_distance",
        "inverse_consistency": "scores",
        "overlap": "scores",
        "percentile": "scores",
        "sdlogj": "scores",
        "tre": "scores",
    },
)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return _load(name)
