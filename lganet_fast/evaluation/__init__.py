"""Every pair of a split registered and scored, compared with other methods, in tables and figures."""

from .run import evaluate

__all__ = ["evaluate"]
