"""Compiles the Triton convolutions to measure, on all cores, in parallel with other phases."""

from __future__ import annotations

import os
import time

import torch

from . import tune
from .paths import PATHS, Given, Problem
from .work import Work

CORES = 12  # at most; the others are left to measurements


def run(work: Work) -> None:
    """Run every candidate once, the most expensive shapes first, to store its code on disk."""
    if work.dry:
        work.put(processes=0, what="nothing is compiled without a GPU")
        return
    share = max(1, min(CORES, (os.cpu_count() or 2) - 4))
    children = []
    for number in range(share):
        child = os.fork()
        if not child:
            os._exit(some(work, number, share))
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    work.put(processes=share)


def some(work: Work, number: int, share: int) -> int:
    """Each `share`-th of the candidates, from `number` on."""
    try:
        if PATHS["triton"].missing(work.device):
            return 0
        for place, (problem, candidates) in enumerate(tune.passes(work, ["triton"])):
            if place % share != number:
                continue
            given = Given.of(problem, work.device)
            for name, config in candidates:
                if work.left() < 1:
                    return 0
                tried(name, problem, config, given)
    except Exception as error:
        print(f"{number}: {error}", flush=True)
        return 1
    return 0


def tried(name: str, problem: Problem, config: int, given: Given) -> None:
    """Run it once; errors are reported by the phases that measure."""
    started = time.monotonic()
    try:
        PATHS[name].run(problem, config, given)()
        torch.cuda.synchronize()
    except Exception as error:
        print(f"{tune.named(problem)} {config}: {error}", flush=True)
    print(f"{tune.named(problem)} {config}: {time.monotonic() - started:.1f} s", flush=True)
