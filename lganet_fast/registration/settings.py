"""What a registration takes and gives: roles of files, settings, checked once, and outputs.

The defaults stand here alone: DEFAULTS and RUN are what Python, the command and the help take.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import torch

    from ..volumes.nifti import Source

PathLike = str | os.PathLike[str]
WARPED, WARPED_LABELS = "warped.nii.gz", "warped_labels.nii.gz"
WARP, INVERSE_WARP = "warp.nii.gz", "inverse_warp.nii.gz"
REPORT, PAGE = "report.json", "qc.html"
OUTPUTS = (WARPED, WARP, INVERSE_WARP, WARPED_LABELS, REPORT, PAGE)
MOST_LEVELS = 8
STIFFEST = 1e6  # smoothness from which on nothing moves
PRECISIONS = ("float32", "float64")


@dataclass(frozen=True)
class Tuning:
    """What goes with a similarity measure.

    smoothness: weight of the squared gradient of the displacement. bytes_per_voxel: of the working
    grid, measured, optimising in float32. nothing_left: similarity that leaves nothing to gain: an
    image against itself with a little noise.
    """

    smoothness: float
    bytes_per_voxel: int
    nothing_left: float


TUNING = {  # of each measure of losses.dissimilarity.SIMILARITIES
    "lncc": Tuning(smoothness=1.0, bytes_per_voxel=220, nothing_left=0.02),
    "mse": Tuning(smoothness=0.1, bytes_per_voxel=220, nothing_left=1e-3),
    "mind": Tuning(smoothness=1.0, bytes_per_voxel=600, nothing_left=5e-3),
}
SMOOTHNESS = {name: tuning.smoothness for name, tuning in TUNING.items()}
ITERATIONS = (40, 40, 10, 10)
AFTER_NETWORK = (0, 0, 10, 10)


@dataclass(frozen=True, eq=False)
class Sources:
    """The images to register and what comes with them; None where there is none.

    fixed_labels, moving_labels: on their image's grid. fixed_mask: on the fixed image's.
    """

    fixed: Source | None
    moving: Source | None
    fixed_labels: Source | None = None
    moving_labels: Source | None = None
    fixed_mask: Source | None = None

    def given(self) -> dict[str, Source]:
        """Those that are there, by role."""
        found = ((role, getattr(self, role)) for role in ROLES)
        return {role: source for role, source in found if source is not None}


ROLES = tuple(field.name for field in fields(Sources))


@dataclass(frozen=True)
class Settings:
    """What a result depends on besides the images; `register` explains each.

    To be made by `check_settings`, which refuses what is not allowed.
    """

    similarity: str = "lncc"
    iterations: tuple[int, ...] = ITERATIONS
    smoothness: float = SMOOTHNESS["lncc"]
    affine: bool = False
    seed: int = 0
    precision: str = "float32"
    checkpoint: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The type that the optimiser computes in."""
        import torch

        return getattr(torch, self.precision)


@dataclass(frozen=True)
class Run:
    """How a registration is run and what is written: nothing of it changes the transform.

    `register` explains each.
    """

    out: PathLike | None = None
    device: str = "auto"
    threads: int | None = None
    qc: bool = True
    overwrite: bool = False
    share: bool = False
    quiet: bool = True

    def outputs(self, sources: Sources) -> list[str]:
        """The files that are written for a pair."""
        lacking = {WARPED_LABELS: sources.moving_labels is None, PAGE: not self.qc}
        return [name for name in OUTPUTS if not lacking.get(name)]


DEFAULTS, RUN = Settings(), Run()


def check_settings(
    similarity: str = DEFAULTS.similarity,
    iterations: Sequence[int] | None = None,
    smoothness: float | None = None,
    affine: bool = DEFAULTS.affine,
    seed: int = DEFAULTS.seed,
    precision: str = DEFAULTS.precision,
    checkpoint: PathLike | None = DEFAULTS.checkpoint,
) -> Settings:
    """Settings from what was asked for, and InputError for what is not allowed.

    None is for what goes with the rest: iterations with or without a network, the similarity's
    smoothness.
    """
    for name, value, allowed in (
        ("similarity", similarity, tuple(TUNING)),
        ("precision", precision, PRECISIONS),
    ):
        if value not in allowed:
            raise InputError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    weights = None if checkpoint is None else os.fspath(checkpoint)
    counts = check_iterations(iterations, weights is not None)
    strength = TUNING[similarity].smoothness if smoothness is None else smoothness
    if not 0 <= strength <= STIFFEST:
        wanted = f"a number from 0 on, at most {STIFFEST:g}"
        raise InputError(f"smoothness must be {wanted}, got {strength}")
    return Settings(similarity, counts, float(strength), affine, seed, precision, weights)


def check_iterations(iterations: Sequence[int] | None, network: bool) -> tuple[int, ...]:
    """The iterations per level; network: one registers first, and may do so alone.

    Raises InputError for what is not allowed.
    """
    default = AFTER_NETWORK if network else ITERATIONS
    counts = default if iterations is None else tuple(iterations)
    whole = all(isinstance(n, int) and n >= 0 for n in counts)
    idle = not any(counts) and not (network and counts)
    if not whole or idle or len(counts) > MOST_LEVELS:
        raise InputError(
            f"iterations must be 1 to {MOST_LEVELS} whole numbers from 0 on, all 0 only with a "
            "checkpoint, coarse to fine, such as "
            f"{'x'.join(map(str, ITERATIONS))}; got {'x'.join(map(str, counts)) or 'none'}"
        )
    return counts
