"""Linear alignment of a pair, from any starting pose: rigid, similarity or affine."""

from .alignment import LinearResult, align

__all__ = ["LinearResult", "align"]
