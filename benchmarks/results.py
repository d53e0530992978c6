"""Rows of figures, and the files that keep them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One way to do one piece of work. Times in seconds, memory in bytes, None: not measured.

    status: "run", "not run" or "failed", the last two with a reason. baseline: the way that
    ratio (of times) and memory_ratio are against: above 1 is better. low and high: quartiles.
    floor: seconds that the bytes and operations take at this machine's measured rates.
    """

    operation: str
    size: str
    detail: str
    type: str
    device: str
    mode: str
    way: str
    baseline: str
    status: str = "run"
    reason: str = ""
    rounds: int = 0
    median: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    peak: int | None = None
    memory_ratio: float | None = None
    bytes: float | None = None
    operations: float | None = None
    floor: float | None = None
    dice: float | None = None

    @property
    def work(self) -> tuple[str, ...]:
        """What is done, and where."""
        return (self.operation, self.size, self.detail, self.type, self.device)

    @property
    def group(self) -> tuple[str, ...]:
        """What is timed in turn."""
        return (*self.work, self.mode)

    def refused(self, status: str, reason: str) -> Row:
        """The same without figures."""
        return replace(self, status=status, reason=reason)


@dataclass(frozen=True)
class Results:
    """What a run found. machine: as `machine.stamp` says."""

    machine: dict[str, Any]
    rows: Sequence[Row]


def kept(row: Row) -> dict[str, Any]:
    """The row as a dictionary, to six digits, without what is empty."""
    found = asdict(row).items()
    return {k: digits(v) for k, v in found if v is not None and v != ""}


def digits(value: Any) -> Any:
    """A float to six digits; anything else as it is."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def load(path: Path) -> Results:
    """Results that were saved as JSON."""
    data = json.loads(path.read_text(encoding="utf-8"))
    empty = {"detail": "", "reason": ""}
    return Results(data["machine"], [Row(**{**empty, **row}) for row in data["rows"]])


def committed(folder: Path = FOLDER) -> list[Results]:
    """Every full run that is stored, in the order of the machines' names."""
    files = sorted(folder.glob("*.json"))
    return [load(path) for path in files if not path.stem.endswith(PARTIAL)]


PARTIAL = ("-quick", "-part", "-scaling")
