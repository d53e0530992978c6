"""Label maps as a few images whose mean squared difference says how well the labels overlap.

An image per label, 1 in the label and 0 elsewhere, is too much memory for many labels. Here every
label has a code, a short vector of unit length, and the images are the components of the code of
the label at each voxel. Where codes are orthogonal, the squared difference of the codes is that of
the images of single labels. Up to CODES labels have orthogonal codes; more have random ones, which
are so on average (Johnson and Lindenstrauss, 1984).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..volumes.grid import Array, Grid, Volume
from .channels import Place
from .pair import Pair

CODES = 8  # images at most


def codes_of(count: int) -> Array:
    """(count, C) vectors of unit length, C at most CODES: the same at every call."""
    if count <= CODES:
        return np.eye(count)
    vectors = np.random.RandomState(0).standard_normal((count, CODES))  # its numbers never change
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def coded_labels(pair: Pair, place: Place) -> tuple[Tensor, Tensor]:
    """The fixed and the moving labels on the working grid, coded: (1, C, H, W, D) each.

    Of labels that both maps have; others are background. The mean squared difference over channels
    and voxels is the mean of 1 - Dice over labels: |A - B|^2 = (|A| + |B|) (1 - Dice), so label l
    is scaled by the square root of C voxels / (labels (|A| + |B|)).
    Raises InputError without both maps, or if they have no label in common.
    """
    maps = pair.fixed_labels, pair.moving_labels
    for role, labels in zip(("fixed_labels", "moving_labels"), maps, strict=True):
        if labels is None:
            raise InputError(f"guide_labels needs {role}")
    fixed, moving = (labels for labels in maps if labels is not None)
    found = [np.unique(x.data, return_counts=True) for x in (fixed, moving)]
    counts = [dict(zip(names.tolist(), sizes, strict=True)) for names, sizes in found]
    common = sorted(label for label in counts[0] if label != 0 and label in counts[1])
    if not common:
        raise InputError("fixed_labels and moving_labels have no label in common to guide by")
    voxel = [voxel_size(x.grid) for x in (fixed, moving, place)]
    voxel[1] /= abs(np.linalg.det(place.affine[:3, :3]))
    sizes = sum(
        np.array([count[label] for label in common]) * (size / voxel[2])
        for count, size in zip(counts, voxel[:2], strict=True)
    )
    codes = codes_of(len(common))
    scale = np.sqrt(codes.shape[1] * place.grid.size / (len(common) * sizes))
    table = np.vstack([np.zeros(codes.shape[1]), codes * scale[:, None]]).astype(np.float32)
    return (
        coded(fixed, common, table, place, moving=False),
        coded(moving, common, table, place, moving=True),
    )


def voxel_size(grid: Grid) -> float:
    """The volume of a voxel in mm^3; of a 2D image its area in mm^2."""
    solid = np.array(grid.shape) > 1
    return float(grid.spacing[solid].prod())


def coded(labels: Volume, names: list[int], table: NDArray, place: Place, moving: bool) -> Tensor:
    """A label map by a table of codes, whose row 0 is for voxels of other labels."""
    last = np.minimum(np.searchsorted(names, labels.data), len(names) - 1)
    row = np.where(np.asarray(names)[last] == labels.data, last + 1, 0)
    parts = (
        place.pull(Volume(column[row], labels.grid, labels.name), moving) for column in table.T
    )
    return torch.cat([part.to(place.dtype) for part in parts], 1)
