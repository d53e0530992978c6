"""Files that all processes write their planes into: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..registration.settings import OUTPUTS, REPORT, PathLike
from ..runtime.files import reason, staged_folder
from ..volumes.grid import Grid
from ..volumes.nifti import nifti_image
from .group import Group

WARPED, WARP = "warped.nii", "warp.nii"  # a process cannot write its part of a compressed file
WRITTEN = (WARPED, WARP, REPORT)


@contextmanager
def common_folder(
    group: Group, out: PathLike, overwrite: bool, inputs: list[PathLike]
) -> Iterator[Path]:
    """A hidden folder for the files of all processes, which rank 0 makes and moves at the end.

    The block ends in all processes, or in none. Raises InputError as `staged_folder` does.
    """
    with ExitStack() as stack:

        def begin() -> str | None:
            if group.rank:
                return None
            folder = staged_folder(
                out,
                (*OUTPUTS, WARPED, WARP),
                expected=None if overwrite else WRITTEN,
                inputs=inputs,
            )
            return str(stack.enter_context(folder))

        folder = group.objects(group.stage(begin))[0]
        assert folder is not None
        yield Path(folder)
        group.objects(None)  # nobody writes any more
        group.stage(stack.close)


class Planes:
    """A float32 NIfTI file of which every process writes its planes.

    shape: (X, Y, Z) or (X, Y, Z, 1, C). intent: a NIfTI intent code.
    """

    def __init__(
        self, group: Group, path: Path, grid: Grid, channels: int = 0, intent: int | None = None
    ) -> None:
        self.group, self.path = group, path
        self.size = grid.shape
        shape = (*grid.shape, 1, channels) if channels else grid.shape
        empty = np.broadcast_to(np.float32(0), shape)
        image = nifti_image(empty, grid, intent, None if channels else grid.forms)
        image.header.set_slope_inter(1, 0)
        self.offset = int(image.header.single_vox_offset)
        image.header.set_data_offset(self.offset)
        group.stage(lambda: None if group.rank else self.allocate(image.header, empty.nbytes))

    def allocate(self, header: object, count: int) -> None:
        """Write the header, and reserve the space of the values."""
        with told(self.path), open(self.path, "wb") as file:
            header.write_to(file)  # type: ignore[attr-defined]
            file.truncate(self.offset + count)

    def write(self, data: NDArray[np.float32], channel: int = 0) -> None:
        """Write this process's planes (X, Y, z) of a channel.

        Raises InputError for values that are not finite, and if they cannot be written.
        """
        first, end = self.group.own(self.size[2])
        plane = self.size[0] * self.size[1] * 4
        with told(self.path), open(self.path, "r+b") as file:
            file.seek(self.offset + (channel * self.size[2] + first) * plane)
            for k in range(end - first):
                block = np.asarray(data[:, :, k], np.float32)
                if not np.isfinite(block).all():
                    raise InputError(f"cannot write {self.path}: values would be NaN or infinite")
                file.write(block.tobytes(order="F"))
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn an OSError into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason(error)}") from error
