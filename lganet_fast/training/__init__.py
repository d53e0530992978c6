"""Training: a network from pairs of volumes, on one process or many, resumable at any step."""

from __future__ import annotations

from .trainer import train

__all__ = ["train"]
