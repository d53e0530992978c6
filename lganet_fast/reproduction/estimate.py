"""Estimated time of missing steps: from a run's log and scores, else from stored costs."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..config.loading import Config
from ..config.schema import DataSection
from ..data import open_split
from ..ops import convolve
from ..runtime.machine import choose_device
from ..training.schedule import steps_per_epoch

SIDE = 48  # of the volume on which the convolution is timed
CHANNELS = 16  # of its input and output
ROUNDS = 3  # the fastest counts
FORWARD = 1 / 3  # of a training step
# A training step in convolutions: its time over that of `convolution`, per voxel.
# Measured by `python -m benchmarks.training_cost` on an AMD EPYC (AVX-512), one thread.
COST = {
    "voxelmorph": 32,
    "pivit": 10,
    "prnetpp": 144,
    "pcnet": 204,
    "modet": 29,
    "corrmlp": 204,
    "groupmorph": 33,
    "rdp": 207,
    "lganet": 209,
    "lganetpp": 272,
    "model1": 54,
    "model2": 58,
    "model3": 201,
}
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


def convolution(device: torch.device) -> Callable[[], Tensor]:
    """The call of a 3^3 convolution on noise, (1, CHANNELS, SIDE, SIDE, SIDE) float32."""
    x = torch.rand(1, CHANNELS, SIDE, SIDE, SIDE, device=device)
    weight, bias = torch.rand(CHANNELS, CHANNELS, 3, 3, 3, device=device), x.new_zeros(CHANNELS)
    return lambda: convolve(x, weight, bias)


@cache
def convolution_seconds(device: torch.device) -> float:
    """Seconds of that convolution per voxel on this machine."""
    call, found = convolution(device), []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began)
    return min(found[1:]) / SIDE**3


@cache
def voxels(data: DataSection, split: str) -> int:
    """Number of voxels of the network's input; a pair of the data set is read once."""
    return int(open_split(Config(data), split, marks=False)[0].fixed.size)


def step_seconds(config: Config, folder: Path, row: str) -> float:
    """Seconds of a run's optimiser step: the median of the logged steps, else from COST."""
    if logged := logged_steps(folder):
        return statistics.median(logged)
    pairs = config.train.batch * config.train.accumulate
    unit = convolution_seconds(choose_device(config.train.device))
    return COST[row] * unit * voxels(config.data, config.evaluate.split) * pairs


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
    return SYN * voxels(config.data, config.evaluate.split)


def spoken(seconds: float) -> str:
    """A time in words."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"about {float(f'{seconds / length:.2g}'):g} {unit}"
    return f"about {max(1, round(seconds))} s"
