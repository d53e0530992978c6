"""The operations of deformable registration, each with a choice of backend.

All compute in the types they are given: inside torch.autocast they do what they do outside.
"""

from .attention import attention
from .compose import compose
from .convolve import convolve
from .correlate import correlate
from .dispatch import BACKENDS, OPERATIONS, choose_backend, explain, use_backend
from .gradient_loss import gradient_loss
from .integrate import integrate
from .invert import invert
from .local_ncc import local_ncc
from .norm_act import norm_act
from .resize import resize
from .warp import warp

__all__ = [
    "BACKENDS",
    "OPERATIONS",
    "attention",
    "choose_backend",
    "compose",
    "convolve",
    "correlate",
    "explain",
    "gradient_loss",
    "integrate",
    "invert",
    "local_ncc",
    "norm_act",
    "resize",
    "use_backend",
    "warp",
]
