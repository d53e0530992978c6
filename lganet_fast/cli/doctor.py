"""`lganet-fast doctor`: the path of each operation on this machine, and why no faster one runs."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.description = (
        "Show versions and devices, and for each operation on each device present "
        "which path runs and why no faster one does. The exit code is always 0."
    )
    parser.add_argument("--json", action="store_true", help="print JSON; memory in MB")
