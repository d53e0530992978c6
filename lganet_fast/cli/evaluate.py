"""`lganet-fast evaluate`: register and score a split of a data set, with tables and figures."""

from __future__ import annotations

import argparse

from .options import add_config


def other_run(text: str) -> tuple[str, str]:
    """Split NAME=FILE into its two parts; argparse reports invalid text."""
    name, equals, path = text.partition("=")
    if not (name.strip() and equals and path):
        raise argparse.ArgumentTypeError(f"must read NAME=cases.csv, got {text!r}")
    return name.strip(), path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.description = (
        "Register every pair of a data set's split and score it: cases.csv, "
        "labels.csv, summary.json, tables.md, tables.tex and figures. Resumes after an "
        "interruption; torchrun distributes the cases."
    )
    add_config(parser)
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="weights of any of the networks; without them, instance optimisation alone if "
        "evaluate.refine has iterations, else the unregistered images",
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
        help="cases.csv of another method: a row of the tables, compared with this method "
        "(Wilcoxon, Holm); repeatable",
    )
    parser.add_argument("--name", metavar="NAME", help="name of this method in tables and figures")
