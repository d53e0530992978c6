"""Displacement fields in the files of other tools.

Every field is defined on the fixed grid and maps fixed points to moving points.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib

from ..errors import InputError
from ..runtime.files import check_extension
from ..runtime.reading import reading
from ..volumes.grid import Grid
from ..volumes.itk_images import ITK_READABLE
from ..volumes.nifti import IMAGE_EXTENSIONS, NIFTI, describe_grid, open_image
from . import codecs
from .codecs import DISPLACEMENT, HDF5, VECTOR, Field, Vectors

Read = Callable[[Path, Grid | None, Grid | None], Field]
Write = Callable[[Vectors, Grid, Path, Grid | None], None]


@dataclass(frozen=True)
class Format:
    """A file format: its contents, its extensions, its reader and writer.

    read(path, fixed, moving) and write(vectors, grid, path, moving) take the grids of the two
    images for formats in voxels, None if they are not given.
    """

    holds: str
    extensions: tuple[str, ...]
    read: Read
    write: Write


def read_vectors(
    path: str | os.PathLike[str],
    format: str | None = None,
    fixed: Grid | None = None,
    moving: Grid | None = None,
) -> Field:
    """Read a displacement field: its vectors (X, Y, Z, 3) in RAS+ mm, and their grid.

    format: a name of FORMATS; by default detected from the content. fixed, moving: the images'
    grids, for formats that do not store them.
    Raises InputError if the file is unreadable, not a field, of unknown units, or lacks a grid.
    """
    path = Path(path)
    with reading(f"transform {path}"):
        if not path.is_file():
            raise InputError(f"transform {path} does not exist or is not a file")
    name = _known(format) if format else recognise(path)
    vectors, grid = FORMATS[name].read(path, fixed, moving)
    if fixed is not None and not grid.matches(fixed):
        raise InputError(
            f"transform {path} is on {describe_grid(grid)}, but the fixed image on "
            f"{describe_grid(fixed)}"
        )
    return vectors, grid


def write_vectors(
    vectors: Vectors,
    grid: Grid,
    path: str | os.PathLike[str],
    format: str | None = None,
    moving: Grid | None = None,
) -> None:
    """Write a displacement field, completely or not at all; the same field gives the same bytes.

    vectors: (X, Y, Z, 3) in RAS+ mm, on the grid.
    format: a name of FORMATS; by default "itk" for .nii, .nii.gz, .nrrd and .mha, "h5" for .h5.
    moving: the moving image's grid, for formats in voxels.
    Raises InputError for an invalid name, extension or grid, or an unwritable file.
    """
    name = _known(format) if format else format_of(path)
    check_extension(path, FORMATS[name].extensions)
    FORMATS[name].write(vectors, grid, Path(path), moving)


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of an extension. Raises InputError if there are several."""
    extension = check_extension(path, (*IMAGE_EXTENSIONS, ".h5", ".npz"))
    if extension == ".npz":
        names = [name for name, kind in FORMATS.items() if extension in kind.extensions]
        raise InputError(f"{path} can be of several formats: name one of {', '.join(names)}")
    return "h5" if extension == ".h5" else "itk"


def recognise(path: Path) -> str:
    """Detect a file's format from its content. Raises InputError if it is ambiguous."""
    with reading(f"transform {path}"), open(path, "rb") as file:
        start = file.read(8)
    if start == HDF5:
        return "h5"
    if start[:2] == b"PK":
        return _recognise_arrays(path)
    return _recognise_image(path)


def _recognise_image(path: Path) -> str:
    image, label = open_image(path, "transform")
    if path.suffix.lower() in ITK_READABLE and image.shape[3:] == (1, 3):
        return "itk"
    if not isinstance(image, nib.Nifti1Pair):  # NIfTI-2 images are of this class too
        raise InputError(f"{label} is a {type(image).__name__}, not a displacement field")
    intent = int(image.header["intent_code"])
    if len(image.shape) == 5 and image.shape[3:] == (1, 3):
        if image.header.get_intent()[2] == "Mapping":
            raise InputError(f"{label} contains coordinates (SPM deformation), not displacements")
        if intent == VECTOR:
            return "itk"
        if intent == DISPLACEMENT:
            return "slicer"
        raise InputError(
            f"{label} is a 5-D array of vectors with intent code {intent}: its units are unknown; "
            "name its format: itk (LPS mm) or slicer (RAS mm)"
        )
    if image.shape[3:] == (3,):
        raise InputError(
            f"{label} is a 4-D array (X, Y, Z, 3) with intent code {intent}: its units are "
            "unknown; name its format: learn2reg (voxels), itk (LPS mm) or slicer (RAS mm)"
        )
    raise InputError(
        f"{label} has shape {' x '.join(map(str, image.shape))}: not a displacement field, "
        "X x Y x Z x 1 x 3"
    )


def _recognise_arrays(path: Path) -> str:
    arrays = codecs.array_shapes(path)
    if set(codecs.NPZ_KEYS) <= set(arrays):
        return "npz"
    shapes = list(arrays.values())
    if len(shapes) == 1 and len(shapes[0]) == 4:
        if shapes[0][-1] == 3:
            return "learn2reg"
        if shapes[0][0] == 3:
            return "learn2reg2021"
    found = ", ".join(f"{name} {shape}" for name, shape in arrays.items())
    raise InputError(f"transform {path} contains no known kind of field: {found or 'nothing'}")


def _known(name: str) -> str:
    if name not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    return name


NPZ = (".npz",)
FORMATS = {
    "itk": Format(
        "ITK / ANTs displacement field: LPS mm",
        IMAGE_EXTENSIONS,
        codecs.read_itk,
        codecs.write_itk,
    ),
    "slicer": Format(
        "3D Slicer displacement field: RAS mm, NIfTI intent 1006",
        NIFTI,
        codecs.read_slicer,
        codecs.write_slicer,
    ),
    "h5": Format(
        "ITK composite transform",
        codecs.HDF5_EXTENSIONS,
        codecs.read_composite,
        codecs.write_composite,
    ),
    "learn2reg": Format(
        "Learn2Reg today: voxels, (X, Y, Z, 3)",
        (*NIFTI, *NPZ),
        codecs.read_learn2reg,
        codecs.write_learn2reg,
    ),
    "learn2reg2021": Format(
        "Learn2Reg 2020 and 2021: float16 voxels at half resolution, (3, X/2, Y/2, Z/2)",
        NPZ,
        codecs.read_learn2reg2021,
        codecs.write_learn2reg2021,
    ),
    "npz": Format(
        "voxels, (X, Y, Z, 3), with both images' affines and shapes",
        NPZ,
        codecs.read_npz,
        codecs.write_npz,
    ),
}
