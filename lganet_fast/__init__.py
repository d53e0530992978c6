"""Deformable 3D medical image registration.

Rooms, each importing only from earlier ones: runtime, ops; config, nn; volumes; transforms,
models; metrics, losses, report; registration, data; training, evaluation; reproduction; cli.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from .lazy import MovedModules, attach
from .version import __version__

if TYPE_CHECKING:
    from . import ops
    from .errors import InputError
    from .models import LGANetPlusPlus
    from .registration.pairwise import Registration, RegistrationWarning, register
    from .transforms.composite import CompositeTransform
    from .transforms.field import DisplacementField

__all__ = [
    "CompositeTransform",
    "DisplacementField",
    "InputError",
    "LGANetPlusPlus",
    "Registration",
    "RegistrationWarning",
    "__version__",
    "ops",
    "register",
]

_load = attach(
    __name__,
    {
        "CompositeTransform": "transforms.composite",
        "DisplacementField": "transforms.field",
        "InputError": "errors",
        "LGANetPlusPlus": "models",
        "Registration": "registration.pairwise",
        "RegistrationWarning": "registration.pairwise",
        "register": "registration.pairwise",
    },
)


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    if name == "ops":
        return import_module(".ops", __name__)
    return _load(name)


sys.meta_path.append(MovedModules())
