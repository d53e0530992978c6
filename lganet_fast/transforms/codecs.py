"""Readers and writers of each format of a displacement field; `formats` selects the format.

Readers take (path, fixed, moving), the images' grids or None, and return a field: its vectors
(X, Y, Z, 3), float32 in RAS+ mm, and its grid. Writers take (vectors, grid, path, moving).
All raise InputError for a file that does not match its format.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..runtime.files import atomic, check_extension
from ..runtime.reading import BLOCK, reading
from ..volumes.grid import FARTHEST, LPS, Array, Grid
from ..volumes.headers import placement
from ..volumes.itk import (
    grid_of,
    import_simpleitk,
    place,
    silence,
    try_in_another_process,
    write_whole,
)
from ..volumes.itk_images import ITK_WRITABLE, save_itk
from ..volumes.nifti import check_affine, open_image, save_nifti
from ..volumes.values import read_values
from .units import from_voxels, to_voxels

Vectors = NDArray[np.float32]
Field = tuple[Vectors, Grid]

HDF5_EXTENSIONS = (".h5", ".hdf5")
HDF5 = b"\x89HDF\r\n\x1a\n"
VECTOR, DISPLACEMENT = 1007, 1006  # NIfTI intent codes
FLIP = np.diag(LPS).astype(np.float32)  # RAS to LPS and back
NPZ_KEYS = ("flow", "fixed_affine", "moving_affine", "fixed_shape", "moving_shape")
DEFLATES = 1032  # maximum bytes that one compressed byte can expand to
EXPANDS = 64  # maximum ratio of memory to file size of an ITK file
ABOUT = "flow[p] in voxels: voxel p of the fixed image is at p + flow[p] in the moving image"


def read_itk(path: Path, fixed: Grid | None, moving: Grid | None) -> Field:
    """NIfTI, NRRD or MetaImage in LPS mm, the format of ITK and ANTs."""
    vectors, grid = _read_vectors(path)
    return _field(vectors * FLIP, grid, path)


def write_itk(vectors: Vectors, grid: Grid, path: Path, moving: Grid | None) -> None:
    """Vectors in LPS mm, float32: 5-D NIfTI (X, Y, Z, 1, 3) of intent 1007, or NRRD or MHA."""
    stored = (vectors * FLIP)[:, :, :, None]
    if path.suffix.lower() in ITK_WRITABLE:
        save_itk(path, stored, grid)
    else:
        save_nifti(path, stored, grid, VECTOR)


def read_slicer(path: Path, fixed: Grid | None, moving: Grid | None) -> Field:
    """NIfTI in RAS mm."""
    return _field(*_read_vectors(path), path)


def write_slicer(vectors: Vectors, grid: Grid, path: Path, moving: Grid | None) -> None:
    """5-D NIfTI (X, Y, Z, 1, 3), float32, intent 1006, RAS mm."""
    save_nifti(path, vectors[:, :, :, None], grid, DISPLACEMENT)


def read_composite(path: Path, fixed: Grid | None, moving: Grid | None) -> Field:
    """Any ITK transform, evaluated on the fixed grid or, without one, on its first field's grid."""
    sitk = import_simpleitk(f"reading {path}")
    with _reading_itk(path):
        transform, parts = _composite(path)
        fields = [part for part in parts if isinstance(part, sitk.DisplacementFieldTransform)]
        # The last transform of a composite is applied first.
        grid = fixed or (grid_of(fields[-1].GetDisplacementField()) if fields else None)
        if grid is None:
            raise InputError(
                f"transform {path} contains no displacement field: give the fixed image, on whose "
                "grid to evaluate it"
            )
        image = sitk.TransformToDisplacementField(
            transform,
            sitk.sitkVectorFloat64,
            grid.shape,
            (LPS @ grid.affine[:3, 3]).tolist(),
            grid.spacing.tolist(),
            (LPS @ grid.affine[:3, :3] / grid.spacing).ravel().tolist(),
        )
    return _field(sitk.GetArrayFromImage(image).transpose(2, 1, 0, 3) * FLIP, grid, path)


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, as ITK's composites are. Raises InputError if it cannot be read."""
    with reading(f"transform {path}"):
        if not path.is_file():
            raise InputError(f"transform {path} does not exist or is not a file")
        with open(path, "rb") as file:
            return file.read(len(HDF5)) == HDF5


