"""`python -m lganet_fast.config.reference > docs/configuration.md`: what a configuration holds."""

from __future__ import annotations

import inspect
import json
from typing import Any

from pydantic import TypeAdapter

from .loading import SECTIONS, Config
from .rules import wanted
from .section import Section, schema

HEAD = """# Configuration

What a file for `lganet-fast train`, `evaluate` and `data` may hold. A key that is left out keeps
its default; any other key, and any other value, is refused in one line. Made by
`python -m lganet_fast.config.reference` from what checks a file;
`lganet_fast.config.json_schema()` gives the same as a JSON schema.
"""


def json_schema() -> dict[str, Any]:
    """The JSON schema of a whole configuration, for editors and other programs."""
    return TypeAdapter(Config).json_schema()


def page() -> str:
    """docs/configuration.md."""
    return "\n".join([HEAD, *map(_part, SECTIONS.values())])


def _part(kind: type[Section]) -> str:
    rows = ["| key | default | must be |", "|---|---|---|"]
    for key, value in schema(kind).items():
        default = (
            f"`{json.dumps(value['default'])}`" if "default" in value else "none: must be given"
        )
        rows.append(f"| `{key}` | {default} | {wanted(value)} |")
    return "\n".join([f"## {kind.title}\n", f"{inspect.getdoc(kind)}\n", *rows, ""])


if __name__ == "__main__":
    print(page(), end="")
