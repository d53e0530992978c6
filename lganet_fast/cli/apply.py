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
        nargs="+",
        metavar="T",
        help="transform from fixed to moving points: a field in a format that stores its grid (see "
        "convert), a linear transform of ITK (.mat, .tfm, .txt), FSL (.mat) or FreeSurfer (.lta), "
        "or an ITK composite (.h5). Several are applied to a fixed point in this order, as "
        "antsApplyTransforms does, and '[FILE,inverse]' is the inverse of one; the image is "
        "interpolated once",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", metavar="I", help="image to resample, or a series of them")
    what.add_argument("--labels", metavar="L", help="label map to resample")
    what.add_argument(
        "--points",
        metavar="P",
        help="points to map: .csv or .txt with a header that names x, y and z, or three bare "
        "columns, or .fcsv or .mrk.json of 3D Slicer",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="O",
        help="file to write: .nii, .nii.gz, .nrrd, .mha; of points .csv, .txt, .fcsv, .mrk.json",
    )
    parser.add_argument(
        "--inverse", action="store_true", help="from the fixed image to the moving image"
    )
    volumes = parser.add_argument_group("images and labels")
    volumes.add_argument(
        "--reference",
        metavar="R",
        help="image whose grid the result gets (default: the grid of the first transform, a field; "
        "required with --inverse: the moving image)",
    )
    volumes.add_argument(
        "--interpolation",
        choices=INTERPOLATIONS,
        help=f"{' or '.join(OF_IMAGES)} for images (default: {OF_IMAGES[0]}); nearest, or label "
        f"(linear per label, the largest wins), for labels (default: {OF_LABELS[0]})",
    )
    volumes.add_argument(
        "--default-value",
        type=float,
        metavar="V",
        help="value of voxels that lie outside the image, such as -1000 for CT (default: 0)",
    )
    points = parser.add_argument_group("points")
    points.add_argument(
        "--units",
        choices=UNITS,
        help="units of the coordinates in .csv and .txt: lps mm as in ANTs and ITK, ras mm, or "
        "voxel indices, from 0, of the point's image (default: lps if there is a header); 3D "
        "Slicer's files say theirs, and are written in lps",
    )
    points.add_argument(
        "--moving-grid", metavar="M", help="moving image, whose voxel indices --units voxel means"
    )
