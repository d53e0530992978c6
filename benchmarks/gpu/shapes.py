"""The work of the network on a GPU, from `benchmarks/gpu_questions.json`.

`predicted` counted it on fake tensors, and a test compares it with a new count, so that a run on a
GPU need not count.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from lganet_fast.ops import tuned

from ..case import IXI_OASIS, LPBA40, Size, shown
from ..count import Conv
from .paths import Problem
from .work import loaded

FILE = Path(__file__).parent.parent / "gpu_questions.json"
SIZES = (LPBA40, IXI_OASIS)
TYPES = ("tf32", "bfloat16", "float16", "float32")
TINY: Size = (6, 7, 9)  # of volumes in a dry run


def work_of(size: Size, step: bool) -> str:
    """The name of a forward or a training step."""
    return f"{shown(size)} {'step' if step else 'forward'}"


@cache
def stored() -> dict[str, Any]:
    """The content of the file."""
    return loaded(FILE)


@cache
def calls(size: Size, step: bool) -> Counter[Conv]:
    """The number of each convolution in a forward or a training step of one volume."""
    rows = stored()["convolutions"][work_of(size, step)]["kernels"]
    return Counter({conv_of(row): row["calls"] for row in rows})


def operators(size: Size, type: str) -> dict[str, dict[str, float]]:
    """Launches, bytes and operations of a forward, by operator; the same for half types."""
    kind = "float32" if type == "float32" else "bfloat16"
    found: dict[str, dict[str, float]] = stored()["operators"][f"{shown(size)} {kind}"]
    return found


def conv_of(row: dict[str, Any]) -> Conv:
    """The convolution of a row."""
    return Conv(row["operation"], row["inputs"], row["outputs"], tuple(row["shape"]))


def key(problem: Problem) -> tuned.Key:
    """Its key in the tuned table."""
    conv = problem.conv
    return tuned.key(conv.operation, conv.inputs, conv.outputs, problem.type, conv.voxels)


@cache
def wanted() -> dict[Conv, int]:
    """The most frequent convolution for each key of the tuned table, with the calls of all
    convolutions of that key in a forward and a step of every size.
    """
    found: dict[tuned.Key, Counter[Conv]] = {}
    for size in SIZES:
        for conv, times in (calls(size, False) + calls(size, True)).items():
            found.setdefault(key(Problem(conv, "tf32")), Counter())[conv] += times
    return {same.most_common(1)[0][0]: same.total() for same in found.values()}


def pairs() -> list[tuple[int, int]]:
    """All pairs of inputs and outputs, those with the most operations first."""
    found: Counter[tuple[int, int]] = Counter()
    for conv, times in wanted().items():
        found[conv.inputs, conv.outputs] += times * conv.operations
    return [pair for pair, _ in found.most_common()]


def small(conv: Conv) -> Conv:
    """The same convolution on a tiny volume."""
    return Conv(conv.operation, conv.inputs, conv.outputs, (conv.shape[0], *TINY))
