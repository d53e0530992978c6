"""What a registration takes and gives: roles of files, settings, checked once, and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import torch

ROLES = ("fixed", "moving", "fixed_labels", "moving_labels", "fixed_mask")
OUTPUTS = (
    "warped.nii.gz",
    "warp.nii.gz",
    "inverse_warp.nii.gz",
    "warped_labels.nii.gz",
    "report.json",
    "qc.html",
)
ITERATIONS = (40, 40, 10, 10)
AFTER_NETWORK = (0, 0, 10, 10)
SMOOTHNESS = {"lncc": 1.0, "mse": 0.1, "mind": 1.0}
STIFFEST = 1e6  # smoothness from which on nothing moves
PRECISIONS = ("float32", "float64")


@dataclass(frozen=True)
class Settings:
    """What a result depends on besides the pair; `register` explains each.

    Raises InputError for a value that is not allowed.
    """

    similarity: str
    iterations: tuple[int, ...]
    smoothness: float
    affine: bool
    seed: int
    precision: str
    checkpoint: str | None

    @property
    def dtype(self) -> torch.dtype:
        """The type that the optimiser computes in."""
        import torch

        return getattr(torch, self.precision)


def check_settings(
    similarity: str,
    iterations: Sequence[int] | None,
    smoothness: float | None,
    affine: bool,
    seed: int,
    precision: str,
    checkpoint: str | None = None,
) -> Settings:
    """Fill in defaults and refuse, by InputError, what is not allowed."""
    for name, value, allowed in (
        ("similarity", similarity, tuple(SMOOTHNESS)),
        ("precision", precision, PRECISIONS),
    ):
        if value not in allowed:
            raise InputError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    default = ITERATIONS if checkpoint is None else AFTER_NETWORK
    counts = default if iterations is None else tuple(iterations)
    whole = all(isinstance(n, int) and n >= 0 for n in counts)
    idle = not any(counts) and (checkpoint is None or not counts)
    if not whole or idle or len(counts) > 8:
        raise InputError(
            "iterations must be 1 to 8 whole numbers from 0 on, all 0 only with a checkpoint, "
            "coarse to fine, such as "
            f"{'x'.join(map(str, ITERATIONS))}; got {'x'.join(map(str, counts)) or 'none'}"
        )
    strength = SMOOTHNESS[similarity] if smoothness is None else smoothness
    if not 0 <= strength <= STIFFEST:
        wanted = f"a number from 0 on, at most {STIFFEST:g}"
        raise InputError(f"smoothness must be {wanted}, got {strength}")
    return Settings(similarity, counts, float(strength), affine, seed, precision, checkpoint)
