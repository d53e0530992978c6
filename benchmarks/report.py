"""`python -m benchmarks.report --readme`: writes the table of results in the README.

The block between two marker comments is made only from the full runs in benchmarks/results; without
the option it is printed. `--networks FILE` prints the table of all networks compared with PyTorch's
operations, from the results of a run.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from lganet_fast.runtime.files import atomic

from . import ROOT, machine, table
from .results import Results, Row, committed, load

README = ROOT / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def block(runs: Sequence[Results]) -> str:
    """The text between the markers: targets and results of each machine."""
    parts = []
    for run in runs:
        parts.append(machine.line(run.machine))
        parts += [table.targets(run, device) for device in ("cpu", "cuda") if ran_on(run, device)]
    return "\n\n".join(parts or ["No full run is stored in benchmarks/results."])


def ran_on(run: Results, device: str) -> bool:
    """Whether anything was measured on the device."""
    return any(row.device == device and row.status == "run" for row in run.rows)


def renewed(text: str, runs: Sequence[Results]) -> str:
    """The text with a new block. Raises ValueError if a marker is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{README.name} must hold {BEGIN} and after it {END}")
    return f"{before}{BEGIN}\n\n{block(runs)}\n\n{END}{after}"


def networks(run: Results) -> str:
    """A Markdown table: forward and step of every network, plain and ours, and mean ratios."""
    rows = [row for row in run.rows if row.operation == "peers" and row.device == "cpu"]
    lines, ratios = [], []
    for name in dict.fromkeys(row.detail for row in rows):
        line, found = [name], []
        for mode in ("forward", "step"):
            own = [row for row in rows if (row.detail, row.mode) == (name, mode)]
            if len(own) != 2 or any(row.status != "run" for row in own):
                raise ValueError(f"the run has no {mode} of {name} in both ways")
            before, after = own
            line += [change(before, after), table.times(after.ratio)]
            line += [memory_change(before, after), table.times(after.memory_ratio)]
            found += [after.ratio, after.memory_ratio]
        lines.append(line)
        ratios.append(found)
    means = [table.times(statistics.geometric_mean(column)) for column in zip(*ratios, strict=True)]
    lines.append(["geometric mean", *(cell for mean in means for cell in ("", mean))])
    parts = [head for mode in ("forward", "step") for head in (mode, "ratio", "peak MB", "ratio")]
    return table.grid(["network", *parts], lines)


def change(before: Row, after: Row) -> str:
    """Both times as text."""
    return f"{table.seconds(before.median)} to {table.seconds(after.median)}"


def memory_change(before: Row, after: Row) -> str:
    """Both peaks as text, in MB."""
    return " to ".join(f"{(row.peak or 0) / 2**20:.0f}" for row in (before, after))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--readme", action="store_true", help="write it into README.md")
    parser.add_argument("--networks", type=Path, metavar="FILE", help="every network, of a run")
    return parser


def main(words: Sequence[str] | None = None, readme: Path = README) -> None:
    """Print the block, or write it."""
    given = parser().parse_args(words)
    if given.networks is not None:
        print(networks(load(given.networks)))
        return
    if not given.readme:
        print(block(committed()))
        return
    text = renewed(readme.read_text(encoding="utf-8"), committed())
    with atomic(readme) as path:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
