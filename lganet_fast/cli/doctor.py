"""`lganet-fast doctor`: what runs where on this machine, and why nothing faster does."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.description = (
        "Show versions and devices, and for each operation on each device present "
        "which path runs and why no faster one does. Always ends with exit code 0."
    )
    parser.add_argument("--json", action="store_true", help="print JSON; memory in MB")
