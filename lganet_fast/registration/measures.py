"""The measures of a result in a registration's report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..metrics.scores import dice, hd95, inverse_consistency, mean_known, present, tre
from ..ops import compose, warp
from ..report.contents import (
    ChannelScores,
    Folds,
    InverseConsistency,
    Jacobian,
    LabelRow,
    LabelScores,
    PointScores,
    SimilarityScores,
    rises,
)
from ..runtime.device import numbers
from ..transforms.field import DisplacementField
from ..transforms.folds import Repair
from ..volumes.grid import Grid, Volume
from ..volumes.intensity import window_of
from ..volumes.resample import index_flow, linear_on, read, turned
from .channels import Channel
from .objective import measure_for
from .optimiser import flow_of
from .pair import Pair
from .workspace import MARGIN, Workspace

NAMED = 8  # labels that a warning lists


@dataclass(frozen=True)
class SimilarityChange:
    """The similarity over the fixed image's foreground.

    name: of the measure. For "lncc" the numbers are the mean squared local correlation, for "mi"
    the mutual information less the difference of the foregrounds (higher is better), else the mean
    squared difference (lower is better).
    channels: of each of several, in place of which the others are means by weight.
    guided: more than the similarity steered the search, so that it may fall.
    before: of the input images, or after the affine. start: at the start of the search, the same
    or after a network. found: at the end of the search. perfect: of the fixed image with itself.
    """

    name: str
    before: float
    start: float
    found: float
    perfect: float
    guided: bool = False
    channels: tuple[ChannelScores, ...] = ()

    def better(self, one: float, other: float) -> bool:
        """Whether one value is better than another."""
        return one > other if rises(self.name) else one < other

    @property
    def dropped(self) -> bool:
        """Whether the search ended worse than it started; its start is then the result."""
        fell = not self.guided and self.better(self.start, self.found)
        return fell or not math.isfinite(self.found)

    @property
    def after(self) -> float:
        """Of the result."""
        return self.start if self.dropped else self.found

    def report(self) -> SimilarityScores:
        """The values for the report."""
        return SimilarityScores(
            self.name,
            self.before,
            self.after,
            self.found if self.dropped else None,
            [replace(x, after=x.start) if self.dropped else x for x in self.channels] or None,
        )


@torch.no_grad()
def similarity_change(
    velocity: Tensor, start: Workspace, work: Workspace, similarity: str
) -> SimilarityChange:
    """Measure the change of similarity over the fixed image's foreground at the start.

    velocity: as `optimise` returns it for `work`, which is `start`, or `start` after a network
    or a first search. The result is resampled once from `start`, as it is written; resampled from
    `work` it would be smoothed twice, and score lower than it is. Of several channels the mean by
    their weights.
    """
    flow = whole_flow(velocity, work)
    pairs = list(zip(start.channels, work.channels, strict=True))
    values = [x for one, now in pairs for x in similarities(one, now, flow, similarity)]
    rows = np.reshape(numbers(values), (-1, 4))
    weights = np.array([channel.weight for channel in work.channels])
    before, begun, found, perfect = (round(float(x), 6) for x in weights @ rows)
    channels = tuple(
        ChannelScores(float(weight), *(round(float(x), 6) for x in row))
        for weight, row in zip(weights, rows[:, :3], strict=True)
    )
    several = channels if len(channels) > 1 else ()
    return SimilarityChange(similarity, before, begun, found, perfect, work.guided, several)


def similarities(start: Channel, work: Channel, flow: Tensor, similarity: str) -> list[Tensor]:
    """A channel's similarity before, at the start of the search, at its end, and with itself.

    start, work: as prepared, and at the start of the search. flow: by which the result is warped.
    """
    value = similarity_to(start, similarity)
    before, found = value(start.moving), value(warp(start.moving, flow))
    begun = before if work is start else value(work.moving)
    return [before, begun, found, value(start.fixed)]


def similarity_to(channel: Channel, similarity: str) -> Callable[[Tensor], Tensor]:
    """The similarity of an image on the working grid to a channel's fixed image."""
    fixed, measure = channel.fixed, measure_for(similarity, channel.fixed.shape[2:])
    counts = (fixed > 0).to(fixed)
    for weight in channel.weights:
        counts = counts if weight is None else counts * weight
    own = measure.features(fixed)

    def value(image: Tensor) -> Tensor:
        target, moved = measure.channels(fixed, image)
        known = own if target is fixed else measure.features(target)
        loss = measure.loss(known, measure.features(moved), counts)
        return 1 - loss if rises(similarity) else loss

    return value


