"""`lganet-fast data`: what is in a data set, and what is wrong with it."""

from __future__ import annotations

import argparse

from .options import add_config
from .verbosity import add_verbosity


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.description = "Look at a data set."
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
    add_verbosity(check, summary=False)
