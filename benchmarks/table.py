"""Results as one table, for a terminal and for Markdown."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from itertools import groupby
from pathlib import Path

from lganet_fast.cli.tables import Table
from lganet_fast.runtime.files import atomic

from . import machine
from .results import Results, Row, kept
from .targets import TARGETS, Target

HEAD = ("work", "mode", "way", "median", "quartiles", "ratio", "peak MB", "ratio", "floor", "note")


def cells(row: Row) -> tuple[str, ...]:
    """The texts of a row, in the columns of HEAD."""
    work = " ".join(filter(None, (row.operation, row.size, row.detail, row.type, row.device)))
    if row.status != "run":
        return (work, row.mode, row.way, *[""] * 6, f"{row.status}: {row.reason}")
    between = (
        "" if row.low is None or row.rounds < 2 else f"{seconds(row.low)} to {seconds(row.high)}"
    )
    return (
        work,
        row.mode,
        row.way,
        seconds(row.median),
        between,
        times(row.ratio),
        "" if row.peak is None else f"{row.peak / 2**20:.0f}",
        times(row.memory_ratio),
        seconds(row.floor),
        "; ".join(filter(None, (row.reason, "" if row.dice is None else f"Dice {row.dice:.4f}"))),
    )


def seconds(value: float | None) -> str:
    """Three digits and a unit."""
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def times(value: float | None) -> str:
    """A ratio."""
    return "" if value is None else f"{value:.2f}x"


def condensed(rows: Sequence[Row]) -> list[Row]:
    """Rows grouped by piece of work; ways that ran in no mode for one reason as one row."""
    works: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        works.setdefault(row.work, []).append(row)
    out = []
    for work in works.values():
        idle = {row.way: row for row in work if row.status == "not run"}
        idle = {
            w: r for w, r in idle.items() if {x.reason for x in work if x.way == w} == {r.reason}
        }
        reasons = {row.reason for row in idle.values()}
        if len(idle) == len({row.way for row in work}) and len(reasons) == 1:
            out.append(replace(work[0], mode="all", way="all"))
            continue
        ran = [row for row in work if row.way not in idle]
        out += sorted(ran, key=lambda row: [r.mode for r in work].index(row.mode))
        out += [replace(row, mode="all") for row in idle.values()]
    return out


def text(results: Results) -> str:
    """The table in aligned columns; repeated cells of neighbouring rows are left empty."""
    lines: list[tuple[str, ...]] = [HEAD]
    for _, group in groupby(condensed(results.rows), key=lambda row: row.work):
        shown = [cells(row) for row in group]
        lines += [
            (
                row[0] if i == 0 else "",
                row[1] if i == 0 or row[1] != shown[i - 1][1] else "",
                *row[2:],
            )
            for i, row in enumerate(shown)
        ]
    return Table(lines).text()


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def save(results: Results, folder: Path, name: str) -> list[Path]:
    """Write NAME.json, .csv and .md. Raises InputError if that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{name}.{ending}" for ending in ("json", "csv", "md")]
    data = {"machine": results.machine, "rows": [kept(row) for row in results.rows]}
    with atomic(written[0]) as path:
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    with atomic(written[1]) as path, path.open("w", encoding="utf-8", newline="") as file:
        names = [f.name for f in fields(Row)]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in results.rows)
    with atomic(written[2]) as path:
        path.write_text(markdown(results), encoding="utf-8")
    return written


def markdown(results: Results) -> str:
    """The text of NAME.md: the machine, the targets, all rows."""
    parts = [
        f"# {results.machine['cpu']}",
        machine.line(results.machine),
        "Medians of interleaved rounds; a ratio is how many times as fast, or how many times less "
        "memory, as the first way of its kind, by the median of the rounds' ratios. The floor is "
        "the fewest bytes or operations at this machine's measured rates.",
        "## Targets",
        targets(results),
        "## Everything",
        grid(HEAD, [cells(row) for row in condensed(results.rows)]),
    ]
    return "\n\n".join(parts) + "\n"


def targets(results: Results, device: str = "cpu") -> str:
    """A Markdown table: required ratio, goal and result of each target."""
    return grid(
        ("work", "against", "of", "asked", "aim", "found", "from and to"),
        [found(target, results, device) for target in TARGETS],
    )


def found(target: Target, results: Results, device: str) -> tuple[str, ...]:
    """The row of a target."""
    rows = [row for row in results.rows if row.device == device and target.about(row)]
    row = next((row for row in rows if row.status == "run"), rows[0] if rows else None)
    promise = (target.of, f"{target.ask:g}x", f"{target.aim:g}x")
    if row is None:
        return (target.title, "", *promise, "not run", "")
    first = next((r for r in results.rows if r.group == row.group and r.way == row.baseline), None)
    value = target.reached(row)
    if value is None:
        return (target.title, row.baseline, *promise, f"{row.status}: {row.reason}", "")
    bold = f"**{value:.2f}x**" if value >= target.ask else f"{value:.2f}x"
    if target.of == "memory":
        ends = [r.peak for r in (first, row) if r and r.peak is not None]
        change = " to ".join(f"{e / 2**20:.0f} MB" for e in ends)
    else:
        change = " to ".join(seconds(r.median) for r in (first, row) if r)
    if row.dice is not None and first is not None and first.dice is not None:
        change += f", Dice {first.dice:.3f} to {row.dice:.3f}"
    return (target.title, row.baseline, *promise, bold, change)
