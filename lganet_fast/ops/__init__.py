"""The operations of deformable registration, each with a choice of backend."""

from .attention import attention
from .compose import compose
from .correlate import correlate
from .dispatch import BACKENDS, OPERATIONS, choose_backend, explain, use_backend
from .integrate import integrate
from .local_ncc import local_ncc
from .warp import warp

__all__ = [
    "BACKENDS",
    "OPERATIONS",
    "attention",
    "choose_backend",
    "compose",
    "correlate",
    "explain",
    "integrate",
    "local_ncc",
    "use_backend",
    "warp",
]
