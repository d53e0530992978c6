"""Registering many pairs, one after the other, each into its own folder."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..report.contents import Input, Report
from ..runtime.csv_files import write_rows
from ..runtime.files import make_folder, reason, sha256
from ..runtime.json_files import named_only, report_json
from ..runtime.progress import Progress
from ..runtime.ranks import join
from ..transforms.linear_files import read_linear
from ..volumes import nifti
from ..volumes.pair_table import read_pair_table
from ..volumes.values import check_whole
from .pairwise import RegistrationWarning, register_sources
from .results import read_report
from .settings import (
    DEFAULTS,
    INITIALS,
    POINT_ROLES,
    ROLES,
    RUN,
    PathLike,
    Run,
    Settings,
    Sources,
    check_path,
    check_settings,
)
from .stages import Opened, inputs_of, opened

TABLES = ("cohort.csv", "failures.csv")


@dataclass(frozen=True)
class Row:
    """A pair to register: its name, and the path of each of its files, by role."""

    name: str
    files: dict[str, Any]

    @property
    def sources(self) -> Sources:
        """The files as the sources of a registration."""
        return Sources(**{"fixed": None, "moving": None, **self.files})


@dataclass(frozen=True)
class Outcome:
    """The outcome of a pair: its report, or an error message. skipped: it was done before."""

    name: str
    details: Report | None = None
    failure: str = ""
    skipped: bool = False

    @cached_property
    def report(self) -> dict[str, Any] | None:
        """The details as the contents of report.json."""
        return None if self.details is None else self.details.as_dict()


def read_pairs(table: str | os.PathLike[str], points: bool = False) -> list[Row]:
    """Read the pairs of a CSV file.

    Its columns are those of `volumes.pair_table`; split is not read. points: whether points are.
    Raises InputError for an invalid table, a duplicate name, or a name that cannot be that of a
    folder.
    """
    roles = (*ROLES, *POINT_ROLES) if points else ROLES
    found = [
        Row(row.name, {role: os.fspath(row.files[role]) for role in roles if role in row.files})
        for row in read_pair_table(check_path("table", table))
    ]
    for name, times in Counter(row.name for row in found).items():
        if times > 1:
            raise InputError(f"{table}: {times} pairs are called {name}; give each its own name")
        if name in (".", "..") or Path(name).name != name:
            raise InputError(f"{table}: a name must be a valid folder name, got {name!r}")
        if name.lower() in TABLES or name.startswith("."):
            raise InputError(f"{table}: a pair cannot be called {name!r}: the name is reserved")
    return found


def register_pairs(
    table: PathLike,
    out: PathLike,
    *,
    preset: str = DEFAULTS.preset,
    similarity: str = DEFAULTS.similarity,
    iterations: Sequence[int] | None = None,
    smoothness: float | None = None,
    initial: PathLike = DEFAULTS.initial,
    affine: bool = False,
    checkpoint: PathLike | None = DEFAULTS.checkpoint,
    points_weight: float | None = None,
    guide_labels: float = DEFAULTS.guide_labels,
    no_folds: bool = DEFAULTS.no_folds,
    device: str = RUN.device,
    threads: int | None = RUN.threads,
    precision: str = DEFAULTS.precision,
    qc: bool = RUN.qc,
    share: bool = RUN.share,
    quiet: bool = RUN.quiet,
) -> list[Outcome]:
    """Register every pair of a CSV file (see `read_pairs`) into its own folder of `out`.

    A pair whose folder contains all results for the same input files and settings is skipped. A
    pair that fails is listed in failures.csv; cohort.csv summarises the others. Under torchrun
    every process registers its share of the pairs. points_weight: None leaves the table's points
    out, which then remain evidence of the result. The other arguments are those of `register`,
    for every pair.
    Returns the outcomes in the table's order; with several processes, on rank 0 alone, else [].
    Raises InputError for an unusable table or option.
    """
    rows = read_pairs(table, points_weight is not None)
    settings = check_settings(
        similarity,
        iterations,
        smoothness,
        initial,
        affine,
        precision,
        checkpoint,
        preset,
        points_weight,
        guide_labels,
        no_folds=no_folds,
    )
    place = Path(check_path("out", out))
    with join(device, threads or 0) as ranks:
        run = Run(
            device=str(ranks.device),
            threads=torch.get_num_threads(),
            qc=qc,
            overwrite=True,
            share=share,
        )
        make_folder(place)
        done: list[Outcome] = []
        own = ranks.share(rows)
        network = cache(partial(opened, settings.checkpoint))
        with Progress(len(own), "pairs", quiet or not ranks.first) as bar:
            for row in own:
                bar.at(len(done), row.name)
                own_run = replace(run, out=place / row.name)
                done.append(register_row(row, settings, own_run, network))
            bar.at(len(done))
        found = {one.name: one for part in ranks.gather(done) for one in part}
        if not ranks.first:
            return []
        outcomes = [found[row.name] for row in rows]
        write_summary(place, outcomes)
    return outcomes


def register_row(row: Row, settings: Settings, run: Run, network: Callable[[], Opened]) -> Outcome:
    """Register a pair into a folder, unless it was done before; network: opens the checkpoint."""
    try:
        report = finished(row.sources, settings, run)
        if report is not None:
            return Outcome(row.name, report, skipped=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RegistrationWarning)  # they go into cohort.csv
            result = register_sources(row.sources, settings, run, network())
    except (Exception, MemoryError) as error:  # the other pairs are still registered
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        return Outcome(row.name, failure=kind + reason(error))
    return Outcome(row.name, result.details)


def finished(sources: Sources, settings: Settings, run: Run) -> Report | None:
    """The report of an earlier run with a complete result for these inputs and settings.

    None if there is none, or if it contains a path although `share` is set.
    """
    assert run.out is not None
    try:
        report = read_report(Path(run.out))
        if run.share and not shared(report):
            return None
        for name in run.outputs(sources):
            check_output(Path(run.out) / name)
    except InputError:
        return None
    inputs = inputs_of(sources)
    weights = None if settings.checkpoint is None else sha256(settings.checkpoint)
    now = content(inputs), lasting(json.loads(report_json(asdict(settings)))), weights
    digest = None if report.network is None else report.network.get("sha256")
    then = content(report.inputs), lasting(report.settings), digest
    return report if now == then and starts_alike(report, sources, settings) else None


def shared(report: Report) -> bool:
    """Whether a report has names alone where another has paths."""
    paths: list[Any] = [entry.path for entry in report.inputs.values()]
    paths += [report.settings.get(key) for key in ("checkpoint", "initial")]
    return bool(named_only(report, paths).as_dict() == report.as_dict())


def starts_alike(report: Report, sources: Sources, settings: Settings) -> bool:
    """Whether a report's registration began with the linear transform of these settings."""
    before = report.settings.get("initial")
    if settings.initial in INITIALS or before in INITIALS:
        return bool(settings.initial == before)
    given = sources.given()
    fixed, moving = (nifti.load_grid(given[role], role) for role in ("fixed", "moving"))
    matrix = read_linear(settings.initial, fixed, moving)
    return bool(np.array_equal(matrix, report.affine_matrix_ras_mm))


