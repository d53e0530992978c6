"""Writing the result of a table or figure: Markdown, LaTeX, and the figures of its rows."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from ..evaluation.figures import metric_boxes, save
from ..evaluation.results import read_cases
from ..evaluation.statistics import compare
from ..evaluation.tables import latex, markdown
from ..runtime.files import atomic, make_folder
from . import paper
from .steps import Work
from .targets import OURS, Target


def write_results(target: Target, source: str, works: Sequence[Work], out: Path) -> None:
    """Write table.md and table.tex, and figures/ with the figures of each row's evaluation.

    Raises InputError if a cases.csv cannot be read.
    """
    methods = {work.row.title: read_cases(work.scores / "cases.csv") for work in works}
    own = next((w.row.title for w in works if w.row.name == OURS), works[-1].row.title)
    compared = compare(methods[own], {k: v for k, v in methods.items() if k != own})
    beside = columns(source, works)
    make_folder(out)
    for ending, table in (("md", markdown), ("tex", latex)):
        with atomic(out / f"table.{ending}") as temporary:
            temporary.write_text(table(methods, compared, own, beside), encoding="utf-8")
    make_folder(out / "figures")
    for name in target.figures:
        if name == "metrics.png":
            save(metric_boxes(methods), out / "figures" / name)
            continue
        for work in works:
            drawn = work.scores / "figures" / name
            if drawn.is_file():
                with atomic(out / "figures" / f"{work.row.name}_{name}") as temporary:
                    shutil.copyfile(drawn, temporary)


def columns(source: str, works: Sequence[Work]) -> dict[str, dict[str, str]]:
    """The columns besides the scores: parameters, training, and the paper's numbers if known."""
    found: dict[str, dict[str, str]] = {
        "Parameters (M)": {},
        "Steps": {},
        "Trained (s)": {},
        "Paper: DSC": {},
        "Paper: parameters (2^20)": {},
    }
    for work in works:
        title, name = work.row.title, work.row.name
        if work.checkpoint is not None:
            found["Parameters (M)"][title] = f"{parameters(work.checkpoint) / 1e6:.2f}"
            ended = json.loads((work.folder / "finished.json").read_text(encoding="utf-8"))
            found["Steps"][title] = str(ended["steps"])
            found["Trained (s)"][title] = f"{ended['seconds']:.0f}"
        if dice := paper.DICE.get((source, name)):
            found["Paper: DSC"][title] = dice
        if count := paper.PARAMETERS.get(name):
            found["Paper: parameters (2^20)"][title] = count
    return {name: column for name, column in found.items() if column}


def parameters(checkpoint: Path) -> int:
    """Number of parameters in a lean checkpoint."""
    with safe_open(checkpoint, framework="pt") as file:
        names = list(file.keys())
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
