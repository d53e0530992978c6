"""Deformable 3D medical image registration."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import ops
    from .errors import InputError
    from .models import LGANetPlusPlus
    from .registration import Registration, RegistrationWarning, register
    from .transform import DisplacementField

# Read when first used, so that the command answers before torch has loaded.
_HOME = {
    "DisplacementField": "transform",
    "InputError": "errors",
    "LGANetPlusPlus": "models",
    "Registration": "registration",
    "RegistrationWarning": "registration",
    "register": "registration",
}

__all__ = [
    "DisplacementField",
    "InputError",
    "LGANetPlusPlus",
    "Registration",
    "RegistrationWarning",
    "__version__",
    "ops",
    "register",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name == "ops":
        return import_module(".ops", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
