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
from ..runtime.reading import check_promise, reading
from .grid import FARTHEST, Array, Forms, Grid, Volume
from .headers import disagreements, forms_of, listening, placement

Source: TypeAlias = str | os.PathLike[str] | nib.spatialimages.SpatialImage | tuple[Any, Any]

IMAGE_EXTENSIONS = (".nii", ".nii.gz")  # that are written
READABLE = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img")  # that data sets have
LARGEST_LABEL = np.iinfo(np.int32).max
LARGEST_VALUE = 1e15  # of an image: its square, and sums of such, must fit into float32
SMALLEST_VOXEL = 1e-6  # mm


def stem(path: Path) -> str:
    """An image's name without its extension."""
    for extension in READABLE:
        if path.name.lower().endswith(extension):
            return path.name[: -len(extension)]
    return path.stem


def load_image(source: Source, role: str) -> Volume:
    """Read an image as float32.

    source: a path (.nii, .nii.gz, .mgz or whatever else nibabel reads), a nibabel image, or a pair
    (array (X, Y, Z), affine (4, 4) from voxel index to RAS+ mm). A fourth axis of length 1 is
    dropped. NaN is taken as background, with a warning. role: what messages call it, as "fixed".
    Raises InputError where it is no readable volume of real, finite numbers that vary.
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

    source, role: as in `load_image`. grid: where given, the grid it must lie on.
    Raises InputError for what `load_image` refuses (a constant map is allowed), for a value that is
    no label, and for another grid.
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
            raise InputError(f"{label} must hold whole numbers, found {odd[0]:g}")
        data = whole
    if data.min() < 0:
        raise InputError(f"{label} must hold labels from 0 on, found {data.min():g}")
    if data.max() > LARGEST_LABEL:
        raise InputError(f"{label} holds {data.max():g}; the largest label is {LARGEST_LABEL}")
    return Volume(data.astype(np.int32), own, label)


def load_mask(source: Source, role: str, grid: Grid | None = None) -> Volume:
    """Read a mask as bool: any value other than 0 is inside. Arguments as in `load_labels`.

    Raises InputError for what `load_labels` refuses, and for an empty mask.
    """
    labels = load_labels(source, role, grid)
    mask = labels.data != 0
    if not mask.any():
        raise InputError(f"{labels.name} is empty: no voxel differs from 0")
    return Volume(mask, labels.grid, labels.name)


def load_grid(source: Source, role: str) -> Grid:
    """The grid of an image, whose values may be anything. Arguments and errors as `load_image`."""
    image, label = open_image(source, role)
    check_whole(image, label)
    return noted_grid(image, label)


def check_same_grid(own: Grid, grid: Grid, label: str) -> None:
    """Raise InputError where what `label` names is not on its image's grid."""
    if not own.matches(grid):
        raise InputError(
            f"{label} is on {describe_grid(own)}, but must be on its image's grid, "
            f"{describe_grid(grid)}"
        )


def describe(source: Source, role: str = "image") -> dict[str, Any]:
    """What a report says of an input: path, sha256, shape, spacing_mm and orientation.

    path and sha256 (of its file, or files in the order of their names) are None for what is
    in memory. orientation: the world direction that each array axis runs to, such as "RAS".
    Raises InputError where it cannot be read.
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
    """The world direction that each array axis runs to, such as "RAS" or "LPI"."""
    return "".join(nib.aff2axcodes(grid.affine))


def describe_grid(grid: Grid) -> str:
    """One phrase that tells grids apart: size, spacing, orientation and first voxel's place."""
    spacing = " x ".join(f"{s:.4g}" for s in grid.spacing)
    origin = ", ".join(f"{x:.5g}" for x in grid.affine[:3, 3])
    size = " x ".join(map(str, grid.shape))
    return f"{size} voxels of {spacing} mm ({orientation(grid)}, first voxel at {origin} mm)"


def open_image(source: Source, role: str) -> tuple[nib.spatialimages.SpatialImage, str]:
    """The source as a nibabel image whose data are not read yet, and what messages call it.

    Raises InputError where it is missing, unreadable or of a kind that is no image.
    """
    if isinstance(source, nib.spatialimages.SpatialImage):
        return source, role
    if isinstance(source, tuple) and len(source) == 2:
        with reading(role, "is no array"):
            data = np.asarray(source[0])
        affine = check_affine(source[1], role)
        if data.dtype == bool:
            data = data.astype(np.uint8)
        with reading(f"{role} of {data.dtype} values", "cannot be taken as an image"):
            # nibabel asks for a type before it takes 64-bit integers
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
        if not path.is_file():
            raise InputError(f"{label} is not a file")
        if path.stat().st_size == 0:
            raise InputError(f"{label} is empty: 0 bytes")
    with reading(label, "cannot be read as an image"), listening() as notes:
        image = nib.load(path)
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise InputError(f"{label} holds a {type(image).__name__}, not a volume")
    for note in notes:
        warn(f"{label}: {note}; other tools may place or read its voxels otherwise")
    return image, label


def warn(message: str) -> None:
    """Tell the user what to look at, in one line."""
    warnings.warn(one_line(message), InputWarning, stacklevel=2)


@contextmanager
def collected() -> Iterator[list[str]]:
    """What the block warns about its input; other warnings go on to where they went."""
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
    """As `image_grid`, with a warning where other tools may place the voxels elsewhere."""
    grid = image_grid(image, label, series)
    for note in disagreements(image, grid):
        warn(f"{label}: {note}")
    return grid


