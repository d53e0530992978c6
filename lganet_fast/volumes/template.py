"""The MNI152 template that nilearn ships, with its tissue classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .grid import Grid, Volume

TISSUES = {1: "CSF and other", 2: "grey matter", 3: "white matter"}
MARGIN_MM = 15.0  # around the brain: deformations fall to 0 there


def load_template(resolution: int) -> tuple[Volume, Volume]:
    """The MNI152 T1 brain and its tissue classes (keys of TISSUES), from nilearn's package data.

    resolution: voxel size in mm. Raises InputError without nilearn.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        message = "the MNI152 template needs nilearn: pip install 'lganet_fast[demo]'"
        raise InputError(message) from error
    image = datasets.load_mni152_template(resolution=resolution)
    brain, grey, white = (
        load(resolution=resolution).get_fdata()
        for load in (
            datasets.load_mni152_brain_mask,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    )
    tissues = 1 + np.argmax([1 - grey - white, grey, white], 0)
    part, grid = crop(brain > 0, Grid(image.shape, image.affine))
    data = np.where(brain > 0, image.get_fdata(), 0).clip(0).astype(np.float32)
    labels = np.where(brain > 0, tissues, 0).astype(np.int32)
    return Volume(data[part], grid, "template"), Volume(labels[part], grid, "tissues")


def crop(inside: NDArray[np.bool_], grid: Grid) -> tuple[tuple[slice, ...], Grid]:
    """The box around `inside` with MARGIN_MM, as slices and as a grid."""
    margin = np.ceil(MARGIN_MM / grid.spacing).astype(int)
    where = np.nonzero(inside)
    first = np.maximum([i.min() for i in where] - margin, 0)
    last = np.minimum([i.max() for i in where] + margin + 1, grid.shape)
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(first)
    part = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    size = last - first
    return part, Grid((int(size[0]), int(size[1]), int(size[2])), affine)
