"""`lganet-fast data`: what is in a data set, and what is wrong with it."""

from __future__ import annotations

import argparse
from typing import Any

from ..data.check import inspect
from ..errors import InputError
from .options import add_config, read_config


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "data", help="look at a data set", description="Look at a data set."
    )
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", required=True, help="what to do"
    )
    check = actions.add_parser(
        "check",
        help="say what is missing, misshapen or unreadable, file by file",
        description="Say what is missing, misshapen or unreadable in a data set, file by file, "
        "from the files' headers. Ends with exit code 2 where something is.",
    )
    add_config(check)
    check.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> None:
    """Print what was found. Raises InputError where there is any problem."""
    found = inspect(read_config(args))
    for problem in found.problems:
        print(problem)
    counts = ", ".join(f"{count} {split}" for split, count in found.pairs.items())
    print(f"pairs: {counts}; {found.files} files")
    if count := len(found.problems):
        raise InputError(f"{count} problem{'s' * (count > 1)} in the data")
