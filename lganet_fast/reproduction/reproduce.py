"""Making a table or figure: the plan, the missing steps, the result."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import config as configs
from ..data.inspection import inspect
from ..errors import InputError
from ..runtime.ranks import join
from . import estimate
from .results import write_results
from .steps import MISSING, THERE, Step, duration, steps_of, works
from .targets import SMALL, TARGETS


@dataclass(frozen=True)
class Line:
    """A step of the plan and its state when the plan was made."""

    step: Step
    state: str


class Reproduction:
    """The steps of a table or figure, in a folder of runs.

    name: one of TARGETS. runs: the folder; tables on one data set share their runs. methods: rows
    of the table, None for all. settings: "section.key=value" for every row. budget: such as "10m":
    the small table, in which every network trains for that time on LPBA40 at 2 mm.
    Raises InputError for an invalid name, method or budget.
    """

    def __init__(
        self,
        name: str,
        runs: str | os.PathLike[str],
        methods: list[str] | None = None,
        settings: Sequence[str] = (),
        budget: str | None = None,
    ) -> None:
        if name not in TARGETS:
            raise InputError(f"name must be one of {', '.join(TARGETS)}, got {name!r}")
        self.target = TARGETS[name]
        self.source, self.settings = self.target.config, tuple(settings)
        place = self.source
        if budget is not None:
            seconds = duration(budget)
            if self.source != "lpba40":
                raise InputError(f"a budget is for tables on LPBA40, {name} is on {self.source}")
            self.source = SMALL
            self.settings = (f"train.budget={seconds}", *self.settings)
            place = f"{SMALL}_{seconds:g}s"
        rows = self.target.chosen(methods)
        self.works = works(rows, self.source, self.settings, Path(runs) / place)
        self.out = Path(runs) / "reproduced" / (name if budget is None else f"{name}_{seconds:g}s")

    def data_problem(self) -> str:
        """The problem with the data, "" if there is none."""
        try:
            found = inspect(configs.load(self.source, self.settings))
        except InputError as error:
            return str(error)
        count = len(found.problems)
        return f"{found.problems[0]} ({count} problems in all)" if count else ""

    def plan(self) -> list[Line]:
        """Every step and its state; an evaluation can only be done if its training is."""
        lines = []
        for work in self.works:
            open_ = False
            for step in steps_of(work):
                state = MISSING if open_ else step.state()
                open_ = open_ or state != THERE
                lines.append(Line(step, state))
        return lines

    def told(self, lines: Sequence[Line], problem: str) -> str:
        """The plan as text, with the command and the estimated time of each missing step."""
        out = [f"{self.target.name}: {self.target.shows}"]
        check = f"lganet-fast data check {self.source}"
        data = "there" if not problem else f"missing: {problem}\n    {check}"
        out.append(f"data {self.source}: {data}")
        total = 0.0
        for line in lines:
            step, title = line.step, line.step.work.row.title
            text = f"{step.name} {title}: {line.state}"
            if line.state != THERE:
                if problem:
                    text += ", time unknown without the data"
                else:
                    seconds = step.seconds()
                    total += seconds
                    text += f", {estimate.spoken(seconds)}"
                text += f"\n    {step.command}"
            out.append(text)
        if total:
            out.append(f"total {estimate.spoken(total)} on this machine, without scoring")
        return "\n".join(out)

    def carry_out(self, lines: Sequence[Line], quiet: bool, say: Callable[[str], None]) -> None:
        """Run the missing steps in order. Resumes after an interruption.

        Under torchrun every process calls this and they share the work. Raises InputError for
        missing or invalid data.
        """
        if problem := self.data_problem():
            raise InputError(f"the data of {self.source} cannot be used: {problem}")
        train = self.works[0].config.train
        with join(train.device, train.threads) as ranks:
            for line in lines:
                if line.state != THERE:
                    say(f"{line.step.name} {line.step.work.row.title}")
                    line.step.run(quiet)
                    ranks.total(
                        torch.zeros(1, device=ranks.device)
                    )  # all processes wait until rank 0 has written its files

    def write(self) -> Path:
        """Write table.md, table.tex and figures of the finished rows; returns their folder."""
        write_results(self.target, self.source, self.works, self.out)
        return self.out


def first_process() -> bool:
    """Whether this process is torchrun's rank 0, which prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0
