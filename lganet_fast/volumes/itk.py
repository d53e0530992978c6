"""SimpleITK, an optional package."""

from __future__ import annotations

from typing import Any

from ..errors import InputError


def import_simpleitk(purpose: str) -> Any:
    """Import SimpleITK. Raises InputError, which says how to install it."""
    try:
        import SimpleITK
    except ImportError as error:
        message = f"{purpose} needs SimpleITK: pip install 'lganet_fast[itk]'"
        raise InputError(message) from error
    return SimpleITK
