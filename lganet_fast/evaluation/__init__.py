"""Registering and scoring every pair of a split, comparing methods, tables and figures."""

from .run import evaluate

__all__ = ["evaluate"]
