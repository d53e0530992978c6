"""`lganet-fast metrics`: scores of label maps, transforms and landmarks."""

from __future__ import annotations

import argparse


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
    points = parser.add_argument_group(
        "landmarks (CSV with a header x,y,z in LPS mm, as in ANTs; paired by row)"
    )
    points.add_argument("--fixed-points", metavar="P", help="landmarks in the fixed image")
    points.add_argument(
        "--moving-points",
        metavar="P",
        help="the same landmarks in the moving image: target registration error (TRE, mm), and "
        "with --transform that after registration",
    )
    parser.add_argument("--json", metavar="FILE", help="write the scores as JSON; - prints it")
