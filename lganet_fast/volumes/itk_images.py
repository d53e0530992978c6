"""Images in the formats that SimpleITK reads: NRRD, MetaImage and DICOM."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder
from numpy.typing import DTypeLike, NDArray

from ..errors import InputError
from ..runtime.reading import reading
from .grid import LPS, Array, Grid
from .itk import grid_of, import_simpleitk, place, silence, try_in_another_process, write_whole

ITK_READABLE = (".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
ITK_WRITABLE = (".nrrd", ".mha")
HEADERS = (".nhdr", ".mhd")  # text that names the files with the values
LONGEST = 1 << 20  # bytes of such a header
HEADER = """reader = SimpleITK.ImageFileReader()
reader.SetFileName(path)
reader.ReadImageInformation()"""
UNEVEN = 0.01  # of the distance between slices: by which one may be out of place


class Values:
    """The values of an image, which are read when they are asked for.

    files: one file, or one per slice. shape: (X, Y, Z), with more axes (X, Y, Z, N) or, of several
    values per voxel, (X, Y, Z, 1, C).
    """

    is_proxy = True  # nibabel's mark of values that are not in memory

    def __init__(
        self, files: Sequence[str], shape: tuple[int, ...], dtype: np.dtype, label: str
    ) -> None:
        self.files, self.shape, self.dtype, self.label = files, shape, dtype, label
        self.ndim = len(shape)

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> NDArray:
        """Read the values. Raises InputError if a file is damaged."""
        sitk = import_simpleitk(f"reading {self.label}")
        parts = []
        with _plainly(self.label):
            for file in self.files:
                with silence():
                    image = sitk.ReadImage(file)
                parts.append(sitk.GetArrayFromImage(image))
        if len(parts) == 1 and len(self.shape) == 5:
            array = parts[0].transpose(2, 1, 0, 3)[:, :, :, None]
        else:
            array = (np.concatenate(parts) if len(parts) > 1 else parts[0]).T
        if array.shape != self.shape:
            raise InputError(f"{self.label} contains {array.shape} values, not {self.shape}")
        return array.astype(self.dtype if dtype is None else dtype, copy=False)


def open_itk(path: Path, label: str) -> nib.spatialimages.SpatialImage:
    """A file, or a folder with one DICOM series, as an image whose values are not read yet.

    label: the name in messages. Raises InputError if SimpleITK is missing or cannot read it.
    """
    import_simpleitk(f"reading {label}" + (", a folder, as DICOM" if path.is_dir() else ""))
    files = series_of(path, label) if path.is_dir() else [str(path)]
    with _plainly(label):
        try_in_another_process(HEADER, files)
        headers = [_header(file) for file in files]
    grid = grid_of(headers[0])
    shape: tuple[int, ...] = headers[0].GetSize()
    affine, count = grid.affine, headers[0].GetNumberOfComponents()
    if len(files) > 1:
        shape = (*shape[:2], len(files))
        affine = stacked(headers, label)
    dtype = np.result_type(*(_dtype(header) for header in headers))
    if dtype.kind != "c" and count > 1:
        shape = (*shape, *[1] * (4 - len(shape)), count)
    places = [FileHolder(file) for file in (*files, *_beside(path))]
    names = ["image", *(f"data {number}" for number in range(1, len(places)))]
    values: Any = Values(files, shape, dtype, label)
    return nib.spatialimages.SpatialImage(
        values, affine, file_map=dict(zip(names, places, strict=True))
    )


def series_of(folder: Path, label: str) -> list[str]:
    """The files of the DICOM series in a folder, slice by slice.

    Raises InputError if there is none, or more than one.
    """
    sitk = import_simpleitk(f"reading {label}")
    with _plainly(label), silence():
        found = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        files = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), one) for one in found]
    if not found:
        raise InputError(f"{label} is not a file, and a folder without a DICOM series")
    if len(found) > 1:
        sizes = ", ".join(str(len(names)) for names in files)
        raise InputError(
            f"{label} has {len(found)} DICOM series, of {sizes} files: give a folder with one"
        )
    return list(files[0])


def stacked(headers: Sequence[Any], label: str) -> Array:
    """The affine of slices, from their own positions, so that a tilted gantry is kept.

    Raises InputError unless they are of one size and direction, and evenly spaced.
    """
    first = grid_of(headers[0])
    origins = np.array([LPS @ header.GetOrigin() for header in headers])
    step = (origins[-1] - origins[0]) / (len(headers) - 1)
    own = [(h.GetSize(), *h.GetSpacing()[:2], *np.round(h.GetDirection(), 4)) for h in headers]
    if any(one != own[0] for one in own) or headers[0].GetSize()[2] != 1:
        raise InputError(f"{label}: its slices differ in size, spacing or direction")
    apart = np.linalg.norm(origins - origins[0] - step * np.arange(len(headers))[:, None], axis=1)
    if not np.linalg.norm(step) > 0 or apart.max() > UNEVEN * np.linalg.norm(step):
        raise InputError(
            f"{label}: its {len(headers)} slices are not evenly spaced, up to {apart.max():.3g} mm "
            "off: is one missing, or does it hold several volumes?"
        )
    affine = first.affine.copy()
    affine[:3, 2] = step
    return affine


def save_itk(path: str | os.PathLike[str], data: NDArray, grid: Grid, *, step: float = 0.0) -> None:
    """Write a volume (X, Y, Z), a series (X, Y, Z, N) or vectors (X, Y, Z, 1, C), compressed.

    step: of a series. Raises InputError if the file cannot be written, and for values that are NaN
    or infinite.
    """
    sitk = import_simpleitk(f"writing {path}")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(f"cannot write {path}: values would be NaN or infinite")
    vectors = data.ndim == 5
    turned = data[:, :, :, 0].transpose(2, 1, 0, 3) if vectors else data.T
    image = sitk.GetImageFromArray(np.ascontiguousarray(turned), isVector=vectors)
    place(image, grid, step)
    write_whole(path, lambda file: sitk.WriteImage(image, file, True))


def _header(file: str) -> Any:
    """SimpleITK's reader of a file, with the header read."""
    reader = import_simpleitk(f"reading {file}").ImageFileReader()
    reader.SetFileName(file)
    with silence():
        reader.ReadImageInformation()
    return reader


