"""The quality-control page: one self-contained HTML file per registration."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from ..transforms.field import DisplacementField
from ..volumes.grid import Array, Volume
from .contents import Input, LabelScores, Report, rises
from .panels import Pictured, foreground, panels
from .planes import Views

Rows = list[list[str]]

MISSING, TIMES = "\N{EN DASH}", " \N{MULTIPLICATION SIGN} "

INPUT_NAMES = ("Input", "File", "Voxels", "Spacing (mm)", "Axes", "SHA-256")
LABEL_NAMES = ("Label", "Dice before", "Dice after", "HD95 before (mm)", "HD95 after (mm)")
LABEL_FORMS = {
    "dice_before": ".3f",
    "dice_after": ".3f",
    "hd95_mm_before": ".2f",
    "hd95_mm_after": ".2f",
}


def _picture(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


TEMPLATES = Environment(
    loader=PackageLoader(__package__, "template"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["picture"] = _picture


def page(report: Report, shown: Pictured) -> str:
    """An HTML page that shows one registration. It loads nothing from elsewhere.

    Run time and memory are only in report.json, so that the same input gives the same page. The
    planes pass through the centre of the fixed labels, or of the fixed image's foreground.
    """
    fixed, labels = shown.fixed, shown.fixed_labels
    views = Views(fixed.grid, foreground(fixed.data) if labels is None else labels != 0)
    rows = _labels(report.labels)
    moving, target = (_file_name(report.inputs[role], role) for role in ("moving", "fixed"))
    return TEMPLATES.get_template("page.html").render(
        moving=moving,
        fixed=target,
        verdict=report.verdict,
        reasons=report.reasons,
        warnings=report.warnings,
        results=_results(report),
        where=_where(views),
        panels=panels(views, shown),
        planes=views.planes,
        widths=" ".join(f"{views.size(plane)[0]:.6g}fr" for plane in views.planes),
        labels=rows,
        label_names=LABEL_NAMES,
        lacking=any(MISSING in row for row in rows),
        missing=MISSING,
        inputs=_inputs(report.inputs),
        input_names=INPUT_NAMES,
        settings=_pairs(report.settings),
        versions=_pairs(report.versions),
    )


def qc_page(
    report: Mapping[str, Any],
    fixed: Volume,
    before: NDArray,
    after: NDArray,
    transform: DisplacementField,
    det: Array,
    fixed_labels: NDArray | None = None,
    labels_before: NDArray | None = None,
    labels_after: NDArray | None = None,
) -> str:
    """`page` of a report as in `Registration.report` or report.json, and the fields of `Pictured`.

    Raises pydantic's ValidationError, a ValueError, for an invalid report.
    """
    maps = fixed_labels, labels_before, labels_after
    shown = Pictured(fixed, before, after, transform, det, *maps)
    return page(Report.from_dict(report), shown)


def _where(views: Views) -> str:
    """The point through which the planes pass."""
    point = views.grid.to_world(views.centre)
    return ", ".join(
        f"{abs(x):.1f} mm {names[int(x < 0)]}"
        for x, names in zip(point, (("R", "L"), ("A", "P"), ("S", "I")), strict=True)
    )


def _results(report: Report) -> list[tuple[str, str, str]]:
    """The figures at the top: name, value and a note."""
    similarity, jacobian = report.similarity, report.jacobian
    residual, labels = report.inverse_consistency_mm, report.labels
    direction = "higher" if rises(similarity.name) else "lower"
    cells = [
        (
            "Similarity",
            _change(similarity.before, similarity.after, ".4f"),
            f"{similarity.name}, {direction} is better",
        )
    ]
    if labels:
        dice = _change(labels.mean_dice_before, labels.mean_dice_after, ".3f")
        hd95 = _change(labels.mean_hd95_mm_before, labels.mean_hd95_mm_after, ".2f")
        cells += [
            ("Mean Dice", dice, _over(labels)),
            ("Mean HD95", f"{hd95} mm", _left_out(labels)),
        ]
    if points := report.points:
        cells.append(
            (
                "Matching points",
                f"{_change(points.mean_mm_before, points.mean_mm_after, '.2f')} mm",
                f"mean of {points.count}, largest {_number(points.max_mm_after, '.2f')}; "
                "they pulled the search",
            )
        )
    return [
        *cells,
        ("Folded voxels", f"{_number(jacobian.folded_percent, '.3g')} %", "determinant ≤ 0"),
        (
            "Jacobian determinant",
            f"{_number(jacobian.min, '.3f')} to {_number(jacobian.max, '.3f')}",
            f"SDlogJ {_number(jacobian.sdlogj, '.4f')}{_place(jacobian.min_at_ras_mm)}",
        ),
        (
            "Inverse consistency",
            f"{_number(residual.mean, '.3f')} mm",
            f"mean; 99th percentile {_number(residual.p99, '.3f')}, "
            f"largest {_number(residual.max, '.3f')}",
        ),
    ]


def _place(point: list[float] | None) -> str:
    return "" if point is None else f"; least at {', '.join(f'{x:.1f}' for x in point)} mm RAS"


def _over(labels: LabelScores) -> str:
    steered = ", which steered the search: no independent evidence" * labels.steered
    return f"over {len(labels.per_label)} labels{steered}"


def _left_out(labels: LabelScores) -> str:
    note, total = "95th percentile of surface distances", len(labels.per_label)
    without = labels.labels_without_hd95_before, labels.labels_without_hd95_after
    if not any(without):
        return note
    over = " and ".join(f"{total - count} of {total}" for count in without)
    return f"{note}; over {over} labels, the others left out"


def _labels(labels: LabelScores | None) -> Rows:
    """The mean scores and those of each label."""
    if not labels:
        return []
    means = [getattr(labels, f"mean_{kind}") for kind in LABEL_FORMS]
    scores = [[getattr(row, kind) for kind in LABEL_FORMS] for row in labels.per_label]
    names = ["mean", *(str(row.label) for row in labels.per_label)]
    return [
        [name, *(_number(x, form) for x, form in zip(row, LABEL_FORMS.values(), strict=True))]
        for name, row in zip(names, [means, *scores], strict=True)
    ]


def _inputs(inputs: Mapping[str, Input]) -> Rows:
    return [
        [
            role.replace("_", " "),
            str(entry.path or "in memory"),
            TIMES.join(map(str, entry.shape)),
            TIMES.join(f"{s:.4g}" for s in entry.spacing_mm) or MISSING,
            entry.orientation,
            (entry.sha256 or MISSING)[:12],
        ]
        for role, entry in inputs.items()
    ]


def _pairs(pairs: Mapping[str, Any]) -> Rows:
    return [[name, _text(value)] for name, value in pairs.items()]


def _change(before: float, after: float, form: str) -> str:
    return f"{_number(before, form)} → {_number(after, form)}"


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else MISSING


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _file_name(entry: Input, role: str) -> str:
    return PurePath(entry.path).name if entry.path else f"the {role} image"
