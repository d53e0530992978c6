"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

FULL_OR_LOCKED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def check_extension(path: str | os.PathLike[str], allowed: tuple[str, ...]) -> str:
    """The extension, of those allowed, that the path ends in. Raises InputError for another."""
    name = Path(path).name.lower()
    for extension in allowed:
        if name.endswith(extension) and name != extension:
            return extension
    raise InputError(f"{path} must end in {' or '.join(allowed)}")


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place beside `path`, of the same extension, to write to: it becomes `path` at the end.

    After an exception or an interrupt nothing is left, and an older `path` is as it was.
    Raises InputError where the file cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"cannot write {target}: it is a folder")
    temporary = target.with_name(f".{secrets.token_hex(4)}-{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {reason(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_folder(path: str | os.PathLike[str], names: tuple[str, ...] = ()) -> Iterator[Path]:
    """A hidden new folder to write into: at the end its files move into `path`.

    names: files that earlier runs may have left in `path`; those not written now are deleted then.
    After an exception or an interrupt nothing is left, and an older `path` is as it was.
    Raises InputError where `path` is a file or cannot be written, or the disk is full.
    """
    target = Path(os.path.abspath(path))
    if target.exists() and not target.is_dir():
        raise InputError(f"cannot write into {target}: it is not a folder")
    created = [parent for parent in target.parents if not parent.exists()]
    # Inside an existing folder: it may be a mount of its own, into which nothing can be renamed.
    place = target if target.exists() else target.parent
    temporary = place / f".{secrets.token_hex(4)}-{target.name}"
    done = False
    try:
        with _writing_into(target):
            temporary.mkdir(parents=True)
        try:
            yield temporary
        except OSError as error:
            if error.errno in FULL_OR_LOCKED:
                raise InputError(f"cannot write into {target}: {reason(error)}") from error
            raise
        with _writing_into(target):
            _move_files(temporary, target, names)
        done = True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not done:
            for parent in created:
                with suppress(OSError):
                    parent.rmdir()


def _move_files(source: Path, target: Path, names: tuple[str, ...]) -> None:
    if not target.exists():
        os.replace(source, target)
        return
    written = [file.name for file in source.iterdir()]
    for name in written:
        os.replace(source / name, target / name)
    for name in set(names).difference(written):
        (target / name).unlink(missing_ok=True)


@contextmanager
def _writing_into(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write into {target}: {reason(error)}") from error


def make_folder(folder: Path) -> None:
    """Make a folder where there is none. Raises InputError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {reason(error)}") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """Of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def reason(error: BaseException) -> str:
    """The first line of what an exception says."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
