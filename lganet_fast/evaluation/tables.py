"""Tables for papers: a method per row, a metric per column, mean and standard deviation in a cell.

The best mean of a column is bold; with three or more methods the second is underlined. A star
marks a method that differs significantly from this one (see `statistics.compare`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .scores import METRICS, Metric
from .statistics import ALPHA, Comparison, Table, spread

MARK = f"significantly different from {{}} (Wilcoxon signed-rank test, Holm-corrected, p < {ALPHA})"
LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


@dataclass(frozen=True)
class Cell:
    """Mean and standard deviation as text.

    best, second: the mean is the column's best or second best. marked: significantly different from
    this method.
    """

    mean: str
    std: str
    best: bool
    second: bool
    marked: bool


def cells(
    methods: Mapping[str, Table], compared: Mapping[str, Mapping[str, Comparison]]
) -> tuple[list[Metric], dict[str, list[Cell | None]]]:
    """The columns (metrics of any method), and each method's cells, None for a missing metric.

    methods: name -> cases, in the order of the rows. compared: from `statistics.compare`.
    """
    found = {name: spread(rows) for name, rows in methods.items()}
    columns = [m for m in METRICS if any(m.key in scores for scores in found.values())]
    first = {
        m.key: _first(m, [s[m.key]["mean"] for s in found.values() if m.key in s]) for m in columns
    }
    rows: dict[str, list[Cell | None]] = {}
    for name, scores in found.items():
        row: list[Cell | None] = []
        for metric in columns:
            if metric.key not in scores:
                row.append(None)
                continue
            average, deviation = (
                f"{scores[metric.key][k]:.{metric.digits}f}" for k in ("mean", "std")
            )
            test = compared.get(name, {}).get(metric.key)
            marked = test is not None and test.significant
            best, second = (len(found) > 1 and average == x for x in first[metric.key])
            row.append(Cell(average, deviation, best, second, marked))
        rows[name] = row
    return columns, rows


def markdown(
    methods: Mapping[str, Table],
    compared: Mapping[str, Mapping[str, Comparison]],
    own: str,
    beside: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """The table in Markdown, with notes. beside: further columns, each method -> text."""

    def text(cell: Cell | None) -> str:
        if cell is None:
            return "\N{EN DASH}"
        shown = f"{cell.mean} ± {cell.std}"
        if cell.best or cell.second:
            shown = f"**{shown}**" if cell.best else f"<u>{shown}</u>"
        return shown + (r"\*" if cell.marked else "")

    columns, rows = cells(methods, compared)
    more = beside or {}
    head = ["Method", *(f"{m.label}{_arrow(m, '↑', '↓')}" for m in columns), *more]
    body = [
        [name.replace("|", r"\|"), *map(text, row), *(c.get(name, "") for c in more.values())]
        for name, row in rows.items()
    ]
    lines = [_joined("|", line) for line in [head, ["---", *["---:"] * (len(head) - 1)], *body]]
    notes = _notes(methods, rows.values(), own, r"\* ")
    return "\n".join([*lines, "", *notes]) + "\n"


def latex(
    methods: Mapping[str, Table],
    compared: Mapping[str, Mapping[str, Comparison]],
    own: str,
    beside: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """The table in LaTeX (booktabs), with notes as comments. beside: as for `markdown`."""

    def text(cell: Cell | None) -> str:
        if cell is None:
            return "--"
        average = rf"\mathbf{{{cell.mean}}}" if cell.best else cell.mean
        shown = rf"{average} \pm {cell.std}{'^{*}' if cell.marked else ''}"
        return rf"$\underline{{{shown}}}$" if cell.second else f"${shown}$"

    columns, rows = cells(methods, compared)
    arrows = (r" $\uparrow$", r" $\downarrow$")
    more = beside or {}
    head = ["Method", *(_escaped(m.label) + _arrow(m, *arrows) for m in columns)]
    head += [_escaped(name) for name in more]
    lines = [
        *(f"% {note}" for note in _notes(methods, rows.values(), own, "* ")),
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(
            " & ".join(
                [_escaped(name), *map(text, row)]
                + [_escaped(column.get(name, "")) for column in more.values()]
            )
            + r" \\"
            for name, row in rows.items()
        ),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _first(metric: Metric, means: Sequence[float]) -> tuple[str, str]:
    """The best and second best mean as text; "" if there is none, or if both are equal."""
    ordered = sorted(means, reverse=metric.better > 0)
    best, second, *_ = [f"{mean:.{metric.digits}f}" for mean in ordered] + ["", ""]
    if not metric.better:
        return "", ""
    return best, second if len(means) > 2 and second != best else ""


def _arrow(metric: Metric, up: str, down: str) -> str:
    gap = "" if up.startswith(" ") else " "
    return {1: gap + up, -1: gap + down}.get(metric.better, "")


def _joined(mark: str, line: Sequence[str]) -> str:
    return f"{mark} " + f" {mark} ".join(line) + f" {mark}"


def _notes(
    methods: Mapping[str, Table], rows: Iterable[Sequence[Cell | None]], own: str, star: str
) -> list[str]:
    counts = {name: len(cases) for name, cases in methods.items()}
    if len(set(counts.values())) == 1:
        said = f"{next(iter(counts.values()))} cases"
    else:
        said = "cases: " + ", ".join(f"{name} {n}" for name, n in counts.items())
    notes = [f"Mean ± standard deviation over {said}."]
    if any(cell is not None and cell.marked for row in rows for cell in row):
        notes.append(star + MARK.format(own) + ".")
    return notes


def _escaped(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
