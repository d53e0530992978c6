"""Estimated time of missing steps: from a run's log and scores, else from one timed step."""

from __future__ import annotations

import json
import statistics
import time
from contextlib import suppress
from pathlib import Path

import torch

from ..config.loading import Config
from ..data import open_split
from ..runtime.machine import choose_device
from ..training.batch import Batch
from ..training.objective import Objective
from ..training.schedule import steps_per_epoch
from ..training.trainer import build_network

SIDE = 48  # of the volume on which a step is timed
FORWARD = 1 / 3  # of a training step
SYN = 8e-6  # seconds per voxel, measured: antspyx 0.6.3, one thread, LPBA40 at 4, 3 and 2 mm


def logged_steps(folder: Path) -> list[float]:
    """The seconds of each logged optimiser step of a run; an incomplete line does not count."""
    found = []
    if (folder / "log.jsonl").is_file():
        for line in (folder / "log.jsonl").read_text("utf-8", "replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if "seconds" in record:
                found.append(float(record["seconds"]))
    return found


def scored_pairs(folder: Path) -> list[float]:
    """The seconds of registering each pair that an evaluation has scored."""
    found = []
    for path in (folder / "cases").glob("*.json"):
        with suppress(ValueError, LookupError, TypeError):
            found.append(float(json.loads(path.read_text("utf-8", "replace"))["case"]["seconds"]))
    return found


def timed_step(config: Config) -> float:
    """Seconds of a training step per voxel: the second of two on noise of 48^3 voxels."""
    device = choose_device(config.train.device)
    size = (SIDE, SIDE, SIDE)
    objective = Objective(config.loss)
    network = objective.called(build_network(config, size).to(device).train())
    shape = (config.train.batch, 1, *size)
    maps = torch.ones(shape, dtype=torch.int32, device=device)
    images = [torch.rand(shape, device=device) for _ in range(2)]
    batch = Batch(["noise"], images[0], images[1], maps, maps)
    for _ in range(2):
        began = time.perf_counter()
        loss, _ = objective(network(*images), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / SIDE**3


def voxels(config: Config) -> int:
    """Number of voxels of the network's input for the data set."""
    sample = open_split(config, config.evaluate.split, marks=False)[0]
    return int(sample.fixed.size)


def step_seconds(config: Config, folder: Path) -> float:
    """Seconds of a run's optimiser step: the median of the logged steps, else timed."""
    if logged := logged_steps(folder):
        return statistics.median(logged)
    return timed_step(config) * voxels(config) * config.train.accumulate


def training(config: Config, folder: Path, step: float) -> float:
    """Remaining seconds of a training whose steps take `step` seconds."""
    done = logged_steps(folder)
    if config.train.budget:
        return max(0.0, config.train.budget - sum(done))
    pairs = len(open_split(config, "train", marks=False))
    epoch = steps_per_epoch(config.train, pairs)
    return (config.train.epochs * epoch - len(done)) * step


def evaluation(config: Config, pair: float) -> float:
    """Seconds of registering the test pairs, `pair` each, without scoring them."""
    return pair * len(open_split(config, config.evaluate.split, marks=False))


def network_pair(config: Config, step: float) -> float:
    """Seconds of registering a pair with a network whose training steps take `step`."""
    return FORWARD * step / (config.train.batch * config.train.accumulate)


def syn_pair(config: Config) -> float:
    """Seconds of registering a pair with SyN."""
    return SYN * voxels(config)


def spoken(seconds: float) -> str:
    """A time in words."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"about {seconds / length:.2g} {unit}"
    return f"about {max(1, round(seconds))} s"
