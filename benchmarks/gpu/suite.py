"""The tests that need a GPU, and the build if the library does not load."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .. import ROOT
from .work import Work

PROBE = "import torch, lganet_fast._native"


def tests(work: Work) -> None:
    """`pytest -m gpu`: the number of passed tests, and the names of failed ones."""
    if importlib.util.find_spec("pytest") is None:
        work.put(told="not run: pytest is not installed")
        return
    files = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("test_*.py"))
    files = [name for name in files if "mark.gpu" in (ROOT / name).read_text(encoding="utf-8")]
    words = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    words += ["--maxfail=30", "--tb=short"]
    if importlib.util.find_spec("xdist"):
        words += ["-n", "4"]
    command = [sys.executable, "-m", "pytest", *(["--version"] if work.dry else words + files)]
    path = work.out / "tests.txt"
    with path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        while process.poll() is None and work.left() > 0.5:
            time.sleep(0.5)
            work.put(**outcome(path))
    if process.poll() is None:
        process.kill()
    work.put(now=True, code=process.wait(), **outcome(path))


def outcome(path: Path) -> dict[str, Any]:
    """The result from the output of pytest so far."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.strip().splitlines()
    dots = "".join(re.findall(r"^[.FEsxX]+(?= |$)", text, re.MULTILINE))
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+.*)", text, re.MULTILINE)
    counts = {"passed": dots.count("."), "failed": dots.count("F") + dots.count("E")}
    return {
        **counts,
        "failures": [x[:300] for x in failed],
        "last line": lines[-1] if lines else "",
    }


def build(work: Work) -> dict[str, Any]:
    """Check whether the compiled operators load; if not, compile them for the installed GPU.

    To be called before other imports.
    """
    why = loads()
    if why is None:
        return {"status": "done", "library": "the existing one loads"}
    if work.dry or shutil.which(os.environ.get("NVCC", "nvcc")) is None:
        return {"status": "failed", "reason": f"it does not load ({why}), and there is no nvcc"}
    return compiled(work, why)


def loads() -> str | None:
    """Why the library cannot be imported, or None."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1][:300]


def compiled(work: Work, why: str) -> dict[str, Any]:
    """Compile in place."""
    environment = {"LGANET_FAST_CUDA_ARCHS": architecture() or "9.0", **os.environ}
    log = work.out / "build.txt"
    started = time.monotonic()
    try:
        with log.open("w", encoding="utf-8") as output:
            subprocess.run(
                [sys.executable, "setup.py", "build_ext", "--inplace"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=max(work.left(), 1),
                check=False,
            )
    except (subprocess.TimeoutExpired, OSError) as error:
        return {"status": "failed", "reason": f"{why}; compiling it: {error}"}
    after = loads()
    told = {"before": why, "seconds compiling": round(time.monotonic() - started, 1)}
    if after is not None:
        return {"status": "failed", "reason": f"compiled, it does not load: {after}", **told}
    return {"status": "done", "library": "compiled here", **told}


def architecture() -> str | None:
    """The GPU's compute capability from the driver, such as "9.0"."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split()[0] if done.stdout.split() else None
