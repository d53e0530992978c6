"""Many pairs registered, one after the other, into a folder each."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..runtime.csv_files import write_rows
from ..runtime.files import make_folder, reason, sha256
from ..runtime.json_files import report_json
from ..runtime.progress import Progress
from ..runtime.ranks import join
from ..runtime.reading import reading
from ..volumes import nifti
from ..volumes.pair_table import read_pair_table
from .pairwise import RegistrationWarning, register
from .settings import OUTPUTS, ROLES, Settings, check_settings
from .verdict import LEVELS

TABLES = ("cohort.csv", "failures.csv")
SUMMARY = (
    *("name", "dice_before", "dice_after", "folded_percent", "seconds"),
    *("verdict", "reasons", "warnings"),
)


@dataclass(frozen=True)
class Row:
    """A pair to register: its name, and the path of each of ROLES that it has."""

    name: str
    files: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a pair: its report, or what went wrong. skipped: it was done before."""

    name: str
    report: Mapping[str, Any] | None = None
    failure: str = ""
    skipped: bool = False


def read_pairs(table: str | os.PathLike[str]) -> list[Row]:
    """The pairs of a CSV file.

    Its columns are those of `volumes.pair_table`; points and split are not read.
    Raises InputError for what is no such table, and for a name that is given twice or is no name of
    a folder.
    """
    found = [
        Row(row.name, {role: os.fspath(row.files[role]) for role in ROLES if role in row.files})
        for row in read_pair_table(table)
    ]
    for name, times in Counter(row.name for row in found).items():
        if times > 1:
            raise InputError(f"{table}: {times} pairs are called {name}; give each its own name")
        if name in (".", "..") or Path(name).name != name:
            raise InputError(f"{table}: a name is that of a folder, got {name!r}")
        if name.lower() in TABLES or name.startswith("."):
            raise InputError(
                f"{table}: {name!r} cannot be the name of a pair: files of ours have it"
            )
    return found


def register_pairs(
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    device: str = "auto",
    threads: int | None = None,
    qc: bool = True,
    quiet: bool = True,
    **options: Any,
) -> list[Outcome]:
    """Register every pair of a CSV file (see `read_pairs`) into its own folder of `out`.

    A pair whose folder holds all results for the same input files and settings is skipped. One that
    fails is passed over and listed in failures.csv; cohort.csv sums the others up. Under torchrun
    every process takes its part of the pairs. options: as of `register`, for every pair.
    Returns the outcomes in the table's order; of several processes, on rank 0 alone, else nothing.
    Raises InputError for a table or options that cannot be used.
    """
    rows = read_pairs(table)
    settings = check_settings(
        options.get("similarity", "lncc"),
        options.get("iterations"),
        options.get("smoothness"),
        options.get("affine", False),
        options.get("seed", 0),
        options.get("precision", "float32"),
        options.get("checkpoint"),
    )
    with join(device, threads or 0) as ranks:
        options |= {"device": str(ranks.device), "threads": torch.get_num_threads(), "qc": qc}
        make_folder(Path(out))
        done: list[Outcome] = []
        own = ranks.share(rows)
        with Progress(len(own), "pairs", quiet or not ranks.first) as bar:
            for row in own:
                bar.at(len(done), row.name)
                done.append(register_row(row, Path(out) / row.name, settings, options))
            bar.at(len(done))
        found = {one.name: one for part in ranks.gather(done) for one in part}
        if not ranks.first:
            return []
        outcomes = [found[row.name] for row in rows]
        write_summary(Path(out), outcomes)
    return outcomes


def register_row(row: Row, folder: Path, settings: Settings, options: Mapping[str, Any]) -> Outcome:
    """Register a pair into a folder, unless it was done before."""
    try:
        report = finished(row, folder, settings, options["qc"], options.get("share", False))
        if report is not None:
            return Outcome(row.name, report, skipped=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RegistrationWarning)  # they go into cohort.csv
            result = register(**row.files, out=folder, overwrite=True, **options)
    except (Exception, MemoryError) as error:  # whatever it is, the other pairs go on
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        return Outcome(row.name, failure=kind + reason(error))
    return Outcome(row.name, result.report)


def finished(
    row: Row, folder: Path, settings: Settings, qc: bool, share: bool = False
) -> dict[str, Any] | None:
    """The report of an earlier run that left the whole result for these inputs and settings.

    share: it must not have a path.
    """
    absent = {"warped_labels.nii.gz": "moving_labels" not in row.files, "qc.html": not qc}
    try:
        with reading(f"the result in {folder}"):
            report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            before = (content(report["inputs"]), lasting(report), digest(report["network"]))
            if share and any(os.path.dirname(x["path"]) for x in report["inputs"].values()):
                return None
            summary_row(row.name, report)
        for name in OUTPUTS:
            if not absent.get(name):
                check_output(folder / name)
    except InputError:
        return None
    inputs = {role: nifti.describe(path, role) for role, path in row.files.items()}
    weights = None if settings.checkpoint is None else sha256(settings.checkpoint)
    now = (
        content(inputs),
        lasting(json.loads(report_json({"settings": asdict(settings)}))),
        weights,
    )
    return report if before == now else None


def check_output(path: Path) -> None:
    """Raise InputError where a result is not there, or not whole."""
    if path.name.endswith(nifti.IMAGE_EXTENSIONS):
        image, label = nifti.open_image(path, "result")
        nifti.check_whole(image, label)
    elif not path.is_file() or path.stat().st_size == 0:
        raise InputError(f"result {path} is missing or empty")


def content(inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a report says of the inputs, without where they were."""
    return {role: {**entry, "path": None} for role, entry in inputs.items()}


def lasting(report: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a report, without where the checkpoint was: its bytes are compared."""
    return {**report["settings"], "checkpoint": None}


def digest(network: Mapping[str, Any] | None) -> str | None:
    """Of the checkpoint that a report names."""
    return None if network is None else network["sha256"]


def summary_row(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """A pair's row of cohort.csv. Raises what comes of a report that none is."""

    def number(value: Any) -> float:
        return float("nan") if value is None else value + 0.0

    labels = dict(report["labels"] or {})
    return {
        "name": name,
        "dice_before": number(labels.get("mean_dice_before")),
        "dice_after": number(labels.get("mean_dice_after")),
        "folded_percent": number(report["jacobian"]["folded_percent"]),
        "seconds": number(report["seconds"]["total"]),
        "verdict": LEVELS[LEVELS.index(report["verdict"])],
        "reasons": "; ".join(report["reasons"]),
        "warnings": "; ".join(report["warnings"]),
    }


def write_summary(out: Path, outcomes: list[Outcome]) -> None:
    """Write cohort.csv and failures.csv, the latter only where something failed."""
    rows = []
    for one in outcomes:
        if one.report is not None:
            rows.append(summary_row(one.name, one.report))
    write_rows(out / "cohort.csv", SUMMARY, rows)
    failures = [{"name": one.name, "error": one.failure} for one in outcomes if one.failure]
    if failures:
        write_rows(out / "failures.csv", ("name", "error"), failures)
    else:
        (out / "failures.csv").unlink(missing_ok=True)