def image_grid(image: nib.spatialimages.SpatialImage, label: str, series: bool = False) -> Grid:
    """The grid of a nibabel image. Raises InputError where it is not one volume in the world.

    series: it may be several volumes, along the fourth axis.
    """
    with reading(label):
        size = tuple(int(n) for n in image.shape)
    shape, rest = size[:3], size[3:]
    found = f"{label} has shape {' x '.join(map(str, size))}"
    if any(n < 1 for n in size):
        raise InputError(f"{found}: it is empty")
    if len(shape) < 3 or 1 in shape:
        raise InputError(f"{found}: a volume with at least 2 voxels along 3 axes is needed")
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
    """Write a volume as NIfTI: float32 for floats, the smallest integer type that holds integers.

    path: ends in .nii or .nii.gz. data: (X, Y, Z) or, of a series, (X, Y, Z, N). step, unit: as of
    `series.Series`. The same data always give the same bytes.
    Raises InputError for another extension or where the file cannot be written.
    """
    check_extension(path, IMAGE_EXTENSIONS)
    if data.dtype.kind == "f":
        data = data.astype(np.float32, copy=False)
    else:
        types = (np.uint8, np.int16, np.int32, np.int64)
        low, high = int(data.min()), int(data.max())
        fits = (t for t in types if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
        data = data.astype(next(fits, np.uint64), copy=False)
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
    """Write an array as it is, the grid's affine in both sform and qform.

    intent: a NIfTI intent code. forms: to be written instead, where given.
    Raises InputError where the file cannot be written, and for values that are NaN or infinite.
    """
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(f"cannot write {path}: values would be NaN or infinite")
    image = nib.Nifti1Image(data, grid.affine, dtype=data.dtype)
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1)
    # A qform cannot shear: better none than one that puts the voxels elsewhere.
    if not grid.matches(Grid(grid.shape, image.get_qform())):
        image.set_qform(None, 0)
    if intent is not None:
        image.header.set_intent(intent)
    if forms is not None:
        image.set_sform(forms.sform, forms.sform_code)
        image.set_qform(forms.qform, forms.qform_code)
    image.header.set_xyzt_units("mm", unit)
    if step:
        image.header["pixdim"][4] = step
    with atomic(path) as temporary, open(temporary, "wb") as file:
        if temporary.suffix.lower() == ".gz":
            with igzip.IGzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(file)


def check_affine(affine: ArrayLike | None, label: str) -> Array:
    """The affine as a (4, 4) float64 array. Raises InputError where it places no voxels."""
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


def read_values(image: nib.spatialimages.SpatialImage, label: str) -> NDArray:
    """The voxel values with the file's scaling.

    Raises InputError where they are not real numbers, or the file is damaged in any place.
    """
    check_type(image, label)
    check_whole(image, label)
    with reading(label):
        return np.asanyarray(image.dataobj)


def check_whole(image: nib.spatialimages.SpatialImage, label: str) -> None:
    """Raise InputError where a file of the image is damaged, or shorter than its header promises.

    To be called before values are read: memory is taken as the header says.
    """
    if not nib.is_proxy(image.dataobj):
        return
    values = image.file_map["image"].filename
    for path in files_of(image):
        check_promise(path, promised(image) if path == values else 0, label)


def files_of(image: nib.spatialimages.SpatialImage) -> list[str]:
    """The files that an image was read from, such as .hdr and .img."""
    names = (holder.filename for holder in image.file_map.values())
    found = [os.fspath(name) for name in names if name is not None and os.path.exists(name)]
    return list(dict.fromkeys(sorted(found)))


def promised(image: nib.spatialimages.SpatialImage) -> int:
    """How many bytes the image's file must hold, unpacked; 0 where the format is no plain array."""
    proxy = image.dataobj
    if not isinstance(proxy, nib.arrayproxy.ArrayProxy):
        return 0
    return int(proxy.offset) + math.prod(map(int, proxy.shape)) * proxy.dtype.itemsize


def check_type(image: nib.spatialimages.SpatialImage, label: str) -> None:
    """Raise InputError where the header says that the values are not real numbers."""
    with reading(label):
        stored = image.get_data_dtype()
    if stored.fields is not None:
        raise InputError(f"{label} holds colours ({'/'.join(stored.fields)}), not one value")
    if stored.kind not in "iuf":
        kind = "complex" if stored.kind == "c" else str(stored)
        raise InputError(f"{label} holds {kind} values, not real numbers")


def without_nan(data: NDArray, label: str) -> NDArray:
    """The values with background in the place of NaN: 0, or the least value where that is less.

    Raises InputError for infinite values, and where all are NaN.
    """
    if data.dtype.kind != "f" or np.isfinite(data).all():
        return data
    absent = np.isnan(data)
    if absent.all() or np.isinf(data).any():
        _check_finite(data, label)
    background = min(0, data[~absent].min())
    warn(
        f"{label} has {int(absent.sum())} voxels that are NaN, of {data.size}: taken as background"
    )
    return np.where(absent, background, data)


def _check_finite(data: NDArray, label: str) -> None:
    if data.dtype.kind == "f" and (bad := int(data.size - np.isfinite(data).sum())):
        raise InputError(f"{label} has {bad} voxels that are NaN or infinite, of {data.size}")
