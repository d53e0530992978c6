"""`python -m benchmarks.gpu.predicted`: the questions for a GPU and the expected answers.

Writes benchmarks/gpu_questions.json from the current network: its convolutions with their floors
and the model's times, its operators with their bytes, and the questions. Nothing in it is measured;
a report compares it with measurements.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .. import count
from ..case import shown
from ..count import Conv, Count
from .model import CARDS
from .paths import DTYPES, Problem
from .questions import QUESTIONS
from .shapes import FILE, SIZES, work_of

TYPES = ("tf32", "bfloat16")  # float16 has the same times as bfloat16


def row(conv: Conv, times: int) -> dict[str, Any]:
    """The row of a kernel, for all its calls."""
    found: dict[str, Any] = {
        "operation": conv.operation,
        "inputs": conv.inputs,
        "outputs": conv.outputs,
        "shape": list(conv.shape),
        "calls": times,
        "gflop": round(times * conv.operations / 1e9, 3),
    }
    for type in TYPES:
        problem = Problem(conv, type)
        found[f"{type} MB"] = round(times * problem.bytes / 1e6, 2)
        for name, card in CARDS.items():
            floor, model = times * card.floor(problem), times * card.predicted(problem)
            found[f"{type} floor us {name}"] = round(1e6 * floor, 2)
            found[f"{type} predicted us {name}"] = round(1e6 * model, 2)
    return found


def totals(calls: Counter[Conv]) -> dict[str, Any]:
    """Milliseconds of all convolutions, by type and card."""
    found: dict[str, Any] = {}
    for type in DTYPES:
        for name, card in CARDS.items():
            problems = [(Problem(conv, type), n) for conv, n in calls.items()]
            floor = sum(n * card.floor(problem) for problem, n in problems)
            model = sum(n * card.predicted(problem) for problem, n in problems)
            times = {"floor ms": round(1e3 * floor, 2), "predicted ms": round(1e3 * model, 2)}
            found[f"{type} {name}"] = times
    return found


def operators(counts: Sequence[Count]) -> dict[str, Any]:
    """Launches, bytes and operations of each operator, from the first count with it."""
    found: dict[str, Any] = {}
    for one in counts:
        for name, n in one.launching.most_common():
            row = {"launching": n, "bytes": one.bytes[name], "operations": one.operations[name]}
            found.setdefault(name, row)
    return found


def everything(of_network: Callable[..., Count] = count.of_network) -> dict[str, Any]:
    """The file's content. of_network: counts."""
    found: dict[str, Any] = {
        "made by": "python -m benchmarks.gpu.predicted",
        "what": "computed from data sheets' rates and counted on fake tensors; not measured",
        "questions": [question.told() for question in QUESTIONS],
        "operators": {
            f"{shown(size)} {type}": operators(
                [of_network(size, dtype, False, path=path) for path in ("cudnn", "triton")]
            )
            for size in SIZES
            for type, dtype in (("float32", None), ("bfloat16", torch.bfloat16))
        },
        "convolutions": {},
    }
    for size in SIZES:
        for step in (False, True):
            calls = Counter(of_network(size, None, step).convolutions)
            ordered = sorted(calls.items(), key=lambda item: -item[1] * item[0].operations)
            rows = [row(conv, times) for conv, times in ordered]
            work = {"totals": totals(calls), "kernels": rows}
            found["convolutions"][work_of(size, step)] = work
    return found


def text(found: dict[str, Any]) -> str:
    """The text of the file: a line for each kernel, operator and question."""
    depths = {"questions": 1, "operators": 2, "convolutions": 3}
    lines = [f"{json.dumps(k)}: {lines_of(v, depths.get(k, 0))}" for k, v in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def lines_of(rows: Any, depth: int = 1) -> str:
    """JSON with a line for each entry, down to a depth."""
    if not depth:
        return json.dumps(rows)
    if isinstance(rows, dict):
        entries = [f"{json.dumps(k)}: {lines_of(v, depth - 1)}" for k, v in rows.items()]
        return "{\n" + ",\n".join(entries) + "\n}"
    return "[\n" + ",\n".join(lines_of(row, depth - 1) for row in rows) + "\n]"


if __name__ == "__main__":
    FILE.write_text(text(everything()), encoding="utf-8")