def _dtype(header: Any) -> np.dtype:
    """The type of an image's values, such as that of "vector of 16-bit signed integer"."""
    sitk = import_simpleitk("reading")
    name = sitk.GetPixelIDValueAsString(header.GetPixelIDValue())
    bits = re.search(r"(\d+)-bit", name)
    if bits is None:
        raise ValueError(f"it contains values of an unknown type, {name}")
    if "complex" in name:
        return np.dtype(f"c{int(bits[1]) // 4}")
    kind = "f" if "float" in name else "u" if "unsigned" in name else "i"
    return np.dtype(f"{kind}{int(bits[1]) // 8}")


def _beside(path: Path) -> list[str]:
    """The files with values that a text header names, of those that exist."""
    if path.suffix.lower() not in HEADERS:
        return []
    with open(path, "rb") as file:
        lines = file.read(LONGEST).decode("latin-1").splitlines()
    names = {re.split(r"[=:]", line, maxsplit=1)[-1].strip() for line in lines}
    places = sorted(path.parent / name for name in names if name and "\0" not in name)
    return [str(place) for place in places if place.is_file() and place != path]


@contextmanager
def _plainly(label: str) -> Iterator[None]:
    """Replace ITK's error messages, several lines of C++, by plain ones."""
    with reading(label, "cannot be read as an image"):
        try:
            yield
        except RuntimeError as error:
            raise ValueError("damaged, or not an image of this kind") from error
