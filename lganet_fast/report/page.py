"""The quality-control page: one self-contained HTML file per registration."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import PurePath
from typing import Any

from numpy.typing import NDArray

from ..transforms.field import DisplacementField
from ..volumes.grid import Array, Volume
from .panels import Panel, foreground, panels
from .planes import PLANES, Views
from .stylesheet import STYLE

WHEN = ("before", "after")
MISSING, TIMES = "\N{EN DASH}", " \N{MULTIPLICATION SIGN} "


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
    """An HTML page that shows and sums up one registration. It loads nothing from elsewhere.

    report: as in `Registration.report`; run time and memory are left to report.json, so that the
    same input gives the same page. before, after: the moving image on the fixed grid (X, Y, Z),
    unmoved and warped. transform: a field on the fixed grid, det: its Jacobian determinant there.
    Labels, where given, lie there too.
    The planes run through the centre of the fixed labels, or of the fixed image's foreground.
    """
    mask = foreground(fixed.data) if fixed_labels is None else fixed_labels != 0
    views = Views(fixed.grid, mask)
    labels = fixed_labels, labels_before, labels_after
    figures = "\n".join(
        _figure(panel, views)
        for panel in panels(views, fixed, before, after, transform, det, *labels)
    )
    inputs = report["inputs"]
    moving, target = (_file_name(inputs[role], role) for role in ("moving", "fixed"))
    point = views.grid.to_world(views.centre)
    where = ", ".join(
        f"{abs(x):.1f} mm {names[int(x < 0)]}"
        for x, names in zip(point, (("R", "L"), ("A", "P"), ("S", "I")), strict=True)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(moving)} to {escape(target)}: registration quality control</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Registration quality control</h1>
<p class="pair soft">{escape(moving)} registered to {escape(target)}</p>
</header>
{_verdict(report["verdict"], report["reasons"])}
{_warnings(report["warnings"])}
{_results(report)}
<main>
<h2>Pictures</h2>
<p class="soft">Planes through {where} of the origin of the fixed image's world coordinates.
The letters are the patient's: right, left, anterior, posterior, superior, inferior.</p>
{figures}
{_label_table(report.get("labels"))}
{_input_table(inputs)}
{_pair_table("Settings", report["settings"])}
{_pair_table("Versions", report["versions"])}
</main>
</body>
</html>
"""


def _verdict(level: str, reasons: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    body = f"<ul>{items}</ul>" if items else ""
    title = f"<h2>Verdict: {escape(level)}</h2>"
    return f'<section class="verdict {escape(level)}">{title}{body}</section>'


def _warnings(messages: Sequence[str]) -> str:
    if not messages:
        return '<p class="soft">No warnings.</p>'
    items = "".join(f"<li>{escape(message)}</li>" for message in messages)
    title = "1 warning" if len(messages) == 1 else f"{len(messages)} warnings"
    return f'<section class="warnings"><h2>{title}</h2><ul>{items}</ul></section>'


def _results(report: Mapping[str, Any]) -> str:
    similarity, jacobian = report["similarity"], report["jacobian"]
    residual, labels = report["inverse_consistency_mm"], report.get("labels")
    direction = "higher" if similarity["name"] == "lncc" else "lower"
    cells = [
        (
            "Similarity",
            _change(similarity["before"], similarity["after"], ".4f"),
            f"{similarity['name']}, {direction} is better",
        )
    ]
    if labels:
        dice = _change(labels["mean_dice_before"], labels["mean_dice_after"], ".3f")
        hd95 = _change(labels["mean_hd95_mm_before"], labels["mean_hd95_mm_after"], ".2f")
        cells += [
            ("Mean Dice", dice, f"over {len(labels['per_label'])} labels"),
            ("Mean HD95", f"{hd95} mm", _left_out(labels)),
        ]
    cells += [
        ("Folded voxels", f"{_number(jacobian['folded_percent'], '.3g')} %", "determinant ≤ 0"),
        (
            "Jacobian determinant",
            f"{_number(jacobian['min'], '.3f')} to {_number(jacobian['max'], '.3f')}",
            f"SDlogJ {_number(jacobian['sdlogj'], '.4f')}",
        ),
        (
            "Inverse consistency",
            f"{_number(residual['mean'], '.3f')} mm",
            f"mean; 99th percentile {_number(residual['p99'], '.3f')}, "
            f"largest {_number(residual['max'], '.3f')}",
        ),
    ]
    body = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><small>{escape(note)}</small></div>"
        for name, value, note in cells
    )
    columns = 3 if labels else 4
    return f'<dl class="results" style="--columns: {columns}">{body}</dl>'


