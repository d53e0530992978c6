"""`python -m lganet_fast.config.reference > docs/configuration.md`: all keys, from the schema."""

from __future__ import annotations

import inspect
import json
from typing import Any

from pydantic import TypeAdapter

from .loading import SECTIONS, Config
from .rules import wanted
from .section import Section, schema

HEAD = """# Configuration

The keys of a file for `lganet-fast train`, `evaluate` and `data`. A key that is left out keeps its
default; unknown keys and invalid values raise a one-line error.
`python -m lganet_fast.config.reference` generates this page from the schema that checks a file;
`lganet_fast.config.json_schema()` returns the JSON schema.
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
