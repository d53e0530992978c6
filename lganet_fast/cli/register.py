"""`lganet-fast register`: a pair of volumes in, a folder of results out."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..errors import InputError
from ..registration.pair import ROLES
from ..registration.pairwise import OUTPUTS, Registration, register
from ..registration.settings import AFTER_NETWORK, ITERATIONS, PRECISIONS, SMOOTHNESS


def iteration_counts(text: str) -> tuple[int, ...]:
    """Turn "40x40x10x10" into whole numbers; argparse reports what is not."""
    try:
        return tuple(int(part) for part in text.lower().split("x"))
    except ValueError as error:
        message = f"must be whole numbers joined by x, such as 40x40x10x10, got {text!r}"
        raise argparse.ArgumentTypeError(message) from error


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "register",
        help="register a moving image to a fixed one; no weights needed",
        description="Find where every voxel of the fixed image lies in the moving image. "
        f"Writes into the output folder, all or nothing: {', '.join(OUTPUTS)}.",
    )
    files = parser.add_argument_group("files (NIfTI, MGZ; any grids and orientations)")
    files.add_argument("--fixed", metavar="F", help="image to align to")
    files.add_argument("--moving", metavar="M", help="image to align")
    files.add_argument(
        "--pairs",
        metavar="CSV",
        help="many pairs instead: a table with the columns fixed, moving and, where there are any, "
        f"{', '.join(ROLES[2:])}, name; each pair goes into a folder of its name, unless it is "
        "there already; cohort.csv sums them up; torchrun shares them out",
    )
    files.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    files.add_argument("--fixed-labels", metavar="L", help="labels of the fixed image, for scores")
    files.add_argument(
        "--moving-labels", metavar="L", help="labels of the moving image, carried along and scored"
    )
    files.add_argument(
        "--fixed-mask", metavar="K", help="where on the fixed image the similarity counts"
    )
    method = parser.add_argument_group("method")
    method.add_argument(
        "--similarity",
        default="lncc",
        choices=sorted(SMOOTHNESS),
        help="lncc: local cross-correlation; mse: one modality and scale; "
        "mind: MIND-SSC, across modalities (default: lncc)",
    )
    method.add_argument(
        "--iterations",
        type=iteration_counts,
        metavar="NxNx..",
        help="most iterations per level, coarse to fine, the last at full resolution; 0 leaves a "
        f"level out (default: {'x'.join(map(str, ITERATIONS))})",
    )
    method.add_argument(
        "--smoothness",
        type=float,
        metavar="W",
        help="weight of the squared displacement gradient (default: "
        + ", ".join(f"{value:g} for {name}" for name, value in SMOOTHNESS.items())
        + ")",
    )
    method.add_argument(
        "--affine",
        action="store_true",
        help="align by an affine transform first (needs SimpleITK: lganet_fast[itk])",
    )
    method.add_argument(
        "--checkpoint",
        metavar="C",
        help="LGANet++ weights: the network registers first, then "
        f"{'x'.join(map(str, AFTER_NETWORK))} iterations; --iterations 0 for the network alone",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device",
        default="auto",
        metavar="D",
        help="auto, cpu, cuda or cuda:N (default: auto, a GPU where there is one)",
    )
    machine.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    machine.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of the affine stage's random samples (default: 0)",
    )
    machine.add_argument(
        "--precision",
        default="float32",
        choices=sorted(PRECISIONS),
        help="type to compute in (default: float32)",
    )
    machine.add_argument(
        "--qc",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write qc.html, a page to judge the result by, or not (default: --qc)",
    )
    machine.add_argument(
        "--share",
        action="store_true",
        help="write files' names instead of their paths into report.json and qc.html",
    )
    machine.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the results of an earlier run also where this one does not write them all",
    )
    machine.add_argument("--quiet", action="store_true", help="print only errors and warnings")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Register and print a summary. Raises InputError where the files do not go together."""
    options = {k: v for k, v in vars(args).items() if k not in ("pairs", "run")}
    given = [role for role in ROLES if options[role] is not None]
    if args.pairs is not None:
        if given:
            raise InputError(f"--pairs names the files: leave out --{given[0].replace('_', '-')}")
        del options["overwrite"]  # what is not of the same inputs and settings is done again
        run_pairs(args.pairs, {k: v for k, v in options.items() if k not in ROLES}, args.quiet)
        return
    for role in ("fixed", "moving"):
        if role not in given:
            raise InputError(f"--{role} is missing: give --fixed and --moving, or --pairs")
    result = register(**options)
    if not args.quiet:
        print(summary_text(result, args.out))


def run_pairs(table: str, options: dict[str, Any], quiet: bool) -> None:
    """Register the pairs of a table. Raises InputError at the end where any has failed."""
    from ..registration.cohort import register_pairs

    outcomes = register_pairs(table, **options)
    failures = [one.name for one in outcomes if one.failure]
    if outcomes and not quiet:
        counts = {
            "registered": sum(not one.skipped and not one.failure for one in outcomes),
            "done before": sum(one.skipped for one in outcomes),
            "failed": len(failures),
        }
        print("\n".join(f"{name:<14} {count}" for name, count in counts.items()))
        print(f"{'results':<14} {options['out']}")
    if failures:
        raise InputError(
            f"{len(failures)} of {len(outcomes)} pairs failed: {', '.join(failures)}; "
            f"see {os.path.join(options['out'], 'failures.csv')}"
        )


def summary_text(result: Registration, out: str) -> str:
    """The result in a few aligned lines."""
    report = result.report
    similarity, jacobian = report["similarity"], report["jacobian"]
    rows = [
        (similarity["name"], f"{similarity['before']:.4f} -> {similarity['after']:.4f}"),
        ("folded voxels", f"{jacobian['folded_percent']:.4f} %"),
        ("inverse error", "{mean:.3f} mm mean".format(**report["inverse_consistency_mm"])),
        ("time", f"{report['seconds']['total']:.1f} s"),
        ("results", out),
    ]
    sides = (f"{role} {report['inputs'][role]['orientation']}" for role in ("fixed", "moving"))
    rows.insert(0, ("orientation", ", ".join(sides)))
    labels = report["labels"]
    if labels:
        scores = f"{labels['mean_dice_before']:.4f} -> {labels['mean_dice_after']:.4f}"
        count, without = len(labels["per_label"]), labels["labels_without_hd95_after"]
        over = f"{count} labels" + (f", {without} without HD95" if without else "")
        rows.insert(2, ("mean Dice", f"{scores} over {over}"))
    return "\n".join(f"{name:<14} {value}" for name, value in rows)