def _left_out(labels: Mapping[str, Any]) -> str:
    note, total = "95th percentile of surface distances", len(labels["per_label"])
    columns = ([row[f"hd95_mm_{when}"] for row in labels["per_label"]] for when in WHEN)
    without = [sum(_number(x, "g") == MISSING for x in column) for column in columns]
    if not any(without):
        return note
    over = " and ".join(f"{total - count} of {total}" for count in without)
    return f"{note}; over {over} labels, the others left out"


def _figure(panel: Panel, views: Views) -> str:
    widths = " ".join(f"{views.size(plane)[0]:.6g}fr" for plane in PLANES)
    pictures = []
    for plane, png in zip(PLANES, panel.pictures, strict=True):
        places = zip(("left", "right", "top", "bottom"), plane.letters, strict=True)
        letters = "".join(f'<span class="{place}">{letter}</span>' for place, letter in places)
        data = base64.b64encode(png).decode("ascii")
        pictures.append(
            f'<div class="plane"><img alt="{panel.title}, {plane.name.lower()} plane" '
            f'src="data:image/png;base64,{data}">'
            f'<span class="name">{plane.name}</span>{letters}</div>'
        )
    return (
        f"<figure{' class=light' if panel.light else ''}>"
        f"<figcaption><h3>{panel.title}</h3><p>{panel.caption}</p></figcaption>"
        f'<div class="planes" style="--widths: {widths}">{"".join(pictures)}</div>'
        f"{_legend(panel)}</figure>"
    )


def _legend(panel: Panel) -> str:
    parts = []
    if panel.ramp:
        ticks = "".join(f"<span>{tick}</span>" for tick in panel.ticks)
        colours = ", ".join(panel.ramp)
        parts.append(
            f'<div class="ramp"><i style="background: linear-gradient(90deg, {colours})"></i>'
            f"{ticks}</div>"
        )
    parts += [
        f'<span class="key"><i style="background: {colour}"></i>{meaning}</span>'
        for colour, meaning in panel.keys
    ]
    return f'<div class="legend">{"".join(parts)}</div>' if parts else ""


def _label_table(labels: Mapping[str, Any] | None) -> str:
    if not labels:
        return ""
    kinds = {
        "dice_before": ".3f",
        "dice_after": ".3f",
        "hd95_mm_before": ".2f",
        "hd95_mm_after": ".2f",
    }
    rows = [["mean", *(_number(labels[f"mean_{kind}"], form) for kind, form in kinds.items())]]
    for row in labels["per_label"]:
        rows.append(
            [str(row["label"]), *(_number(row[kind], form) for kind, form in kinds.items())]
        )
    names = ("Label", "Dice before", "Dice after", "HD95 before (mm)", "HD95 after (mm)")
    lacking = any(MISSING in row for row in rows)
    note = f'<p class="soft">{MISSING}: one of the two maps lacks the label.</p>' if lacking else ""
    table = _table(names, rows, "label number number number number")
    return f'<section class="scores"><h2>Labels</h2>{table}{note}</section>'


def _input_table(inputs: Mapping[str, Mapping[str, Any]]) -> str:
    names = ("Input", "File", "Voxels", "Spacing (mm)", "Axes", "SHA-256")
    rows = [
        [
            role.replace("_", " "),
            str(entry["path"] or "in memory"),
            TIMES.join(map(str, entry["shape"])),
            TIMES.join(f"{s:.4g}" for s in entry["spacing_mm"]),
            str(entry["orientation"]),
            (entry["sha256"] or MISSING)[:12],
        ]
        for role, entry in inputs.items()
    ]
    return "<h2>Inputs</h2>" + _table(names, rows, "role path size size axes hash")


def _pair_table(title: str, pairs: Mapping[str, Any]) -> str:
    rows = [[name, _text(value)] for name, value in pairs.items()]
    return f"<h2>{title}</h2>" + _table((), rows, "name value")


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], kinds: str) -> str:
    """A table of plain text. kinds: the class of each column, separated by spaces."""
    classes = kinds.split()

    def line(tag: str, cells: Iterable[str]) -> str:
        pairs = zip(classes, cells, strict=True)
        return (
            "<tr>" + "".join(f'<{tag} class="{c}">{escape(x)}</{tag}>' for c, x in pairs) + "</tr>"
        )

    head = f"<thead>{line('th', names)}</thead>" if names else ""
    body = "".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _change(before: float | None, after: float | None, form: str) -> str:
    return f"{_number(before, form)} → {_number(after, form)}"


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None or not math.isfinite(value) else format(value, form)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _file_name(entry: Mapping[str, Any], role: str) -> str:
    return PurePath(entry["path"]).name if entry["path"] else f"the {role} image"
