"""Displacement fields: applying, inverting, composing, measuring, and the files of other tools.

Imports volumes and the rooms before it.
"""

from typing import Any

from ..lazy import attach

__all__ = [
    "FORMATS",
    "Affine",
    "CompositeTransform",
    "DisplacementField",
]

_load = attach(
    __name__,
    {
        "Affine": "composite",
        "CompositeTransform": "composite",
        "DisplacementField": "field",
        "FORMATS": "formats",
    },
)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return _load(name)
