"""Tables as papers print them: a method per row, a metric per column, mean and spread in each cell.

The best mean of a column is bold. A star marks a method that differs significantly from this one
(see `statistics.compare`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .scores import METRICS, Metric
from .statistics import ALPHA, Comparison, Table, spread

MARK = f"significantly different from {{}} (Wilcoxon signed-rank test, Holm-corrected, p < {ALPHA})"
LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


@dataclass(frozen=True)
class Cell:
    """Mean and standard deviation as text.

    best: the mean is the column's best. marked: significantly different from this method.
    """

    mean: str
    std: str
    best: bool
    marked: bool


def cells(
    methods: Mapping[str, Table], compared: Mapping[str, Mapping[str, Comparison]]
) -> tuple[list[Metric], dict[str, list[Cell | None]]]:
    """The columns, those metrics that some method has, and each method's cells, None without one.

    methods: name -> cases, in the order of the rows. compared: as of `statistics.compare`.
    """
    found = {name: spread(rows) for name, rows in methods.items()}
    columns = [m for m in METRICS if any(m.key in scores for scores in found.values())]
    best = {
        m.key: _best(m, [s[m.key]["mean"] for s in found.values() if m.key in s]) for m in columns
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
            row.append(
                Cell(average, deviation, len(found) > 1 and average == best[metric.key], marked)
            )
        rows[name] = row
    return columns, rows


def markdown(
    methods: Mapping[str, Table], compared: Mapping[str, Mapping[str, Comparison]], own: str
) -> str:
    """The table in Markdown, with notes."""

    def text(cell: Cell | None) -> str:
        if cell is None:
            return "\N{EN DASH}"
        shown = f"{cell.mean} ± {cell.std}"
        return (f"**{shown}**" if cell.best else shown) + (r"\*" if cell.marked else "")

    columns, rows = cells(methods, compared)
    head = ["Method", *(f"{m.label}{_arrow(m, '↑', '↓')}" for m in columns)]
    body = [[name.replace("|", r"\|"), *map(text, row)] for name, row in rows.items()]
    lines = [_joined("|", line) for line in [head, ["---", *["---:"] * len(columns)], *body]]
    notes = _notes(methods, rows.values(), own, r"\* ")
    return "\n".join([*lines, "", *notes]) + "\n"


def latex(
    methods: Mapping[str, Table], compared: Mapping[str, Mapping[str, Comparison]], own: str
) -> str:
    """The table in LaTeX (booktabs), with notes as comments."""

    def text(cell: Cell | None) -> str:
        if cell is None:
            return "--"
        average = rf"\mathbf{{{cell.mean}}}" if cell.best else cell.mean
        return rf"${average} \pm {cell.std}{'^{*}' if cell.marked else ''}$"

    columns, rows = cells(methods, compared)
    arrows = (r" $\uparrow$", r" $\downarrow$")
    head = ["Method", *(_escaped(m.label) + _arrow(m, *arrows) for m in columns)]
    lines = [
        *(f"% {note}" for note in _notes(methods, rows.values(), own, "* ")),
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join([_escaped(name), *map(text, row)]) + r" \\" for name, row in rows.items()),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _best(metric: Metric, means: Sequence[float]) -> str:
    choose: Callable[[Iterable[float]], float] = max if metric.better > 0 else min
    return f"{choose(means):.{metric.digits}f}" if means and metric.better else ""


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
