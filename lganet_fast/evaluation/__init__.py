"""Every pair of a split registered, scored and compared: tables and figures."""

from .run import evaluate

__all__ = ["evaluate"]
