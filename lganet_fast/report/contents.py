"""The typed contents of report.json: fields, writing and reading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

VerdictLevel = Literal["good", "doubtful", "bad"]
VERDICTS: tuple[VerdictLevel, ...] = ("good", "doubtful", "bad")


class NullIsNaN:
    """Makes pydantic read null as NaN, since JSON has no NaN."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """The schema for pydantic."""
        from pydantic_core.core_schema import no_info_before_validator_function

        return no_info_before_validator_function(
            lambda value: math.nan if value is None else value, handler(source)
        )


Number = Annotated[float, NullIsNaN()]


def rises(similarity: str) -> bool:
    """Whether a larger similarity is better: of "lncc" and "mi"; the others are differences."""
    return similarity in ("lncc", "mi")


@dataclass(frozen=True)
class Input:
    """An input image, or points.

    path, sha256: of its file; None for an image in memory. orientation: the world direction of
    each array axis, such as "RAS". Points have the shape (N, 3), no spacing, and the orientation of
    their coordinates.
    """

    path: str | None
    sha256: str | None
    shape: list[int]
    spacing_mm: list[float]
    orientation: str


@dataclass(frozen=True)
class Backend:
    """The device, the CPU threads, and the implementation of each operation."""

    device: str
    threads: int
    operations: dict[str, str]


@dataclass(frozen=True)
class ChannelScores:
    """One channel's similarity: before, at the start of the last search, and after.

    weight: its share in the mean.
    """

    weight: float
    before: Number
    start: Number
    after: Number


@dataclass(frozen=True)
class SimilarityScores:
    """The similarity over the fixed image's foreground, before the search and of the result.

    name: of the measure; see `rises`. found: at the end of the search, if that was worse than its
    start and so is not the result; else None. channels: of each of several, whose means by weight
    the others are; else None.
    """

    name: str
    before: Number
    after: Number
    found: float | None = None
    channels: list[ChannelScores] | None = None


@dataclass(frozen=True)
class Jacobian:
    """Folding and spread of the Jacobian determinant on the fixed grid.

    folded_percent: of voxels whose determinant is not positive. sdlogj: standard deviation of
    log(determinant + 3). min_at_ras_mm: the voxel with the least determinant.
    """

    folded_percent: Number
    sdlogj: Number
    min: Number
    max: Number
    min_at_ras_mm: list[float] | None = None


@dataclass(frozen=True)
class Folds:
    """The repair of folds, if it was asked for.

    repaired_cells, of cells: that could fold as the search ended. least_bound: lower bound of the
    determinant anywhere in the result, relative to that of the initial transform; least_at_ras_mm:
    that cell's centre. scale: of the displacement, below 1 where smoothing was not enough.
    similarity_found, similarity_after: before and after the repair, both from the field as written.
    """

    repaired_cells: int
    cells: int
    least_bound: Number
    least_at_ras_mm: list[float]
    scale: float
    similarity_found: Number
    similarity_after: Number


@dataclass(frozen=True)
class InverseConsistency:
    """Round-trip error in mm over the moving foreground.

    NaN if nothing could be measured. outside_percent: of the points, those that the inverse maps
    outside the fixed grid.
    """

    mean: Number
    p99: Number
    max: Number
    outside_percent: Number


@dataclass(frozen=True)
class LabelRow:
    """One label's scores, without and with the transform; NaN for an undefined HD95."""

    label: int
    dice_before: Number
    dice_after: Number
    hd95_mm_before: Number
    hd95_mm_after: Number


@dataclass(frozen=True)
class LabelScores:
    """Scores of the moving labels against the fixed labels, and their means over labels.

    interpolation: of the warped labels. labels_without_hd95_...: how many have none and are left
    out of its mean. only_fixed, only_moving: labels in one map only. lost: labels of both maps
    without a voxel in the warped map. steered: the labels steered the search, and so are no
    independent evidence.
    """

    interpolation: str
    mean_dice_before: Number
    mean_dice_after: Number
    mean_hd95_mm_before: Number
    mean_hd95_mm_after: Number
    labels_without_hd95_before: int
    labels_without_hd95_after: int
    only_fixed: list[int]
    only_moving: list[int]
    lost: list[int]
    per_label: list[LabelRow]
    steered: bool = False


@dataclass(frozen=True)
class PointScores:
    """Distances in mm of the matching points that pulled the search.

    count: of pairs. before: with the initial linear transform alone.
    """

    count: int
    mean_mm_before: Number
    max_mm_before: Number
    mean_mm_after: Number
    max_mm_after: Number


@dataclass(frozen=True)
class Report:
    """A registration's report, in the order of report.json.

    inputs: by role, such as "fixed" or "moving_labels". settings: everything else that the result
    depends on, defaults filled in. affine_matrix_ras_mm: (4, 4), the initial transform from fixed
    to moving points. network: the checkpoint's card and configuration, and its "sha256"; None
    without one. folds: None unless they were to be repaired. labels: None if either image has none.
    points: None without points. reasons: why
    the verdict is not "good". seconds: of each stage and "total". peak_memory_mb: None if unknown.
    """

    inputs: dict[str, Input]
    settings: dict[str, Any]
    affine_matrix_ras_mm: list[list[float]]
    versions: dict[str, str]
    backend: Backend
    network: dict[str, Any] | None
    similarity: SimilarityScores
    folds: Folds | None
    jacobian: Jacobian
    inverse_consistency_mm: InverseConsistency
    labels: LabelScores | None
    points: PointScores | None
    verdict: VerdictLevel
    reasons: list[str]
    warnings: list[str]
    seconds: dict[str, float]
    peak_memory_mb: float | None

    def as_dict(self) -> dict[str, Any]:
        """The fields as nested dicts: the contents of report.json."""
        found = asdict(self)
        for name in ("found", "channels"):
            if found["similarity"][name] is None:
                del found["similarity"][name]
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """A report from `as_dict` or from the contents of report.json.

        Raises pydantic's ValidationError, a ValueError, for an invalid report.
        """
        from pydantic import TypeAdapter  # slow to load, and not needed to write a report

        return TypeAdapter(cls).validate_python(values)
