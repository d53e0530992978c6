"""Scores of label maps, transforms and landmarks."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, InputWarning
from ...metrics.folding import folding
from ...metrics.scores import (
    folded_percent,
    folded_percent_published,
    hd95,
    inverse_consistency,
    mean_known,
    overlap,
    sdlogj,
    tre,
)
from ...runtime.files import atomic
from ...runtime.json_files import report_json
from ...transforms.field import DisplacementField
from ...volumes.grid import Grid
from ...volumes.nifti import check_same_grid, load_grid, load_labels, load_mask, save_volume
from ...volumes.points import read_points
from ...volumes.sampling import inside
from ..tables import Part, Table, show

LEAST = 1e-3  # determinant whose logarithm stands for folds
SCORES = {"dice": "Dice", "hd95_mm": "HD95 (mm)", "recall": "Recall", "precision": "Precision"}


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write JSON with --json."""
    check_options(args)
    field = None if args.transform is None else DisplacementField.load(args.transform)
    scores = measure(args, field)
    if args.json in (None, "-"):
        write_jacobian(args, field)
    else:
        with atomic(args.json) as temporary:  # both files or neither
            temporary.write_text(report_json(scores), encoding="utf-8")
            write_jacobian(args, field)
    if args.json == "-":
        print(report_json(scores), end="")
    else:
        show(summary(scores))


def check_options(args: argparse.Namespace) -> None:
    """Raise InputError for an option without its partner, and if there is nothing to measure."""
    for option, partner in (
        ("fixed_labels", "moved_labels"),
        ("moved_labels", "fixed_labels"),
        ("fixed_points", "moving_points"),
        ("moving_points", "fixed_points"),
        ("inverse_transform", "transform"),
        ("mask", "transform"),
        ("jacobian_map", "transform"),
        ("units", "fixed_points"),
        ("fixed_grid", "units"),
        ("moving_grid", "units"),
    ):
        if getattr(args, option) is not None and getattr(args, partner) is None:
            raise InputError(f"--{_dashed(option)} needs --{_dashed(partner)}")
    if args.log and args.jacobian_map is None:
        raise InputError("--log needs --jacobian-map")
    if args.fixed_labels is args.transform is args.fixed_points is None:
        raise InputError(
            "nothing to measure: give --fixed-labels and --moved-labels, --transform, or "
            "--fixed-points and --moving-points"
        )


def measure(args: argparse.Namespace, field: DisplacementField | None) -> dict[str, Any]:
    """Compute the requested scores. field: of --transform."""
    scores: dict[str, Any] = {}
    if args.fixed_labels is not None:
        scores["labels"] = label_scores(args.fixed_labels, args.moved_labels)
    if field is not None:
        inverse = args.inverse_transform and DisplacementField.load(args.inverse_transform)
        where = masks(args.mask, [field.grid, *([inverse.grid] if inverse else [])])
        scores["transform"] = transform_scores(field, where[0])
        if inverse:
            scores["inverse_consistency_mm"] = inverse_consistency(field, inverse, where[1])
    if args.fixed_points is not None:
        scores["tre_mm"] = landmark_scores(args, field)
    return scores


def label_scores(fixed_path: str, moved_path: str) -> dict[str, Any]:
    """Each label's scores, and their means over the labels that have one."""
    fixed = load_labels(fixed_path, "fixed labels")
    moved = load_labels(moved_path, "moved labels", fixed.grid)
    counts = overlap(fixed.data, moved.data)
    if not counts:
        raise InputError(f"{fixed.name} and {moved.name} have no label but 0")
    distances = hd95(fixed.data, moved.data, fixed.grid.spacing)
    rows = [
        {
            "label": label,
            "dice": found.dice,
            "hd95_mm": distances[label],
            "recall": found.recall,
            "precision": found.precision,
        }
        for label, found in counts.items()
    ]
    means = {f"mean_{score}": mean_known(row[score] for row in rows) for score in SCORES}
    lacking = sum(math.isnan(distance) for distance in distances.values())
    return {**means, "labels_without_hd95": lacking, "per_label": rows}


def masks(path: str | None, grids: Sequence[Grid]) -> list[NDArray[np.bool_] | None]:
    """The mask for each grid that it is on, else None. Raises InputError if it is on none."""
    if path is None:
        return [None] * len(grids)
    mask = load_mask(path, "mask")
    found = [mask.data if mask.grid.matches(grid) else None for grid in grids]
    if all(one is None for one in found):
        check_same_grid(mask.grid, grids[0], mask.name)
    return found


def transform_scores(field: DisplacementField, mask: NDArray[np.bool_] | None) -> dict[str, Any]:
    """Regularity and displacements of a field, over its grid or a mask on it."""
    where = np.ones(field.grid.shape, bool) if mask is None else mask
    det = field.jacobian_determinant()[where]
    lengths = np.linalg.norm(field.displacement, axis=-1)[where]
    folded = folding(field, mask)
    return {
        "folded_percent": folded_percent(det),
        "folded_percent_published": folded_percent_published(field.displacement, field.grid, mask),
        "ndv_percent": folded.percent,
        "ndv_mm3": folded.mm3,
        "folded_cells_percent": folded.cells_percent,
        "sdlogj": sdlogj(det),
        "jacobian_min": float(det.min()),
        "jacobian_max": float(det.max()),
        "displacement_mm": {"mean": float(lengths.mean(dtype=float)), "max": float(lengths.max())},
    }