def composite_parts(path: Path) -> list[Array | Field]:
    """The parts of an ITK transform; the last is applied first.

    Each is a linear map (4, 4) in LPS mm, or a field. Raises InputError for any other.
    """
    sitk = import_simpleitk(f"reading {path}")
    corners = np.vstack([np.zeros(3), np.eye(3)])
    found: list[Array | Field] = []
    with _reading_itk(path):
        for part in _composite(path)[1]:
            if part.IsLinear():
                ends = np.array([part.TransformPoint(corner) for corner in corners.tolist()])
                matrix = np.eye(4)
                matrix[:3, :3], matrix[:3, 3] = (ends[1:] - ends[0]).T, ends[0]
                found.append(matrix)
            elif isinstance(part, sitk.DisplacementFieldTransform):
                image = part.GetDisplacementField()
                vectors = sitk.GetArrayFromImage(image).transpose(2, 1, 0, 3) * FLIP
                found.append(_field(vectors, grid_of(image), path))
            else:
                raise InputError(
                    f"transform {path} holds a {part.GetName()}: convert it to a field first, with "
                    "the fixed image"
                )
    return found


def linear_parts(path: Path) -> list[Array]:
    """`composite_parts` of a transform whose parts are all linear. Raises InputError if not."""
    parts = composite_parts(path)
    found = [part for part in parts if isinstance(part, np.ndarray)]
    if len(found) < len(parts):
        raise InputError(f"transform {path} is not linear: it holds a displacement field")
    return found


def write_composite(vectors: Vectors, grid: Grid, path: Path, moving: Grid | None) -> None:
    """A CompositeTransform of one displacement field."""
    write_parts([(vectors, grid)], path)


def write_parts(parts: Sequence[Array | Field], path: Path) -> None:
    """A CompositeTransform of parts as `composite_parts` reads them."""
    check_extension(path, HDF5_EXTENSIONS)
    sitk = import_simpleitk(f"writing {path}")
    transforms = []
    for part in parts:
        if isinstance(part, np.ndarray):
            linear = sitk.AffineTransform(3)
            linear.SetMatrix(part[:3, :3].ravel().tolist())
            linear.SetTranslation(part[:3, 3].tolist())
            transforms.append(linear)
            continue
        vectors, grid = part
        stored = (vectors * FLIP).astype(np.float64).transpose(2, 1, 0, 3)
        if not np.isfinite(stored).all():
            raise InputError(f"cannot write {path}: values would be NaN or infinite")
        image = sitk.GetImageFromArray(stored, isVector=True)
        place(image, grid)
        transforms.append(sitk.DisplacementFieldTransform(image))
    composite = sitk.CompositeTransform(transforms)
    write_whole(path, lambda file: sitk.WriteTransform(composite, file))


def read_learn2reg(path: Path, fixed: Grid | None, moving: Grid | None) -> Field:
    """(X, Y, Z, 3) voxels, in a NIfTI file or as the one array of an .npz file."""
    flow = _only_array(path) if zipfile.is_zipfile(path) else _read_vectors(path)[0]
    return _from_voxels(flow, path, fixed, moving)


def write_learn2reg(vectors: Vectors, grid: Grid, path: Path, moving: Grid | None) -> None:
    """(X, Y, Z, 3) float32 voxels, in a NIfTI file or as the one array of an .npz file."""
    flow = to_voxels(vectors, grid, _needed(moving, path))
    if path.suffix.lower() == ".npz":
        _write_arrays(path, arr_0=flow)
    else:
        save_nifti(path, flow, grid)


