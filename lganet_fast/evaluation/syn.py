"""ANTs' SyN, by antspyx where it is installed: the classical method that networks are held against.

Its transforms come back as a flow, so that it is scored by the same code as every other method.
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

SEED = 1  # of the voxels that the similarity is taken at


def import_ants() -> Any:
    """Antspyx, or one line on how to get it. Raises InputError."""
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", str(torch.get_num_threads()))
    try:
        import ants
    except ImportError as error:
        raise InputError("SyN needs antspyx: pip install 'lganet_fast[ants]'") from error
    return ants


def syn_settings() -> dict[str, Any]:
    """What SyN's results depend on."""
    return {"antspyx": version("antspyx"), "type_of_transform": "SyN", "random_seed": SEED}


def syn_flow(sample: Sample) -> Tensor:
    """The flow (1, 3, H, W, D), in voxels, by which SyN registers a sample.

    The images are on the fixed one's grid, as they are for networks. SyN runs as antspyx has it by
    default: an affine stage, then symmetric normalisation by mutual information. Its two transforms
    are composed to one field by ANTs. Raises InputError where antspyx is missing.
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
