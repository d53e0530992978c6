"""Linear alignment of a pair, from any starting pose: rigid, similarity or affine."""

from .alignment import INITIALS, Initial, LinearResult, align

__all__ = ["INITIALS", "Initial", "LinearResult", "align"]
