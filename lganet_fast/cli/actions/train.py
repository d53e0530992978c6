"""Training a network from a configuration."""

from __future__ import annotations

import argparse

from ...runtime import malloc
from ...training import train
from ..options import read_config


def run(args: argparse.Namespace) -> None:
    """Train. Raises InputError for unusable options or data."""
    config = read_config(args)
    if config.model.checkpoint:  # the user is short of memory
        malloc.give_back()
    folder = train(config, args.resume, args.quiet, args.config)
    if not args.quiet:
        print(f"results {folder}")
