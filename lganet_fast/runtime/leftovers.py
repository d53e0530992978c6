"""Hidden temporary paths beside a file or folder being written, and leftovers of killed processes.

A path is called `.HOST-PROCESS-RANDOM-NAME`, so that a later run can tell whether its process still
runs.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GOING, GONE = ".going", ".gone"  # old files being moved aside, and all of them moved aside
DAY = 86400  # seconds after which another machine's path counts as abandoned
HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_ours: set[str] = set()  # names of the places that this process writes to


@contextmanager
def place_beside(target: Path, folder: Path) -> Iterator[Path]:
    """A new hidden path in `folder`, removed at the end unless it was moved away.

    Leftovers of killed processes that wrote the same target are recovered first.
    """
    for leftover in {*leftovers(target, folder), *leftovers(target, target.parent)}:
        with suppress(OSError):
            recover(leftover, target)
    place = folder / f".{HOST}-{os.getpid():x}-{secrets.token_hex(4)}-{target.name}"
    _ours.add(place.name)
    try:
        yield place
    finally:
        with suppress(OSError, ValueError):  # it may be on a disk that is gone
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)
        _ours.discard(place.name)


def leftovers(target: Path, folder: Path) -> list[Path]:
    """Leftovers in `folder` of killed processes that wrote `target`."""
    pattern = re.compile(r"\.([0-9a-f]{8})-([0-9a-f]+)-[0-9a-f]{8}-" + re.escape(target.name))
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match and entry.name not in _ours and abandoned(Path(entry.path), *match.groups()):
                found.append(Path(entry.path))
    return found


def abandoned(place: Path, host: str, process: str) -> bool:
    """Whether no process writes to a place any more."""
    if host != HOST or os.name != "posix":
        return time.time() - place.lstat().st_mtime > DAY
    number = int(process, 16)
    if number == os.getpid():
        return True  # of an earlier process of this number, as in containers
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def recover(leftover: Path, target: Path) -> None:
    """Remove a leftover, after completing or reverting an interrupted move of files.

    Raises OSError if that fails.
    """
    if not leftover.is_dir():
        leftover.unlink()
        return
    complete = (leftover / GONE).is_dir()
    back = leftover if complete else leftover / GOING
    if complete or back.is_dir():
        for file in back.iterdir():
            if file.name != GONE:
                os.replace(file, target / file.name)
    shutil.rmtree(leftover)
