"""Reading and checking volumes, and writing them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, InputWarning, one_line
from ..runtime.files import atomic, check_extension, sha256
from ..runtime.reading import reading
from .grid import FARTHEST, Array, Forms, Grid, Volume
from .headers import disagreements, forms_of, listening, placement
from .itk_images import ITK_READABLE, ITK_WRITABLE, open_itk, save_itk
from .values import check_whole, files_of, read_values

Source: TypeAlias = str | os.PathLike[str] | nib.spatialimages.SpatialImage | tuple[Any, Any]

NIFTI = (".nii", ".nii.gz")
IMAGE_EXTENSIONS = (*NIFTI, *ITK_WRITABLE)  # of files written
READABLE = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img", *ITK_READABLE)  # in data sets
LARGEST_LABEL = np.iinfo(np.int32).max
LARGEST_VALUE = 1e15  # of an image: sums of squares must fit into float32
SMALLEST_VOXEL = 1e-6  # mm


def stem(path: Path) -> str:
    """An image's name without its extension."""
    for extension in READABLE:
        if path.name.lower().endswith(extension):
            return path.name[: -len(extension)]
    return path.stem


def load_image(source: Source, role: str) -> Volume:
    """Read an image as float32.

    source: a path (.nii, .nii.gz, .mgz or another format of nibabel; through SimpleITK .nrrd,
    .nhdr, .mha, .mhd, .dcm, or a folder with one DICOM series), a nibabel image, or a pair (array
    (X, Y, Z), affine (4, 4) from voxel index to RAS+ mm). A fourth axis of length 1 is dropped,
    and a 2D array (X, Y) becomes (X, Y, 1). NaN becomes background, with a warning. role: the name
    in messages, such as "fixed".
    Raises InputError unless it is a readable volume of real, finite numbers that is not constant.
    """
    image, label = open_image(source, role)
    grid = noted_grid(image, label)
    stored = without_nan(read_values(image, label), label)
    with np.errstate(over="ignore"):
        data = stored.reshape(grid.shape).astype(np.float32)
    if not max(data.max(), -data.min()) <= LARGEST_VALUE:
        raise InputError(f"{label} has values beyond {LARGEST_VALUE:g} in magnitude")
    if data.min() == data.max():
        raise InputError(f"{label} is constant: every voxel is {data.flat[0]:g}")
    return Volume(data, grid, label)


def load_labels(source: Source, role: str, grid: Grid | None = None) -> Volume:
    """Read a label map as int32: whole numbers from 0 on, in integers, scaled ones, or floats.

    source, role: as in `load_image`. grid: the required grid, if given.
    Raises InputError as `load_image` does (a constant map is allowed), for a value that is not a
    label, and for another grid.
    """
    image, label = open_image(source, role)
    own = noted_grid(image, label)
    if grid is not None:
        check_same_grid(own, grid, label)
    data = read_values(image, label).reshape(own.shape)
    if data.dtype.kind == "f":
        _check_finite(data, label)
        whole = np.round(data)
        odd = data[np.abs(data - whole) > 1e-4 + 1e-6 * np.abs(data)]  # of scaled integers
        if odd.size:
            raise InputError(f"{label} must contain whole numbers, found {odd[0]:g}")
        data = whole
    if data.min() < 0:
        raise InputError(f"{label} must contain labels from 0 on, found {data.min():g}")
    if data.max() > LARGEST_LABEL:
        raise InputError(f"{label} contains {data.max():g}; the largest label is {LARGEST_LABEL}")
    return Volume(data.astype(np.int32), own, label)


def load_mask(source: Source, role: str, grid: Grid | None = None) -> Volume:
    """Read a mask as bool: any value other than 0 is inside. Arguments as in `load_labels`.

    Raises InputError as `load_labels` does, and for an empty mask.
    """
    labels = load_labels(source, role, grid)
    mask = labels.data != 0
    if not mask.any():
        raise InputError(f"{labels.name} is empty: no voxel differs from 0")
    return Volume(mask, labels.grid, labels.name)


def load_grid(source: Source, role: str) -> Grid:
    """Read an image's grid, whatever its values are. Arguments and errors as `load_image`."""
    image, label = open_image(source, role)
    check_whole(image, label)
    return noted_grid(image, label)


def check_solid(grid: Grid, label: str) -> None:
    """Raise InputError for a 2D image. label: the name in messages."""
    if grid.flat is not None:
        size = " x ".join(map(str, grid.shape))
        raise InputError(
            f"{label} has shape {size}: a volume with at least 2 voxels along 3 axes is needed"
        )


def check_same_grid(own: Grid, grid: Grid, label: str) -> None:
    """Raise InputError if `own` is not its image's grid. label: the name in messages."""
    if not own.matches(grid):
        raise InputError(
            f"{label} is on {describe_grid(own)}, but must be on its image's grid, "
            f"{describe_grid(grid)}"
        )


