"""The scores of one registered case.

A profile, `evaluate.hd95`, fixes the definitions:

| profile | HD95 | folded voxels (NJD) | SDlogJ |
|---|---|---|---|
| paper | pooled, mm; 5 where Dice < 0.05 | forward differences, < 0 | whole volume |
| medpy | pooled, mm | central differences, <= 0 | whole volume |
| monai | larger of two directed, mm | central differences, <= 0 | whole volume |
| learn2reg | by area of surface elements, voxels | the same, 2 voxels in | 2 voxels in |

A label that the fixed or the moving map lacks cannot be registered: it scores NaN, is left out of
means and is counted. "paper" instead scores it like the published script, Dice 0 and HD95 5.
`data.labels` selects the labels. The published script's own lists name 22 twice and omit 32 for
OASIS and IXI, and also omit 18 and 19 for IXI; here every label counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..config.loading import Config
from ..data import Sample
from ..metrics.scores import (
    folded_percent,
    folded_percent_published,
    hd95,
    mean_known,
    overlap,
    present,
    sdlogj,
)
from ..metrics.surface_distance import LOST_HD95
from ..transforms.jacobian import jacobian_determinant
from ..volumes.grid import Grid
from ..volumes.resample import channels_last
from ..volumes.sampling import sample as read_at
from .methods import moved_labels

MARGIN = 2  # voxels at each face that Learn2Reg leaves out of scores of the Jacobian


@dataclass(frozen=True)
class Metric:
    """A column of the results: its key, its title in tables and figures, its number format.

    better: 1 if higher is better, -1 if lower is better, 0 if neither.
    """

    key: str
    title: str
    unit: str = ""
    better: int = -1
    digits: int = 3

    @property
    def label(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


METRICS = (
    Metric("dice", "DSC", better=1),
    Metric("hd95_mm", "HD95", "mm", digits=2),
    Metric("hd95_voxels", "HD95", "voxels", digits=2),
    Metric("tre_mm", "TRE", "mm", digits=2),
    Metric("njd_percent", "NJD", "%", digits=4),
    Metric("sdlogj", "SDlogJ"),
    Metric("recall", "Recall", better=1),
    Metric("precision", "Precision", better=1),
    Metric("seconds", "Time", "s", better=0, digits=2),
)


@dataclass(frozen=True)
class Scores:
    """A row of cases.csv and its rows of labels.csv. Undefined scores are NaN."""

    case: dict[str, Any]
    labels: list[dict[str, Any]]


def hd95_key(profile: str) -> str:
    """The column of HD95; its name includes the unit."""
    return "hd95_voxels" if profile == "learn2reg" else "hd95_mm"


def case_columns(profile: str) -> list[str]:
    """The columns of cases.csv."""
    scores = ["dice", hd95_key(profile), "tre_mm", "njd_percent", "sdlogj", "recall", "precision"]
    return ["case", *scores, "seconds", "labels", "labels_without_dice", "labels_without_hd95"]


def label_columns(profile: str) -> list[str]:
    """The columns of labels.csv."""
    return ["case", "label", "dice", hd95_key(profile), "recall", "precision"]


def score(flow: Tensor, sample: Sample, config: Config, seconds: float) -> Scores:
    """Score the flow (1, 3, H, W, D), in voxels, that registers a sample of that size."""
    profile = config.evaluate.hd95
    spacing = sample.grid.spacing
    rows: list[dict[str, Any]] = []
    if sample.fixed_labels is not None and sample.moving_labels is not None:
        moved = moved_labels(sample.moving_labels, flow, config.evaluate)
        rows = label_rows(
            sample.fixed_labels, sample.moving_labels, moved, spacing, profile, config.data.labels
        )
    voxels = channels_last(flow.double().cpu())
    distance = hd95_key(profile)
    names = ("dice", distance, "recall", "precision")
    case: dict[str, Any] = {
        "case": sample.name,
        **{name: mean_known([row[name] for row in rows]) for name in names},
        **regularity(voxels, profile),
        "tre_mm": float("nan"),
        "seconds": seconds,
        "labels": len(rows),
        "labels_without_dice": sum(np.isnan(row["dice"]) for row in rows),
        "labels_without_hd95": sum(np.isnan(row[distance]) for row in rows),
    }
    if sample.fixed_points is not None and sample.moving_points is not None:
        errors = landmark_errors(voxels, sample.fixed_points, sample.moving_points, spacing)
        case["tre_mm"] = mean_known(errors)
    return Scores(
        {name: case[name] for name in case_columns(profile)},
        [{"case": sample.name, **row} for row in rows],
    )


def label_rows(
    fixed: NDArray,
    moving: NDArray,
    moved: NDArray,
    spacing: NDArray,
    profile: str,
    labels: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """Every label's scores. fixed, moving, moved: (H, W, D) label maps, moving before the warp.

    labels: those to score; if empty, all but 0 that occur in the fixed or the moving map.
    """
    names = sorted(set(labels)) or present(fixed, moving)
    counts = overlap(fixed, moved, names)
    distances = hd95(fixed, moved, spacing, names, profile)
    registrable = set(present(fixed)) & set(present(moving))
    rows = []
    for name in names:
        found = counts[name]
        values = (found.dice, distances[name], found.recall, found.precision)
        if profile == "paper":
            values = values if name in registrable else (0.0, LOST_HD95, 0.0, 0.0)
        elif name not in registrable:
            values = (float("nan"),) * 4
        keys = ("dice", hd95_key(profile), "recall", "precision")
        rows.append({"label": name, **dict(zip(keys, values, strict=True))})
    return rows


def regularity(flow: NDArray, profile: str) -> dict[str, float]:
    """Folded voxels in % and SDlogJ of a flow (H, W, D, 3) in voxels."""
    grid = Grid((flow.shape[0], flow.shape[1], flow.shape[2]), np.eye(4))
    det = jacobian_determinant(flow, grid)
    if profile == "learn2reg":
        inner = slice(MARGIN, -MARGIN)
        det = det[inner, inner, inner]
    folded = folded_percent_published(flow, grid) if profile == "paper" else folded_percent(det)
    return {"njd_percent": folded, "sdlogj": sdlogj(det)}


def landmark_errors(flow: NDArray, fixed: NDArray, moving: NDArray, spacing: NDArray) -> NDArray:
    """|(p_fixed + u(p_fixed) - p_moving) * spacing| of each pair of landmarks, in mm: (N,).

    flow: u, (H, W, D, 3) in voxels, interpolated linearly. fixed, moving: (N, 3) voxel coordinates.
    """
    reached = fixed + read_at(flow, fixed, padding="border")
    return np.asarray(np.linalg.norm((reached - moving) * spacing, axis=-1))
