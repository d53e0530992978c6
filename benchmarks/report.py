"""`python -m benchmarks.report --readme`: the README's table of what was measured.

The block between its two marker comments is made from the full runs in benchmarks/results and from
nothing else; without the option it is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lganet_fast.runtime.files import atomic

from . import ROOT, machine, table
from .results import Results, committed

README = ROOT / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def block(runs: Sequence[Results]) -> str:
    """What stands between the markers: for each machine, what was asked and what was found."""
    parts = []
    for run in runs:
        parts.append(machine.line(run.machine))
        parts += [table.targets(run, device) for device in ("cpu", "cuda") if ran_on(run, device)]
    return "\n\n".join(parts or ["No full run is stored in benchmarks/results."])


def ran_on(run: Results, device: str) -> bool:
    """Whether anything was measured there."""
    return any(row.device == device and row.status == "run" for row in run.rows)


def renewed(text: str, runs: Sequence[Results]) -> str:
    """The text with the block made anew. Raises ValueError where a marker is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{README.name} must hold {BEGIN} and after it {END}")
    return f"{before}{BEGIN}\n\n{block(runs)}\n\n{END}{after}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--readme", action="store_true", help="write it into README.md")
    return parser


def main(words: Sequence[str] | None = None, readme: Path = README) -> None:
    """Print the block, or write it."""
    if not parser().parse_args(words).readme:
        print(block(committed()))
        return
    text = renewed(readme.read_text(encoding="utf-8"), committed())
    with atomic(readme) as path:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
