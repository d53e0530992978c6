"""The training loop: from a configuration to a run folder that can be resumed at any step."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Generator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config.loading import Config, dumps
from ..data import ShardedSampler, open_split
from ..errors import InputError
from ..models import Network, create
from ..models.checkpoint import load_into
from ..models.checkpoint import save as save_network
from ..models.registry import options as network_options
from ..ops import warp
from ..runtime.files import atomic
from ..runtime.json_files import write_report_json
from ..runtime.ranks import Ranks, join
from . import state as states
from .batch import Batch, batches, collate
from .card import card
from .graph import Graphed
from .journal import Journal
from .objective import Objective
from .picture import draw
from .schedule import rate
from .stop import Stop
from .validate import validate

log = logging.getLogger(__name__)

TYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(config: Config, resume: bool = False, quiet: bool = True, source: str = "") -> Path:
    """Train a network; returns the run folder, `config.output.folder`.

    It holds config.toml, log.jsonl (a line per optimiser step and per validation), finished.json
    (steps and seconds of a run that has ended), last.pt (all that resuming needs), last.safetensors
    and best.safetensors (networks; best by validation Dice, or loss where there are no labels) and
    pictures/. Each is written whole or not at all.
    resume: go on where last.pt stands, exactly, or on another schedule (train.epochs, the rates);
    begin where there is none. quiet: no bar. source: what the configuration was read from, for the
    network's card. Under torchrun the processes share the work.
    Raises InputError for what does not fit, and where a loss is not finite, whose batch is then in
    failure.pt. Raises KeyboardInterrupt after Ctrl-C, once last.pt is written.
    """
    with join(config.train.device, config.train.threads) as ranks:
        trainer = Trainer(config, ranks, source)
        trainer.prepare_folder(resume)
        with Stop(loud=ranks.first) as stop:
            trainer.run(stop, quiet)
    return trainer.folder


class Trainer:
    """One process's part of a run.

    step: optimiser steps done. best: the best validation score so far, higher is better.
    """

    def __init__(self, config: Config, ranks: Ranks, source: str = "") -> None:
        self.config, self.ranks, self.section = config, ranks, config.train
        self.folder = Path(config.output.folder)
        self.data = open_split(config, "train", marks=config.loss.dice > 0)
        self.valid = open_split(config, "val")
        self.sampler = ShardedSampler(len(self.data), self.section.seed, ranks.rank, ranks.count)
        used = self.section.batch * self.section.accumulate
        self.epoch_steps = self.section.steps_per_epoch or max(1, len(self.sampler) // used)
        self.total = self.section.epochs * self.epoch_steps
        first = self.data[0]
        self.seed(self.section.seed)
        self.network = build_network(config, first.fixed.shape).to(ranks.device).train()
        self.seed(self.section.seed + ranks.rank)
        self.card = card(config, first, source)
        self.model = self.trained((self.section.batch, 1, *first.fixed.shape))
        self.objective = Objective(config.loss)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=self.section.lr,
            betas=(self.section.beta1, self.section.beta2),
            weight_decay=self.section.weight_decay,
            amsgrad=self.section.amsgrad,
        )
        half = self.section.precision == "fp16"
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=half)
        self.step, self.best, self.log_size = 0, -float("inf"), 0
        self.spent = 0.0

    def trained(self, shape: tuple[int, ...]) -> nn.Module:
        """The network as it is called in training, with graphs for batches of a shape if wanted.

        Gradients are averaged outside of the graphs, which must be there before DDP is.
        """
        model: nn.Module = self.network
        if self.section.graph:
            model = Graphed(model, self.autocast(cache=False), shape, self.ranks.device)
        return DistributedDataParallel(model) if self.ranks.count > 1 else model

    @staticmethod
    def seed(seed: int) -> None:
        """Seed every generator of this process."""
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)

    def prepare_folder(self, resume: bool) -> None:
        """Take up the run in the folder, or begin one there.

        Raises InputError where a run is there that is not to be resumed or is another's.
        """
        last = self.folder / "last.pt"
        if last.exists():
            if not resume:
                raise InputError(
                    f"{self.folder} already holds a run: --resume goes on with it, another "
                    "output.folder begins a new one"
                )
            self.restore(states.load(last))
            if self.ranks.first:
                log.info("going on after step %d of %d", self.step, self.total)
        elif self.config.model.weights:
            load_into(self.network, self.config.model.weights)
        if not self.ranks.first:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write into {self.folder}: {error.strerror}") from error
        with atomic(self.folder / "config.toml") as temporary:
            temporary.write_text(dumps(self.config), "utf-8", "backslashreplace")

    def run(self, stop: Stop, quiet: bool) -> None:
        """Train to the end, or until asked to stop: then KeyboardInterrupt says how to go on."""
        size, workers = self.section.batch, self.config.data.workers
        stream = batches(self.data, self.sampler, size, workers, self.ranks.device)
        journal = self.open_journal(quiet) if self.ranks.first else None
        try:
            self.note_end()
            while not self.done:
                asked = self.advance(stream, journal, stop)
                checked = self.after_step(journal)
                done = self.done
                if asked or done or checked or self.step % self.section.save_every == 0:
                    self.save(journal)
                if asked and not done:
                    raise KeyboardInterrupt(self.farewell())
            self.note_end()
        finally:
            stream.close()
            if journal is not None:
                journal.close()

    @property
    def done(self) -> bool:
        """Whether the run has ended, by its steps or by its time."""
        used_up = 0 < self.section.budget <= self.spent
        return self.step >= self.total or used_up

    def note_end(self) -> None:
        """Have finished.json there where the run has ended, and only there."""
        if not self.ranks.first:
            return
        path = self.folder / "finished.json"
        if self.done:
            write_report_json(path, {"steps": self.step, "seconds": self.spent})
        else:
            path.unlink(missing_ok=True)

    def open_journal(self, quiet: bool) -> Journal:
        """The log, cut to where this run stands."""
        wanted = self.config.output.tensorboard
        done = self.progress()
        return Journal(self.folder, self.log_size, self.step, quiet, wanted, *done)

    def progress(self) -> tuple[int, int, str]:
        """What is done, of how much: seconds of a budget, else optimiser steps."""
        if budget := self.section.budget:
            return int(min(self.spent, budget)), round(budget), "seconds"
        return self.step, self.total, "steps"

    def advance(self, stream: Generator[Batch], journal: Journal | None, stop: Stop) -> bool:
        """One optimiser step. Returns whether any process was asked to stop."""
        began = time.perf_counter()
        epoch = self.step // self.epoch_steps
        lr = rate(self.section, self.position(epoch), self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        stopping, loss, *parts = self.accumulate(stream, stop)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=not self.section.graph)
        self.step += 1
        seconds = time.perf_counter() - began
        used = torch.tensor(seconds, dtype=torch.float64, device=self.ranks.device)
        self.spent += float(self.ranks.total(used)) / self.ranks.count  # the same for all
        if journal is not None:
            journal.step(
                {
                    "step": self.step,
                    "epoch": epoch + 1,
                    "loss": loss,
                    "parts": dict(zip(self.objective.terms, parts, strict=True)),
                    "lr": lr,
                    "seconds": round(seconds, 4),
                },
                self.progress()[0],
            )
        return stopping > 0

    def position(self, epoch: int) -> float:
        """The epoch that the rate is of; with a budget, by the share of it that is spent."""
        budget = self.section.budget
        return epoch if not budget else self.section.epochs * self.spent / budget

    def accumulate(self, stream: Generator[Batch], stop: Stop) -> list[float]:
        """Add up gradients. Returns means over batches and processes: stopping, loss, its terms."""
        count = self.section.accumulate
        device = self.ranks.device
        sums = torch.zeros(1 + len(self.objective.terms), dtype=torch.float64, device=device)
        for index in range(count):
            batch = next(stream)
            with nullcontext() if index == count - 1 else self.unsynchronised():
                with self.autocast():
                    flow = self.model(batch.moving, batch.fixed)
                loss, parts = self.objective(flow, batch)
                self.scaler.scale(loss / count).backward()  # type: ignore[no-untyped-call]
            values = torch.stack([loss, *parts.values()]).detach()
            sums += values
            if not values.isfinite().all():
                self.fail("the loss", batch, values.tolist())
        if not self.scaler.is_enabled() and not self.gradient_norm().isfinite():
            self.fail("the gradient", batch, values.tolist())
        asked = sums.new_tensor([float(stop.asked)])
        means = self.ranks.total(torch.cat([asked, sums / count])) / self.ranks.count
        return means.tolist()

    def unsynchronised(self) -> Any:
        """Keep gradients to this process: more are to be added first."""
        model = self.model
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def autocast(self, cache: bool = True) -> torch.autocast:
        """The precision of the network; a loss is never computed in less than float32.

        cache: cast each weight once, however often it is used.
        """
        kind = TYPES[self.section.precision]
        return torch.autocast(self.ranks.device.type, kind, kind != torch.float32, cache)

    def gradient_norm(self) -> Tensor:
        """Of all gradients."""
        grads = [p.grad for p in self.network.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(grads)

    def fail(self, what: str, batch: Batch, values: list[float]) -> None:
        """Keep the batch that made something not finite, and raise InputError."""
        rank = self.ranks.rank
        path = self.folder / (f"failure.{rank}.pt" if rank else "failure.pt")
        loss, *parts = values
        terms = dict(zip(self.objective.terms, parts, strict=True))
        states.save(
            path,
            {
                "step": self.step + 1,
                "names": batch.names,
                "loss": loss,
                "parts": terms,
                "moving": batch.moving,
                "fixed": batch.fixed,
                "network": self.network.state_dict(),
            },
        )
        listed = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        raise InputError(
            f"{what} of {', '.join(batch.names)} is not finite in step {self.step + 1} "
            f"({listed}): {path} holds the images and the network"
        )

    def after_step(self, journal: Journal | None) -> bool:
        """Validate and draw where it is time. Returns whether it validated."""
        epoch, left = divmod(self.step, self.epoch_steps)

        def due(every: int) -> bool:
            return not left and every > 0 and (epoch % every == 0 or self.done)

        checked = due(self.section.validate_every) and len(self.valid) > 0
        if checked:
            scores = validate(self.network, self.valid, self.objective, self.ranks, self.autocast())
            record = {"step": self.step, "epoch": epoch, "validation": scores}
            if journal is not None:
                journal.validation(record)
            self.keep_best(scores)
        if due(self.section.picture_every) and self.ranks.first:
            self.draw(epoch)
        return checked

    def keep_best(self, scores: dict[str, float]) -> None:
        """Write the network where it is the best so far."""
        score = scores.get("dice", -scores["loss"])
        if score > self.best:
            self.best = score
            if self.ranks.first:
                save_network(self.network, self.folder / "best.safetensors", self.card)

    @torch.no_grad()
    def draw(self, epoch: int) -> None:
        """Draw the first validation pair, or the first of all."""
        sample = (self.valid if len(self.valid) else self.data)[0]
        batch = collate([sample], self.ranks.device)
        self.network.eval()
        with self.autocast():
            flow = self.network(batch.moving, batch.fixed)
        self.network.train()
        pictures = self.folder / "pictures"
        pictures.mkdir(exist_ok=True)
        title = f"{sample.name}, epoch {epoch}, step {self.step}"
        draw(pictures / f"{epoch:04d}.png", sample, warp(batch.moving, flow), flow, title)

    def save(self, journal: Journal | None) -> None:
        """Write last.safetensors and then last.pt, which is what counts."""
        generators = self.ranks.gather(states.random_state(self.ranks.device))
        if journal is None:
            return
        save_network(self.network, self.folder / "last.safetensors", self.card)
        states.save(
            self.folder / "last.pt",
            {
                "settings": states.settings(self.config),
                "step": self.step,
                "best": self.best,
                "spent": self.spent,
                "log_size": journal.size,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "sampler": self.sampler.state_dict(),
                "generators": generators,
            },
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Stand where a saved run stood. Raises InputError where that was another run."""
        path = self.folder / "last.pt"
        states.check_same(path, state["settings"], states.settings(self.config))
        saved = len(state["generators"])
        if saved != self.ranks.count:
            raise InputError(f"{path} is of {saved} processes, this run has {self.ranks.count}")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.sampler.load_state_dict(state["sampler"])
        self.step, self.best = state["step"], state["best"]
        self.log_size, self.spent = state["log_size"], state.get("spent", 0.0)
        states.set_random_state(state["generators"][self.ranks.rank], self.ranks.device)

    def farewell(self) -> str:
        """What a stopped run says."""
        place = os.fspath(self.folder / "last.pt")
        return f"stopped after step {self.step} of {self.total}, saved in {place}: --resume goes on"


def build_network(config: Config, size: tuple[int, ...]) -> Network:
    """The configured network for volumes of `size`. Raises InputError for options that it lacks."""
    name = config.model.name
    return create(name, size, **config.model.arguments(network_options(name)))
