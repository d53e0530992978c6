"""Finds the fastest path and configuration for every convolution of the network, in every type.

The most expensive shapes come first, each with the configurations that are fastest by the paths'
models; if time runs out, only cheap shapes are missing. Candidates with wrong results are dropped.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lganet_fast.ops import tuned
from lganet_fast.ops.tuned import Entry
from lganet_fast.runtime.files import reason

from ..case import IXI_OASIS, LPBA40, shown
from . import shapes
from .clock import copies, off, per_call, poison
from .model import CARDS
from .paths import PATHS, TOLERANCES, Given, Problem, legal, there
from .survive import Trail, broken, each
from .work import Work, save

MODEL = CARDS["H100 SXM"]
MOST = 8  # configurations of a path per shape
SECONDS = 0.01  # of a round of calls
Rows = dict[Problem, list[dict[str, Any]]]
Item = tuple[Problem, str, int]
Prepared = tuple[list[Given], Tensor]


def run(work: Work) -> None:
    """Measure, and update tuned.json and the table of winners from time to time."""
    latest: dict[Problem, Prepared] = {}

    def items(trail: Trail) -> Iterator[Item]:
        paths, missing = there(work.device)
        trail.add("missing", why=missing)
        for problem, candidates in passes(work, paths):
            latest.clear()
            yield from ((problem, name, config) for name, config in candidates)

    def do(trail: Trail, item: Item) -> None:
        problem, name, config = item
        if problem not in latest:
            latest[problem] = prepared(problem, work.device)
            if not work.dry:
                trail.add("device", capability=torch.cuda.get_device_capability())
        measure(work, trail, problem, name, config, *latest[problem])

    each(work, items, described, do, lambda trail: keep(work, trail))


def described(item: Item) -> tuple[str, dict[str, Any]]:
    """The path and description of an item."""
    problem, name, config = item
    return name, {**named(problem), "config": config}


def passes(work: Work, paths: list[str]) -> Iterator[tuple[Problem, list[tuple[str, int]]]]:
    """The candidates in order: for each shape the first of every path, then the others."""
    wanted = shapes.wanted()
    types = shapes.TYPES[:1] if work.dry else shapes.TYPES
    problems = [Problem(conv, type) for conv in wanted for type in types]
    problems.sort(key=lambda p: -wanted[p.conv] * MODEL.predicted(p) * (p.type != "float32"))
    if work.dry:
        problems = [Problem(shapes.small(p.conv), p.type) for p in problems[:4]]
    for rank in range(MOST):
        for problem in problems:
            found = [(name, legal(name, problem)[:MOST]) for name in paths]
            turn = [(name, configs[rank]) for name, configs in found if rank < len(configs)]
            if turn:
                yield problem, turn


def prepared(problem: Problem, device: str) -> Prepared:
    """Enough copies of the inputs to exceed the cache, and the expected result."""
    count = copies(problem.bytes, device)
    givens = [Given.of(problem, device, seed) for seed in range(min(count, 4))]
    while len(givens) < count:
        one = givens[len(givens) % 4]
        givens.append(Given(*(x.clone() for x in (one.x, one.grad, one.weight, one.bias))))
    return givens, PATHS["cudnn"].run(problem, 0, givens[0])().double()


def measure(
    work: Work,
    trail: Trail,
    problem: Problem,
    name: str,
    config: int,
    givens: list[Given],
    expected: Tensor,
) -> None:
    """Time one candidate, unless its result is wrong."""
    row = {**named(problem), "path": name, "config": config}
    try:
        calls = [PATHS[name].run(problem, config, given) for given in givens]
        poison(work.device, 2**24)
        error = off(calls[0](), expected)
        if not error <= 4 * TOLERANCES[problem.type]:
            trail.add("refused", **row, error=error)
            return
        seconds = per_call(calls, work.device, SECONDS)
    except Exception as failure:
        if broken(failure):
            raise
        trail.add("refused", **row, failed=reason(failure)[:200])
        return
    trail.add("timed", **row, us=1e6 * seconds)


def rows_of(trail: Trail) -> Rows:
    """The timed candidates, by problem."""
    found: Rows = {}
    for row in trail.rows("timed"):
        problem = Problem(shapes.conv_of(row), row["type"])
        brief = {"path": row["path"], "config": row["config"], "us": row["us"]}
        found.setdefault(problem, []).append(brief)
    return found


def named(problem: Problem) -> dict[str, Any]:
    """The problem for a table."""
    conv = problem.conv
    return {
        "operation": conv.operation,
        "inputs": conv.inputs,
        "outputs": conv.outputs,
        "shape": list(conv.shape),
        "type": problem.type,
    }


def best(found: list[dict[str, Any]], path: str = "") -> dict[str, Any] | None:
    """The fastest candidate, by default of all paths."""
    rows = [row for row in found if not path or row["path"] == path]
    return min(rows, key=lambda row: row["us"]) if rows else None


def told(rows: Rows) -> dict[str, Any]:
    """Every shape with its candidates, floor and model time, and the time that winners save."""
    listed, wins = [], dict.fromkeys(PATHS, 0)
    gains = []
    for problem, found in rows.items():
        winner = best(found)
        assert winner is not None
        wins[winner["path"]] += 1
        listed.append(
            {
                **named(problem),
                "winner": winner,
                "candidates": sorted(found, key=lambda row: row["us"]),
                "floor us": 1e6 * MODEL.floor(problem),
                "predicted us": 1e6 * MODEL.predicted(problem),
            }
        )
        by_path = {r["config"]: r["us"] for r in found if r["path"] == "cudnn"}
        if {0, 1} <= by_path.keys():
            gains.append(by_path[0] / by_path[1])
    whole = {f"{shown(size)} {type}": sums(rows, size, type) for size, type in works()}
    return {
        "shapes": listed,
        "wins": wins,
        "cudnn by measuring": sorted(gains)[len(gains) // 2] if gains else None,
        "forward ms": {name: found for name, found in whole.items() if found},
    }


def works() -> list[tuple[tuple[int, int, int], str]]:
    """The sizes and types for which times are summed."""
    return list(itertools.product((LPBA40, IXI_OASIS), ("tf32", "bfloat16", "float16")))


def sums(rows: Rows, size: tuple[int, int, int], type: str) -> dict[str, float]:
    """Milliseconds of the measured convolutions of a forward, by PyTorch and by the winners.

    Also the fraction of the operations that they cover.
    """
    by_key = {shapes.key(problem): (problem, found) for problem, found in rows.items()}
    total = covered = now = then = 0.0
    if not any(problem.type == type for problem in rows):
        return {}
    for conv, times in shapes.calls(size, False).items():
        work = times * conv.operations
        total += work
        same = by_key.get(shapes.key(Problem(conv, type)))
        plain = same and best([r for r in same[1] if r["config"] == 0], "cudnn")
        if not same or not plain:
            continue
        winner = best(same[1])
        assert winner is not None
        part = times * conv.voxels / same[0].conv.voxels / 1000
        covered += work
        now += part * plain["us"]
        then += part * winner["us"]
    return {"cudnn": now, "winners": then, "covered": covered / total}


def keep(work: Work, trail: Trail) -> None:
    """Write the winners as a table for the package, and all candidates."""
    rows = rows_of(trail)
    work.put(missing=next((row["why"] for row in trail.rows("missing")), {}))
    work.put(refused=trail.rows("refused") + trail.rows("crashed"), **told(rows))
    entries = {}
    for problem, found in rows.items():
        winner = best(found)
        assert winner is not None
        us = round(winner["us"], 3)
        entries[shapes.key(problem)] = Entry(winner["path"], winner["config"], us)
    device = trail.rows("device")
    major, minor = device[0]["capability"] if device else (0, 0)
    stamp = work.part("card").get("machine", {})
    names = ("gpu", "driver", "torch", "triton", "commit", "date")
    about = {name: stamp.get(name) for name in names}
    path = tuned.record(entries, (major, minor), about, work.out)
    save(work.out / "tuned.json", told(rows))
    if device:
        mine = tuned.own_folder() / path.name  # for the later phases of this run
        mine.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, mine)