def read_learn2reg2021(path: Path, fixed: Grid | None, moving: Grid | None) -> Field:
    """(3, X/2, Y/2, Z/2) full-resolution voxels, zoomed by 2 with quadratic splines."""
    from scipy.ndimage import zoom  # slow to load

    halved = _only_array(path).astype(np.float32)
    if halved.ndim != 4 or halved.shape[0] != 3:
        raise InputError(f"transform {path} must have shape (3, X/2, Y/2, Z/2), got {halved.shape}")
    flow = np.stack([zoom(component, 2, order=2) for component in halved], -1)
    return _from_voxels(flow, path, fixed, moving)


def write_learn2reg2021(vectors: Vectors, grid: Grid, path: Path, moving: Grid | None) -> None:
    """(3, X/2, Y/2, Z/2) float16, zoomed by 1/2 with quadratic splines."""
    from scipy.ndimage import zoom

    flow = to_voxels(vectors, grid, _needed(moving, path))
    if any(n % 2 for n in grid.shape):
        raise InputError(f"{path}: this format needs even sizes, got {grid.shape}")
    halved = [zoom(flow[..., axis], 0.5, order=2) for axis in range(3)]
    _write_arrays(path, arr_0=np.stack(halved).astype(np.float16))


def read_npz(path: Path, fixed: Grid | None, moving: Grid | None) -> Field:
    """The format of `write_npz`."""
    present = array_shapes(path)
    if missing := [key for key in NPZ_KEYS if key not in present]:
        raise InputError(f"transform {path} lacks the arrays {', '.join(missing)}")
    arrays = read_arrays(path, NPZ_KEYS)
    grids = []
    for side in ("fixed", "moving"):
        sizes = arrays[f"{side}_shape"]
        if sizes.shape != (3,) or sizes.dtype.kind not in "iu" or sizes.min() < 1:
            raise InputError(f"transform {path}: {side}_shape must be 3 sizes, got {sizes}")
        shape = int(sizes[0]), int(sizes[1]), int(sizes[2])
        affine = check_affine(arrays[f"{side}_affine"], f"the {side} side of transform {path}")
        grids.append(Grid(shape, affine))
    return _from_voxels(arrays["flow"], path, grids[0], grids[1])


def write_npz(vectors: Vectors, grid: Grid, path: Path, moving: Grid | None) -> None:
    """(X, Y, Z, 3) float32 voxels as "flow", with both images' affines and shapes."""
    target = _needed(moving, path)
    _write_arrays(
        path,
        flow=to_voxels(vectors, grid, target),
        fixed_affine=grid.affine,
        moving_affine=target.affine,
        fixed_shape=np.array(grid.shape),
        moving_shape=np.array(target.shape),
        about=np.array(ABOUT),
    )


def array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The name and shape of every array in an .npz file, without reading the values."""
    with reading(f"transform {path}"), zipfile.ZipFile(path) as file:
        return {_name(info): _header(file, info)[0] for info in file.infolist()}


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray]:
    """Read some arrays of an .npz file, all of real numbers, and verify their checksums.

    Raises InputError for other values, and, before it allocates memory, if the file is damaged or
    shorter than its headers say.
    """
    with reading(f"transform {path}"), zipfile.ZipFile(path) as file:
        members = {_name(info): info for info in file.infolist()}
        return {name: _read_array(file, members[name]) for name in names}


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(".npy")


def _header(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type of a member, whose length in bytes is checked."""
    npy: Any = np.lib.format
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    with file.open(info) as stream:
        version = npy.read_magic(stream)
        if version not in readers:
            raise ValueError(f"{info.filename} is of version {version}, not 1.0 or 2.0")
        shape, fortran, dtype = readers[version](stream)
        held = info.file_size - stream.tell()
    promised = math.prod(shape) * dtype.itemsize
    room = DEFLATES * info.compress_size + BLOCK
    if any(n < 0 for n in shape) or promised != held or info.file_size > room:
        raise ValueError(f"{info.filename} must have {promised} bytes, but has {held}")
    return shape, fortran, dtype


