"""What a phase is given, and where it leaves what it finds."""

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
    """A phase under way.

    out: the report's folder. until: when it must be done, as time.monotonic counts. dry: without a
    GPU, on CPU stand-ins. quick: fewer cases. tune: winners go to the user's own table too.
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
        """Where tensors go."""
        return "cpu" if self.dry else "cuda"

    @property
    def file(self) -> Path:
        """What the phase has found so far."""
        return self.out / "phases" / f"{self.name}.json"

    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def put(self, now: bool = False, **parts: Any) -> None:
        """Keep some findings: they survive the process, those of the last moment if `now`."""
        self.found |= parts
        if now or time.monotonic() - self.written > PAUSE:
            save(self.file, self.found)
            self.written = time.monotonic()

    def part(self, name: str) -> dict[str, Any]:
        """What another phase has found; empty where it has not run."""
        return loaded(self.out / "phases" / f"{name}.json")


def save(path: Path, data: Any) -> None:
    """Write JSON, whole or not at all; what is not finite becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(finite(data), indent=1) + "\n", encoding="utf-8")


def loaded(path: Path) -> dict[str, Any]:
    """What was saved; empty where nothing was."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def finite(data: Any) -> Any:
    """The same for JSON: floats to six digits, None where not finite, texts of what is unknown."""
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    return data if data is None or isinstance(data, (bool, int, str)) else str(data)
