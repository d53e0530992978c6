"""`lganet-fast data`: list a data set and check it."""

from __future__ import annotations

import argparse

from .options import add_config
from .verbosity import add_verbosity


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.description = "Inspect a data set."
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", required=True, help="what to do"
    )
    check = actions.add_parser(
        "check",
        help="list files that are missing, unreadable or of the wrong shape",
        description="List the files of a data set that are missing, unreadable or of the wrong "
        "shape, from their headers. Exits with code 2 if there are any.",
    )
    add_config(check)
    add_verbosity(check, summary=False)