def whole_flow(velocity: Tensor, work: Workspace) -> Tensor:
    """exp(velocity) after what `work` was warped by: (1, 3, H, W, D) in working voxels."""
    flow = flow_of(velocity, work.grid.shape)
    return flow if work.first is None else compose(work.first, flow)


@dataclass(frozen=True)
class Reach:
    """Displacements of the anatomy, relative to the size of the working grid.

    largest_mm: the largest displacement. side_mm: the grid's shortest side. pressed_percent: share
    of the fixed foreground that is mapped into the outer half of the grid's margin.
    """

    largest_mm: float
    side_mm: float
    pressed_percent: float


@torch.no_grad()
def reach_of(velocity: Tensor, work: Workspace) -> Reach:
    """Measure the displacements of the fixed foreground, by a velocity and the flow before it."""
    flow = whole_flow(velocity, work)
    inside = work.fixed[0, 0] > 0
    pressed = torch.zeros_like(inside)
    for axis, (part, n) in enumerate(zip(flow[0], inside.shape, strict=True)):
        line = torch.arange(n, device=part.device).reshape([-1, *[1] * (2 - axis)])
        place = part + line
        if n == 1:
            continue
        pressed |= (place < MARGIN / 2) | (place > n - 1 - MARGIN / 2)
    lengths = torch.where(inside, flow[0].square().sum(0), 0)
    share = (pressed & inside).double().sum() / inside.double().sum().clamp_min(1)
    largest, percent = numbers([lengths.max().sqrt(), 100 * share])
    side = float(work.grid.spacing.mean())
    shortest = min(n for n in work.grid.shape if n > 1)
    return Reach(largest * side, (shortest - 1) * side, percent)


def folds_of(repair: Repair, found: DisplacementField, start: Workspace, similarity: str) -> Folds:
    """The report's entry on a repair. found: the field as the search found it."""
    fields = (found, repair.field) if repair.cells else (found,)
    values = [field_similarity(field, start, similarity) for field in fields]
    return Folds(
        repair.cells,
        repair.bounds.cells,
        repair.bounds.least,
        [round(float(x), 3) for x in repair.bounds.place],
        repair.scale,
        values[0],
        values[-1],
    )


@torch.no_grad()
def field_similarity(field: DisplacementField, start: Workspace, similarity: str) -> float:
    """The similarity over the fixed foreground of the moving image warped by a field."""
    grid, device = start.grid, start.fixed.device
    back, into = np.linalg.inv(start.affine), np.linalg.inv(grid.affine)[:3, :3]
    way = index_flow(grid, field.grid, slice(0, grid.shape[0]), device=device)
    shift = turned(back[:3, :3], read(field.vectors().to(device), way))
    shift = shift + linear_on(grid, (back - np.eye(4)) @ grid.affine, slice(None), device=device)
    flow = turned(into, shift).to(start.fixed)
    values = [similarity_to(x, similarity)(warp(x.moving, flow)) for x in start.channels]
    weights = [channel.weight for channel in start.channels]
    return round(float(np.dot(weights, numbers(values))), 6)


