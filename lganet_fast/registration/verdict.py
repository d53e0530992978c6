"""Whether a registration's result can be trusted: a level and the reasons, from its measures.

Each threshold separates correct results from results that are known to be wrong: brains of other
subjects (LPBA40), unchanged, and rotated, shifted, inverted or replaced by noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..report.contents import (
    VERDICTS,
    Folds,
    InverseConsistency,
    LabelScores,
    PointScores,
    VerdictLevel,
)
from ..volumes.grid import Array
from .measures import Reach, SimilarityChange, listed
from .settings import TUNING
from .turns import Turn

# Squared local correlation of the result: brains of two subjects reach 0.65 to 0.8, a brain and
# noise 0.25 to 0.33; below 0.1 the search has failed.
POOR_LNCC, NO_LNCC = 0.35, 0.1
# Adults' brains differ by a factor of up to 1.3 along an axis, a newborn's and an adult's by 1.6;
# beyond 3 a unit (inches, centimetres) or a spacing is wrong.
SCALES, NO_SCALES = (0.55, 1.8), (1 / 3, 3.0)
SHEAR = 1.6  # ratio of the longest to the shortest axis of a mapped sphere; brains: 1.1
ROTATION = 60.0  # degrees: smaller ones the search may have recovered in part
TURN_GAIN = 0.04  # normalised mutual information; anatomy with little structure differs by 0.02
LITTLE_OVERLAP = 0.25  # fraction of the fixed image that is inside the moving image
PRESSED_PERCENT = 1.0  # of the anatomy mapped into the outer half of the margin; brains: 0
FAR = 0.3  # largest displacement over the grid's shortest side: brains 0.12, shifted by half 0.37
FOLDED_PERCENT, MANY_FOLDED_PERCENT = 1.0, 10.0  # networks without a guarantee fold 0.2 to 1%
RESIDUAL_VOXELS = 1.0  # round-trip error; ours is 0.001 where the field does not fold
DICE_LOSS = 0.01  # that nearest-neighbour labels may lose by any resampling


@dataclass(frozen=True)
class Reason:
    """A reason against a result, in one line, and its level: "doubtful" or "bad"."""

    level: VerdictLevel
    text: str


@dataclass(frozen=True)
class Verdict:
    """The level of the worst reason, "good" without reasons, and the texts of the reasons."""

    level: VerdictLevel
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        return f"{self.level}: {'; '.join(self.reasons)}" if self.reasons else self.level


@dataclass(frozen=True, eq=False)
class Measured:
    """The measures of a registration that the verdict depends on.

    affine: (4, 4), RAS+ mm to RAS+ mm, of the initial linear transform. doubts: reasons against it,
    a line each. overlap: fraction of the fixed grid, 0 to 1, inside the moving grid.
    folded_percent: of the voxels; smoothness: of the settings. spacing: (3,) of the moving image,
    in mm. labels: None if there are none, or if they drove the registration and so are no evidence.
    folds: the repair of folds, if it was asked for.
    """

    similarity: SimilarityChange
    affine: Array
    doubts: tuple[str, ...]
    turn: Turn
    overlap: float
    reach: Reach
    folded_percent: float
    smoothness: float
    residual_mm: InverseConsistency
    spacing: Array
    labels: LabelScores | None
    points: PointScores | None = None
    folds: Folds | None = None


def judge(measured: Measured) -> Verdict:
    """The verdict on a registration, the worst reason first."""
    reasons = [
        *similarity_reasons(measured.similarity),
        *affine_reasons(measured.affine),
        *(Reason("doubtful", text) for text in measured.doubts),
        *turn_reasons(measured.turn),
        *overlap_reasons(measured.overlap),
        *reach_reasons(measured.reach),
        *fold_reasons(measured.folded_percent, measured.smoothness),
        *repair_reasons(measured.folds, measured.similarity),
        *inverse_reasons(measured.residual_mm, measured.spacing),
        *label_reasons(measured.labels),
        *point_reasons(measured.points),
    ]
    reasons.sort(key=lambda reason: -VERDICTS.index(reason.level))
    level = reasons[0].level if reasons else "good"
    return Verdict(level, tuple(reason.text for reason in reasons))


def similarity_reasons(change: SimilarityChange) -> list[Reason]:
    """The similarity fell, did not rise, or is poor."""
    values = (change.before, change.found, change.after, change.perfect)
    if not all(map(math.isfinite, values)):
        return [Reason("bad", f"the similarity is not a number ({change.name})")]
    found = []
    # The search may then end slightly below its start without anything being wrong.
    near = abs(change.perfect - change.start) <= TUNING[change.name].nothing_left
    start, after = f"{change.start:.4g}", f"{change.after:.4g}"
    if change.dropped and not near:
        found.append(
            Reason(
                "doubtful",
                f"the similarity fell from {start} to {change.found:.4g}: "
                "the start of the search is the result",
            )
        )
    elif change.better(change.before, change.after) and not near:
        before = f"{change.before:.4g}"
        found.append(Reason("doubtful", f"the similarity fell from {before} to {after}"))
    elif not change.better(change.after, change.before) and not near:
        found.append(Reason("doubtful", f"the similarity did not rise: {after} before and after"))
    if change.name == "lncc" and change.after < POOR_LNCC * change.perfect:
        level: VerdictLevel = "doubtful" if change.after >= NO_LNCC * change.perfect else "bad"
        most = f"{change.perfect:.2g} of the fixed image with itself"
        found.append(Reason(level, f"the similarity is poor: {after}, {most}"))
    return found


def affine_reasons(matrix: Array) -> list[Reason]:
    """An affine map (4, 4), RAS+ mm to RAS+ mm, beyond the variation of one kind of anatomy."""
    scales = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    if np.linalg.det(matrix[:3, :3]) <= 0:
        return [Reason("bad", "the linear alignment mirrors the image")]
    found = []
    low, high = float(scales.min()), float(scales.max())
    worst = low if 1 / low > high else high
    if not SCALES[0] <= worst <= SCALES[1]:
        level: VerdictLevel = "doubtful" if NO_SCALES[0] <= worst <= NO_SCALES[1] else "bad"
        text = f"the linear alignment scales by {worst:.3g}, anatomy by {SCALES[0]} to {SCALES[1]}"
        found.append(Reason(level, text))
    if high / low > SHEAR:
        text = f"the linear alignment stretches one axis {high / low:.2f} times as much as another"
        found.append(Reason("doubtful", text))
    return found


def turn_reasons(turn: Turn) -> list[Reason]:
    """The moving image fits better when it is rotated before the search."""
    if not turn.best > turn.straight + TURN_GAIN:
        return []
    # A small rotation may have been recovered in part.
    level: VerdictLevel = "bad" if turn.degrees > ROTATION else "doubtful"
    text = (
        f"rotated by {turn.degrees:.0f} degrees, the moving image fits better (normalised mutual "
        f"information {turn.best:.3f} against {turn.straight:.3f}): its orientation is wrong, or "
        "affine alignment is wrong or missing"
    )
    return [Reason(level, text)]


def overlap_reasons(part: float) -> list[Reason]:
    """The images overlap little. part: fraction of the fixed grid inside the moving grid."""
    if part >= LITTLE_OVERLAP:
        return []
    text = f"only {100 * part:.0f}% of the fixed image lies inside the moving image"
    return [Reason("doubtful", text)]


def reach_reasons(reach: Reach) -> list[Reason]:
    """Displacements are as large as the working grid allows."""
    found = []
    if reach.pressed_percent > PRESSED_PERCENT:
        text = (
            f"{reach.pressed_percent:.1f}% of the anatomy is mapped to the border of the search "
            "region, where displacements are fixed at 0"
        )
        found.append(Reason("doubtful", text))
    if reach.largest_mm > FAR * reach.side_mm:
        text = (
            f"the largest displacement, {reach.largest_mm:.0f} mm, is over {FAR:.0%} of the "
            f"search region's shortest side, {reach.side_mm:.0f} mm"
        )
        found.append(Reason("doubtful", text))
    return found


def fold_reasons(percent: float, smoothness: float) -> list[Reason]:
    """Many voxels fold. percent: of voxels whose determinant is not positive."""
    if percent <= FOLDED_PERCENT:
        return []
    text = f"{percent:.2f}% of voxels fold: raise smoothness above {smoothness:g}"
    return [Reason("bad" if percent > MANY_FOLDED_PERCENT else "doubtful", text)]


def repair_reasons(folds: Folds | None, change: SimilarityChange) -> list[Reason]:
    """The repair of folds left a field that is no better than the start of the search."""
    if folds is None or not folds.repaired_cells:
        return []
    after = folds.similarity_after
    if change.better(after, change.before):
        return []
    text = f"the repair of folds took the similarity to {after:.4g}, from {change.before:.4g} "
    return [Reason("doubtful", text + f"at the start and {change.after:.4g} found")]


def inverse_reasons(residual: InverseConsistency, spacing: Array) -> list[Reason]:
    """The round-trip error is large. spacing: (3,) of the moving image, in mm."""
    voxel = float(np.mean(spacing))
    if residual.p99 <= RESIDUAL_VOXELS * voxel:
        return []
    if not math.isfinite(residual.mean):
        return [Reason("doubtful", "no part of the moving anatomy is mapped into the fixed image")]
    text = (
        f"the mean round-trip error to the moving image and back is {residual.mean:.2f} mm, "
        f"{residual.p99:.2f} mm at the 99th percentile"
    )
    return [Reason("bad" if residual.mean > RESIDUAL_VOXELS * voxel else "doubtful", text)]


def label_reasons(labels: LabelScores | None) -> list[Reason]:
    """Labels are lost, or overlap less than before."""
    if labels is None:
        return []
    found = []
    if labels.lost:
        what = listed(labels.lost, len(labels.per_label))
        text = f"labels {what} are lost: the warped map has no voxel of them"
        found.append(Reason("doubtful", f"{text}: Dice 0, left out of the mean HD95"))
    before, after = labels.mean_dice_before, labels.mean_dice_after
    if after < before - DICE_LOSS:
        found.append(Reason("doubtful", f"the mean Dice fell from {before:.3f} to {after:.3f}"))
    return found


def point_reasons(points: PointScores | None) -> list[Reason]:
    """Matching points that pulled the search are farther apart than before."""
    if points is None or points.mean_mm_after <= points.mean_mm_before:
        return []
    change = f"from {points.mean_mm_before:.2f} to {points.mean_mm_after:.2f} mm"
    return [Reason("doubtful", f"the mean distance of the matching points rose {change}")]
