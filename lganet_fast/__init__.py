"""Deformable 3D medical image registration."""

from . import ops
from .errors import InputError
from .registration import Registration, RegistrationWarning, register
from .transform import DisplacementField
from .version import __version__

__all__ = [
    "DisplacementField",
    "InputError",
    "Registration",
    "RegistrationWarning",
    "__version__",
    "ops",
    "register",
]
