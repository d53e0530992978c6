"""Registering a pair, or the pairs of a table."""

from __future__ import annotations

import argparse
import os
import warnings
from dataclasses import fields
from typing import Any

from ...errors import InputError
from ...registration.cohort import register_pairs
from ...registration.pairwise import Registration, VerdictWarning, register
from ...registration.settings import (
    POINT_ROLES,
    ROLES,
    Run,
    Sources,
    check_channels,
    check_points,
    check_settings,
)
from ...report.contents import VERDICTS
from ..tables import Part, Table, show

NO_OPTIONS = ("pairs", "command", "strict", "verbose")  # of `register` in Python
NAMES = (13,)  # width of the names of a summary
NOT_GOOD = 3  # exit code of --strict


def run(args: argparse.Namespace) -> int:
    """Register and print a summary; returns 3 with `--strict` if a result is not good, else 0.

    Raises InputError if the files do not fit together.
    """
    options = {k: v for k, v in vars(args).items() if k not in NO_OPTIONS}
    files = (*ROLES, *POINT_ROLES, "channel_weights")
    given = [role for role in files if options[role] is not None]
    if options.pop("shard"):
        return run_sharded(args, options)
    if args.pairs is not None:
        if given:
            raise InputError(f"--pairs names the files: leave out --{given[0].replace('_', '-')}")
        del options["overwrite"]  # results of other inputs or settings are always replaced
        options = {k: v for k, v in options.items() if k not in files}
        return exit_code(args, run_pairs(args.pairs, options, args.quiet))
    one_or_more(options)
    with warnings.catch_warnings():
        if not args.quiet:
            warnings.simplefilter("ignore", VerdictWarning)  # the last line has the verdict
        result = register(**options)
    if not args.quiet:
        show(summary(result, args.out))
    return exit_code(args, result.verdict.level)


def one_or_more(options: dict[str, Any]) -> None:
    """Make one image of a list of one. Raises InputError if an image is missing."""
    for role in ("fixed", "moving"):
        if options[role] is None:
            raise InputError(f"--{role} is missing: give --fixed and --moving, or --pairs")
        first, *more = options[role]
        options[role] = [first, *more] if more else first


def run_sharded(args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Register one pair by all processes, and print a summary in the first."""
    from ...sharded.run import register_sharded

    if args.pairs is not None or args.strict:
        raise InputError(
            "--shard registers one pair and gives no verdict: leave out "
            f"{'--pairs' if args.pairs is not None else '--strict'}"
        )
    one_or_more(options)
    sources = Sources(**{role: options.pop(role) for role in (*ROLES, *POINT_ROLES)})
    run = Run(**{f.name: options.pop(f.name) for f in fields(Run)})
    options["points_weight"] = check_points(sources, options["points_weight"])
    options["channel_weights"] = check_channels(sources, options["channel_weights"])
    result = register_sharded(sources, check_settings(**options), run)
    if result.first and not args.quiet:
        change = f"{result.before:.4f} -> {result.after:.4f}"
        peaks = ", ".join("unknown" if mb is None else f"{mb:.0f}" for mb in result.peak_mb)
        rows = [
            (result.similarity, change),
            ("folded voxels", f"{result.folded_percent:.4f} %"),
            ("processes", f"{len(result.peak_mb)}, peak memory {peaks} MB"),
            ("time", f"{result.seconds:.1f} s"),
            ("results", args.out),
        ]
        show([Table(rows, least=NAMES)])
    return 0


def exit_code(args: argparse.Namespace, level: str) -> int:
    """The exit code of the command for a verdict."""
    return NOT_GOOD if args.strict and level != "good" else 0


def run_pairs(table: str, options: dict[str, Any], quiet: bool) -> str:
    """Register the pairs of a table; returns the worst verdict's level.

    Raises InputError at the end if any pair has failed.
    """
    outcomes = register_pairs(table, **options)
    failures = [one.name for one in outcomes if one.failure]
    by_level = {
        level: [one.name for one in outcomes if one.details and one.details.verdict == level]
        for level in reversed(VERDICTS)
    }
    worst = next((level for level, names in by_level.items() if names), "good")
    if outcomes and not quiet:
        counts = {
            "registered": sum(not one.skipped and not one.failure for one in outcomes),
            "done before": sum(one.skipped for one in outcomes),
            "failed": len(failures),
        }
        rows = [(name, str(count)) for name, count in counts.items()]
        rows.append(("results", options["out"]))
        parts = [f"{len(n)} {level} ({', '.join(n)})" for level, n in by_level.items() if n]
        verdict = f"verdict: {worst}" + (f": {', '.join(parts)}" if worst != "good" else "")
        show([Table(rows, least=NAMES), *([verdict] if parts else [])])
    if failures:
        raise InputError(
            f"{len(failures)} of {len(outcomes)} pairs failed: {', '.join(failures)}; "
            f"see {os.path.join(options['out'], 'failures.csv')}"
        )
    return worst


def summary(result: Registration, out: str) -> list[Part]:
    """The result in a few lines."""
    report = result.details
    similarity, labels = report.similarity, report.labels
    sides = (f"{role} {report.inputs[role].orientation}" for role in ("fixed", "moving"))
    rows = [
        ("orientation", ", ".join(sides)),
        (similarity.name, f"{similarity.before:.4f} -> {similarity.after:.4f}"),
        ("folded voxels", f"{report.jacobian.folded_percent:.4f} %"),
        ("inverse error", f"{report.inverse_consistency_mm.mean:.3f} mm mean"),
        ("time", f"{report.seconds['total']:.1f} s"),
        ("results", out),
    ]
    if (place := report.jacobian.min_at_ras_mm) is not None:
        where = ", ".join(f"{x:.1f}" for x in place)
        rows.insert(3, ("least det", f"{report.jacobian.min:.3f} at {where} mm (RAS)"))
    if folds := report.folds:
        change = f"{folds.similarity_found:.4f} -> {folds.similarity_after:.4f}"
        repaired = f"{folds.repaired_cells} cells, least bound {folds.least_bound:.3f}"
        rows.insert(4, ("repaired", f"{repaired}, {similarity.name} {change}"))
    if points := report.points:
        change = f"{points.mean_mm_before:.3f} -> {points.mean_mm_after:.3f} mm mean"
        rows.insert(2, ("points", f"{change} of {points.count}"))
    if labels:
        scores = f"{labels.mean_dice_before:.4f} -> {labels.mean_dice_after:.4f}"
        count, without = len(labels.per_label), labels.labels_without_hd95_after
        over = f"{count} labels" + (f", {without} without HD95" if without else "")
        over += ", which steered the search" * labels.steered
        rows.insert(2, ("mean Dice", f"{scores} over {over}"))
    return [Table(rows, least=NAMES), f"verdict: {result.verdict}"]