def _read_array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray:
    shape, fortran, dtype = _header(file, info)
    if dtype.kind not in "iuf":
        raise ValueError(f"{info.filename} contains {dtype} values, not real numbers")
    values = file.read(info)[info.file_size - math.prod(shape) * dtype.itemsize :]
    return np.frombuffer(values, dtype).reshape(shape, order="F" if fortran else "C")


def _write_arrays(path: Path, **arrays: Any) -> None:
    numbers = [x for x in arrays.values() if x.dtype.kind == "f"]
    if not all(np.isfinite(x).all() for x in numbers):
        raise InputError(f"cannot write {path}: values would be NaN or infinite")
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _only_array(path: Path) -> NDArray:
    name, *others = array_shapes(path) or [""]
    if not name or others:
        raise InputError(f"transform {path} must contain one array, got {len(others) + bool(name)}")
    array = read_arrays(path, (name,))[name]
    if not array.size:
        raise InputError(f"transform {path} is empty: its array has shape {array.shape}")
    return array


def _read_vectors(path: Path) -> tuple[NDArray, Grid]:
    """The vectors of a NIfTI file as stored, (X, Y, Z, 3), and their grid."""
    image, label = open_image(path, "transform")
    size = tuple(int(n) for n in image.shape)
    if size[3:] not in ((3,), (1, 3)) or min(size) < 1:
        raise InputError(
            f"{label} must have shape X x Y x Z x 1 x 3, got {' x '.join(map(str, size))}"
        )
    grid = Grid((size[0], size[1], size[2]), check_affine(placement(image, label), label))
    return read_values(image, label).reshape(*grid.shape, 3), grid


def _from_voxels(flow: NDArray, path: Path, fixed: Grid | None, moving: Grid | None) -> Field:
    if fixed is None or moving is None:
        raise InputError(
            f"transform {path} is in voxels of grids that it does not store: give the fixed and "
            "the moving image (lganet-fast convert --fixed F --moving M)"
        )
    if flow.shape != (*fixed.shape, 3):
        raise InputError(
            f"transform {path} contains a flow of shape {flow.shape}, but the fixed image needs "
            f"{(*fixed.shape, 3)}"
        )
    _check_vectors(flow, path)
    return _field(from_voxels(flow, fixed, moving), fixed, path)


def _field(vectors: NDArray, grid: Grid, path: Path) -> Field:
    """A field in RAS+ mm, with checked numbers."""
    _check_vectors(vectors, path)
    return np.ascontiguousarray(vectors, np.float32), grid


def _check_vectors(vectors: NDArray, path: Path) -> None:
    """Raise InputError if a number is not finite or larger than any volume."""
    if bad := int(vectors.size - np.isfinite(vectors).sum()):
        raise InputError(f"transform {path} has {bad} numbers that are NaN or infinite")
    if max(vectors.max(), -vectors.min()) > FARTHEST:
        raise InputError(f"transform {path} moves by more than {FARTHEST:g}")


def _needed(moving: Grid | None, path: Path) -> Grid:
    if moving is None:
        raise InputError(f"{path}: this format is in voxels of both images: give the moving image")
    return moving


def _composite(path: Path) -> tuple[Any, list[Any]]:
    """An ITK transform and its parts. Raises RuntimeError if ITK cannot read it."""
    sitk = import_simpleitk(f"reading {path}")
    most = EXPANDS * path.stat().st_size + (1 << 30)
    try_in_another_process("SimpleITK.ReadTransform(path)", [str(path)], most)
    with silence():
        transform = sitk.CompositeTransform([sitk.ReadTransform(str(path))])
    transform.FlattenTransform()
    return transform, [
        transform.GetNthTransform(i) for i in range(transform.GetNumberOfTransforms())
    ]


@contextmanager
def _reading_itk(path: Path) -> Iterator[None]:
    """Replace ITK's error messages, several lines of C++, by plain ones."""
    with reading(f"transform {path}"):
        try:
            yield
        except RuntimeError as error:
            raise ValueError("damaged, or not a 3-D ITK transform") from error
