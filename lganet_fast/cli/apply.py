"""`lganet-fast apply`: move an image, a label map or points through a saved transform."""

from __future__ import annotations

import argparse

from ..transforms.interpolation import INTERPOLATIONS, OF_IMAGES, OF_LABELS
from ..volumes.points import UNITS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.description = (
        "Move an image, a label map or points from the moving side to the fixed side "
        "of a transform, or back with --inverse."
    )
    parser.add_argument(
        "--transform",
        required=True,
        metavar="T",
        help="field from fixed to moving points, in a format that carries its grid (see convert)",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", metavar="I", help="image to resample, or a series of them")
    what.add_argument("--labels", metavar="L", help="label map to resample")
    what.add_argument(
        "--points",
        metavar="P.csv",
        help="points to move: CSV with a header that names x, y and z, or three bare columns",
    )
    parser.add_argument(
        "--out", required=True, metavar="O", help="file to write: .nii or .nii.gz, .csv for points"
    )
    parser.add_argument(
        "--inverse", action="store_true", help="from the fixed side to the moving side"
    )
    volumes = parser.add_argument_group("images and labels")
    volumes.add_argument(
        "--reference",
        metavar="R",
        help="image whose grid the result gets (default: the transform's own, the fixed grid; "
        "required with --inverse: the moving image)",
    )
    volumes.add_argument(
        "--interpolation",
        choices=INTERPOLATIONS,
        help=f"{' or '.join(OF_IMAGES)} for images (default: {OF_IMAGES[0]}); nearest, or label "
        f"(linear per label, the largest wins), for labels (default: {OF_LABELS[0]})",
    )
    points = parser.add_argument_group("points")
    points.add_argument(
        "--units",
        choices=UNITS,
        help="of the coordinates, read and written: lps mm as ANTs and ITK, ras mm, or voxel "
        "numbers of the image each point is in, from 0 (default: lps where there is a header)",
    )
    points.add_argument(
        "--moving-grid", metavar="M", help="moving image, whose voxels --units voxel counts"
    )
