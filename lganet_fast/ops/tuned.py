"""The fastest measured path and configuration of each convolution.

A table for each compute capability, `tuned/sm_90.json` beside the package's modules, and over it a
user's own of the same name in ~/.cache/lganet_fast (or $XDG_CACHE_HOME/lganet_fast), as
`python -m benchmarks.gpu --tune` writes it. Nothing is read before the first look-up, and torch and
the device are never queried. An entry says what was fast, not what is allowed: a path must check a
configuration before it runs it.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..runtime.files import atomic, make_folder, reason

FORMAT = 1  # of the files; raised when the configurations of a path are numbered anew
OPERATIONS = ("convolve", "convolve_input_gradient", "convolve_weight_gradient")
TYPES = ("float16", "bfloat16", "tf32", "float32")
PATHS = ("cudnn", "triton", "native")
SHIPPED = Path(__file__).parent.parent / "tuned"

Capability = tuple[int, int]


class Key(NamedTuple):
    """What was measured: one of OPERATIONS on so many channels, one of TYPES, a size of volume.

    size: the logarithm of the number of voxels (of the whole batch) to the base 2, rounded.
    """

    operation: str
    inputs: int
    outputs: int
    type: str
    size: int


@dataclass(frozen=True)
class Entry:
    """The winner. path: one of PATHS. config: as that path numbers or names its configurations;
    of cuDNN 1 where it is to choose its algorithm by measuring (`cudnn.benchmark`), else 0.
    us: microseconds that it took.
    """

    path: str
    config: int
    us: float


Table = dict[Key, Entry]
_lock = threading.Lock()
_warned: set[Path] = set()


def key(operation: str, inputs: int, outputs: int, type: str, voxels: int) -> Key:
    """The key of a volume of `voxels`, at least 1."""
    return Key(operation, inputs, outputs, type, round(math.log2(voxels)))


@cache
def winner(
    operation: str, inputs: int, outputs: int, type: str, voxels: int, capability: Capability
) -> Entry | None:
    """The entry of such a convolution, else that of the nearest number of voxels, else None.

    operation: one of OPERATIONS. type: one of TYPES. voxels: of the whole batch. capability: the
    device's, as `torch.cuda.get_device_capability` says it; a card without a table has that of the
    nearest older one of its generation (the same major number).
    """
    own = key(operation, inputs, outputs, type, voxels)
    found = table(capability)
    sizes = [k.size for k in found if k[:4] == own[:4]]
    if not sizes:
        return None
    nearest = min(sizes, key=lambda size: (abs(size - own.size), -size))
    return found[own._replace(size=nearest)]


@cache
def table(capability: Capability) -> Table:
    """The entries of a capability: the shipped table, overridden by the user's own."""
    folders = (SHIPPED, own_folder())
    major, minor = capability
    known = {code for folder in folders for code in codes(folder)}
    near = [m for m in range(minor, -1, -1) if (major, m) in known]
    if not near:
        return {}
    merged: Table = {}
    for folder in folders:
        merged |= read(folder / name((major, near[0])))
    return merged


def name(capability: Capability) -> str:
    """The file of a capability: "sm_90.json" of (9, 0)."""
    return f"sm_{capability[0]}{capability[1]}.json"


def codes(folder: Path) -> set[Capability]:
    """The capabilities with files in a folder; none if the folder does not exist."""
    found = (re.fullmatch(r"sm_(\d+)(\d)\.json", path.name) for path in folder.glob("sm_*.json"))
    return {(int(match[1]), int(match[2])) for match in found if match}


def own_folder() -> Path:
    """The folder of the user's own tables."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "lganet_fast"


def read(path: Path) -> Table:
    """A file's entries; none without a file. A damaged file is ignored, with one warning."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        return ignored(path, reason(error))
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            return ignored(path, f"its format is {data['format']!r}, not {FORMAT}")
        return dict(entry_of(row) for row in data["entries"])
    except (ValueError, KeyError, TypeError) as error:
        return ignored(path, f"{type(error).__name__}: {reason(error)}")


def entry_of(row: Mapping[str, Any]) -> tuple[Key, Entry]:
    """Parse a row of a file. Raises ValueError, KeyError or TypeError for an invalid row."""
    own = Key(*(row[field] for field in Key._fields))
    entry = Entry(row["path"], row["config"], row["us"])
    counts = (own.inputs, own.outputs, own.size)
    if own.operation not in OPERATIONS or own.type not in TYPES or entry.path not in PATHS:
        raise ValueError(f"unknown operation, type or path in {dict(row)}")
    if any(type(n) is not int or n < 0 for n in (*counts, entry.config)):
        raise ValueError(f"whole numbers are wanted in {dict(row)}")
    if type(entry.us) not in (int, float) or not 0 < entry.us < math.inf:
        raise ValueError(f"a time is wanted in {dict(row)}")
    return own, entry


def ignored(path: Path, why: str) -> Table:
    """Warn of a file, once."""
    with _lock:
        first = path not in _warned
        _warned.add(path)
    if first:
        warnings.warn(f"{path} is ignored: {why}", stacklevel=2)
    return {}


def record(
    entries: Mapping[Key, Entry],
    capability: Capability,
    about: Mapping[str, Any],
    folder: Path | None = None,
) -> Path:
    """Put entries into the table of a capability, in `folder`, else in the user's own.

    Older entries of other keys stay. about: what they were measured on, such as the card, the
    versions and the date. The file is written whole or not at all, and asked from the next call of
    `winner` on. Raises InputError if it cannot be written or an entry makes no sense.
    """
    folder = folder or own_folder()
    path = folder / name(capability)
    merged = {**read(path), **entries}
    rows = [{**own._asdict(), **asdict(entry)} for own, entry in sorted(merged.items())]
    try:
        for row in rows:
            entry_of(row)
    except (ValueError, TypeError) as error:
        raise InputError(f"cannot write {path}: {reason(error)}") from error
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    head = json.dumps({"format": FORMAT, "about": dict(about)}, indent=1)[:-2]
    make_folder(folder)
    with atomic(path) as temporary:
        temporary.write_text(f'{head},\n "entries": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    forget()
    return path


def forget() -> None:
    """Read the files again at the next look-up."""
    winner.cache_clear()
    table.cache_clear()
