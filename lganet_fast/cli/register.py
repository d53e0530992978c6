"""`lganet-fast register`: a pair of volumes in, a folder of results out."""

from __future__ import annotations

import argparse

from ..registration.settings import (
    AFTER_NETWORK,
    DEFAULTS,
    INITIALS,
    OUTPUTS,
    POINT_ROLES,
    POINTS_WEIGHT,
    PRECISIONS,
    PRESETS,
    ROLES,
    RUN,
    SMOOTHNESS,
)
from .options import add_device


def iteration_counts(text: str) -> tuple[int, ...]:
    """Turn "30x15x15x10x5" into whole numbers; argparse reports invalid text."""
    try:
        return tuple(int(part) for part in text.lower().split("x"))
    except ValueError as error:
        message = f"must be whole numbers joined by x, such as 30x15x15x10x5, got {text!r}"
        raise argparse.ArgumentTypeError(message) from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.description = (
        "Find the position in the moving image of every voxel of the fixed image. "
        f"Writes into the output folder, all or nothing: {', '.join(OUTPUTS)}."
    )
    add_files(
        parser.add_argument_group(
            "files (NIfTI, MGZ, NRRD, MHA, a DICOM folder; any grids and orientations)"
        )
    )
    add_points(
        parser.add_argument_group(
            "points that the search pulls together "
            "(CSV with a header x,y,z in LPS mm, as in ANTs, or .fcsv, .mrk.json; matching by row)"
        )
    )
    add_method(parser.add_argument_group("method"))
    add_machine(parser.add_argument_group("machine"))


def add_files(files: argparse._ArgumentGroup) -> None:
    """Add the options for input and output files."""
    files.add_argument(
        "--fixed", nargs="+", metavar="F", help="image to align to; or several, one a channel"
    )
    files.add_argument(
        "--moving", nargs="+", metavar="M", help="image to align; or as many, in the same order"
    )
    files.add_argument(
        "--pairs",
        metavar="CSV",
        help="many pairs instead: a table with the columns fixed, moving and optionally "
        f"{', '.join((*ROLES[2:], *POINT_ROLES))}, name; each pair is written to a folder "
        "of its name, or skipped if it is done; cohort.csv summarises them; torchrun distributes "
        "them",
    )
    files.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    files.add_argument("--fixed-labels", metavar="L", help="labels of the fixed image, for scores")
    files.add_argument(
        "--moving-labels", metavar="L", help="labels of the moving image, warped and scored"
    )
    for image in ("fixed", "moving"):
        files.add_argument(
            f"--{image}-mask",
            metavar="K",
            help=f"mask on the {image} image's grid: not 0 where its voxels count",
        )


def add_points(points: argparse._ArgumentGroup) -> None:
    """Add the options for matching points."""
    for image in ("fixed", "moving"):
        points.add_argument(f"--{image}-points", metavar="P", help=f"points in the {image} image")
    points.add_argument(
        "--points-weight",
        type=float,
        metavar="W",
        help="of their mean squared distance in mm^2; with --pairs, the table's points are used "
        f"only if it is given (default: {POINTS_WEIGHT:g})",
    )


def add_method(method: argparse._ArgumentGroup) -> None:
    """Add the options that the transform depends on: Settings."""
    method.add_argument(
        "--preset",
        default=DEFAULTS.preset,
        choices=tuple(PRESETS),
        help="fast: no full resolution; best: a second search from where the first one ended; "
        "other options override it (default: %(default)s)",
    )
    method.add_argument(
        "--similarity",
        default=DEFAULTS.similarity,
        choices=sorted(SMOOTHNESS),
        help="lncc: local cross-correlation; mse: one modality and scale; "
        "mind: MIND-SSC, mi: mutual information, both across modalities (default: %(default)s)",
    )
    method.add_argument(
        "--iterations",
        type=iteration_counts,
        metavar="NxNx..",
        help="maximum iterations per level, coarse to fine, the last at full resolution; 0 skips "
        "a level; overrides the preset's, and its second search "
        f"(default: {'x'.join(map(str, DEFAULTS.iterations))})",
    )
    method.add_argument(
        "--smoothness",
        type=float,
        metavar="W",
        help="weight of the squared displacement gradient (default: "
        + ", ".join(f"{value:g} for {name}" for name, value in SMOOTHNESS.items())
        + ")",
    )
    start = method.add_mutually_exclusive_group()
    start.add_argument(
        "--initial",
        default=argparse.SUPPRESS,
        metavar="T",
        help=f"linear transform before the search: {', '.join(INITIALS)}, or a file of ITK (.mat, "
        ".tfm, .txt, .h5), FSL (.mat), FreeSurfer (.lta) or with 4 x 4 numbers (default: "
        f"{DEFAULTS.initial}, which uses the headers alone)",
    )
    start.add_argument(
        "--affine",
        action="store_const",
        const="affine",
        default=argparse.SUPPRESS,
        dest="initial",
        help="short for --initial affine",
    )
    method.add_argument(
        "--guide-labels",
        nargs="?",
        type=float,
        const=1.0,
        default=DEFAULTS.guide_labels,
        metavar="W",
        help="the labels of both images steer the search too, with this weight of 1 - Dice "
        "(default without W: %(const)s); their scores are then no independent evidence",
    )
    method.add_argument(
        "--channel-weights",
        nargs="+",
        type=float,
        metavar="W",
        help="of the channels' similarities, in proportion (default: equal ones)",
    )
    method.add_argument(
        "--no-folds",
        action="store_true",
        help="smooth the field where it may fold, also between voxels, until it does not",
    )
    method.add_argument(
        "--checkpoint",
        metavar="C",
        help="weights of a network, see docs/methods.md: it registers first, then "
        f"{'x'.join(map(str, AFTER_NETWORK))} iterations; --iterations 0 for the network alone",
    )


def add_machine(machine: argparse._ArgumentGroup) -> None:
    """Add the options on how to run: Run and the precision."""
    add_device(machine)
    machine.add_argument(
        "--shard",
        action="store_true",
        help="split the volumes of one pair over the processes of torchrun, see docs/large.md; "
        "writes warped.nii, warp.nii and report.json",
    )
    machine.add_argument(
        "--precision",
        default=DEFAULTS.precision,
        choices=sorted(PRECISIONS),
        help="type to compute in (default: %(default)s)",
    )
    machine.add_argument(
        "--qc",
        action=argparse.BooleanOptionalAction,
        default=RUN.qc,
        help="write qc.html, a page to assess the result, or not (default: --qc)",
    )
    machine.add_argument(
        "--share",
        action="store_true",
        help="write file names instead of paths into report.json and qc.html",
    )
    machine.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the results of an earlier run even if this run does not write all of them",
    )
    machine.add_argument(
        "--strict",
        action="store_true",
        help="exit with code 3 if the verdict is doubtful or bad; all files are still written",
    )
