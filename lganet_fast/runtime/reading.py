"""Files read by third parties: whatever goes wrong is one line, and what is damaged is noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isal import igzip
from nibabel.openers import Opener

from ..errors import InputError
from .files import reason

BLOCK = 1 << 20  # bytes read at once
PACKED = (".gz", ".mgz", ".bz2", ".zst")


@contextmanager
def reading(what: str, fault: str = "cannot be read") -> Iterator[None]:
    """Run somebody else's reader: any exception becomes an InputError, "{what} {fault}: reason".

    A damaged file makes a reader fail in as many ways as it has bytes. Only what reads belongs
    into the block, so that no fault of this package is taken for the file's.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{what} {fault}: it needs more memory than there is") from error
    except RecursionError as error:
        raise InputError(f"{what} {fault}: it is nested too deeply") from error
    except Exception as error:
        raise InputError(f"{what} {fault}: {reason(error)}") from error


def content_length(path: str | os.PathLike[str]) -> int:
    """How many bytes a file holds, unpacked where its name says that it is packed.

    A packed file is read to its end, a block at a time, so that the checksum and length of every
    part are compared; whatever follows the last part but zeros is refused. Raises what the
    unpacker raises: to be called under `reading`.
    """
    name = os.fspath(path)
    if not name.lower().endswith(PACKED):
        return os.path.getsize(name)
    length, block = 0, bytearray(BLOCK)
    with _unpacked(name) as file:
        while count := file.readinto(block):
            length += count
    return length


def _unpacked(name: str) -> Any:
    gzipped = name.lower().endswith((".gz", ".mgz"))
    return igzip.open(name) if gzipped else Opener(name)


def check_promise(path: str | os.PathLike[str], promised: int, label: str) -> None:
    """Raise InputError where a file is damaged or shorter than its header promises, in bytes."""
    with reading(label):
        length = content_length(path)
    if length < promised:
        packed = "unpacked " if Path(path).suffix.lower() in PACKED else ""
        raise InputError(
            f"{label} cannot be read: its header promises {promised} {packed}bytes, but it "
            f"holds {length}"
        )
