"""Loss functions of registration and training: dissimilarity of images and labels, folding.

Imports transforms and the rooms before it.
"""

from typing import Any

from ..lazy import attach

__all__ = [
    "SIMILARITIES",
    "Similarity",
    "dice_loss",
    "folding_loss",
    "lncc_loss",
    "mi_loss",
    "mind_ssc",
    "mse_loss",
    "soft_dice",
    "weighted_mean",
]

_load = attach(
    __name__,
    {
        "SIMILARITIES": "dissimilarity",
        "Similarity": "dissimilarity",
        "dice_loss": "dissimilarity",
        "folding_loss": "dissimilarity",
        "lncc_loss": "dissimilarity",
        "mi_loss": "dissimilarity",
        "mind_ssc": "dissimilarity",
        "mse_loss": "dissimilarity",
        "soft_dice": "dissimilarity",
        "weighted_mean": "dissimilarity",
    },
)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return _load(name)
