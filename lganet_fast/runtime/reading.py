"""Reading files with third-party readers: one-line errors, and detection of damaged files."""

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
    """Run a third-party reader: any exception becomes an InputError, "{what} {fault}: reason".

    A damaged file makes readers fail in many ways. The block must contain only the reading, so that
    an error of this package is not reported as one of the file.
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
    """Number of bytes in a file, after unpacking if its name says that it is compressed.

    A compressed file is read to its end, a block at a time, so that the checksum and length of
    every part are verified; anything but zeros after the last part is an error. Raises the
    unpacker's exceptions: call it under `reading`.
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
    """Raise InputError if a file is damaged or shorter than its header says, in bytes."""
    with reading(label):
        length = content_length(path)
    if length < promised:
        packed = "unpacked " if Path(path).suffix.lower() in PACKED else ""
        raise InputError(
            f"{label} cannot be read: its header promises {promised} {packed}bytes, but it "
            f"holds {length}"
        )
