"""`lganet-fast train`: a configuration in, a run folder out."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train a network on a data set",
        description="Train a network as a configuration says. Under torchrun the processes share "
        "the work: torchrun --nproc-per-node N -m lganet_fast train CONFIG.",
    )
    parser.add_argument("config", metavar="CONFIG", help="a TOML file, or a shipped one's name")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=C",
        dest="overrides",
        help="set section a, key b to C; can be repeated",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in the output folder, if any"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train. Raises InputError for what does not fit."""
    from ..config import load
    from ..training import train

    folder = train(load(args.config, args.overrides), args.resume, args.quiet, args.config)
    if not args.quiet:
        print(f"results {folder}")
