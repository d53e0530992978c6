"""The networks, and their checkpoints."""

from .lganetpp import LGANetPlusPlus
from .network import Network
from .published import PublishedLGANetPlusPlus
from .registry import create, names

__all__ = ["LGANetPlusPlus", "Network", "PublishedLGANetPlusPlus", "create", "names"]
