"""A registration whose answer is known, and its summary."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...registration.demo import DemoResult, run_demo, tissue_dice


def run(args: argparse.Namespace) -> None:
    """Run the demo and print its summary."""
    result = run_demo(
        args.out, seed=args.seed, device=args.device, threads=args.threads, quiet=args.quiet
    )
    print(summary_text(result, Path(args.out)))


def summary_text(result: DemoResult, out: Path) -> str:
    """The result in a few aligned lines."""
    before, after, report = result.error_before, result.error_after, result.registration.report
    names = {"mean": "mean", "p95": "95th percentile", "max": "maximum"}
    lines = [
        "MNI152 T1 brain against its own copy, deformed in a known way, shaded and noisy.",
        "Error: distance between where a brain voxel is found and where it truly lies.",
        "",
        f"{'':<32}{'before':>8}{'after':>9}",
    ]
    lines += [
        f"{f'error, {name} (mm)':<32}{before[key]:8.2f} {after[key]:8.2f}"
        for key, name in names.items()
    ]
    lines += [f"{f'Dice, {name}':<32}{b:8.3f} {a:8.3f}" for name, b, a in tissue_dice(result)]
    size = "x".join(map(str, report["inputs"]["fixed"]["shape"]))
    backend, folded = report["backend"], report["jacobian"]["folded_percent"]
    place = f"{backend['device']}, {backend['threads']} threads"
    rows = (
        ("folded voxels", f"{folded:.4f} %"),
        ("time", f"{report['seconds']['total']:.1f} s for {size} voxels on {place}"),
        ("page", str(out / "qc.html")),
    )
    return "\n".join([*lines, "", *(f"{name:<16}{value}" for name, value in rows)])