def describe(source: Source, role: str = "image") -> dict[str, Any]:
    """The report's entry on an input: path, sha256, shape, spacing_mm and orientation.

    path and sha256 (of its file, or files in the order of their names) are None for an image in
    memory. orientation: the world direction of each array axis, such as "RAS".
    Raises InputError if the image cannot be read.
    """
    image, label = open_image(source, role)
    grid = image_grid(image, label)
    path = digest = None
    if isinstance(source, str | os.PathLike):
        with reading(label):
            path, digest = os.fspath(source), sha256(*files_of(image))
    return {
        "path": path,
        "sha256": digest,
        "shape": list(grid.shape),
        "spacing_mm": [round(float(s), 6) for s in grid.spacing],
        "orientation": orientation(grid),
    }


def orientation(grid: Grid) -> str:
    """The world direction of each array axis, such as "RAS" or "LPI"."""
    return "".join(nib.aff2axcodes(grid.affine))


def describe_grid(grid: Grid) -> str:
    """One phrase that identifies a grid: size, spacing, orientation, position of voxel 0."""
    spacing = " x ".join(f"{s:.4g}" for s in grid.spacing)
    origin = ", ".join(f"{x:.5g}" for x in grid.affine[:3, 3])
    size = " x ".join(map(str, grid.shape))
    return f"{size} voxels of {spacing} mm ({orientation(grid)}, first voxel at {origin} mm)"


def open_image(source: Source, role: str) -> tuple[nib.spatialimages.SpatialImage, str]:
    """The source as a nibabel image whose data are not read yet, and its name in messages.

    Raises InputError if it is missing, unreadable or not an image.
    """
    if isinstance(source, nib.spatialimages.SpatialImage):
        return source, role
    if isinstance(source, tuple) and len(source) == 2:
        with reading(role, "is not an array"):
            data = np.asarray(source[0])
        affine = check_affine(source[1], role)
        if data.dtype == bool:
            data = data.astype(np.uint8)
        with reading(f"{role} of {data.dtype} values", "cannot be used as an image"):
            # nibabel requires an explicit type for 64-bit integers
            return nib.Nifti1Image(data, affine, dtype=data.dtype), role
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"{role} is a {type(source).__name__}: pass a path, a nibabel image or a pair "
            "(array, affine)"
        )
    path = Path(source)
    label = f"{role} {path}"
    with reading(label):
        if not path.exists():
            raise InputError(f"{label} does not exist")
        if not (path.is_file() or path.is_dir()):
            raise InputError(f"{label} is not a file")
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(f"{label} is empty: 0 bytes")
    with reading(label, "cannot be read as an image"), listening() as notes:
        itk = path.is_dir() or path.suffix.lower() in ITK_READABLE
        image = open_itk(path, label) if itk else nib.load(path)
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise InputError(f"{label} contains a {type(image).__name__}, not a volume")
    for note in notes:
        warn(f"{label}: {note}; other tools may place or read its voxels differently")
    return image, label


def warn(message: str) -> None:
    """Warn the user in one line."""
    warnings.warn(one_line(message), InputWarning, stacklevel=2)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect the block's warnings about its input; other warnings are issued as before."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        yield found
    for one in caught:
        if not issubclass(one.category, InputWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        elif str(one.message) not in found:
            found.append(str(one.message))


def noted_grid(image: nib.spatialimages.SpatialImage, label: str, series: bool = False) -> Grid:
    """As `image_grid`, with a warning if other tools may place the voxels elsewhere."""
    grid = image_grid(image, label, series)
    for note in disagreements(image, grid):
        warn(f"{label}: {note}")
    return grid


def image_grid(image: nib.spatialimages.SpatialImage, label: str, series: bool = False) -> Grid:
    """The grid of a nibabel image. Raises InputError unless it is one volume in world space.

    A 2D image has a single voxel along one axis, the third if it has two. series: also allow
    several volumes, along the fourth axis.
    """
    with reading(label):
        size = tuple(int(n) for n in image.shape)
    shape, rest = size[:3], size[3:]
    found = f"{label} has shape {' x '.join(map(str, size))}"
    if any(n < 1 for n in size):
        raise InputError(f"{found}: it is empty")
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) < 3 or shape.count(1) > 1:
        raise InputError(f"{found}: at least 2 voxels along 2 axes are needed, or along 3")
    if len(rest) > 1 and rest[0] == 1 and max(rest) > 1:
        raise InputError(f"{found}: {max(rest)} values per voxel, one is needed")
    if (count := math.prod(rest)) != 1 and not (series and len(rest) == 1):
        raise InputError(f"{found}: {count} time points, one is needed")
    affine = check_affine(placement(image, label), label)
    return Grid((shape[0], shape[1], shape[2]), affine, forms_of(image))


