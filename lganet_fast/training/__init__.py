"""Training a network on pairs of volumes, in one process or several, resumable at any step."""

from __future__ import annotations

from .trainer import train

__all__ = ["train"]
