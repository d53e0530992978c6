"""Registering and scoring a split of a data set."""

from __future__ import annotations

import argparse

from ...errors import InputError
from ...evaluation import evaluate
from ..options import read_config
from ..tables import show_markdown


def run(args: argparse.Namespace) -> None:
    """Evaluate and print the table."""
    others = dict(args.compare)
    if len(others) < len(args.compare):
        raise InputError("--compare names one method twice")
    folder = evaluate(
        read_config(args),
        args.checkpoint,
        args.out,
        others,
        args.name,
        quiet=args.quiet,
        syn=args.methods == "syn",
    )
    if not args.quiet:
        show_markdown((folder / "tables.md").read_text(encoding="utf-8"))
        print(f"\nresults: {folder}")
