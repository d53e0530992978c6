"""A complete evaluation: scores of every case of a split, tables and figures."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config.loading import Config
from ..data import Sample, open_files
from ..errors import InputError, InputWarning
from ..models.inference import open_checkpoint
from ..registration.initial_flow import card_warnings
from ..runtime.csv_files import write_rows
from ..runtime.files import atomic, sha256
from ..runtime.json_files import write_report_json
from ..runtime.machine import versions
from ..runtime.progress import Progress
from ..runtime.ranks import join
from ..runtime.reading import reading
from .figures import draw
from .methods import Method, method_of
from .results import Store, read_cases
from .scores import METRICS, Scores, case_columns, label_columns, score
from .statistics import Table, compare, spread
from .syn import syn_settings
from .tables import latex, markdown

PREFERRED = ("dice", "tre_mm", "njd_percent")  # metrics whose median selects the case to draw


def evaluate(
    config: Config,
    checkpoint: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    others: Mapping[str, str | os.PathLike[str]] | None = None,
    name: str | None = None,
    quiet: bool = True,
    syn: bool = False,
) -> Path:
    """Register and score every pair of `evaluate.split`; returns the folder with the results.

    checkpoint: the network's weights; None evaluates instance optimisation alone if
        `evaluate.refine` has iterations, else the unregistered images. With iterations, results are
        at full resolution, whatever `data.spacing` is for the network.
    out: the folder; by default one named after the method, under `output.folder`/evaluation.
    others: other runs to compare with, a name and the path of its cases.csv each. name: of this
        method, in tables and figures. syn: ANTs' SyN in place of a network.

    Under torchrun every process takes its share of the cases. Cases that were scored before, from
    the same files with the same settings, are skipped. Results: cases.csv, labels.csv,
    summary.json, tables.md, tables.tex and figures/.
    Raises InputError for a split without pairs, and for invalid data or checkpoints.
    """
    if syn and checkpoint is not None:
        raise InputError("SyN takes no checkpoint: evaluate a network and SyN separately")
    network = None if checkpoint is None else open_checkpoint(checkpoint)
    tables = {label: read_cases(path) for label, path in (others or {}).items()}
    with join(config.train.device, config.train.threads) as ranks:
        method = method_of(config, network, ranks.device, syn=syn)
        title = name or method.name
        if title in tables:
            raise InputError(f"two methods are called {title}: give this one another name")
        pairs = Pairs(config, method)
        folder = Path(out) if out is not None else default_folder(config, checkpoint, method)
        profile = config.evaluate.hd95
        columns = case_columns(profile), label_columns(profile)
        store = Store(folder, settings(config, checkpoint, method), columns)
        store.make()
        if network is not None and ranks.first:
            for note in card_warnings(network.card, pairs[0][0].grid, config.data.intensity_rule):
                warnings.warn(note, InputWarning, stacklevel=2)
        own = ranks.share(range(len(pairs)))
        with Progress(len(own), "cases", quiet or not ranks.first) as bar:
            for done, index in enumerate(own):
                bar.at(done, pairs.names[index])
                files = pairs.digests(index)
                if store.get(pairs.names[index], files) is None:
                    store.put(run_case(*pairs[index], method, config), files)
            bar.at(len(own))
        ranks.gather(None)
        if ranks.first:
            finish(folder, store, pairs, method, config, title, tables)
    return folder


class Pairs:
    """The pairs of a split, each at the network's resolution and at that of the results."""

    def __init__(self, config: Config, method: Method) -> None:
        split, data = config.evaluate.split, replace(config.data, cache=False)
        self.seen = self.full = open_files(data, split)
        if max(method.factors) > 1:
            self.full = open_files(replace(data, spacing=1), split)
        if not len(self.full):
            raise InputError(f"the data set has no pair in its split {split!r}")
        self._digests: dict[Path, str] = {}

    def __len__(self) -> int:
        return len(self.full)

    def __getitem__(self, index: int) -> tuple[Sample, Sample]:
        full = self.full[index]
        return (full if self.seen is self.full else self.seen[index]), full

    @property
    def names(self) -> list[str]:
        """The name of each pair."""
        return [case.name for case in self.full.cases]

    def digests(self, index: int) -> list[str]:
        """The sha256 of each file of a pair."""
        case = self.full.cases[index]
        return [self._digest(path) for item in (case.moving, case.fixed) for path in item.files]

    def _digest(self, path: Path) -> str:
        if path not in self._digests:  # an atlas is a file of every pair
            with reading(os.fspath(path)):
                self._digests[path] = sha256(path)
        return self._digests[path]


