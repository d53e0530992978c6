"""`lganet-fast reproduce`: make a table or figure of the paper, from data to Markdown and LaTeX."""

from __future__ import annotations

import argparse

from .options import add_settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.description = (
        "List the data, trainings and evaluations that a table or figure needs, which are missing, "
        "how to make them and the estimated time; with --run, make them. If none is missing, write "
        "table.md, table.tex and figures."
    )
    parser.add_argument("name", metavar="TABLE", help="table1 to table6, or figure5 to figure9")
    parser.add_argument(
        "--runs", metavar="DIR", default="runs", help="folder of all runs (default: runs)"
    )
    parser.add_argument(
        "--run",
        action="store_true",
        help="run the missing steps in order; resumes after an interruption; torchrun distributes "
        "the work",
    )
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="train every network for the same time, such as 10m, on LPBA40 at 2 mm: the small "
        "table",
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", help="rows of the table (default: all)"
    )
    add_settings(parser)
