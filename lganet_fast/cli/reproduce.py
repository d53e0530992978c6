"""`lganet-fast reproduce`: a table or figure of the paper, from its data to Markdown and LaTeX."""

from __future__ import annotations

import argparse

from .options import add_settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.description = (
        "Say which data, trainings and evaluations a table or figure needs, which are missing, how "
        "to make them and how long that takes; with --run, make them. Where all is there, write "
        "table.md, table.tex and figures."
    )
    parser.add_argument("name", metavar="TABLE", help="table1 to table6, or figure5 to figure9")
    parser.add_argument(
        "--runs", metavar="DIR", default="runs", help="folder of all runs (default: runs)"
    )
    parser.add_argument(
        "--run",
        action="store_true",
        help="carry out what is missing, in order; goes on where it stopped, and shares the work "
        "under torchrun",
    )
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="train every network for one time, such as 10m, on LPBA40 at 2 mm: the small table",
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", help="rows of the table (default: all)"
    )
    add_settings(parser)
