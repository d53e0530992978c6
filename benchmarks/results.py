"""Rows of results and their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One way to do one piece of work. Times in seconds, memory in bytes; None if not measured.

    status: "run", "not run" or "failed", the last two with a reason. baseline: the way with which
    ratio (of times) and memory_ratio compare; above 1 is better. low and high: quartiles. floor:
    seconds for the bytes and operations at this machine's measured rates.
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
        """The piece of work and the device."""
        return (self.operation, self.size, self.detail, self.type, self.device)

    @property
    def group(self) -> tuple[str, ...]:
        """The fields shared by rows that are timed in turn."""
        return (*self.work, self.mode)

    def refused(self, status: str, reason: str) -> Row:
        """The same row without results."""
        return replace(self, status=status, reason=reason)


@dataclass(frozen=True)
class Results:
    """The results of a run. machine: from `machine.stamp`."""

    machine: dict[str, Any]
    rows: Sequence[Row]


def kept(row: Row) -> dict[str, Any]:
    """The row as a dictionary, rounded to six digits, without empty fields."""
    found = asdict(row).items()
    return {k: digits(v) for k, v in found if v is not None and v != ""}


def digits(value: Any) -> Any:
    """A float rounded to six digits; other values unchanged."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def load(path: Path) -> Results:
    """Results that were saved as JSON."""
    data = json.loads(path.read_text(encoding="utf-8"))
    empty = {"detail": "", "reason": ""}
    return Results(data["machine"], [Row(**{**empty, **row}) for row in data["rows"]])


def committed(folder: Path = FOLDER) -> list[Results]:
    """All stored full runs, sorted by machine name."""
    files = sorted(folder.glob("*.json"))
    return [load(path) for path in files if not path.stem.endswith(PARTIAL)]


PARTIAL = ("-quick", "-part", "-scaling", "-peers")
