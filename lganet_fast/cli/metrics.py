"""`lganet-fast metrics`: scores of label maps, transforms and landmarks."""

from __future__ import annotations

import argparse

from ..volumes.points import UNITS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.description = (
        "Score two label maps, a transform, or paired landmarks, alone or together. "
        "An undefined score is shown as nan, and as null in JSON."
    )
    labels = parser.add_argument_group("label maps (both on one grid)")
    labels.add_argument("--fixed-labels", metavar="L", help="reference label map")
    labels.add_argument(
        "--moved-labels",
        metavar="L",
        help="label map to score: Dice, 95th percentile of surface distances (HD95, mm, both "
        "directions pooled), recall and precision, of every label but 0",
    )
    field = parser.add_argument_group("transform")
    field.add_argument(
        "--transform",
        metavar="T",
        help="field from fixed to moving points, in a format that stores its grid (see convert): "
        "voxels folded by central differences (%%), folded volume (NDV, %% and mm3), which these "
        "can miss, SDlogJ, Jacobian determinant, displacement (mm)",
    )
    field.add_argument(
        "--inverse-transform",
        metavar="T",
        help="its inverse, on the moving grid: residual |T(T_inv(y)) - y| (mm)",
    )
    field.add_argument(
        "--mask",
        metavar="K",
        help="mask where to measure: on the transform's grid its scores, on the inverse's grid the "
        "residual (default: everywhere)",
    )
    field.add_argument(
        "--jacobian-map",
        metavar="J",
        help="write the Jacobian determinant of the transform as an image on its grid. Its value "
        "is the volume in the moving image of what has volume 1 in the fixed image: above 1 where "
        "the moving image's anatomy is larger, below 1 where it is smaller",
    )
    field.add_argument(
        "--log",
        action="store_true",
        help="write the natural logarithm of the determinant instead: 0 where volume is kept",
    )
    points = parser.add_argument_group(
        "landmarks, paired by row (.csv or .txt with a header x,y,z in LPS mm, as in ANTs, or bare "
        "columns; .fcsv or .mrk.json of 3D Slicer)"
    )
    points.add_argument("--fixed-points", metavar="P", help="landmarks in the fixed image")
    points.add_argument(
        "--moving-points",
        metavar="P",
        help="the same landmarks in the moving image: target registration error (TRE, mm), and "
        "with --transform that after registration",
    )
    points.add_argument(
        "--units",
        choices=UNITS,
        help="units of the coordinates in .csv and .txt: lps mm, ras mm, or voxel indices, from 0, "
        "of the point's image (default: lps if there is a header)",
    )
    points.add_argument(
        "--fixed-grid",
        metavar="F",
        help="fixed image, whose voxels --units voxel means (default: the transform's grid)",
    )
    points.add_argument(
        "--moving-grid",
        metavar="M",
        help="moving image, likewise (default: the same grid as the fixed image)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the scores as JSON; - prints it")
