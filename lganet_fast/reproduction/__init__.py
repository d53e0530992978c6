"""The paper's tables and figures: all steps, the missing steps, and the result.

Imports training, evaluation and all rooms below.
"""

from __future__ import annotations

from .reproduce import Reproduction

__all__ = ["Reproduction"]
