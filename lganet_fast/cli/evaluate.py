"""`lganet-fast evaluate`: a split of a data set registered, scored, compared and drawn."""

from __future__ import annotations

import argparse

from .options import add_config


def other_run(text: str) -> tuple[str, str]:
    """Turn NAME=FILE into its two parts; argparse reports what is not."""
    name, equals, path = text.partition("=")
    if not (name.strip() and equals and path):
        raise argparse.ArgumentTypeError(f"must read NAME=cases.csv, got {text!r}")
    return name.strip(), path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.description = (
        "Register every pair of a data set's split and score it: cases.csv, "
        "labels.csv, summary.json, tables.md, tables.tex and figures. Goes on where an earlier run "
        "stopped, and shares the cases out under torchrun."
    )
    add_config(parser)
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="weights of any of the networks; without, instance optimisation alone where "
        "evaluate.refine has iterations, else the images as they are",
    )
    parser.add_argument(
        "--methods",
        choices=("syn",),
        help="a method that needs no weights: ANTs' SyN (needs antspyx: lganet_fast[ants])",
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
