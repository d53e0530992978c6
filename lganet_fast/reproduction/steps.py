"""The training and evaluation of a table's row: state, command, estimated time."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from .. import config as configs
from ..config.loading import Config
from ..errors import InputError
from ..evaluation import evaluate
from ..evaluation.methods import method_of
from ..evaluation.run import settings as scored_under
from ..runtime.json_files import report_json
from ..runtime.reading import reading
from ..training import state, train
from ..training.run_folder import RunFolder
from . import estimate
from .targets import Row

THERE, BEGUN, MISSING = "there", "begun", "missing"


@dataclass(frozen=True)
class Work:
    """The configuration and folder of a row.

    source: the shipped configuration. settings: all "section.key=value" that override it.
    """

    row: Row
    source: str
    settings: tuple[str, ...]
    folder: Path

    @cached_property
    def config(self) -> Config:
        """The complete configuration."""
        return configs.load(self.source, self.settings)

    @property
    def checkpoint(self) -> Path | None:
        """The weights of the last epoch, as in the paper; None for methods without weights."""
        return self.folder / "last.safetensors" if self.row.trained else None

    @property
    def scores(self) -> Path:
        """The folder of the evaluation."""
        return self.folder / "evaluation"

    @cached_property
    def step_seconds(self) -> float:
        """Seconds of a training step."""
        return estimate.step_seconds(self.config, self.folder, self.row.name)

    def command(self, name: str, *more: str) -> str:
        """A command of the package for this configuration."""
        words = ["lganet-fast", name, self.source, *more]
        words += [word for setting in self.settings for word in ("--set", setting)]
        return shlex.join(words)


class Training:
    """The training of a row."""

    name = "train"

    def __init__(self, work: Work) -> None:
        self.work = work

    @property
    def command(self) -> str:
        """The command that starts or resumes it."""
        return self.work.command("train", *["--resume"] * RunFolder(self.work.folder).begun)

    def state(self) -> str:
        """Whether it is done. Raises InputError if the folder contains another run."""
        folder, config = self.work.folder, self.work.config
        if not (folder / "config.toml").is_file() or not (folder / "last.pt").is_file():
            return MISSING
        before = configs.load(folder / "config.toml")
        state.check_same(folder / "last.pt", state.settings(before), state.settings(config))
        same = all(getattr(before.train, k) == getattr(config.train, k) for k in state.SCHEDULE)
        return THERE if same and (folder / "finished.json").is_file() else BEGUN

    def seconds(self) -> float:
        """Estimated remaining seconds."""
        return estimate.training(self.work.config, self.work.folder, self.work.step_seconds)

    def run(self, quiet: bool) -> None:
        """Train, or resume training."""
        begun = RunFolder(self.work.folder).begun
        train(self.work.config, resume=begun, quiet=quiet, source=self.work.source)


class Evaluation:
    """The evaluation of a row, after its training, if any."""

    name = "evaluate"

    def __init__(self, work: Work) -> None:
        self.work = work
        more = ["--out", str(work.scores), "--name", work.row.title]
        if work.row.trained:
            more += ["--checkpoint", str(work.checkpoint)]
        elif self.syn:
            more += ["--methods", "syn"]
        self.command = work.command("evaluate", *more)

    @property
    def syn(self) -> bool:
        """Whether the row is SyN."""
        return self.work.row.name == "syn"

    def state(self) -> str:
        """Whether it is done with the current weights."""
        work = self.work
        if work.checkpoint is not None and not work.checkpoint.is_file():
            return MISSING
        path = work.scores / "summary.json"
        if not path.is_file():
            return BEGUN if any((work.scores / "cases").glob("*.json")) else MISSING
        with reading(str(path)):
            found = json.loads(path.read_text(encoding="utf-8"))["settings"]
        method = method_of(work.config, None, torch.device("cpu"), syn=self.syn)
        wanted: Any = json.loads(report_json(scored_under(work.config, work.checkpoint, method)))
        return THERE if found == wanted else MISSING

    def seconds(self) -> float:
        """Estimated seconds of the registrations alone."""
        config = self.work.config
        if scored := estimate.scored_pairs(self.work.scores):
            pair = statistics.median(scored)
        elif self.work.row.trained:
            pair = estimate.network_pair(config, self.work.step_seconds)
        else:
            pair = estimate.syn_pair(config) if self.syn else 0.0
        return estimate.evaluation(config, pair)

    def run(self, quiet: bool) -> None:
        """Score the remaining cases."""
        work = self.work
        evaluate(
            work.config, work.checkpoint, work.scores, None, work.row.title, quiet, syn=self.syn
        )


Step = Training | Evaluation


def works(rows: Sequence[Row], source: str, settings: Sequence[str], folder: Path) -> list[Work]:
    """The work of each row, in its own folder below the data set's folder."""
    found = []
    for row in rows:
        place = folder / row.name
        more = (*row.settings, *settings, f"output.folder={json.dumps(str(place))}")
        found.append(Work(row, source, more, place))
    return found


def steps_of(work: Work) -> list[Step]:
    """Training, if the row has weights, and evaluation."""
    return [Training(work), Evaluation(work)] if work.row.trained else [Evaluation(work)]


def duration(text: str) -> float:
    """Seconds of "30s", "10m" or "2h". Raises InputError."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        seconds = float(text[:-1]) * units[text[-1]]
        if 0 < seconds < float("inf"):
            return seconds
    except (ValueError, LookupError):
        pass
    raise InputError(f"a budget must be a time such as 30s, 10m or 2h, got {text!r}")
