"""SimpleITK, an optional package: its import, its messages, the grids of its images."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtime.files import atomic
from .grid import LPS, Grid

TRIAL = """
import os, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
except (ImportError, OSError, ValueError):
    pass
import SimpleITK
for path in os.fsdecode(sys.stdin.buffer.read()).split("\\0"):
    exec(sys.argv[1])
"""


def import_simpleitk(purpose: str) -> Any:
    """Import SimpleITK. Raises InputError, which says how to install it."""
    try:
        import SimpleITK
    except ImportError as error:
        message = f"{purpose} needs SimpleITK: pip install 'lganet_fast[itk]'"
        raise InputError(message) from error
    return SimpleITK


@contextmanager
def silence() -> Iterator[None]:
    """Suppress what ITK and the libraries below it write to file descriptor 2."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def grid_of(image: Any) -> Grid:
    """The grid of a SimpleITK image, or of the first three axes of a reader of one.

    An image of fewer axes has no grid; it gets the first voxel's.
    """
    size, spacing, origin = image.GetSize(), image.GetSpacing(), image.GetOrigin()
    axes = len(size)
    direction = np.reshape(image.GetDirection(), (axes, axes))
    affine = np.eye(4)
    if axes >= 3:
        affine[:3, :3] = LPS @ direction[:3, :3] * spacing[:3]
        affine[:3, 3] = LPS @ origin[:3]
    width, height, depth = (*size, 1, 1)[:3]
    return Grid((width, height, depth), affine)


def place(image: Any, grid: Grid, step: float = 0.0) -> None:
    """Put a SimpleITK image on a grid; step: of a fourth axis, 0 if unknown."""
    axes = image.GetDimension()
    direction, origin, spacing = np.eye(axes), np.zeros(axes), np.ones(axes)
    direction[:3, :3] = LPS @ grid.affine[:3, :3] / grid.spacing
    origin[:3], spacing[:3] = LPS @ grid.affine[:3, 3], grid.spacing
    spacing[3:] = step or 1.0
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())


def write_whole(path: str | os.PathLike[str], write: Callable[[str], None]) -> None:
    """Let ITK write a file, completely or not at all. Raises InputError if it cannot."""
    with atomic(path) as temporary:
        temporary.touch()  # fails with a clear error, which ITK would not give
        try:
            with silence():
                write(str(temporary))
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"cannot write {path}: ITK failed, is the disk full?") from error


def try_in_another_process(statement: str, paths: Sequence[str], most: int = -1) -> None:
    """Raise RuntimeError if ITK cannot read the files; a damaged one may crash the process.

    statement: what to do with each `path`. most: bytes of memory that the other process gets.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, statement, str(most)],
        env=environment,
        input=os.fsencode("\0".join(paths)),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"ITK ended with {done.returncode}")
