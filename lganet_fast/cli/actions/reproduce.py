"""A table or figure of the paper: its plan, or its steps and the result."""

from __future__ import annotations

import argparse

from ...reproduction import Reproduction
from ...reproduction.reproduce import first_process
from ...reproduction.steps import THERE
from ..tables import show_markdown


def run(args: argparse.Namespace) -> None:
    """Print the plan, or run it and print the table."""
    wanted = Reproduction(args.name, args.runs, args.methods, args.overrides, args.budget)
    lines = wanted.plan()
    talks = first_process() and not args.quiet
    say = print if talks else lambda _: None
    if args.run:
        wanted.carry_out(lines, args.quiet, say)
    elif any(line.state != THERE for line in lines):
        say(wanted.told(lines, wanted.data_problem()))
        return
    if first_process():
        folder = wanted.write()
        if talks:
            show_markdown((folder / "table.md").read_text(encoding="utf-8"))
        say(f"\nresults: {folder}")
