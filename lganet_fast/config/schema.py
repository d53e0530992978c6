"""The sections of a configuration: every key, its default and its allowed values."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from ..errors import InputError
from .rules import ASCENDING, FOR_EACH_AXIS, ODD, PERCENTILES, exactly, real, said, whole
from .section import Section, section

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[str, ...] = get_args(Split)
Layout: TypeAlias = Literal[
    "lpba40", "ixi", "oasis", "oasis-neurite", "learn2reg", "pairs", "atlas", "synthetic"
]
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

Text: TypeAlias = Annotated[str, exactly()]
Flag: TypeAlias = Annotated[bool, exactly()]
Count: TypeAlias = Annotated[int, whole(0)]
Positive: TypeAlias = Annotated[int, whole(1)]
Side: TypeAlias = Annotated[int, whole(32)]
Number: TypeAlias = Annotated[float, real()]
Weight: TypeAlias = Annotated[float, real(ge=0)]
Fraction: TypeAlias = Annotated[float, real(ge=0, lt=1)]
Option: TypeAlias = Flag | Text | Annotated[int, exactly()] | Number | list[Any]
Share: TypeAlias = Annotated[Count | Fraction, said("a count (2) or a fraction below 1 (0.1)")]
Span: TypeAlias = Annotated[tuple[Count, Count], ASCENDING]
Window: TypeAlias = Annotated[
    tuple[Literal["clip", "percentile"], Number, Number], ASCENDING, PERCENTILES
]
Intensity: TypeAlias = str | tuple[str, float, float]

CROP = "a list of 3, each a pair [from, to) of voxels, 0 <= from < to"
STEPS = "a whole number from 1 on, or one per axis"
WINDOW = "['clip', low, high] or ['percentile', low, high] with low < high"


@section
class DataSection(Section):
    """Where the images are and how they are prepared for the network; see `data`.

    layout: of the folder; "synthetic" needs none, its pairs are drawn as [synthetic] says. root:
    that folder (or the CSV file of "pairs"), relative to the current folder; ${VARIABLES} are
    replaced. task: of "learn2reg".
    crop: [from, to) in voxels along each axis; [] keeps all. spacing: after the crop, voxels are
    pooled in cubes of this side, or in boxes of three sides.
    intensity: "as-is"; "range", scale the minimum to 0 and the maximum to 1; ["clip", low, high],
    clip to [low, high], then scale low to 0 and high to 1; ["percentile", low, high], the same with
    percentiles of the image. moving_intensity: of moving images where it differs, else "same".
    labels: labels to score; [] for all but 0. atlas: the role of the atlas, in layouts with one.
    pairing: of the training images in such layouts: each with the atlas, or all ordered pairs
    without it. validation, testing: images held out where the layout has no such split, as a count
    or a fraction. pairs: random training pairs to draw, where pairs are random; 0 for as many as
    there are images. cache: keep prepared volumes in memory. workers: threads that read ahead.
    seed: of the random pairs.
    """

    title: ClassVar[str] = "data"
    layout: Layout
    root: Text = ""
    task: Literal["", "LungCT", "AbdomenCTMR"] = ""
    crop: Annotated[tuple[Span, ...], FOR_EACH_AXIS, said(CROP)] = ()
    spacing: Annotated[Positive | tuple[Positive, Positive, Positive], said(STEPS)] = 1
    intensity: Annotated[
        Literal["as-is", "range"] | Window, said(f"'as-is', 'range', {WINDOW}")
    ] = "as-is"
    moving_intensity: Annotated[
        Literal["same", "as-is", "range"] | Window, said(f"'same', 'as-is', 'range', {WINDOW}")
    ] = "same"
    labels: tuple[Positive, ...] = ()
    atlas: Literal["fixed", "moving"] = "fixed"
    pairing: Literal["atlas", "all"] = "atlas"
    validation: Share = 0
    testing: Share = 0
    pairs: Count = 0
    cache: Flag = True
    workers: Count = 1
    seed: Count = 0

    @property
    def factors(self) -> tuple[int, int, int]:
        """`spacing` along each axis."""
        if isinstance(self.spacing, int):
            return self.spacing, self.spacing, self.spacing
        return self.spacing

    @property
    def intensity_rule(self) -> str:
        """The intensity rule of both images, as written in a network's card."""
        if self.moving_intensity == "same":
            return str(self.intensity)
        return f"fixed {self.intensity}, moving {self.moving_intensity}"

    def folder(self) -> Path:
        """`root` with its variables replaced. Raises InputError if one is not set."""
        if not self.root:
            raise InputError("data.root must name the folder of the data")

        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in os.environ:
                raise InputError(f"data.root is {self.root!r}, but {name} is not set")
            return os.environ[name]

        return Path(VARIABLE.sub(value, self.root)).expanduser()


@section
class SyntheticSection(Section):
    """Pairs drawn at random, for layout "synthetic"; see `data.synthetic`.

    size: of the images. spacing: in mm, of a voxel. pairs: training pairs, a run's endless supply
    if large. shapes: the fraction of pairs of random shapes; the others are of the MNI152
    template. labels: at most so many labels of a pair, chosen at random, are in its label maps.
    deformation: factor of the usual strength of both images' deformations.
    """

    title: ClassVar[str] = "synthetic"
    size: tuple[Side, Side, Side] = (80, 96, 80)
    spacing: Positive = 2
    pairs: Positive = 100_000
    shapes: Annotated[float, real(ge=0, le=1)] = 0.2
    labels: Positive = 16
    deformation: Weight = 1.0


