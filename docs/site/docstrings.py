"""Converts docstrings to Markdown: the description of each argument becomes a list item."""

from __future__ import annotations

import re
from typing import Any

import griffe

LAST = re.compile(r"^(?:Returns?|Raises|Yields)\b")


class Items(griffe.Extension):
    """Converts the docstrings of functions and classes."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Convert the docstring of a function."""
        self.set_out(func, [p.name for p in func.parameters])

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Convert the docstring of a class, with its fields and constructor arguments."""
        made = cls.members.get("__init__")
        given = made.parameters if isinstance(made, griffe.Function) else ()
        self.set_out(cls, [*cls.members, *(p.name for p in given)])

    @staticmethod
    def set_out(thing: griffe.Object, names: list[str]) -> None:
        """Rewrite the docstring of an object. names: of its arguments or fields."""
        if thing.docstring is not None:
            thing.docstring.value = items(thing.docstring.value, names).replace("](", "]\\(")


def items(text: str, names: list[str]) -> str:
    """The text with "name: description" as list items, and Returns and Raises as paragraphs."""
    if not names:
        return text
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    head = rf"(?:{known})(?:, (?:{known}))*: "
    start = re.compile(head)
    split = re.compile(rf"(?<=\. )(?={head})|(?<=\.\s)(?=(?:Returns?|Raises|Yields) )")
    lines: list[str] = []
    listed = False
    for line in (part.rstrip() for whole in text.splitlines() for part in split.split(whole)):
        found = start.match(line)
        if found:
            named = found[0].removesuffix(": ").replace(", ", "`, `")
            lines += [] if listed else [""]
            lines.append(f"- `{named}`: {line[found.end() :]}")
        elif LAST.match(line) and listed:
            lines += ["", line]
        else:
            lines.append(f"    {line.strip()}" if listed and line else line)
        listed = bool(found) or (listed and bool(line) and not LAST.match(line))
    return "\n".join(lines)