def check_output(path: Path) -> None:
    """Raise InputError if a result is missing or incomplete."""
    if path.name.endswith(nifti.IMAGE_EXTENSIONS):
        image, label = nifti.open_image(path, "result")
        check_whole(image, label)
    elif not path.is_file() or path.stat().st_size == 0:
        raise InputError(f"result {path} is missing or empty")


def content(inputs: Mapping[str, Input]) -> dict[str, Input]:
    """A report's inputs without their paths."""
    return {role: replace(entry, path=None) for role, entry in inputs.items()}


def lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A report's settings without the paths of files: their contents are compared instead."""
    return {**settings, "checkpoint": None, "initial": None}


@dataclass(frozen=True)
class SummaryRow:
    """A pair's row of cohort.csv. The means over labels are NaN without labels."""

    name: str
    dice_before: float
    dice_after: float
    folded_percent: float
    seconds: float
    verdict: str
    reasons: str
    warnings: str


SUMMARY = tuple(field.name for field in fields(SummaryRow))


def summary_row(name: str, report: Report) -> SummaryRow:
    """The row of cohort.csv for a report."""
    labels = report.labels
    return SummaryRow(
        name=name,
        dice_before=math.nan if labels is None else labels.mean_dice_before,
        dice_after=math.nan if labels is None else labels.mean_dice_after,
        folded_percent=report.jacobian.folded_percent,
        seconds=report.seconds["total"],
        verdict=report.verdict,
        reasons="; ".join(report.reasons),
        warnings="; ".join(report.warnings),
    )


def write_summary(out: Path, outcomes: list[Outcome]) -> None:
    """Write cohort.csv and, if a pair failed, failures.csv."""
    done = [(one.name, one.details) for one in outcomes if one.details is not None]
    rows = [asdict(summary_row(name, report)) for name, report in done]
    write_rows(out / "cohort.csv", SUMMARY, rows)
    failures = [{"name": one.name, "error": one.failure} for one in outcomes if one.failure]
    if failures:
        write_rows(out / "failures.csv", ("name", "error"), failures)
    else:
        (out / "failures.csv").unlink(missing_ok=True)
