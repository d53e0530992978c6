"""Pickles of numpy arrays, opened without running what else a pickle may ask for."""

from __future__ import annotations

import os
import pickle
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import reason

# Arrays and their numbers, by the modules' names before and after NumPy 2.
CORES = ("numpy.core", "numpy._core")
ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"{core}.multiarray", name) for core in CORES for name in ("_reconstruct", "scalar")),
    *((f"{core}.numeric", "_frombuffer") for core in CORES),
}
LONG = 1 << 16  # bytes from which on a run is an array's data


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows numpy's arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise InputError(f"asks for {module}.{name}, but may hold only numpy arrays")
        if module != "numpy":  # NumPy 1 has no numpy._core, NumPy 2 a numpy.core that warns
            core = "numpy._core" if hasattr(np, "_core") else "numpy.core"
            module = f"{core}.{module.rpartition('.')[2]}"
        return super().find_class(module, name)


class _Skimmed:
    """A file whose long runs of bytes are skipped and read as zeros."""

    def __init__(self, file: BufferedReader) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size

    def read(self, count: int = -1) -> bytes:
        if count < LONG:
            return self.file.read(count)
        if self.file.tell() + count > self.size:
            raise EOFError(f"it ends within an array of {count} bytes")
        self.file.seek(count, os.SEEK_CUR)
        return bytes(count)

    def readline(self) -> bytes:
        return self.file.readline()


def read_arrays(path: str | os.PathLike[str], skim: bool = False) -> tuple[NDArray, ...]:
    """The arrays in a pickle that holds one, or a tuple or list of them.

    skim: read shapes and types alone, quickly; the values are zeros.
    Raises InputError where the file cannot be read, holds anything else, or asks for anything but
    numpy arrays, which is named and not run.
    """
    place = Path(path)
    if not place.is_file():
        raise InputError(f"pickle {path} {'is not a file' if place.exists() else 'does not exist'}")
    try:
        with open(place, "rb") as file:
            found = _Unpickler(_Skimmed(file) if skim else file).load()
    except InputError as error:
        raise InputError(f"pickle {path} {error}") from None
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise InputError(f"pickle {path} cannot be read: {reason(error)}") from error
    arrays = found if isinstance(found, tuple | list) else (found,)
    for array in arrays:
        if not isinstance(array, np.ndarray):
            raise InputError(f"pickle {path} holds a {type(array).__name__}, not an array")
    return tuple(arrays)
