"""Sections of a configuration as dataclasses that pydantic checks, with one-line errors."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from ..errors import InputError
from .rules import OWN, wanted

UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


class Section:
    """A table of the file. Raises InputError, naming section.key, for an invalid value."""

    title: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Kind = TypeVar("Kind", bound=type[Section])


@dataclass_transform(frozen_default=True)
def section(kind: Kind) -> Kind:
    """Make a class a frozen dataclass; an invalid value raises InputError."""
    made: Any = dataclass(frozen=True, config=ConfigDict(extra="forbid"))(kind)
    check = made.__init__

    @functools.wraps(check)
    def init(self: Any, *args: Any, **values: Any) -> None:
        given = {**dict(zip(names(made), args, strict=False)), **values}
        try:
            check(self, **given)
        except ValidationError as error:
            raise refusal({made.title: made}, {made.title: given}, error, made.title) from None

    made.__init__ = init
    return made


def names(kind: type[Section]) -> list[str]:
    """The keys of a section."""
    return [entry.name for entry in fields(kind)]


def schema(kind: type[Section]) -> dict[str, dict[str, Any]]:
    """The JSON schema of each key, with the default where there is one."""
    keys: dict[str, dict[str, Any]] = TypeAdapter(kind).json_schema()["properties"]
    for entry in fields(kind):
        if entry.default_factory is not MISSING:  # which pydantic leaves out
            keys[entry.name]["default"] = entry.default_factory()
    return keys


def refusal(
    kinds: Mapping[str, type[Section]],
    tables: Mapping[str, Any],
    error: ValidationError,
    *within: str,
) -> InputError:
    """The first error of pydantic, unknown names before others.

    kinds: the sections. tables: the checked values. within: the section, if they are of one.
    """
    found = min(error.errors(), key=lambda one: one["type"] not in UNKNOWN)
    title, *rest = (str(part) for part in (*within, *found["loc"]))
    if title not in kinds:
        return InputError(f"unknown section {title}; sections are {', '.join(kinds)}")
    if not rest:
        return InputError(f"{title} must be a section, [{title}], got {tables[title]!r}")
    kind, key = kinds[title], rest[0]
    if key not in names(kind):
        keys = ", ".join(names(kind))
        return InputError(f"unknown key {title}.{key}; keys of [{title}] are {keys}")
    must = found["msg"] if found["type"] == OWN else wanted(schema(kind)[key])
    if found["type"] == "missing" and len(rest) == 1:
        return InputError(f"{title}.{key} is missing: it must be {must}")
    return InputError(f"{title}.{key} must be {must}, got {tables[title][key]!r}")
