"""Options, a test for each variant of each file's CASES, and the table and files at the end."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lganet_fast.ops import native
from lganet_fast.runtime.machine import set_threads

from . import machine, plot, table, timing
from .case import Case, Size
from .results import FOLDER, Results
from .run import Run, Variant
from .targets import GUARDED, Target, of_row

DEVICES = ("cpu", "cuda")


def size(text: str) -> Size:
    """Turn "64x64x64" into three lengths; argparse reports the exception for other text."""
    if not re.fullmatch(r"\d+x\d+x\d+", text):
        raise ValueError(text)
    first, second, third = map(int, text.split("x"))
    return first, second, third


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lganet_fast")
    group.addoption("--quick", action="store_true", help="fewer and smaller cases, few rounds")
    group.addoption("--guard", action="store_true", help="fail if a ratio is below its requirement")
    group.addoption("--size", type=size, metavar="HxWxD", help="measure at this size only")
    group.addoption("--results", type=Path, default=FOLDER, metavar="DIR", help="where to write")
    group.addoption("--threads", type=int, metavar="N", help="CPU threads (default: all)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    threads = set_threads(config.getoption("threads"))
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)  # read by ANTs at its import
    if not config.getoption("benchmark_compare"):
        config.option.benchmark_quiet = True  # one table is enough
    kind = (
        "guard" if config.getoption("guard") else "quick" if config.getoption("quick") else "full"
    )
    config.stash[RUN] = Run(kind)


RUN = pytest.StashKey[Run]()
DESELECTED = pytest.StashKey[bool]()


def chosen(cases: list[Case], config: pytest.Config) -> list[tuple[int, Case]]:
    """The cases to measure, with their indices."""
    run, only = config.stash[RUN], config.getoption("size")
    found = [(i, c) for i, c in enumerate(cases) if c.quick or run.kind != "quick"]
    if only is not None:
        alike = {
            (c.operation, c.detail, c.dtype): (i, c.of_size(only))
            for i, c in reversed(found)
            if c.any_size
        }
        return list(alike.values())[::-1]
    return found


def variants(cases: list[Case], config: pytest.Config) -> Iterator[Variant]:
    """Every way in every mode on every device; for the guard those with a target."""
    kind = config.stash[RUN].kind
    for index, case in chosen(cases, config):
        for device in DEVICES:
            for mode in case.modes:
                slow = kind == "full" and mode != "backward"  # not measured in the other modes
                ways = [w for w, way in case.ways.items() if slow or not way.slow_start]
                found = [Variant(case, index, device, mode, way) for way in ways]
                if kind == "guard":
                    held = {v.way for v in found if device == "cpu" and guarded(v)}
                    found = [v for v in found if held and v.way in {case.baseline, *held}]
                yield from found


def guarded(variant: Variant) -> list[Target]:
    """The targets that the guard checks for the variant; none without compiled operators."""
    return of_row(variant.row(), GUARDED) if native.LOADED else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "variant" in metafunc.fixturenames:
        found = list(variants(metafunc.module.CASES, metafunc.config))
        metafunc.parametrize("variant", found, ids=[v.id for v in found])


def pytest_itemcollected(item: pytest.Item) -> None:
    if "measure" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.benchmark(timer=timing.recorded))


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[DESELECTED] = True


@pytest.fixture
def measure(variant: Variant, benchmark: Any, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Measure the variant, together with the selected ones of its group."""
    run = request.config.stash[RUN]

    def once() -> None:
        if variant not in run.rows:
            run.measure(siblings(variant, request.session))
        missed = held_to(variant, run)
        if missed:
            run.measure(siblings(variant, request.session))  # once more, in case of a disturbance
            missed = held_to(variant, run)
        row = run.rows[variant]
        if row.status == "not run":
            pytest.skip(row.reason)
        assert row.status == "run", row.reason
        assert not missed, "; ".join(missed)
        benchmark.group = " ".join(variant.group)
        for name in ("ratio", "peak", "floor", "dice"):
            if getattr(row, name) is not None:
                benchmark.extra_info[name] = getattr(row, name)
        timing.replay(benchmark, run.samples[variant])

    return once


def siblings(variant: Variant, session: pytest.Session) -> list[Variant]:
    """The selected variants of the same group."""
    found = (getattr(item, "callspec", None) for item in session.items)
    all_of_them = (spec.params.get("variant") for spec in found if spec)
    return [v for v in all_of_them if isinstance(v, Variant) and v.group == variant.group]


def held_to(variant: Variant, run: Run) -> list[str]:
    """The errors of the guard."""
    row = run.rows[variant]
    if run.kind != "guard" or row.status != "run":
        return []
    return [text for target in guarded(variant) if (text := target.missed(row)) is not None]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    run = config.stash[RUN]
    if not run.rows:
        return
    results = Results(machine.stamp(), list(run.rows.values()))
    terminalreporter.section("speed and memory")
    terminalreporter.write_line(machine.line(results.machine))
    terminalreporter.write_line(table.text(results))
    if run.kind == "guard":
        return
    partial = config.getoption("size") is not None or DESELECTED in config.stash
    ending = "-part" if partial else "-quick" if run.kind == "quick" else ""
    written = table.save(
        results, config.getoption("results"), machine.name(results.machine) + ending
    )
    written.append(plot.draw(results, written[0].with_suffix(".png")))
    terminalreporter.write_line("written: " + ", ".join(map(os.path.relpath, written)))


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["lganet_fast"] = machine.stamp()
