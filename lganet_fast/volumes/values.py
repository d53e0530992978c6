"""The voxel values of an image's files, and checks that the files are whole."""

from __future__ import annotations

import math
import os

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..runtime.reading import check_promise, reading


def read_values(image: nib.spatialimages.SpatialImage, label: str) -> NDArray:
    """The voxel values with the file's scaling.

    Raises InputError if they are not real numbers, or if the file is damaged anywhere.
    """
    check_type(image, label)
    check_whole(image, label)
    with reading(label):
        return np.asanyarray(image.dataobj)


def check_whole(image: nib.spatialimages.SpatialImage, label: str) -> None:
    """Raise InputError if a file of the image is damaged, or shorter than its header says.

    Call it before the values are read, because the header decides how much memory is allocated.
    """
    if not nib.is_proxy(image.dataobj):
        return
    values = image.file_map["image"].filename
    for path in files_of(image):
        check_promise(path, promised(image) if path == values else 0, label)


def files_of(image: nib.spatialimages.SpatialImage) -> list[str]:
    """The files of an image, such as .hdr and .img."""
    names = (holder.filename for holder in image.file_map.values())
    found = [os.fspath(name) for name in names if name is not None and os.path.exists(name)]
    return list(dict.fromkeys(sorted(found)))


def promised(image: nib.spatialimages.SpatialImage) -> int:
    """The size in bytes of the image's file, unpacked; 0 if the format is not a plain array."""
    proxy = image.dataobj
    if not isinstance(proxy, nib.arrayproxy.ArrayProxy):
        return 0
    return int(proxy.offset) + math.prod(map(int, proxy.shape)) * proxy.dtype.itemsize


def check_type(image: nib.spatialimages.SpatialImage, label: str) -> None:
    """Raise InputError if the header's type is not real numbers."""
    with reading(label):
        stored = image.get_data_dtype()
    if stored.fields is not None:
        raise InputError(f"{label} contains colours ({'/'.join(stored.fields)}), not one value")
    if stored.kind not in "iuf":
        kind = "complex" if stored.kind == "c" else str(stored)
        raise InputError(f"{label} contains {kind} values, not real numbers")
