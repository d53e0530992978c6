"""The measures of a result in a registration's report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..losses.dissimilarity import SIMILARITIES
from ..metrics.scores import dice, hd95, inverse_consistency, mean_known, present
from ..ops import compose, warp
from ..report.contents import (
    InverseConsistency,
    Jacobian,
    LabelRow,
    LabelScores,
    SimilarityScores,
    rises,
)
from ..runtime.device import numbers
from ..transforms.field import DisplacementField
from ..volumes.grid import Volume
from ..volumes.intensity import window_of
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
    before: of the input images, or after the affine. start: at the start of the search, the same
    or after a network. found: at the end of the search. perfect: of the fixed image with itself.
    """

    name: str
    before: float
    start: float
    found: float
    perfect: float

    def better(self, one: float, other: float) -> bool:
        """Whether one value is better than another."""
        return one > other if rises(self.name) else one < other

    @property
    def dropped(self) -> bool:
        """Whether the search ended worse than it started; its start is then the result."""
        return not math.isfinite(self.found) or self.better(self.start, self.found)

    @property
    def after(self) -> float:
        """Of the result."""
        return self.start if self.dropped else self.found

    def report(self) -> SimilarityScores:
        """The values for the report."""
        return SimilarityScores(
            self.name, self.before, self.after, self.found if self.dropped else None
        )


@torch.no_grad()
def similarity_change(
    velocity: Tensor, start: Workspace, work: Workspace, similarity: str
) -> SimilarityChange:
    """Measure the change of similarity over the fixed image's foreground at the start.

    velocity: as `optimise` returns it for `work`, which is `start`, or `start` after a network
    or a first search. The result is resampled once from `start`, as it is written; resampled from
    `work` it would be smoothed twice, and score lower than it is.
    """
    measure = SIMILARITIES[similarity]
    counts = (work.fixed > 0).to(work.fixed)
    for weight in start.weights:
        counts = counts if weight is None else counts * weight

    def value(image: Tensor) -> Tensor:
        target, features = map(measure.features, measure.channels(work.fixed, image))
        loss = measure.loss(target, features, counts)
        return 1 - loss if rises(similarity) else loss

    moved = warp(start.moving, whole_flow(velocity, work))
    before, found = value(start.moving), value(moved)
    begun = before if work is start else value(work.moving)
    values = numbers([before, begun, found, value(work.fixed)])
    return SimilarityChange(similarity, *(round(x, 6) for x in values))


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
        pressed |= (place < MARGIN / 2) | (place > n - 1 - MARGIN / 2)
    lengths = torch.where(inside, flow[0].square().sum(0), 0)
    share = (pressed & inside).double().sum() / inside.double().sum().clamp_min(1)
    largest, percent = numbers([lengths.max().sqrt(), 100 * share])
    side = float(work.grid.spacing.mean())
    return Reach(largest * side, (min(work.grid.shape) - 1) * side, percent)


def jacobian_summary(det: Tensor) -> Jacobian:
    """Folding and spread of the Jacobian determinant (X, Y, Z), as in `metrics`."""
    folded = 100 * (~(det > 0)).double().mean()
    spread = (det + 3).clamp(1e-9, 1e9).log().std(correction=0)
    return Jacobian(*numbers([folded, spread, det.min(), det.max()]))


def inverse_residual(
    pair: Pair, transform: DisplacementField, inverse: DisplacementField
) -> InverseConsistency:
    """Round-trip error in mm of `transform` after `inverse` over the moving foreground."""
    shown = pair.moving.data > window_of(pair.moving.data).low
    return InverseConsistency(**inverse_consistency(transform, inverse, shown))


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
    return [
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
) -> LabelScores | None:
    """Dice and HD95 of every label before and after, and their means over labels.

    All maps are on the fixed grid, except `moving`, the original map. device: of `hd95`. Returns
    None if an image has no label map. The HD95 of a label that one map lacks is NaN and is left
    out of its mean.
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
    )
