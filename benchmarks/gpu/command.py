"""The command line: reads the options and runs the phases in order."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .conductor import Phase, conduct
from .work import Work, save

NAMES = (
    "build",
    "card",
    "compiled",
    "warm",
    "tests",
    "kernels",
    "network",
    "tune",
    "profile",
    "timing",
    "register",
    "tools",
)
BUILD = 150.0  # seconds for compiling, and at most a third of the deadline


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="the report's folder")
    parser.add_argument("--deadline", type=float, default=450, help="seconds until the end")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="PHASE", help=", ".join(NAMES))
    parser.add_argument(
        "--tune", action="store_true", help="also write the winners to ~/.cache/lganet_fast"
    )
    parser.add_argument("--quick", action="store_true", help="run the network in fewer ways")
    parser.add_argument("--dry-run", action="store_true", help="run on substitutes, without a GPU")
    return parser


def phases() -> list[Phase]:
    """All phases in order, with their limits in seconds."""
    from . import card, kernels, network, profiling, registering, suite, timings, tools, tune, warm

    return [
        Phase("card", card.run, 15),
        Phase("compiled", timings.compile_beside, 330, beside="timing"),
        Phase("warm", warm.run, 120, beside="tune"),
        Phase("tests", suite.tests, 150, beside="tune"),
        Phase("kernels", kernels.run, 55),
        Phase("network", network.run, 40),
        Phase("tune", tune.run, 120),
        Phase("profile", profiling.run, 45),
        Phase("timing", timings.run, 120),
        Phase("register", registering.run, 25),
        Phase("tools", tools.run, 20),
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Run the phases; the exit status is 0 once a report is written."""
    started = time.monotonic()
    given = parser().parse_args(words)
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    options = {"dry": given.dry_run, "quick": given.quick, "tune": given.tune}
    work = Work("", out, started + given.deadline, **options)
    only = given.only or NAMES
    before = prepared(work, only)
    from . import render  # imports torch: after the build

    wanted = [phase for phase in phases() if phase.name in only]
    report = conduct(wanted, work, render.markdown, before, started)
    print(f"written: {out / 'report.md'}, after {report['seconds']} s")


def prepared(work: Work, only: Sequence[str]) -> dict[str, dict[str, object]]:
    """Build, and set the folders for compiled kernels and results; returns results by phase."""
    from . import suite

    os.environ.setdefault(
        "PYTORCH_NVML_BASED_CUDA_CHECK", "1"
    )  # a query must not initialise CUDA, or forks fail
    place = tempfile.mkdtemp(prefix="lganet_fast-")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{place}/inductor")
    if not work.tune:  # use only the winners of this run
        os.environ["XDG_CACHE_HOME"] = f"{place}/cache"
    if work.dry:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if "build" not in only:
        return {}
    started = time.monotonic()
    limit = min(BUILD, work.left() / 3)
    own = Work("build", work.out, started + limit, dry=work.dry)
    try:
        found = suite.build(own)
    except Exception as error:
        found = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    found["seconds"] = round(time.monotonic() - started, 2)
    save(own.file, found)
    return {"build": found}