def write_jacobian(args: argparse.Namespace, field: DisplacementField | None) -> None:
    """Write --jacobian-map: the determinant, or its logarithm, as an image on the field's grid.

    Warns if the logarithm of a determinant is undefined, or below that of LEAST.
    """
    if field is None or args.jacobian_map is None:
        return
    det = field.jacobian_determinant()
    if args.log:
        if small := int((~(det >= LEAST)).sum()):
            warnings.warn(
                f"{small} voxels are folded or nearly so: written as the logarithm of {LEAST:g}",
                category=InputWarning,
                stacklevel=2,
            )
        det = np.log(np.maximum(np.nan_to_num(det), LEAST))
    save_volume(args.jacobian_map, det, field.grid)


def landmark_scores(args: argparse.Namespace, field: DisplacementField | None) -> dict[str, Any]:
    """Target registration error before and, with a field, after registration."""
    paths = args.fixed_points, args.moving_points
    fixed, moving = (
        read_points(path, args.units, grid)
        for path, grid in zip(paths, landmark_grids(args, field), strict=True)
    )
    if len(fixed) != len(moving):
        raise InputError(
            f"{paths[0]} has {len(fixed)} points and {paths[1]} has {len(moving)}: "
            "they must be paired by row"
        )
    out: dict[str, Any] = {"points": len(fixed), "before": _spread(tre(fixed, moving))}
    if field is not None:
        known = inside(field.grid.to_index(fixed), field.grid.shape)
        out["after"] = _spread(tre(fixed, moving, field))
        out["points_outside_transform"] = int((~known).sum())
    return out


def landmark_grids(
    args: argparse.Namespace, field: DisplacementField | None
) -> tuple[Grid | None, Grid | None]:
    """The grids of the fixed and moving image for --units voxel, else None."""
    if args.units != "voxel":
        for side in ("fixed", "moving"):
            if getattr(args, f"{side}_grid") is not None:
                raise InputError(f"--{side}-grid is for --units voxel")
        return None, None
    fixed = None if field is None else field.grid
    if args.fixed_grid is not None:
        fixed = load_grid(args.fixed_grid, "fixed grid")
    if fixed is None:
        raise InputError("--units voxel needs --fixed-grid, the fixed image, or --transform")
    return fixed, fixed if args.moving_grid is None else load_grid(args.moving_grid, "moving grid")


def summary(scores: dict[str, Any]) -> list[Part]:
    """The scores as tables."""
    parts: list[Part] = []
    if "labels" in scores:
        parts += _label_table(scores["labels"])
    rows = []
    if found := scores.get("transform"):
        moved = found["displacement_mm"]
        rows += [
            ("Folded voxels (%)", f"{found['folded_percent']:.4f}"),
            ("  as published for LGANet++ (%)", f"{found['folded_percent_published']:.4f}"),
            ("Folded volume, NDV (%)", f"{found['ndv_percent']:.4f}"),
            ("  in mm3", f"{found['ndv_mm3']:.4f}"),
            ("  cells with a fold (%)", f"{found['folded_cells_percent']:.4f}"),
            ("SDlogJ", f"{found['sdlogj']:.4f}"),
            ("Jacobian determinant, least", f"{found['jacobian_min']:.4f}"),
            ("Jacobian determinant, largest", f"{found['jacobian_max']:.4f}"),
            ("Displacement, mean (mm)", f"{moved['mean']:.4f}"),
            ("Displacement, largest (mm)", f"{moved['max']:.4f}"),
        ]
    if found := scores.get("inverse_consistency_mm"):
        rows += [
            ("Inverse consistency, mean (mm)", f"{found['mean']:.4f}"),
            ("Inverse consistency, 99% (mm)", f"{found['p99']:.4f}"),
            ("Inverse consistency, largest (mm)", f"{found['max']:.4f}"),
            ("  voxels sent outside, left out (%)", f"{found['outside_percent']:.4f}"),
        ]
    if found := scores.get("tre_mm"):
        rows.append(("Landmarks", str(found["points"])))
        for when in ("before", "after"):
            for name, value in found.get(when, {}).items():
                rows.append((f"TRE {when}, {name} (mm)", f"{value:.4f}"))
        if found.get("points_outside_transform"):
            outside = str(found["points_outside_transform"])
            rows.append(("  landmarks outside the transform", outside))
    if rows:
        parts += [*([""] if parts else []), Table(rows, numbers=True)]
    return parts


def _label_table(found: dict[str, Any]) -> list[Part]:
    def cells(values: Iterable[float]) -> list[str]:
        return [f"{value:.4f}" for value in values]

    rows = [["Label", *SCORES.values()]]
    rows += [
        [str(row["label"]), *cells(row[score] for score in SCORES)] for row in found["per_label"]
    ]
    rows.append(["mean", *cells(found[f"mean_{score}"] for score in SCORES)])
    parts: list[Part] = [Table(rows, head=True, numbers=True)]
    if lacking := found["labels_without_hd95"]:
        parts.append(f"HD95 is nan if a map lacks the label: {lacking}, left out of the mean")
    return parts


def _spread(values: NDArray) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }


def _dashed(option: str) -> str:
    return option.replace("_", "-")
