"""Runs the phases in order, each in a forked process with a time limit, some in parallel.

This process imports modules but never initialises the device, so that every fork can. A phase that
raises, crashes or exceeds its limit does not affect the others.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .work import Work, loaded, save

RESERVE = 5.0  # seconds kept for the report
GRACE = 3.0  # seconds beyond its limit before a phase is killed
LEAST = 2.0  # seconds that must be left to start a phase


@dataclass(frozen=True)
class Phase:
    """One part of the run.

    run: does the work within `Work.left`. limit: seconds. beside: empty, or the name of the phase
    before which it must end; it runs in parallel with the phases until then.
    """

    name: str
    run: Callable[[Work], None]
    limit: float
    beside: str = ""


class Running:
    """A phase that runs in its own process."""

    def __init__(self, phase: Phase, work: Work) -> None:
        self.phase, self.work, self.started = phase, work, time.monotonic()
        work.file.parent.mkdir(parents=True, exist_ok=True)
        work.file.unlink(missing_ok=True)
        fork = multiprocessing.get_context("fork")
        self.process = fork.Process(target=perform, args=(phase, work), daemon=True)
        self.process.start()

    def finish(self, seconds: float) -> dict[str, Any]:
        """Wait so long, kill the phase if it still runs, and return its result."""
        self.process.join(max(seconds, 0))
        over = self.process.is_alive()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)  # and its child processes
        if over:
            self.process.kill()
        self.process.join()
        found, code = loaded(self.work.file), self.process.exitcode
        if over:
            told = {"status": "ended", "reason": "it exceeded its time limit"}
        elif "status" not in found:
            told = {"status": "died", "reason": f"its process ended with {code}"}
        else:
            told = {}
        seconds = round(time.monotonic() - self.started, 2)
        return {**found, **told, "seconds": seconds}


def perform(phase: Phase, work: Work) -> None:
    """Run a phase, in its own process."""
    os.setsid()
    log = os.open(work.file.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    try:
        phase.run(work)
        work.put(now=True, status="done")
    except BaseException as error:
        traceback.print_exc()
        text = str(error).strip().splitlines() or [""]
        work.put(now=True, status="failed", reason=f"{type(error).__name__}: {text[0][:300]}")
    os._exit(0)  # skip exit handlers inherited from the parent


def conduct(
    phases: Sequence[Phase],
    work: Work,
    render: Callable[[dict[str, Any]], str],
    before: Mapping[str, dict[str, Any]] = MappingProxyType({}),
    started: float | None = None,
) -> dict[str, Any]:
    """Run the phases until `work.until`; after each, write report.json and report.md.

    work: for each phase, with its own name and end. render: the report as Markdown. before: results
    of what has been done since `started`. Time that a phase does not use is left to later ones.
    Returns the report.
    """
    begun = time.monotonic()
    started = begun if started is None else started
    planned, beside = 0.0, list[Running]()
    report: dict[str, Any] = {"dry": work.dry, "seconds": 0.0, "phases": {}}

    def left() -> float:
        return work.until - RESERVE - time.monotonic()

    def keep(name: str, result: dict[str, Any]) -> None:
        report["phases"][name] = result
        report["seconds"] = round(time.monotonic() - started, 1)
        save(work.out / "report.json", report)
        write(work.out / "report.md", text_of(report, render))
        why = f": {result['reason']}" if result.get("reason") else ""
        print(f"{report['seconds']:6.1f} s  {name}: {result['status']}{why}", flush=True)

    def gather(before: str | None) -> None:
        for running in [r for r in beside if before in (None, r.phase.beside)]:
            beside.remove(running)
            wait = left() if before is None else 0.0
            keep(running.phase.name, running.finish(wait))

    for name, result in before.items():
        keep(name, result)
    for phase in phases:
        gather(phase.name)
        spare = max(0.0, planned - (time.monotonic() - begun))
        seconds = min(phase.limit + spare, left())
        if seconds < min(LEAST, phase.limit):
            keep(phase.name, {"status": "not run", "reason": "no time was left"})
            continue
        own = replace(work, name=phase.name, until=time.monotonic() + seconds, found={})
        if phase.beside:
            beside.append(Running(phase, own))
        else:
            planned += phase.limit
            keep(phase.name, Running(phase, own).finish(seconds + min(GRACE, RESERVE - 1)))
    gather(None)
    return report


def text_of(report: dict[str, Any], render: Callable[[dict[str, Any]], str]) -> str:
    """The report as Markdown, or the error if that fails; report.json has all results too."""
    try:
        return render(report)
    except Exception:
        return f"The report could not be rendered:\n\n```\n{traceback.format_exc()}```\n"


def write(path: Path, text: str) -> None:
    """Write a text file atomically."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
