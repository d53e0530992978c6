"""`lganet-fast evaluate`: a split of a data set registered, scored, compared and drawn."""

from __future__ import annotations

import argparse
from typing import Any

from .options import add_config, read_config


def other_run(text: str) -> tuple[str, str]:
    """Turn NAME=FILE into its two parts; argparse reports what is not."""
    name, equals, path = text.partition("=")
    if not (name.strip() and equals and path):
        raise argparse.ArgumentTypeError(f"must read NAME=cases.csv, got {text!r}")
    return name.strip(), path


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a method on a data set, with tables and figures for a paper",
        description="Register every pair of a data set's split and score it: cases.csv, "
        "labels.csv, summary.json, tables.md, tables.tex and figures. Goes on where an earlier run "
        "stopped, and shares the cases out under torchrun.",
    )
    add_config(parser)
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="LGANet++ weights; without, instance optimisation alone where evaluate.refine has "
        "iterations, else the images as they are",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the results (default: one named after the method and the split, under "
        "output.folder/evaluation)",
    )
    parser.add_argument(
        "--compare",
        action="append",
        type=other_run,
        default=[],
        metavar="NAME=FILE",
        help="cases.csv of another method: a row of the tables, tested against this one "
        "(Wilcoxon, Holm); may be repeated",
    )
    parser.add_argument("--name", metavar="NAME", help="what tables and figures call this method")
    parser.add_argument("--quiet", action="store_true", help="print only errors and warnings")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Evaluate and print the table."""
    from ..errors import InputError
    from ..evaluation import evaluate

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
    )
    if not args.quiet:
        print((folder / "tables.md").read_text(encoding="utf-8"), end="")
        print(f"\nresults: {folder}")
