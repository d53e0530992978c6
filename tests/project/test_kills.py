"""Commands killed at a moment; `python -m tests.kills` kills them at any number of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lganet_fast

ROOT = Path(__file__).parents[2]


def test_killed_commands_leave_nothing_partial_and_go_on():
    """In a process of its own, which forks: no thread may run in it."""
    package = Path(lganet_fast.__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(package), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.kills", "--runs", "1", "--seed", "0"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 runs") == 4
