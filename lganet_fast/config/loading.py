"""The configuration of training and evaluation: TOML files with every value checked.

A file has the sections of `schema`, each a class that documents its keys; missing keys keep their
defaults. `extends = "lpba40"` at the top takes the defaults from another file or a shipped
configuration.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ..errors import InputError
from ..runtime.reading import reading
from .included import PRESETS, shipped
from .schema import (
    DataSection,
    EvaluateSection,
    LossSection,
    ModelSection,
    OutputSection,
    SyntheticSection,
    TrainSection,
)
from .section import Section, refusal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Tables: TypeAlias = dict[str, dict[str, Any]]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """All sections."""

    data: DataSection
    synthetic: SyntheticSection = field(default_factory=SyntheticSection)
    model: ModelSection = field(default_factory=ModelSection)
    loss: LossSection = field(default_factory=LossSection)
    train: TrainSection = field(default_factory=TrainSection)
    evaluate: EvaluateSection = field(default_factory=EvaluateSection)
    output: OutputSection = field(default_factory=OutputSection)


SECTIONS: dict[str, type[Section]] = {
    kind.title: kind
    for kind in (
        DataSection,
        SyntheticSection,
        ModelSection,
        LossSection,
        TrainSection,
        EvaluateSection,
        OutputSection,
    )
}


def load(source: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    source: a TOML file, or the name of a shipped configuration (see `shipped`). overrides:
    "section.key=value", the value in TOML; text may go without quotes.
    Raises InputError if the file cannot be read, for an unknown section or key, and for an invalid
    value.
    """
    tables = read(source)
    for override in overrides:
        section, name, value = _override(override)
        tables.setdefault(section, {})[name] = value
    with reading(f"configuration {source}", "cannot be used"):  # a number may be too long
        return build(tables)


def build(tables: Mapping[str, Mapping[str, Any]]) -> Config:
    """Build the configuration from tables. Raises InputError as `load` does."""
    tables = {DataSection.title: {}, **tables}  # the only section without defaults
    try:
        return TypeAdapter(Config).validate_python(tables)
    except ValidationError as error:
        raise refusal(SECTIONS, tables, error) from None


def read(source: str | os.PathLike[str], within: tuple[str, ...] = ()) -> Tables:
    """The tables of a file, merged with those that it extends, not yet checked."""
    content = _content(source)
    with reading(os.fspath(source), "is not TOML"):
        tables = tomllib.loads(content)
    base = tables.pop("extends", None)
    if base is None:
        return tables
    if not isinstance(base, str) or len(within) > 8:
        raise InputError(f"{source}: extends must name another configuration, got {base!r}")
    with reading(f"{source} extends {base!r}, which"):
        beside = Path(source).parent / base
        found = beside if beside.is_file() else base
    merged = read(found, (*within, os.fspath(source)))
    for title, values in tables.items():
        if isinstance(values, dict) and isinstance(merged.get(title), dict):
            merged[title].update(values)
        else:
            merged[title] = values
    return merged


def dumps(config: Config) -> str:
    """The configuration as TOML; `load` reads the same configuration back."""
    parts = []
    for title in SECTIONS:
        section = getattr(config, title)
        lines = [
            f"{entry.name} = {_toml(getattr(section, entry.name))}" for entry in fields(section)
        ]
        parts.append("\n".join([f"[{title}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _content(source: str | os.PathLike[str]) -> str:
    try:
        with reading(f"configuration {source}"):
            path = Path(source)
            if not path.is_file() and os.fspath(source) in shipped():
                return (PRESETS / f"{source}.toml").read_text("utf-8")
            return path.read_text("utf-8")
    except InputError as error:
        names = ", ".join(shipped())
        raise InputError(f"{error}; it must be a TOML file or one of {names}") from error


def _override(argument: str) -> tuple[str, str, Any]:
    name, equals, value = argument.partition("=")
    section, dot, entry = name.strip().partition(".")
    if not (equals and dot and section and entry):
        raise InputError(f"a setting must read section.key=value, got {argument!r}")
    try:
        with reading(f"setting {argument}"):
            return section, entry, tomllib.loads(f"value = {value}")["value"]
    except InputError as error:
        if isinstance(error.__cause__, tomllib.TOMLDecodeError):
            return section, entry, value.strip()
        raise


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(x)}" for k, x in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