def run_case(seen: Sample, full: Sample, method: Method, config: Config) -> Scores:
    """Register and score a pair; the time is that of the method, without reading and scoring."""
    started = time.perf_counter()
    flow = method.flow(seen, full)
    if flow.is_cuda:
        torch.cuda.synchronize(flow.device)
    return score(flow, full, config, time.perf_counter() - started)


def settings(
    config: Config, checkpoint: str | os.PathLike[str] | None, method: Method
) -> dict[str, Any]:
    """The settings that a case's scores depend on, besides its files."""
    data = asdict(config.data)
    for key in ("cache", "workers", "validation", "testing", "pairs", "seed"):
        del data[key]
    found = {
        "data": data,
        "evaluate": asdict(config.evaluate),
        "checkpoint": None if checkpoint is None else sha256(checkpoint),
        "refinement": None if method.refinement is None else asdict(method.refinement),
    }
    return {**found, "syn": syn_settings()} if method.syn else found


def default_folder(
    config: Config, checkpoint: str | os.PathLike[str] | None, method: Method
) -> Path:
    """A folder named after the method and the split."""
    parts = ["syn"] if method.syn else []
    if checkpoint is not None:
        parts.append(Path(checkpoint).stem)
    if method.refinement is not None:
        parts.append("refined")
    name = "-".join([*(parts or ["before"]), config.evaluate.split])
    return Path(config.output.folder) / "evaluation" / name


def finish(
    folder: Path,
    store: Store,
    pairs: Pairs,
    method: Method,
    config: Config,
    title: str,
    others: Mapping[str, Table],
) -> None:
    """Write the tables and figures of all cases."""
    kept = (store.get(name, pairs.digests(index)) for index, name in enumerate(pairs.names))
    found = [scores for scores in kept if scores is not None]
    profile = config.evaluate.hd95
    write_rows(folder / "cases.csv", case_columns(profile), [one.case for one in found])
    rows = [row for one in found for row in one.labels]
    write_rows(folder / "labels.csv", label_columns(profile), rows)
    keys = [metric.key for metric in METRICS]
    own = {one.case["case"]: {k: one.case[k] for k in keys if k in one.case} for one in found}
    compared = compare(own, others)
    methods = {**others, title: own}
    for ending, table in (("md", markdown), ("tex", latex)):
        with atomic(folder / f"tables.{ending}") as temporary:
            temporary.write_text(table(methods, compared, title), encoding="utf-8")
    summary = {
        "method": title,
        "cases": len(found),
        "settings": store.settings,
        "metrics": spread(own),
        "labels_without_dice": sum(one.case["labels_without_dice"] for one in found),
        "labels_without_hd95": sum(one.case["labels_without_hd95"] for one in found),
        "compared": {
            name: {key: asdict(test) for key, test in tests.items()}
            for name, tests in compared.items()
        },
        "versions": versions(),
        "device": str(method.device),
    }
    write_report_json(folder / "summary.json", summary)
    index = pairs.names.index(median_case(own))
    draw(folder / "figures", *pairs[index], method, config, methods, rows)


def median_case(rows: Table) -> str:
    """The case with the median score, by Dice or the first available metric."""
    for key in PREFERRED:
        known = [(row[key], case) for case, row in rows.items() if not np.isnan(row[key])]
        if known:
            return sorted(known)[len(known) // 2][1]
    return next(iter(rows))
