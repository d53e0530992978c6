"""The arguments of a phase, and the file of its findings."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lganet_fast.runtime.files import atomic

PAUSE = 0.5  # seconds between two writings of one file


@dataclass
class Work:
    """A running phase.

    out: the report's folder. until: its end, in time.monotonic. dry: without a GPU, on substitutes.
    quick: fewer cases. tune: also write winners to the user's own table.
    """

    name: str
    out: Path
    until: float
    dry: bool = False
    quick: bool = False
    tune: bool = False
    found: dict[str, Any] = field(default_factory=dict)
    written: float = -math.inf

    @property
    def device(self) -> str:
        """The device of tensors."""
        return "cpu" if self.dry else "cuda"

    @property
    def file(self) -> Path:
        """The file of the phase's findings."""
        return self.out / "phases" / f"{self.name}.json"

    def left(self) -> float:
        """The remaining seconds."""
        return self.until - time.monotonic()

    def put(self, now: bool = False, **parts: Any) -> None:
        """Store findings in the file; at once if `now`, else at most every PAUSE seconds."""
        self.found |= parts
        if now or time.monotonic() - self.written > PAUSE:
            save(self.file, self.found)
            self.written = time.monotonic()

    def part(self, name: str) -> dict[str, Any]:
        """The findings of another phase; empty if it has not run."""
        return loaded(self.out / "phases" / f"{name}.json")


def save(path: Path, data: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(finite(data), indent=1) + "\n", encoding="utf-8")


def loaded(path: Path) -> dict[str, Any]:
    """The saved data; empty if there is no file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def finite(data: Any) -> Any:
    """Data for JSON: floats rounded to six digits, None if not finite, other types as text."""
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    return data if data is None or isinstance(data, (bool, int, str)) else str(data)
