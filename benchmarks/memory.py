"""Peak memory, measured: on the CPU in a process of its own, on CUDA as the allocator counts it.

`python -m benchmarks.memory TASK` is that process: it prints the bytes by which its resident
memory rose, at its highest, above what it held after its imports. Tensors of a MiB and more are
mapped one by one there, so that what the heap leaves unused between them is not counted.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from . import ROOT
from .case import Case, ready

MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}  # glibc's; else the same step took 1.6 to 2.1 GB


@dataclass(frozen=True)
class Task:
    """A case of `benchmarks.test_<operation>`, by its place there, done once in one way."""

    operation: str
    index: int
    size: tuple[int, int, int]
    way: str
    mode: str
    threads: int

    def case(self) -> Case:
        """The case at the task's size."""
        module = importlib.import_module(f"benchmarks.test_{self.operation}")
        case: Case = module.CASES[self.index]
        return case.of_size(self.size)


class NotMeasuredError(Exception):
    """Why there is no figure."""


def of_fresh_process(task: Task, timeout: float = 1800) -> int:
    """Bytes. Raises NotMeasuredError where the process fails or the system does not tell."""
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(asdict(task))]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | MAPPED,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotMeasuredError(f"not done after {timeout:.0f} s") from error
    if done.returncode:
        text = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise NotMeasuredError(text[-1][:200])
    return int(done.stdout.split()[-1])


def on_cuda(case: Case, way: str, mode: str) -> int:
    """Bytes that the allocator handed out at most, inputs and weights included."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ready(case, way, mode, "cuda", case.inputs_on("cuda"))()()
    return torch.cuda.max_memory_allocated() - before


def highest() -> int:
    """The most resident bytes this process has had. Raises NotMeasuredError where nothing tells."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError as error:
        raise NotMeasuredError("only Linux tells a process's highest memory") from error
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(text: str) -> None:
    """Do the task and print the rise."""
    given = json.loads(text)
    task = Task(**{**given, "size": tuple(given["size"])})
    torch.set_num_threads(task.threads)
    case = task.case()
    before = highest()
    ready(case, task.way, task.mode, "cpu", case.inputs_on("cpu"))()()
    print(highest() - before)


if __name__ == "__main__":
    main(sys.argv[1])