@section
class ModelSection(Section):
    """The network and the arguments of its constructor.

    name: one of `models.names()`. weights: a checkpoint of that network to start a new run from;
    "" for random weights. checkpoint: "blocks" recomputes activations to save memory; "" keeps
    them. options: further arguments. The other keys are for LGANet++ and the ablations; networks
    without such an argument ignore them.
    """

    title: ClassVar[str] = "model"
    name: Literal[
        "lganetpp",
        "lganet",
        "voxelmorph",
        "pivit",
        "prnetpp",
        "pcnet",
        "modet",
        "corrmlp",
        "groupmorph",
        "rdp",
        "lean",
    ] = "lganetpp"
    weights: Text = ""
    token_order: Literal["published", "spatial"] = "published"
    filters: Annotated[int, whole(8)] = 8
    lgam: Flag = True
    fifm: Flag = True
    msfm: Flag = True
    dropout: Fraction = 0.1
    checkpoint: Literal["", "blocks"] = ""
    options: Annotated[dict[str, Option], said("a table of options, {name = value}")] = field(
        default_factory=dict
    )

    def arguments(self, known: Collection[str]) -> dict[str, Any]:
        """Return the arguments of a constructor with the options `known`, and all of `options`."""
        own = {x.name: getattr(self, x.name) for x in fields(self) if x.name in known}
        return {**own, "checkpoint": self.checkpoint or None, **self.options}


@section
class LossSection(Section):
    """The terms of the loss and their weights.

    similarity, similarity_weight; window, squared: of "ncc" (squared false: paper eq. 10).
    smoothness: weight of the squared differences of what `smooth` names: the "flow", or what the
    network's own authors smooth, "own". dice: weight of the labels' overlap. folding: weight of
    negative Jacobian determinants. flow: weight of the mean squared distance, in voxels, to
    the known flow within the fixed image's foreground, for layout "synthetic".
    """

    title: ClassVar[str] = "loss"
    similarity: Literal["ncc", "mse", "mind"] = "ncc"
    similarity_weight: Weight = 1.0
    window: Annotated[Positive, ODD] = 9
    squared: Flag = True
    smoothness: Weight = 1.0
    smooth: Literal["flow", "own"] = "flow"
    dice: Weight = 0.0
    folding: Weight = 0.0
    flow: Weight = 0.0


@section
class TrainSection(Section):
    """Training: Adam with L2 weight_decay; the defaults are those of the paper's section 3.1.2.

    budget: seconds of optimiser steps after which the run ends, even if epochs are left; the
    learning rate then depends on the fraction of the budget used instead of the epochs done. 0: no
    budget. steps_per_epoch: 0 for every pair once. batch: pairs per step and process; accumulate:
    steps whose gradients are summed. average: decay of the running mean of the weights, which is
    then what is validated and saved as a network; 0 for none. The rate is `lr` up to epoch
    `decay_from`, then decays: "linear", linearly to `final_lr` in the last epoch; "power", with
    the power 0.9 of the fraction of epochs left; "step", to `final_lr` at once. warm_up: steps in
    which the rate first rises.
    precision: of the network under autocast. graph: run forward and backward as CUDA graphs, on
    CUDA only. validate_every, picture_every: epochs, 0 for never. save_every, save_minutes:
    optimiser steps, and minutes of them, after which a checkpoint is due, whichever comes first.
    device: auto, cpu, cuda or cuda:N. threads: 0 for all.
    """

    title: ClassVar[str] = "train"
    epochs: Positive = 300
    steps_per_epoch: Count = 0
    batch: Positive = 1
    accumulate: Positive = 1
    lr: Annotated[float, real(gt=0)] = 1e-4
    final_lr: Weight = 1e-6
    decay_from: Count = 200
    decay: Literal["linear", "power", "step"] = "linear"
    warm_up: Count = 0
    budget: Weight = 0.0
    weight_decay: Weight = 0.0
    average: Fraction = 0.0
    beta1: Fraction = 0.99
    beta2: Fraction = 0.999
    amsgrad: Flag = False
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    graph: Flag = False
    seed: Count = 0
    validate_every: Count = 1
    picture_every: Count = 10
    save_every: Positive = 50
    save_minutes: Annotated[float, real(gt=0)] = 5.0
    device: Text = "auto"
    threads: Count = 0


@section
class EvaluateSection(Section):
    """What to score, and how.

    hd95: the definition (see `metrics`). interpolation: of the warped labels. refine: iterations
    of instance optimisation after the network, coarse to fine; results are then at full
    resolution, whatever data.spacing is for the network; [0] only changes the resolution; [] for
    none. warp: "aligned", or "published" for the half-voxel shift of the published test script.
    """

    title: ClassVar[str] = "evaluate"
    split: Split = "test"
    hd95: Literal["paper", "medpy", "monai", "learn2reg"] = "paper"
    interpolation: Literal["nearest", "trilinear"] = "nearest"
    refine: tuple[Count, ...] = ()
    warp: Literal["aligned", "published"] = "aligned"


@section
class OutputSection(Section):
    """The output folder; tensorboard: also write events (needs lganet_fast[tensorboard])."""

    title: ClassVar[str] = "output"
    folder: Text = "runs/lganet_fast"
    tensorboard: Flag = False
