"""`python -m tests.kills --runs N --seed S`: commands killed at random moments, then run again.

Of each command N runs are killed (SIGKILL), spread evenly over the time that a whole run takes on
the processor, whatever else runs there. After a kill no file may be half written, and old results
may not lie beside new ones. Then the same command runs to its end: it must give what a run gives
that nothing stopped, do nothing again that was done, and leave no hidden file. Runs are forked from
a process that has loaded everything, so that the kills fall into the work and not into Python's
start.
"""

from __future__ import annotations

import argparse
import csv
import faulthandler
import importlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "helpers"))  # as pytest has it

import layouts
from synthetic import oblique_grid, synthetic_pair

from lganet_fast import __main__ as command
from lganet_fast.models.checkpoint import load as load_checkpoint
from lganet_fast.training import state as states
from lganet_fast.volumes import nifti

LOADED = (
    *("report.page", "registration.cohort", "registration.pairwise"),
    *("evaluation.run", "training.trainer", "training.validate"),
)
FORK = multiprocessing.get_context("fork")
GRID = oblique_grid((18, 20, 16), (4.0, 3.8, 4.2), 10)
TIMES = ("seconds", "peak_memory_mb")  # what differs from run to run
LONGEST = 600  # seconds after which a run counts as hanging, and says where


@dataclass(frozen=True)
class Command:
    """A command to kill.

    words: its arguments; OUT stands for the folder of results. before: the arguments of a run that
    has left results there already, none where the folder does not exist yet.
    """

    name: str
    words: tuple[str, ...]
    before: tuple[str, ...] = ()


class FaultError(AssertionError):
    """What a kill has broken."""


def run(words: tuple[str, ...], out: Path) -> Any:
    """A process that runs the command; it has been started. A run that has begun is resumed."""
    begun = (out / "config.toml").is_file()

    def child() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(out.parent / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        faulthandler.dump_traceback_later(LONGEST, file=2)
        sys.argv = ["lganet-fast", *(word.replace("OUT", str(out)) for word in words)]
        sys.argv += ["--resume"] * (words[0] == "train" and begun)
        os._exit(command.main())

    process = FORK.Process(target=child)
    process.start()
    return process


def finish(words: tuple[str, ...], out: Path) -> float:
    """Run a command to its end; returns its seconds on the processor.

    Raises FaultError where it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = run(words, out)
    process.join(LONGEST + 5)
    if process.exitcode != 0:
        process.kill()
        raise FaultError(f"exit {process.exitcode}: {(out.parent / 'stderr').read_text().strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wait(process: Any, seconds: float) -> None:
    """Wait until a process has been on the processor for so many seconds, or has ended."""
    clock = (~process.pid << 3) | 2  # the process's own (clock_getcpuclockid)
    while process.exitcode is None and time.clock_gettime(clock) < seconds:
        time.sleep(0.001)


def tree(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its path in it, hidden ones and what lies in them left out."""
    paths = ((path.relative_to(folder), path) for path in folder.rglob("*") if path.is_file())
    return {
        str(name): path for name, path in paths if not any(p.startswith(".") for p in name.parts)
    }


def content(path: Path) -> Any:
    """A file's content without what differs from run to run. Raises FaultError for half a file."""
    try:
        if path.suffix in READERS:
            return READERS[path.suffix](path)
        if path.stat().st_size:
            return path.name  # a table or a picture with times in it
        raise ValueError("it is empty")
    except Exception as error:
        raise FaultError(f"{path.name} is not whole: {error}") from error


def rows(path: Path) -> list[Any]:
    """A table's rows, without what differs."""
    with open(path, newline="") as file:
        return [lasting(row) for row in csv.DictReader(file)]


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: lasting(json.loads(path.read_text())),
    ".jsonl": lambda path: [lasting(json.loads(x)) for x in path.read_text().splitlines()],
    ".csv": rows,
    ".safetensors": lambda path: dict(load_checkpoint(path).model.named_parameters()),
    ".pt": lambda path: states.load(path)["network"],
    ".html": Path.read_text,
    ".gz": lambda path: np.asarray(nifti.open_image(path, "result")[0].dataobj),
}


def lasting(found: Any) -> Any:
    """JSON or a row of a table, without times and memory."""
    if isinstance(found, dict):
        return {k: lasting(v) for k, v in found.items() if not k.startswith(TIMES)}
    return [lasting(x) for x in found] if isinstance(found, list) else found


