"""`lganet-fast demo`: a registration with known ground truth, on data that comes with nilearn."""

from __future__ import annotations

import argparse

from ..registration.settings import DEMO_SEED
from .options import add_device

FOLDER = "lganet-fast-demo"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.description = (
        "Register the MNI152 T1 brain at 2 mm to a copy of itself with a known random "
        "diffeomorphism, a bias field and noise applied, and compare the result with the ground "
        "truth. The data come with the package nilearn (lganet_fast[demo]); nothing is downloaded."
    )
    parser.add_argument(
        "--out", default=FOLDER, metavar="DIR", help=f"folder for the results (default: {FOLDER})"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=DEMO_SEED,
        metavar="S",
        help="seed of deformation and noise (default: %(default)s)",
    )
    add_device(parser)
