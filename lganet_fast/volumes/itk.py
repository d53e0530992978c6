"""SimpleITK, an optional package, and conversion of volumes to its images."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from .grid import LPS, Volume


def import_simpleitk(purpose: str) -> Any:
    """Import SimpleITK. Raises InputError, which says how to install it."""
    try:
        import SimpleITK
    except ImportError as error:
        message = f"{purpose} needs SimpleITK: pip install 'lganet_fast[itk]'"
        raise InputError(message) from error
    return SimpleITK


def to_simpleitk(volume: Volume) -> Any:
    """The volume as a float32 SimpleITK image on the same grid, sheared axes made orthogonal.

    Raises InputError if SimpleITK is missing.
    """
    sitk = import_simpleitk("affine alignment")
    image = sitk.GetImageFromArray(np.asarray(volume.data, np.float32).T)
    image.SetSpacing(volume.grid.spacing.tolist())
    image.SetOrigin((LPS @ volume.grid.affine[:3, 3]).tolist())
    axes = LPS @ volume.grid.affine[:3, :3] / volume.grid.spacing
    left, _, right = np.linalg.svd(axes)
    image.SetDirection((left @ right).ravel().tolist())
    return image