def jacobian_summary(det: Tensor, grid: Grid) -> Jacobian:
    """Folding and spread of the Jacobian determinant (X, Y, Z) on a grid, as in `metrics`."""
    folded = 100 * (~(det > 0)).double().mean()
    spread = (det + 3).clamp(1e-9, 1e9).log().std(correction=0)
    shares = [folded, spread, det.min(), det.max(), det.argmin()]
    percent, deviation, low, high, place = numbers(shares)
    world = grid.to_world(np.unravel_index(int(place), grid.shape))
    return Jacobian(percent, deviation, low, high, [round(float(x), 3) for x in world])


def inverse_residual(
    pair: Pair, transform: DisplacementField, inverse: DisplacementField
) -> InverseConsistency:
    """Round-trip error in mm of `transform` after `inverse` over the moving foreground."""
    shown = pair.moving.data > window_of(pair.moving.data).low
    return InverseConsistency(**inverse_consistency(transform, inverse, shown))


def point_scores(pair: Pair, before: DisplacementField, after: DisplacementField) -> PointScores:
    """Distances in mm of a pair's matching points by two transforms."""
    assert pair.points is not None
    first, second = (tre(*pair.points, transform) for transform in (before, after))
    ends = (float(x) for d in (first, second) for x in (d.mean(), d.max()))
    return PointScores(len(first), *ends)


def unmatched_labels(fixed: Volume, moving: Volume, after: Volume) -> tuple[list[int], ...]:
    """Labels only in the fixed map, only in the moving map, and in both but lost by the warp."""
    one, other, left = (set(present(volume.data)) for volume in (fixed, moving, after))
    return sorted(one - other), sorted(other - one), sorted((one & other) - left)


def label_warnings(scores: LabelScores | None) -> list[str]:
    """Warnings about the label scores whose means could mislead."""
    if scores is None:
        return []
    phrases = [
        (scores.only_fixed, "are only in the fixed map"),
        (scores.only_moving, "are only in the moving map"),
    ]
    total = len(scores.per_label)
    steered = ["labels steered the search: Dice and HD95 are no independent evidence"]
    return steered * scores.steered + [
        f"labels {listed(labels, total)} {phrase}: Dice 0, left out of the mean HD95"
        for labels, phrase in phrases
        if labels
    ]


def listed(labels: Sequence[int], total: int) -> str:
    """The first few labels, their number and the total."""
    more = ", ..." * (len(labels) > NAMED)
    return f"{', '.join(map(str, labels[:NAMED]))}{more} ({len(labels)} of {total})"


def label_scores(
    fixed: Volume | None,
    moving: Volume | None,
    before: Volume | None,
    after: Volume | None,
    device: torch.device,
    *,
    steered: bool = False,
) -> LabelScores | None:
    """Dice and HD95 of every label before and after, and their means over labels.

    All maps are on the fixed grid, except `moving`, the original map. device: of `hd95`. steered:
    whether the labels steered the search. Returns None if an image has no label map. The HD95 of a
    label that one map lacks is NaN and is left out of its mean.
    """
    if fixed is None or moving is None or before is None or after is None:
        return None
    labels = present(fixed.data, before.data)
    spacing = fixed.grid.spacing
    dice_before, dice_after = (dice(fixed.data, x.data, labels) for x in (before, after))
    hd95_before, hd95_after = (
        hd95(fixed.data, x.data, spacing, labels, device=device) for x in (before, after)
    )
    only_fixed, only_moving, lost = unmatched_labels(fixed, moving, after)
    return LabelScores(
        interpolation="nearest",
        mean_dice_before=mean_known(dice_before.values()),
        mean_dice_after=mean_known(dice_after.values()),
        mean_hd95_mm_before=mean_known(hd95_before.values()),
        mean_hd95_mm_after=mean_known(hd95_after.values()),
        labels_without_hd95_before=sum(map(math.isnan, hd95_before.values())),
        labels_without_hd95_after=sum(map(math.isnan, hd95_after.values())),
        only_fixed=only_fixed,
        only_moving=only_moving,
        lost=lost,
        per_label=[
            LabelRow(n, dice_before[n], dice_after[n], hd95_before[n], hd95_after[n])
            for n in labels
        ],
        steered=steered,
    )
