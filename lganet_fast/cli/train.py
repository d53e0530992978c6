"""`lganet-fast train`: a configuration in, a run folder out."""

from __future__ import annotations

import argparse

from .options import add_config


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.description = (
        "Train a network from a configuration file. Several processes share the work "
        "under torchrun: torchrun --nproc-per-node N -m lganet_fast train CONFIG."
    )
    add_config(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in the output folder, if any"
    )
