"""A bar chart of a run: the speed-up of each way over the baseline."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from lganet_fast.runtime.files import atomic

from . import machine
from .results import Results, Row
from .table import times

COLOURS = {
    "reference": "#9aa0a6",
    "compiled": "#7e6bc4",
    "native": "#1f77b4",
    "auto": "#1f77b4",
    "blocks": "#17a2b8",
    "triton": "#e8710a",
    "SDPA": "#2e8b57",
}


def draw(results: Results, path: Path) -> Path:
    """Bars of the ratios on a logarithmic axis, with quartiles; only forward and full."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in results.rows:
        if row.ratio is not None and row.way != row.baseline and row.mode != "backward":
            groups.setdefault(row.group, []).append(row)
    count = sum(map(len, groups.values()))
    figure = Figure(figsize=(9, 1.4 + 0.16 * count + 0.1 * len(groups)), layout="constrained")
    ax = figure.subplots()
    place, ticks, seen = 0.0, [], set()
    for group, rows in groups.items():
        start = place
        for row in rows:
            colour = COLOURS.get(row.way, "#444444")
            assert row.ratio is not None
            low, high = row.ratio_low or row.ratio, row.ratio_high or row.ratio
            error = [[row.ratio - low], [high - row.ratio]]
            label = None if row.way in seen else row.way
            seen.add(row.way)
            ax.barh(
                place, row.ratio, 0.9, color=colour, xerr=error, ecolor="#00000066", label=label
            )
            ax.text(high, place, " " + times(row.ratio), va="center", fontsize=6)
            place += 1
        ticks.append(((start + place - 1) / 2, " ".join(filter(None, group))))
        place += 0.6
    ax.axvline(1, color="#444444", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_yticks([t[0] for t in ticks], [t[1] for t in ticks], fontsize=6)
    ax.invert_yaxis()
    ax.set_xlabel("times as fast as the baseline")
    ax.set_title(machine.line(results.machine), fontsize=6, wrap=True)
    if seen:
        ax.legend(fontsize=7)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
