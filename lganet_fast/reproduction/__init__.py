"""The paper's tables and figures: what they need, what is there, what is missing, and the result.

Imports training, evaluation and all below.
"""

from __future__ import annotations

from .reproduce import Reproduction

__all__ = ["Reproduction"]
