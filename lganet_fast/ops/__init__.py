"""The operations of deformable registration, each with a choice of backend.

All compute in the types of their arguments; torch.autocast does not change them.
"""

from .attention import attention
from .compose import compose
from .convolve import convolve, convolve_moments
from .convolve_on_cuda import Norm
from .correlate import correlate
from .derived import derived
from .dispatch import BACKENDS, choose_backend, explain, use_backend
from .feed_forward import feed_forward
from .gradient_loss import gradient_loss
from .integrate import integrate
from .invert import invert
from .local_ncc import local_ncc
from .mutual_information import mutual_information
from .neighbour_attention import neighbour_attention
from .norm_act import norm_act
from .operations import OPERATIONS
from .pool import pool
from .resize import resize
from .warp import warp
from .warp_sum import warp_sum
from .weigh import weigh

__all__ = [
    "BACKENDS",
    "OPERATIONS",
    "Norm",
    "attention",
    "choose_backend",
    "compose",
    "convolve",
    "convolve_moments",
    "correlate",
    "derived",
    "explain",
    "feed_forward",
    "gradient_loss",
    "integrate",
    "invert",
    "local_ncc",
    "mutual_information",
    "neighbour_attention",
    "norm_act",
    "pool",
    "resize",
    "use_backend",
    "warp",
    "warp_sum",
    "weigh",
]
