"""Registering a pair or a cohort: reading, affine alignment, search, result and its measures.

Imports metrics, losses, models, report and the rooms before them.
"""

from typing import Any

from ..lazy import attach

__all__ = [
    "Registration",
    "RegistrationWarning",
    "register",
    "register_pairs",
]

_load = attach(
    __name__,
    {
        "Registration": "pairwise",
        "RegistrationWarning": "pairwise",
        "register": "pairwise",
        "register_pairs": "cohort",
    },
)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return _load(name)
