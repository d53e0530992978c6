"""Files written completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError
from .leftovers import GOING, GONE, place_beside

FULL_OR_LOCKED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def check_extension(path: str | os.PathLike[str], allowed: tuple[str, ...]) -> str:
    """The path's extension, of those allowed. Raises InputError for another."""
    name = Path(path).name.lower()
    for extension in allowed:
        if name.endswith(extension) and name != extension:
            return extension
    raise InputError(f"{path} must end in {' or '.join(allowed)}")


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, with the same extension, which becomes `path` at the end.

    After an exception or an interrupt the temporary file is removed and an older `path` is
    unchanged; leftovers of killed processes are removed.
    Raises InputError if the file cannot be written.
    """
    target = Path(path)
    check_no_folder(target)
    with place_beside(target, target.parent) as temporary:
        try:
            yield temporary
            os.replace(temporary, target)
        except OSError as error:
            raise InputError(f"cannot write {target}: {reason(error)}") from error


@contextmanager
def staged_folder(
    path: str | os.PathLike[str],
    names: Collection[str] = (),
    *,
    expected: Collection[str] | None = None,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[Path]:
    """A hidden new folder to write into: at the end its files move into `path`, all or none.

    names: files of earlier runs in `path`; those not written now are deleted at the end.
    expected: those of them that will be written; if given, others raise an error instead.
    inputs: files that must not change.
    After an exception or an interrupt the new folder is removed and an older `path` is unchanged;
    leftovers of killed processes are recovered first.
    Raises InputError if `path` is a file or cannot be written, if one of the names is a folder or
    an input, or if the disk is full.
    """
    target = Path(os.path.abspath(path))
    with _writing_into(target):
        if target.exists() and not target.is_dir():
            raise InputError(f"cannot write into {target}: it is not a folder")
    for name in names:
        check_no_folder(target / name)
        check_no_input(target / name, inputs)
    if expected is not None and target.exists():
        check_nothing_lost(target, set(names).difference(expected))
    created = [parent for parent in target.parents if not parent.exists()]
    # Inside an existing folder, since it may be a mount: renaming across file systems fails.
    place = target if target.exists() else target.parent
    done = False
    try:
        with place_beside(target, place) as temporary:
            with _writing_into(target):
                temporary.mkdir(parents=True)
            try:
                yield temporary
            except InputError as error:  # the user knows the folder, not the hidden place
                raise InputError(str(error).replace(str(temporary), str(target))) from error
            except OSError as error:
                if error.errno in FULL_OR_LOCKED:
                    raise InputError(f"cannot write into {target}: {reason(error)}") from error
                raise
            with _writing_into(target):
                move_files(temporary, target, names)
            done = True
    finally:
        if not done:
            for parent in created:
                with suppress(OSError):
                    parent.rmdir()


def check_no_folder(path: Path) -> None:
    """Raise InputError if a file to be written is a folder, or cannot be created."""
    try:
        folder = stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path}: {reason(error)}") from error
    if folder:
        raise InputError(f"cannot write {path}: it is a folder")


def check_no_input(path: Path, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Raise InputError if a file to be written is an input."""
    for source in inputs:
        if path.exists() and os.path.exists(source) and os.path.samefile(path, source):
            raise InputError(f"cannot write {path}: it is an input, {os.fspath(source)}")


def check_nothing_lost(folder: Path, names: Iterable[str]) -> None:
    """Raise InputError if results of an earlier run would be removed without a replacement."""
    if stale := sorted(name for name in names if (folder / name).exists()):
        raise InputError(
            f"{folder} contains {', '.join(stale)} of an earlier run, which this run does not "
            "write: give another folder, or --overwrite to replace all of it"
        )


def move_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Move a new folder's files into `target`, where they replace the old files: all or none.

    Old and new files are never mixed: first all old files are moved aside. The next process
    completes or reverts the state that a killed process leaves.
    """
    if not target.exists():
        os.replace(source, target)
        return
    written = [file.name for file in source.iterdir()]
    for name in written:
        check_no_folder(target / name)
    old = [name for name in {*written, *names} if os.path.lexists(target / name)]
    aside, gone = source / GOING, source / GONE
    aside.mkdir()
    moved: list[tuple[Path, Path]] = []

    def move(here: Path, there: Path) -> None:
        os.replace(here, there)
        moved.append((here, there))

    try:
        for name in old:
            move(target / name, aside / name)
        move(aside, gone)
        for name in written:
            move(source / name, target / name)
    except BaseException:
        for here, there in reversed(moved):
            os.replace(there, here)
        raise


@contextmanager
def _writing_into(target: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write into {target}: {reason(error)}") from error


def make_folder(folder: Path) -> None:
    """Create a folder if it does not exist. Raises InputError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {reason(error)}") from error


def sha256(*paths: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, or of several files' one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def reason(error: BaseException) -> str:
    """The first line of an exception's message."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
