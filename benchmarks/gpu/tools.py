"""Runs NVIDIA's tools on a few convolutions, if they are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from .. import ROOT
from ..count import Conv
from .paths import PATHS, Given, Problem
from .work import Work

DEAREST = ((64, 64, 4), (24, 24, 8), (128, 128, 2), (48, 48, 4), (96, 96, 2), (8, 8, 8))
TINY = ((8, 8, 1), (24, 24, 1), (64, 64, 1))
BASE = (9, 11, 18)  # times the last of each triple
METRICS = (
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.avg.pct_of_peak_sustained_elapsed",
    "lts__t_sectors.avg.pct_of_peak_sustained_elapsed",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "gpu__time_duration.sum",
)


def run(work: Work) -> None:
    """Run the sanitizer on tiny convolutions, the profiler on the slowest."""
    work.put(sanitizer={}, ncu={})
    checks = {tool: sanitized(work, tool) for tool in ("memcheck", "racecheck")}
    work.put(sanitizer=checks)
    path = tool_path("ncu")
    if path is None or work.dry:
        work.put(ncu="not there" if path is None else "not run: no GPU")
        return
    words = ["--clock-control", "none", "--metrics", ",".join(METRICS), "--csv"]
    work.put(ncu=told(work, [path, *words, *script("dearest")], work.left() - 1))


def sanitized(work: Work, tool: str) -> Any:
    """The output of compute-sanitizer."""
    path = tool_path("compute-sanitizer")
    if path is None or work.dry:
        return "not there" if path is None else "not run: no GPU"
    return told(work, [path, "--tool", tool, *script("tiny")], work.left() / 3)


def tool_path(name: str) -> str | None:
    """The path of a tool: from the PATH, or the usual folders of CUDA."""
    found = shutil.which(name)
    usual = [
        *Path("/usr/local").glob(f"cuda*/bin/{name}"),
        *Path("/opt/nvidia").glob(f"*/*/{name}"),
    ]
    return found or next((str(path) for path in usual), None)


def script(kind: str) -> list[str]:
    """The command that a tool runs: this file."""
    return [sys.executable, "-m", "benchmarks.gpu.tools", kind]


def told(work: Work, command: list[str], seconds: float) -> dict[str, Any]:
    """Run a command and return the end of its output."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=max(seconds, 1),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"status": f"not done after {seconds:.0f} s"}
    text = done.stdout + done.stderr
    (work.out / f"{Path(command[0]).name}.txt").write_text(text, encoding="utf-8")
    return {"status": done.returncode, "output": text[-6000:]}


def main(kind: str) -> None:
    """Run some convolutions once, on every path but PyTorch's."""
    for inputs, outputs, factor in TINY if kind == "tiny" else DEAREST:
        conv = Conv("convolve", inputs, outputs, (1, *(n * factor for n in BASE)))
        for type in ("bfloat16", "tf32"):
            problem = Problem(conv, type)
            given = Given.of(problem, "cuda")
            for name, path in PATHS.items():
                if name != "cudnn" and path.missing("cuda") is None:
                    path.run(problem, path.configs(problem)[0], given)()
    torch.cuda.synchronize()


if __name__ == "__main__":
    main(sys.argv[1])
