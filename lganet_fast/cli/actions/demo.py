"""A registration with known ground truth, and its summary."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...registration.demo import DemoResult, run_demo, tissue_dice
from ...registration.settings import PAGE
from ..tables import Part, Table, show, text


def run(args: argparse.Namespace) -> None:
    """Run the demo and print its summary."""
    result = run_demo(
        args.out, seed=args.seed, device=args.device, threads=args.threads, quiet=args.quiet
    )
    show(summary(result, Path(args.out)))


def summary_text(result: DemoResult, out: Path) -> str:
    """The result in a few aligned lines."""
    return text(summary(result, out))


def summary(result: DemoResult, out: Path) -> list[Part]:
    """Errors of the brain's voxels before and after, and properties of the result."""
    before, after, report = result.error_before, result.error_after, result.registration.details
    names = {"mean": "mean", "p95": "95th percentile", "max": "maximum"}
    told = [
        "MNI152 T1 brain against its own copy with a known deformation, bias field and noise.",
        "Error: distance between the found and the true position of a brain voxel.",
        "",
    ]
    errors = [
        ("", "before", "after"),
        *(
            (f"error, {name} (mm)", f"{before[key]:.2f}", f"{after[key]:.2f}")
            for key, name in names.items()
        ),
        *((f"Dice, {name}", f"{b:.3f}", f"{a:.3f}") for name, b, a in tissue_dice(result)),
    ]
    size = "x".join(map(str, report.inputs["fixed"].shape))
    backend, folded = report.backend, report.jacobian.folded_percent
    place = f"{backend.device}, {backend.threads} threads"
    rows = (
        ("folded voxels", f"{folded:.4f} %"),
        ("time", f"{report.seconds['total']:.1f} s for {size} voxels on {place}"),
        ("page", str(out / PAGE)),
    )
    return [
        *told,
        Table(errors, head=True, numbers=True, least=(32, 6, 7)),
        "",
        Table(rows, least=(14,)),
    ]
