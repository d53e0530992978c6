"""`lganet-fast train`: a configuration in, a run folder out."""

from __future__ import annotations

import argparse
from typing import Any

from ..runtime import malloc
from .options import add_config, read_config


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train a network on a data set",
        description="Train a network as a configuration says. Several processes share the work "
        "under torchrun: torchrun --nproc-per-node N -m lganet_fast train CONFIG.",
    )
    add_config(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in the output folder, if any"
    )
    parser.add_argument("--quiet", action="store_true", help="print only errors and warnings")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train. Raises InputError for what does not fit."""
    from ..training import train

    config = read_config(args)
    if config.model.checkpoint:  # who asks for this is short of memory
        malloc.give_back()
    folder = train(config, args.resume, args.quiet, args.config)
    if not args.quiet:
        print(f"results {folder}")
