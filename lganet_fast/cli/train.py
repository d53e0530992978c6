"""`lganet-fast train`: train from a configuration, into a run folder."""

from __future__ import annotations

import argparse

from .options import add_config


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.description = (
        "Train a network from a configuration file. Several processes share the work "
        "under torchrun: torchrun --nproc-per-node N -m lganet_fast train CONFIG."
    )
    add_config(parser)
    parser.add_argument("--resume", action="store_true", help="resume the run in the output folder")