def save_volume(
    path: str | os.PathLike[str],
    data: NDArray,
    grid: Grid,
    step: float = 0.0,
    unit: str = "unknown",
) -> None:
    """Write a volume: float32 for floats, the smallest integer type that holds integers.

    path: ends in .nii, .nii.gz or, through SimpleITK, .nrrd or .mha. data: (X, Y, Z) or, of a
    series, (X, Y, Z, N). step, unit: see `series.Series`. The same data always give the same bytes.
    Raises InputError for another extension, or if the file cannot be written.
    """
    extension = check_extension(path, IMAGE_EXTENSIONS)
    if data.dtype.kind == "f":
        data = data.astype(np.float32, copy=False)
    else:
        types = (np.uint8, np.int16, np.int32, np.int64)
        low, high = int(data.min()), int(data.max())
        fits = (t for t in types if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
        data = data.astype(next(fits, np.uint64), copy=False)
    if extension in ITK_WRITABLE:
        save_itk(path, data, grid, step=step)
    else:
        save_nifti(path, data, grid, forms=grid.forms, step=step, unit=unit)


def save_nifti(
    path: str | os.PathLike[str],
    data: NDArray,
    grid: Grid,
    intent: int | None = None,
    forms: Forms | None = None,
    step: float = 0.0,
    unit: str = "unknown",
) -> None:
    """Write an array unchanged, with the grid's affine as both sform and qform.

    intent: a NIfTI intent code. forms: qform and sform to write instead, if given.
    Raises InputError if the file cannot be written, and for values that are NaN or infinite.
    """
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(f"cannot write {path}: values would be NaN or infinite")
    image = nifti_image(data, grid, intent, forms, unit)
    if step:
        image.header["pixdim"][4] = step
    with atomic(path) as temporary, open(temporary, "wb") as file:
        if temporary.suffix.lower() == ".gz":
            with igzip.IGzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(file)


def nifti_image(
    data: NDArray,
    grid: Grid,
    intent: int | None = None,
    forms: Forms | None = None,
    unit: str = "unknown",
) -> nib.Nifti1Image:
    """An array with the header that `save_nifti` writes; the arguments are those of it."""
    image = nib.Nifti1Image(data, grid.affine, dtype=data.dtype)
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1)
    # A qform cannot represent shear: better none than a wrong one.
    if not grid.matches(Grid(grid.shape, image.get_qform())):
        image.set_qform(None, 0)
    if intent is not None:
        image.header.set_intent(intent)
    if forms is not None:
        image.set_sform(forms.sform, forms.sform_code)
        image.set_qform(forms.qform, forms.qform_code)
    image.header.set_xyzt_units("mm", unit)
    return image


def check_affine(affine: ArrayLike | None, label: str) -> Array:
    """The affine as a (4, 4) float64 array. Raises InputError if it is invalid or singular."""
    try:
        matrix = np.array(affine, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4):
        raise InputError(f"{label} needs an affine of shape (4, 4)")
    if not np.isfinite(matrix).all():
        raise InputError(f"{label} has an affine with numbers that are not finite")
    if not np.array_equal(matrix[3], (0, 0, 0, 1)):
        raise InputError(f"{label} has an affine whose last row is not 0 0 0 1")
    if np.abs(matrix).max() > FARTHEST:
        raise InputError(f"{label} has an affine with numbers beyond {FARTHEST:g}")
    lengths = np.sqrt((matrix[:3, :3] ** 2).sum(0))
    if lengths.min() < SMALLEST_VOXEL:
        raise InputError(
            f"{label} has a singular affine: a voxel is {lengths.min():g} mm long, at least "
            f"{SMALLEST_VOXEL:g} needed"
        )
    if abs(np.linalg.det(matrix[:3, :3])) <= 1e-6 * lengths.prod():
        raise InputError(f"{label} has a singular affine: its axes do not span space")
    return matrix


def without_nan(data: NDArray, label: str) -> NDArray:
    """Replace NaN by background: 0, or the smallest value if that is below 0.

    Raises InputError for infinite values, and if all are NaN.
    """
    if data.dtype.kind != "f" or np.isfinite(data).all():
        return data
    absent = np.isnan(data)
    if absent.all() or np.isinf(data).any():
        _check_finite(data, label)
    background = min(0, data[~absent].min())
    warn(f"{label} has {int(absent.sum())} voxels that are NaN, of {data.size}: read as background")
    return np.where(absent, background, data)


def _check_finite(data: NDArray, label: str) -> None:
    if data.dtype.kind == "f" and (bad := int(data.size - np.isfinite(data).sum())):
        raise InputError(f"{label} has {bad} voxels that are NaN or infinite, of {data.size}")
