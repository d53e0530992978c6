"""The machine-readable report of a run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from .files import atomic


def report_json(report: Mapping[str, Any]) -> str:
    """Strict JSON, indented by 2, with a final newline. A number that is not finite becomes null.

    report: nested mappings, sequences, numbers (numpy's too), strings, booleans and None; a path
    becomes a string. Raises TypeError for anything else.
    """
    text = json.dumps(_plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name that is not valid text is preserved, by JSON's own escapes.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_report_json(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Write `report_json` to a file, completely or not at all.

    Raises InputError if the file cannot be written.
    """
    text = report_json(report)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def named_only(report: Any, paths: Sequence[Any]) -> Any:
    """A report (mapping or dataclass) for sharing: these paths are replaced by file names.

    Entries of `paths` that are not paths are ignored. The command in a network's card loses its
    folders too.
    """
    if isinstance(report, Mapping):
        named = {key: named_only(item, paths) for key, item in report.items()}
        if paths and isinstance(command := named.get("command"), str):
            named["command"] = " ".join(PurePath(word).name for word in command.split())
        return named
    if is_dataclass(report) and not isinstance(report, type):
        parts = {f.name: named_only(getattr(report, f.name), paths) for f in fields(report)}
        return replace(report, **parts)
    if isinstance(report, list | tuple):
        return type(report)(named_only(item, paths) for item in report)
    if isinstance(report, str):
        known = (os.fspath(path) for path in paths if isinstance(path, str | os.PathLike))
        for path in sorted(known, key=len, reverse=True):
            report = report.replace(path, PurePath(path).name)
    return report


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
