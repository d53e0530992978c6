"""A registration with known ground truth: real anatomy against its own deformed copy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import zoom

from ..ops import integrate
from ..runtime.machine import choose_device, set_threads
from ..transforms.field import DisplacementField
from ..volumes import nifti
from ..volumes.grid import Array, Grid, Volume
from ..volumes.template import TISSUES, load_template
from .pairwise import Registration, register
from .settings import DEMO_SEED, RUN

PEAK_MM = 9.0  # largest velocity
DEFORMATION_MM = 30.0  # distance between the random numbers of the velocity
BIAS_MM = 50.0  # the same for the bias field
BIAS = 0.2  # largest fraction by which the bias field brightens or darkens
NOISE = 0.03  # standard deviation, as a fraction of the brightest voxel's intensity


@dataclass(frozen=True, eq=False)
class DemoPair:
    """A fixed and a moving image with tissue classes, and the field between them.

    truth: fixed points to moving points. brain: (X, Y, Z), mask of the brain in the fixed image.
    """

    fixed: Volume
    moving: Volume
    fixed_labels: Volume
    moving_labels: Volume
    truth: DisplacementField
    brain: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DemoResult:
    """A registration and its errors.

    error_before, error_after: distance in mm between the true and the estimated position of a brain
    voxel in the moving image, without and with the registration: "mean", "p95", "max".
    """

    registration: Registration
    error_before: dict[str, float]
    error_after: dict[str, float]


def run_demo(
    out: str | os.PathLike[str],
    *,
    seed: int = DEMO_SEED,
    device: str = RUN.device,
    threads: int | None = RUN.threads,
    quiet: bool = RUN.quiet,
    resolution: int = 2,
) -> DemoResult:
    """Deform the MNI152 template, register it to its copy, and compare with the ground truth.

    out: folder for the output of `register`, and for the pair itself with `truth.nii.gz`.
    seed: of the deformation, the bias field and the noise. resolution: voxel size in mm.
    Raises InputError for an unusable device or folder, or without nilearn.
    """
    choose_device(device)
    set_threads(threads)
    pair = make_pair(*load_template(resolution), seed)
    result = register(
        (pair.fixed.data, pair.fixed.grid.affine),
        (pair.moving.data, pair.moving.grid.affine),
        fixed_labels=(pair.fixed_labels.data, pair.fixed_labels.grid.affine),
        moving_labels=(pair.moving_labels.data, pair.moving_labels.grid.affine),
        out=out,
        device=device,
        threads=threads,
        quiet=quiet,
    )
    save_pair(pair, Path(out))
    truth = pair.truth.displacement[pair.brain]
    found = result.transform.displacement[pair.brain]
    return DemoResult(result, distances(truth), distances(found - truth))


def make_pair(template: Volume, tissues: Volume, seed: int) -> DemoPair:
    """Make a pair: the template, and its copy with a deformation, a bias field and noise.

    With phi = exp(v) of a smooth random velocity v, moving(y) = template(phi(y)), so a fixed
    point x lies at phi^-1(x) in the moving image.
    template, tissues: on one grid; voxels where tissues is 0 are background.
    """
    random = np.random.default_rng(seed)
    grid = template.grid
    phi, guess = deformation(grid, random)
    labels = phi.apply(tissues, interpolation="label")
    bias = smooth_noise(grid, BIAS_MM, random)
    bias = 1 + BIAS * bias / np.abs(bias).max()
    noise = NOISE * template.data.max() * random.standard_normal(grid.shape)
    seen = phi.apply(template).data * bias + noise
    moving = np.where(labels.data > 0, seen.clip(0), 0).astype(np.float32)
    return DemoPair(
        template,
        Volume(moving, grid, "moving"),
        tissues,
        labels,
        phi.invert(guess=guess),
        tissues.data > 0,
    )


def deformation(
    grid: Grid, random: np.random.Generator
) -> tuple[DisplacementField, DisplacementField]:
    """A smooth random deformation of a grid, and nearly its inverse."""
    velocity = np.stack([smooth_noise(grid, DEFORMATION_MM, random, fade=True) for _ in range(3)])
    velocity *= PEAK_MM / np.sqrt((velocity**2).sum(0)).max() / grid.spacing.reshape(3, 1, 1, 1)
    return exponential(velocity, grid), exponential(-velocity, grid)


def smooth_noise(
    grid: Grid, distance: float, random: np.random.Generator, fade: bool = False
) -> Array:
    """A cubic spline through normal random numbers `distance` mm apart, on the grid.

    fade: let the values fall to 0 at the grid's border.
    """
    count = np.round((np.array(grid.shape) - 1) * grid.spacing / distance).astype(int) + 1
    knots = random.standard_normal(np.maximum(count, 4))
    if fade:
        knots = np.pad(knots[1:-1, 1:-1, 1:-1], 1)
    return zoom(knots, np.array(grid.shape) / knots.shape, order=3, mode="nearest")


def exponential(velocity: Array, grid: Grid) -> DisplacementField:
    """The exponential of a stationary velocity, (3, X, Y, Z) in voxels."""
    flow = integrate(torch.from_numpy(velocity).float()[None])[0].numpy()
    return DisplacementField.from_voxels(np.moveaxis(flow, 0, -1), grid, grid)


def distances(vectors: NDArray) -> dict[str, float]:
    """Mean, 95th percentile and maximum length of (N, 3) vectors."""
    lengths = np.sqrt((vectors.astype(float) ** 2).sum(-1))
    return {
        "mean": float(lengths.mean()),
        "p95": float(np.percentile(lengths, 95)),
        "max": float(lengths.max()),
    }


def save_pair(pair: DemoPair, folder: Path) -> None:
    """Write the pair and the true field beside the results."""
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        volume: Volume = getattr(pair, name)
        nifti.save_volume(folder / f"{name}.nii.gz", volume.data, volume.grid)
    pair.truth.save(folder / "truth.nii.gz")


def tissue_dice(result: DemoResult) -> list[tuple[str, float, float]]:
    """Name, Dice before and Dice after of each tissue class."""
    labels = result.registration.details.labels
    assert labels is not None  # the demo's pair has labels
    return [(TISSUES[row.label], row.dice_before, row.dice_after) for row in labels.per_label]
