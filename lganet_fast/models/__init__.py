"""The networks, and their checkpoints."""

from .lganetpp import LGANetPlusPlus
from .published import PublishedLGANetPlusPlus

__all__ = ["LGANetPlusPlus", "PublishedLGANetPlusPlus"]
