"""The training loop: from a configuration to a run folder that can be resumed at any step."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..config.loading import Config
from ..data import ShardedSampler, open_split
from ..errors import InputError
from ..models import Network, create
from ..models.checkpoint import load_into
from ..models.registry import options as network_options
from ..runtime.ranks import Ranks, join
from . import state as states
from .average import Average
from .batch import Batch, batches
from .card import card
from .journal import Journal
from .objective import Objective
from .picture import draw_pair
from .run_folder import RunFolder
from .schedule import Schedule, steps_per_epoch
from .step import NotFiniteError, Step
from .stop import Stop
from .validate import validate

log = logging.getLogger(__name__)


def train(config: Config, resume: bool = False, quiet: bool = True, source: str = "") -> Path:
    """Train a network; returns the run folder, `config.output.folder`.

    The folder contains config.toml, log.jsonl (a line per optimiser step and per validation),
    finished.json (steps and seconds of a run that has ended), last.pt (the state for resuming),
    last.safetensors and best.safetensors (networks; best by validation Dice, or loss without
    labels) and pictures/. Each file is written completely or not at all.
    resume: resume the run in the folder from last.pt, exactly, or with another schedule
    (train.epochs, the rates); from its beginning if it was stopped before the first last.pt.
    quiet: no bar. source: of the configuration, for the network's card.
    Under torchrun the processes share the work.
    Raises InputError for unusable settings or data, if there is no run to resume, or one but not
    `resume`, and if a loss is not finite; its batch is then in failure.pt. Raises KeyboardInterrupt
    after Ctrl-C, once last.pt is written.
    """
    with join(config.train.device, config.train.threads) as ranks:
        trainer = Trainer(config, ranks, source)
        trainer.prepare(resume)
        with Stop(loud=ranks.first) as stop:
            trainer.run(stop, quiet)
    return trainer.folder.path


class Trainer:
    """One process's part of a run: `Step` changes the network, rank 0 writes to `RunFolder`.

    best: the best validation score so far, higher is better.
    """

    def __init__(self, config: Config, ranks: Ranks, source: str = "") -> None:
        self.config, self.ranks, self.section = config, ranks, config.train
        self.folder = RunFolder(Path(config.output.folder))
        self.data = open_split(config, "train", marks=config.loss.dice > 0)
        self.valid = open_split(config, "val")
        self.sampler = ShardedSampler(len(self.data), self.section.seed, ranks.rank, ranks.count)
        self.schedule = Schedule(self.section, steps_per_epoch(self.section, len(self.sampler)))
        first = self.data[0]
        states.seed(self.section.seed)
        self.network = build_network(config, first.fixed.shape).to(ranks.device).train()
        states.seed(self.section.seed + ranks.rank)
        self.card = card(config, first, source)
        self.objective = Objective(config.loss)
        shape = (self.section.batch, 1, *first.fixed.shape)
        self.take_step = Step(self.section, self.network, self.objective, ranks, shape)
        self.average = Average(self.network, self.section.average)
        self.best, self.log_size = -float("inf"), 0

    def prepare(self, resume: bool) -> None:
        """Resume the run in the folder, or start one there.

        Raises InputError if there is a run that must not be resumed, or one with other settings.
        """
        state = self.folder.state(resume=resume)
        if state is not None:
            self.restore(state)
            if self.ranks.first:
                log.info(self.greeting())
        elif self.config.model.weights:
            load_into(self.network, self.config.model.weights)
        if self.ranks.first:
            self.folder.make(self.config)

    def run(self, stop: Stop, quiet: bool) -> None:
        """Train to the end, or until a stop: then KeyboardInterrupt says how to resume."""
        size, workers = self.section.batch, self.config.data.workers
        stream = batches(self.data, self.sampler, size, workers, self.ranks.device)
        journal = self.open_journal(quiet) if self.ranks.first else None
        schedule = self.schedule
        try:
            self.note_end()
            while not schedule.done:
                asked = self.advance(stream, journal, stop)
                checked = self.after_step(journal)
                done = schedule.done
                if asked or done or checked or schedule.save_due():
                    self.save(journal)
                if asked and not done:
                    raise KeyboardInterrupt(self.farewell())
            self.note_end()
        finally:
            stream.close()
            if journal is not None:
                journal.close()

    def note_end(self) -> None:
        """Write finished.json if the run has ended, else remove it."""
        if self.ranks.first:
            self.folder.note_end(self.schedule)

    def open_journal(self, quiet: bool) -> Journal:
        """The log, cut to the current step."""
        return Journal(
            self.folder.path,
            self.log_size,
            self.schedule.step,
            self.schedule.standing,
            quiet=quiet,
            tensorboard=self.config.output.tensorboard,
        )

    def advance(self, stream: Iterator[Batch], journal: Journal | None, stop: Stop) -> bool:
        """Run one optimiser step. Returns whether any process was asked to stop."""
        began = time.perf_counter()
        epoch, lr = self.schedule.epoch, self.schedule.rate()
        try:
            outcome = self.take_step(stream, lr, stop)
        except NotFiniteError as error:
            raise self.folder.keep_failure(
                error, self.schedule.step + 1, self.ranks.rank, self.network
            ) from error
        self.average.update()
        seconds = time.perf_counter() - began
        used = torch.tensor(seconds, dtype=torch.float64, device=self.ranks.device)
        self.schedule.advance(float(self.ranks.total(used)) / self.ranks.count)  # the same for all
        if journal is not None:
            journal.step(
                {
                    "step": self.schedule.step,
                    "epoch": epoch + 1,
                    "loss": outcome.loss,
                    "parts": outcome.parts,
                    "lr": lr,
                    "seconds": round(seconds, 4),
                },
                self.schedule.standing.done,
            )
        return outcome.asked

    def after_step(self, journal: Journal | None) -> bool:
        """Validate and draw if due. Returns whether it validated."""
        schedule = self.schedule
        checked = schedule.due(self.section.validate_every) and len(self.valid) > 0
        if checked:
            precision = self.take_step.autocast()
            called = self.objective.called(self.network)
            with self.average.applied():
                scores = validate(called, self.valid, self.objective, self.ranks, precision)
                self.keep_best(scores)
            if journal is not None:
                journal.validation(
                    {"step": schedule.step, "epoch": schedule.epoch, "validation": scores}
                )
        if schedule.due(self.section.picture_every) and self.ranks.first:
            with self.average.applied():
                self.draw()
        return checked

    def keep_best(self, scores: dict[str, float]) -> None:
        """Write the network if it is the best so far."""
        score = scores.get("dice", -scores["loss"])
        if score > self.best:
            self.best = score
            if self.ranks.first:
                self.folder.save_best(self.network, self.card)

    def draw(self) -> None:
        """Draw the first validation pair, or the first of all."""
        sample = (self.valid if len(self.valid) else self.data)[0]
        schedule, precision = self.schedule, self.take_step.autocast()
        title = f"{sample.name}, epoch {schedule.epoch}, step {schedule.step}"
        path = self.folder.picture(schedule.epoch)
        draw_pair(path, self.network, sample, self.ranks.device, precision, title)

    def save(self, journal: Journal | None) -> None:
        """Write the run's state; every process must call this, rank 0 writes."""
        self.schedule.saved = self.schedule.spent
        generators = self.ranks.gather(states.random_state(self.ranks.device))
        if journal is None:
            return
        state = {
            "settings": states.settings(self.config),
            "step": self.schedule.step,
            "best": self.best,
            "spent": self.schedule.spent,
            "log_size": journal.size,
            **self.take_step.state_dict(),
            "average": self.average.state_dict(),
            "sampler": self.sampler.state_dict(),
            "generators": generators,
        }
        self.folder.save(self.network, self.card, state, self.average)

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a saved run's state. Raises InputError if it is of another run."""
        path = self.folder.last
        states.check_same(path, state["settings"], states.settings(self.config))
        saved = len(state["generators"])
        if saved != self.ranks.count:
            raise InputError(f"{path} is of {saved} processes, this run has {self.ranks.count}")
        self.take_step.load_state_dict(state)
        self.average.load_state_dict(state.get("average", {"steps": 0, "means": []}))
        self.sampler.load_state_dict(state["sampler"])
        self.schedule.step, self.schedule.spent = state["step"], state.get("spent", 0.0)
        self.schedule.saved = self.schedule.spent
        self.best, self.log_size = state["best"], state["log_size"]
        states.set_random_state(state["generators"][self.ranks.rank], self.ranks.device)

    def greeting(self) -> str:
        """The message of a run that resumes."""
        schedule = self.schedule
        if schedule.done:
            return (
                f"the run in {self.folder.path} is complete, with {schedule.step} steps: more "
                "train.epochs, or another train.budget, would continue it"
            )
        return f"resuming after step {schedule.step} of {schedule.total}"

    def farewell(self) -> str:
        """The message of a stopped run."""
        place, schedule = os.fspath(self.folder.last), self.schedule
        return (
            f"stopped after step {schedule.step} of {schedule.total}, saved in {place}: "
            "resume with --resume"
        )


def build_network(config: Config, size: tuple[int, ...]) -> Network:
    """The configured network for volumes of `size`. Raises InputError for unknown options."""
    name = config.model.name
    return create(name, size, **config.model.arguments(network_options(name)))
