"""`lganet-fast demo`: a registration whose answer is known, on data that comes with nilearn."""

from __future__ import annotations

import argparse

from ..registration.settings import DEFAULTS
from .options import add_device

FOLDER = "lganet-fast-demo"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.description = (
        "Register the MNI152 T1 brain at 2 mm to a copy of itself that is deformed by "
        "a known random diffeomorphism, shaded by a bias field and noisy, and compare the result "
        "with the truth. The data come with the package nilearn (lganet_fast[demo]); nothing is "
        "downloaded."
    )
    parser.add_argument(
        "--out", default=FOLDER, metavar="DIR", help=f"folder for the results (default: {FOLDER})"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=DEFAULTS.seed,
        metavar="S",
        help="of deformation and noise (default: %(default)s)",
    )
    add_device(parser)
