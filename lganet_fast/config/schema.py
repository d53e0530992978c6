"""The sections of a configuration: every key, its default and what it may be."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias, get_type_hints

from ..errors import InputError
from .rules import (
    RefusedError,
    Rule,
    choice,
    either,
    flag,
    listed,
    real,
    share,
    span,
    text,
    values,
    whole,
)

LAYOUTS = ("lpba40", "ixi", "oasis", "oasis-neurite", "learn2reg", "pairs", "atlas")
TASKS = ("", "LungCT", "AbdomenCTMR")
SPLITS = ("train", "val", "test")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

Intensity: TypeAlias = str | tuple[str, float, float]

SPAN = span("a pair [from, to) of voxels, 0 <= from < to", whole(0))
TRIPLE = listed(whole(1), length=3, empty=False)
STEPS = "a whole number from 1 on, or one per axis"


@dataclass(frozen=True)
class Section:
    """A table of the file. Raises InputError, naming section.key, for a value not allowed."""

    title: ClassVar[str]

    def __post_init__(self) -> None:
        for name, rule in self.rules().items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, rule.accept(value))
            except RefusedError:
                line = f"{self.title}.{name} must be {rule.wanted}, got {value!r}"
                raise InputError(line) from None

    @classmethod
    @cache
    def rules(cls) -> dict[str, Rule]:
        """The rule of each key."""
        hints = get_type_hints(cls, include_extras=True)
        return {entry.name: hints[entry.name].__metadata__[0] for entry in fields(cls)}


@dataclass(frozen=True)
class DataSection(Section):
    """Where the images are and what is done to them before the network; see `data`.

    layout: how the folder is laid out. root: that folder (or the CSV file of "pairs"), relative to
    the current folder; ${VARIABLES} are replaced. task: of "learn2reg".
    crop: [from, to) in voxels along each axis; [] keeps all. spacing: after the crop, voxels are
    pooled in cubes of this side, or in boxes of three sides.
    intensity: "as-is"; "range", the least value to 0 and the largest to 1; ["clip", low, high],
    values cut to [low, high], then those to 0 and 1; ["percentile", low, high], the same with
    percentiles of the image. moving_intensity: of moving images where it differs, else "same".
    labels: those that are scored; [] for all but 0. atlas: which role the atlas has, where there is
    one. validation, testing: images held out where the layout has no such split of its own, as a
    count or a fraction. pairs: random training pairs to draw, where pairs are random; 0 for as many
    as there are images. cache: keep prepared volumes in memory. workers: threads that read ahead.
    seed: of the random pairs.
    """

    title: ClassVar[str] = "data"
    layout: Annotated[str, choice(*LAYOUTS)]
    root: Annotated[str, text()] = ""
    task: Annotated[str, choice(*TASKS)] = ""
    crop: Annotated[tuple[tuple[int, int], ...], listed(SPAN, length=3)] = ()
    spacing: Annotated[int | tuple[int, int, int], either(STEPS, whole(1), TRIPLE)] = 1
    intensity: Annotated[Intensity, values("as-is", "range")] = "as-is"
    moving_intensity: Annotated[Intensity, values("same", "as-is", "range")] = "same"
    labels: Annotated[tuple[int, ...], listed(whole(1))] = ()
    atlas: Annotated[str, choice("fixed", "moving")] = "fixed"
    validation: Annotated[int | float, share()] = 0
    testing: Annotated[int | float, share()] = 0
    pairs: Annotated[int, whole(0)] = 0
    cache: Annotated[bool, flag()] = True
    workers: Annotated[int, whole(0)] = 1
    seed: Annotated[int, whole(0)] = 0

    @property
    def factors(self) -> tuple[int, int, int]:
        """`spacing` along each axis."""
        if isinstance(self.spacing, int):
            return self.spacing, self.spacing, self.spacing
        return self.spacing

    @property
    def intensity_rule(self) -> str:
        """What is done to both images' intensities, as a network's card tells it."""
        if self.moving_intensity == "same":
            return str(self.intensity)
        return f"fixed {self.intensity}, moving {self.moving_intensity}"

    def folder(self) -> Path:
        """`root` with its variables replaced. Raises InputError where one is not set."""
        if not self.root:
            raise InputError("data.root must name the folder of the data")

        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in os.environ:
                raise InputError(f"data.root is {self.root!r}, but {name} is not set")
            return os.environ[name]

        return Path(VARIABLE.sub(value, self.root)).expanduser()


@dataclass(frozen=True)
class ModelSection(Section):
    """Arguments of `LGANetPlusPlus`; checkpoint "" keeps all of a block in memory."""

    title: ClassVar[str] = "model"
    token_order: Annotated[str, choice("published", "spatial")] = "published"
    filters: Annotated[int, whole(8)] = 8
    lgam: Annotated[bool, flag()] = True
    fifm: Annotated[bool, flag()] = True
    msfm: Annotated[bool, flag()] = True
    dropout: Annotated[float, real(0, below=1)] = 0.1
    checkpoint: Annotated[str, choice("", "blocks")] = ""


@dataclass(frozen=True)
class LossSection(Section):
    """The terms of the loss and their weights.

    similarity, similarity_weight; window, squared: of "ncc" (squared false: paper eq. 10).
    smoothness: of the flow's squared differences. dice: of the labels' overlap. folding: of
    negative Jacobian determinants.
    """

    title: ClassVar[str] = "loss"
    similarity: Annotated[str, choice("ncc", "mse", "mind")] = "ncc"
    similarity_weight: Annotated[float, real(0)] = 1.0
    window: Annotated[int, whole(1)] = 9
    squared: Annotated[bool, flag()] = True
    smoothness: Annotated[float, real(0)] = 1.0
    dice: Annotated[float, real(0)] = 0.0
    folding: Annotated[float, real(0)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % 2 == 0:
            raise InputError(f"loss.window must be odd, got {self.window}")


@dataclass(frozen=True)
class TrainSection(Section):
    """How to train: Adam, weight_decay in its L2 form; by default the paper's 3.1.2.

    steps_per_epoch: 0 for every pair once. batch: pairs per step and process; accumulate: steps
    whose gradients are added up. The rate is `lr` up to epoch `decay_from`, then falls in a line to
    `final_lr` in the last epoch; warm_up: steps in which it first rises. precision: of the network
    under autocast. graph: run the network's forward and backward as CUDA graphs, on CUDA alone.
    validate_every, picture_every: epochs, 0 for never. save_every: optimiser steps that a crash may
    lose. device: auto, cpu, cuda or cuda:N. threads: 0 for all.
    """

    title: ClassVar[str] = "train"
    epochs: Annotated[int, whole(1)] = 300
    steps_per_epoch: Annotated[int, whole(0)] = 0
    batch: Annotated[int, whole(1)] = 1
    accumulate: Annotated[int, whole(1)] = 1
    lr: Annotated[float, real(0, above=True)] = 1e-4
    final_lr: Annotated[float, real(0)] = 1e-6
    decay_from: Annotated[int, whole(0)] = 200
    warm_up: Annotated[int, whole(0)] = 0
    weight_decay: Annotated[float, real(0)] = 0.0
    beta1: Annotated[float, real(0, below=1)] = 0.99
    beta2: Annotated[float, real(0, below=1)] = 0.999
    precision: Annotated[str, choice("float32", "bf16", "fp16")] = "float32"
    graph: Annotated[bool, flag()] = False
    seed: Annotated[int, whole(0)] = 0
    validate_every: Annotated[int, whole(0)] = 1
    picture_every: Annotated[int, whole(0)] = 10
    save_every: Annotated[int, whole(1)] = 50
    device: Annotated[str, text()] = "auto"
    threads: Annotated[int, whole(0)] = 0


@dataclass(frozen=True)
class EvaluateSection(Section):
    """What is scored and how.

    hd95: which definition (see `metrics`). interpolation: of the moved labels. refine: iterations
    of instance optimisation after the network, coarse to fine; with it, results are at full
    resolution, whatever data.spacing is for the network, [0] for that alone; [] for none. warp:
    "aligned", or "published" for the half-voxel shift of the published test script.
    """

    title: ClassVar[str] = "evaluate"
    split: Annotated[str, choice(*SPLITS)] = "test"
    hd95: Annotated[str, choice("paper", "medpy", "monai", "learn2reg")] = "paper"
    interpolation: Annotated[str, choice("nearest", "trilinear")] = "nearest"
    refine: Annotated[tuple[int, ...], listed(whole(0))] = ()
    warp: Annotated[str, choice("aligned", "published")] = "aligned"


@dataclass(frozen=True)
class OutputSection(Section):
    """Where a run writes; tensorboard: its events too (needs lganet_fast[tensorboard])."""

    title: ClassVar[str] = "output"
    folder: Annotated[str, text()] = "runs/lganet_fast"
    tensorboard: Annotated[bool, flag()] = False
