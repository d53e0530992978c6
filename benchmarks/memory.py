"""Peak memory: on the CPU measured in a separate process, on CUDA counted by the allocator.

`python -m benchmarks.memory TASK` is that process: it prints its peak resident memory in bytes,
minus the memory after its imports. Tensors of 1 MiB and more get separate mappings there, so that
unused memory in the heap is not counted.
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

MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}  # glibc; without it peaks varied by 30 %


@dataclass(frozen=True)
class Task:
    """One call of a case of `benchmarks.test_<operation>`, by its index, in one way."""

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
    """The memory could not be measured; the message says why."""


def of_fresh_process(task: Task, timeout: float = 1800) -> int:
    """Bytes. Raises NotMeasuredError if the process fails or the system has no such figure."""
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
    """Peak bytes of the allocator, with inputs and weights."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ready(case, way, mode, "cuda", case.inputs_on("cuda"))()()
    return torch.cuda.max_memory_allocated() - before


def highest() -> int:
    """The peak resident bytes of this process. Raises NotMeasuredError except on Linux."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError as error:
        raise NotMeasuredError("only Linux has the peak memory of a process") from error
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(text: str) -> None:
    """Do the task and print the bytes."""
    given = json.loads(text)
    task = Task(**{**given, "size": tuple(given["size"])})
    torch.set_num_threads(task.threads)
    case = task.case()
    before = highest()
    ready(case, task.way, task.mode, "cpu", case.inputs_on("cpu"))()()
    print(highest() - before)


if __name__ == "__main__":
    main(sys.argv[1])
