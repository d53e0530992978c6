"""The report as Markdown: results with the expected values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import machine
from .questions import QUESTIONS

SHAPES = 60  # convolutions in the report; tuned.json has all
ROWS = 25  # kernels and operators of a run
Phases = Mapping[str, dict[str, Any]]


def markdown(report: dict[str, Any]) -> str:
    """The whole report."""
    phases: Phases = report["phases"]
    lines = ["# One visit to a GPU", ""]
    if report["dry"]:
        lines += [
            "**A dry run without a GPU, on small volumes and the CPU: the figures say nothing "
            "about a GPU.**",
            "",
        ]
    stamp = phases.get("card", {}).get("machine")
    lines += [f"{machine.line(stamp)}." if stamp else "The card is not known.", ""]
    lines += [f"{report['seconds']} s in all.", ""]
    parts = [
        table(
            ("phase", "status", "s", "note"),
            [(n, p["status"], p.get("seconds"), p.get("reason")) for n, p in phases.items()],
        )
    ]
    for title, part in PARTS.items():
        try:
            body = part(phases)
        except Exception as error:  # incomplete results of a phase that was killed
            body = f"not readable: {type(error).__name__}: {error}"
        if body:
            parts.append(f"## {title}\n\n{body}")
    return "\n".join(lines) + "\n" + "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, row)) + " |" for row in lines)


def cell(value: Any) -> str:
    """A value for a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {cell(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(cell, value)) or "none"
    return str(value).replace("|", "\\|").replace("\n", " ")


def questions(phases: Phases) -> str:
    """A table of predicted and measured answers."""
    rows = []
    for question in QUESTIONS:
        answer = question.answer(phases)
        if isinstance(answer, list):
            answer = f"{len(answer)}: {brief(answer)}" if answer else "none"
        rows.append(
            (question.text, question.predicted, "not measured" if answer is None else answer)
        )
    return table(("question", "predicted", "measured"), rows)


def brief(rows: list[Any]) -> str:
    """The first few rows of a list."""
    texts = []
    for row in rows[:4]:
        name = row.get("operator") if isinstance(row, Mapping) else None
        texts.append(f"{name} {cell(row['us'] / 1000)} ms" if name else cell(row))
    return "; ".join(texts)


def timing(phases: Phases) -> str:
    """A table for each group of ways."""
    found = []
    for name, group in phases.get("timing", {}).get("groups", {}).items():
        names = ("median ms", "low ms", "high ms", "ratio", "peak MB", "off", "rounds")
        rows = [(way, *map(row.get, names)) for way, row in group.get("ways", {}).items()]
        rows += [(way, f"failed: {why}") for way, why in group.get("failed", {}).items()]
        found.append(f"### {name}\n\n{group.get('not run', '')}{table(('way', *names), rows)}")
    return "\n\n".join(found)


def tuned(phases: Phases) -> str:
    """The convolutions with the fastest time of every path, floor and model."""
    part = phases.get("tune", {})
    rows = []
    for row in part.get("shapes", [])[:SHAPES]:
        by_path = {
            path: min((c["us"] for c in row["candidates"] if c["path"] == path), default=None)
            for path in ("cudnn", "triton", "native")
        }
        us = row["winner"]["us"]
        of_model = us / row["predicted us"]
        verdict = "as predicted" if of_model <= 1.5 else f"{of_model:.1f}x the model"
        shape = f"{row['inputs']}->{row['outputs']}, {'x'.join(map(str, row['shape']))}"
        what = (row["operation"].removeprefix("convolve_"), shape, row["type"])
        floor = (row["floor us"], row["predicted us"])
        rows.append((*what, *by_path.values(), row["winner"]["config"], *floor, verdict))
    head = ("operation", "shape", "type", "cudnn us", "triton us", "native us", "configuration")
    told = [f"Wins: {cell(part.get('wins'))}.", *missing(part)]
    told += [
        f"Convolutions of a forward, ms: {name}: {cell(x)}"
        for name, x in part.get("forward ms", {}).items()
    ]
    if part.get("refused"):
        told.append(
            f"{len(part['refused'])} candidates were wrong or failed: {cell(part['refused'][:3])}"
        )
    return (
        "\n\n".join([*told, table((*head, "floor us", "predicted us", "verdict"), rows)])
        if rows
        else ""
    )


def missing(part: dict[str, Any]) -> list[str]:
    """Lines for missing paths."""
    return [f"{name}: {why}." for name, why in part.get("missing", {}).items()]


def correctness(phases: Phases) -> str:
    """Results of kernels, the network and the tests."""
    kernels, network = phases.get("kernels", {}), phases.get("network", {})
    told = [*missing(kernels)]
    if "checked" in kernels:
        told.append(f"{kernels['checked']} convolutions were compared with float64.")
        told.append(f"Wrong: {cell(kernels['wrong'])}.")
        told.append(f"Not repeating: {cell(kernels['not repeating'])}.")
        told.append(table(("what", "largest error"), list(kernels["worst"].items())))
    told += [
        f"{name}: {cell(network[name])}"
        for name in ("graph", "integrate captured", "threads")
        if name in network
    ]
    golden = network.get("golden", {})
    if golden:
        rows = [
            (mode, *row.values()) if isinstance(row, Mapping) else (mode, row)
            for mode, row in golden.items()
        ]
        told.append(table(("stored run", "largest, voxels", "mean, voxels", "repeats"), rows))
    tests = phases.get("tests", {})
    if "passed" in tests:
        told.append(
            f"`pytest -m gpu`: {tests['passed']} passed, {tests['failed']} failed; "
            f"{tests['last line']}"
        )
        told += tests["failures"]
    return "\n\n".join(told)


def profiled(phases: Phases) -> str:
    """The kernels of each run, and the operators with their floors."""
    found = []
    for name, run in phases.get("profile", {}).get("runs", {}).items():
        found.append(
            f"### {name}\n\n{cell(run['wall ms'])} ms, of which kernels {cell(run['busy ms'])} ms "
            f"({run['launches']:g} launches); gaps {100 * run['gaps']:.0f} %."
        )
        rows = [(r["kernel"][:90], r["calls"], r["us"]) for r in run["kernels"][:ROWS]]
        names = ("operator", "calls", "us", "MB", "gflop", "floor us", "of floor")
        operators = [tuple(map(r.get, names)) for r in run.get("operators", [])[:ROWS]]
        found += [table(names, operators)] if operators else []
        found.append(table(("kernel", "calls", "us"), rows))
    return "\n\n".join(found)


def rest(phases: Phases) -> str:
    """Registration and tools."""
    register, tools = phases.get("register", {}), phases.get("tools", {})
    names = ("search", "seconds each", "command")
    told = [f"register, {name}: {cell(register[name])}" for name in names if name in register]
    told += [f"{name}: {cell(tools[name])}" for name in ("sanitizer", "ncu") if name in tools]
    return "\n\n".join(told)


PARTS: dict[str, Callable[[Phases], str]] = {
    "Questions": questions,
    "The network, timed in turn": timing,
    "Convolutions": tuned,
    "Correctness": correctness,
    "Where the time goes": profiled,
    "Registration and tools": rest,
}
