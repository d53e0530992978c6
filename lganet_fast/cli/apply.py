"""`lganet-fast apply`: apply a saved transform to an image, a label map or points."""

from __future__ import annotations

import argparse

from ..transforms.interpolation import INTERPOLATIONS, OF_IMAGES, OF_LABELS
from ..volumes.points import UNITS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.description = (
        "Apply a transform to an image, a label map or points of the moving image; with "
        "--inverse, to those of the fixed image."
    )
    parser.add_argument(
        "--transform",
        required=True,
        metavar="T",
        help="field from fixed to moving points, in a format that stores its grid (see convert)",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", metavar="I", help="image to resample, or a series of them")
    what.add_argument("--labels", metavar="L", help="label map to resample")
    what.add_argument(
        "--points",
        metavar="P.csv",
        help="points to map: CSV with a header that names x, y and z, or three bare columns",
    )
    parser.add_argument(
        "--out", required=True, metavar="O", help="file to write: .nii or .nii.gz, .csv for points"
    )
    parser.add_argument(
        "--inverse", action="store_true", help="from the fixed image to the moving image"
    )
    volumes = parser.add_argument_group("images and labels")
    volumes.add_argument(
        "--reference",
        metavar="R",
        help="image whose grid the result gets (default: the transform's fixed grid; "
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
        help="units of the coordinates, read and written: lps mm as in ANTs and ITK, ras mm, or "
        "voxel indices, from 0, of the point's image (default: lps if there is a header)",
    )
    points.add_argument(
        "--moving-grid", metavar="M", help="moving image, whose voxel indices --units voxel means"
    )
