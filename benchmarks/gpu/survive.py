"""Continues in a new process after a kernel has broken the device for the current one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .work import Work, finite

PATIENCE = 25.0  # seconds for one candidate, with its compilation
CRASHES = 3  # of one path, after which it is skipped
PAUSE = 1.0  # seconds between two checks of the findings
BROKEN = ("CUDA error", "CUDA driver error", "unspecified launch failure", "illegal memory")


class Trail:
    """The findings and the current item, in files that survive a crash."""

    def __init__(self, work: Work) -> None:
        self.lines = work.file.with_suffix(".lines")
        self.place = work.file.with_suffix(".at")
        for path in (self.lines, self.place):
            path.unlink(missing_ok=True)

    def enter(self, index: int, path: str, what: Mapping[str, Any]) -> None:
        """Record the current item."""
        self.place.write_text(json.dumps({"index": index, "path": path, **what}), encoding="utf-8")

    def add(self, kind: str, **row: Any) -> None:
        """Store a finding."""
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(
                "\n" + json.dumps({"kind": kind, **finite(row)})
            )  # a new line, in case the last one is incomplete

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """The findings of a kind, without incomplete lines."""
        found = []
        for line in text_of(self.lines).splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if row.pop("kind") == kind:
                    found.append(row)
        return found

    def under_way(self) -> dict[str, Any] | None:
        """The current or last item."""
        with contextlib.suppress(ValueError):
            found: dict[str, Any] = json.loads(text_of(self.place))
            return found
        return None


def text_of(path: Path) -> str:
    """The text of a file; empty if it does not exist."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def broken(error: Exception) -> bool:
    """Whether this process can no longer use the device."""
    return any(text in str(error) for text in BROKEN)


def each(
    work: Work,
    items: Callable[[Trail], Iterable[Any]],
    describe: Callable[[Any], tuple[str, dict[str, Any]]],
    do: Callable[[Trail, Any], None],
    meanwhile: Callable[[Trail], None],
) -> None:
    """Call `do` for each item in forked processes; a crash or hang affects only its item.

    items: made in the forked process, always in the same order; this process must not use the
    device, or forks fail. describe: the path and description of an item. do: adds findings to the
    trail. meanwhile: is called in this process from time to time, and at the end.
    """
    trail = Trail(work)
    crashes: Counter[str] = Counter()
    start, done = 0, False

    def perform() -> None:
        for index, item in enumerate(items(trail)):
            if work.left() < 1:
                return
            path, what = describe(item)
            if index >= start and crashes[path] < CRASHES:
                trail.enter(index, path, what)
                do(trail, item)

    while not done and work.left() > 1:
        began = time.time()
        child = os.fork()
        if not child:
            os._exit(exit_of(perform))
        how = watched(child, trail, began, lambda: meanwhile(trail))
        done = how == "done"
        at = trail.under_way()
        if not done and at is not None and at["index"] >= start:
            crashes[at["path"]] += 1
            start = at["index"] + 1
            trail.add("crashed", how=how, **{k: v for k, v in at.items() if k != "index"})
        elif not done:
            trail.add("crashed", how=how, path="", what="before anything was tried")
            break
    meanwhile(trail)


def exit_of(perform: Callable[[], None]) -> int:
    """Run it and return the exit status."""
    try:
        perform()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def watched(child: int, trail: Trail, began: float, meanwhile: Callable[[], None]) -> str:
    """Wait for a process, kill it if an item takes too long; returns how it ended."""
    for _ in looks():
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "done" if status == 0 else f"wait status {status}"
        since = max(began, trail.place.stat().st_mtime if trail.place.exists() else 0)
        if time.time() - since > PATIENCE:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"not done after {PATIENCE:.0f} s"
        meanwhile()
    raise AssertionError


def looks() -> Iterator[None]:
    """Waits between checks, shorter ones first."""
    pause = 0.02
    while True:
        yield
        time.sleep(pause)
        pause = min(PAUSE, 1.5 * pause)