def same(one: Any, other: Any) -> bool:
    """Whether two contents are equal, number by number."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)


def check_whole(name: str, folder: Path, *wholes: dict[str, Any]) -> None:
    """Raise FaultError where a killed run has left half a file, or files of two runs."""
    found = {path: content(file) for path, file in tree(folder).items()}
    if name == "train":  # goes on: its files are whole, but not yet those of the end
        return
    for unit in {str(Path(path).parent) for path in found}:
        mine = {path: x for path, x in found.items() if str(Path(path).parent) == unit}
        if not any(all(p in w and same(x, w[p]) for p, x in mine.items()) for w in wholes):
            raise FaultError(f"{sorted(mine)} in {unit} are not those of one run")


def check_kept(before: dict[str, int], folder: Path, name: str) -> None:
    """Raise FaultError where the next run did again what was done: whole cases, whole pairs."""
    kept = {"evaluate": "cases/", "cohort": "/report.json"}.get(name)
    if kept is None:
        return
    for path, when in before.items():
        if kept in path and (folder / path).stat().st_mtime_ns != when:
            raise FaultError(f"{path} was made again")


def hidden(folder: Path) -> list[str]:
    """What is hidden below a folder."""
    return sorted(str(path) for path in folder.rglob(".*"))


def campaign(one: Command, runs: int, chance: random.Random, place: Path) -> Counter[str]:
    """Kill a command so many times; what the kills came to. Raises FaultError."""
    start, whole = place / "start" / "out", place / "whole" / "out"
    for folder in (start, whole):
        folder.parent.mkdir(parents=True)
    if one.before:
        finish(one.before, start)
        shutil.copytree(start, whole)
    seconds = finish(one.words, whole)
    wholes = [{path: content(file) for path, file in tree(f).items()} for f in (start, whole)]
    found: Counter[str] = Counter()
    for number in range(runs):
        work = place / f"{number}"
        work.mkdir()
        out = work / "out"
        if start.exists():
            shutil.copytree(start, out)
        listing = sorted(work.rglob("*"))
        process = run(one.words, out)
        wait(process, seconds * (number + chance.random()) / runs)
        process.kill()
        process.join()
        listing.append(work / "stderr")
        if process.exitcode != -signal.SIGKILL:
            found["ended before"] += 1
        elif sorted(work.rglob("*")) == sorted(listing):
            found["before the first write"] += 1
        else:
            found["while it wrote"] += 1
        found["leaving hidden files"] += bool(hidden(work))
        check_whole(one.name, out, *wholes)
        kept = {path: file.stat().st_mtime_ns for path, file in tree(out).items()}
        finish(one.words, out)
        check_kept(kept, out, one.name)
        if left := hidden(work):
            raise FaultError(f"the next run left {left}")
        ends = {path: content(file) for path, file in tree(out).items()}
        if ends.keys() != wholes[1].keys():
            raise FaultError(f"the next run ended with {sorted(ends)}, not {sorted(wholes[1])}")
        if other := [path for path in ends if not same(ends[path], wholes[1][path])]:
            raise FaultError(f"the next run ended with another {other}")
        shutil.rmtree(work)
    return found


def commands(place: Path) -> list[Command]:
    """The commands to kill, on made-up data below a folder."""
    pair = synthetic_pair(GRID, GRID)
    names = ("fixed", "moving", "fixed_labels", "moving_labels")
    for name in names:
        volume = getattr(pair, name)
        nifti.save_volume(place / f"{name}.nii.gz", volume.data, volume.grid)
    files = [f"{name}.nii.gz" for name in names]
    rows = "".join(",".join([f"pair{n}", *files]) + "\n" for n in range(3))
    (place / "pairs.csv").write_text(",".join(["name", *names]) + "\n" + rows)
    pairs = [w for n in names for w in (f"--{n.replace('_', '-')}", str(place / f"{n}.nii.gz"))]
    quick = ("--iterations", "5x2", "--threads", "1", "--quiet", "--out", "OUT")
    brains = layouts.write("lpba40", place / "brains")
    training = (
        *("model.lgam=false", "model.fifm=false", "model.msfm=false", "loss.window=5"),
        *("train.epochs=2", "train.steps_per_epoch=1", "train.save_every=1", "train.lr=1e-3"),
        *("train.threads=1", "train.device=cpu", 'output.folder="OUT"'),
    )
    scoring = ("train.threads=1", "train.device=cpu", "evaluate.refine=[2]")

    def settings(*keys: str) -> tuple[str, ...]:
        return tuple(word for key in (*brains, *keys) for word in ("--set", key))

    return [
        Command("register", ("register", *pairs, *quick), ("register", *pairs, *quick, *STIFF)),
        Command("cohort", ("register", "--pairs", str(place / "pairs.csv"), *quick)),
        Command("train", ("train", "lpba40", "--quiet", *settings(*training))),
        Command("evaluate", ("evaluate", "lpba40", "--quiet", "--out", "OUT", *settings(*scoring))),
    ]


STIFF = ("--smoothness", "3")  # so that the results of the run before are others


def kill(runs: int, seed: int, report: Callable[[str], None] = print) -> int:
    """Run every campaign; returns how many found a fault."""
    torch.set_num_threads(1)  # before anything is computed: a pool of threads does not survive fork
    for module in LOADED:
        importlib.import_module(f"lganet_fast.{module}")
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for one in commands(place):
            started = time.monotonic()
            try:
                counts = campaign(one, runs, random.Random(seed), place / one.name)
                said = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
            except FaultError as fault:
                faults, said = faults + 1, f"FAULT: {fault}"
            report(f"{one.name}: {runs} runs, {said} ({time.monotonic() - started:.0f} s)")
    return faults


def main() -> int:
    """Read the options; the exit code is 1 where something is wrong."""
    parser = argparse.ArgumentParser(description="Kill commands at random moments.")
    parser.add_argument("--runs", type=int, default=50, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    return int(kill(options.runs, options.seed, lambda line: print(line, flush=True)) > 0)


if __name__ == "__main__":
    sys.exit(main())
