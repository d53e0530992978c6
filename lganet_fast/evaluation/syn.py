"""ANTs' SyN by the optional package antspyx: the classical method to compare networks with.

Its transforms are converted to a flow, so that the same code scores it as every other method.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import Sample
from ..errors import InputError
from ..transforms.field import DisplacementField
from ..volumes.grid import LPS, Grid
from ..volumes.resample import channels_first

SEED = 1  # of the voxels at which the similarity is sampled


def import_ants() -> Any:
    """Import antspyx. Raises InputError, which says how to install it."""
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", str(torch.get_num_threads()))
    try:
        import ants
    except ImportError as error:
        raise InputError("SyN needs antspyx: pip install 'lganet_fast[ants]'") from error
    return ants


def syn_settings() -> dict[str, Any]:
    """The settings that SyN's results depend on."""
    return {"antspyx": version("antspyx"), "type_of_transform": "SyN", "random_seed": SEED}


def syn_flow(sample: Sample) -> Tensor:
    """The flow (1, 3, H, W, D), in voxels, by which SyN registers a sample.

    The images are on the fixed grid, as for networks. SyN runs with antspyx's defaults: an affine
    stage, then symmetric normalisation by mutual information. ANTs composes its two transforms to
    one field. Raises InputError if antspyx is missing.
    """
    ants = import_ants()
    grid = sample.grid
    fixed, moving = (image(ants, data, grid) for data in (sample.fixed, sample.moving))
    with TemporaryDirectory(prefix="lganet-fast-") as folder:
        found = ants.registration(
            fixed, moving, "SyN", outprefix=f"{folder}/stage", random_seed=SEED
        )
        steps = found["fwdtransforms"]
        path = ants.apply_transforms(fixed, moving, steps, compose=f"{folder}/whole")
        field = DisplacementField.load(Path(path), "itk")
    return channels_first(DisplacementField(field.displacement, grid).voxels(grid))


def image(ants: Any, data: NDArray, grid: Grid) -> Any:
    """An array on a grid as an ANTs image; sheared axes made orthogonal."""
    axes = LPS @ grid.affine[:3, :3] / grid.spacing
    left, _, right = np.linalg.svd(axes)
    return ants.from_numpy(
        np.asarray(data, np.float32),
        origin=(LPS @ grid.affine[:3, 3]).tolist(),
        spacing=grid.spacing.tolist(),
        direction=left @ right,
    )
