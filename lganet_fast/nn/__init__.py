"""The blocks of LGANet++, named as in the paper; tensors are (B, C, H, W, D), flows in voxels."""

from .decoder import CoarsestLevel, Level
from .encoder import Encoder
from .fifm import CWAM, IDM
from .lgam import LGAM, PositionAttention
from .msfm import MSFM, SDI

__all__ = [
    "CWAM",
    "IDM",
    "LGAM",
    "MSFM",
    "SDI",
    "CoarsestLevel",
    "Encoder",
    "Level",
    "PositionAttention",
]
