"""The extension: what it may depend on, and what happens where it cannot be built."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lganet_fast
from lganet_fast.ops import native

ROOT = Path(__file__).parent.parent
PROBE = (
    "import torch, lganet_fast; from lganet_fast.ops import choose_backend, native;"
    "flow = torch.zeros(1, 3, 4, 4, 4); lganet_fast.ops.warp(flow, flow);"
    "print(choose_backend('warp', 'cpu').backend, '|', native.REASON)"
)


def build(folder, **environment):
    """Copy the sources and build in place there, with a changed environment; returns the note."""
    for name in ("lganet_fast", "csrc"):
        ignored = shutil.ignore_patterns("*.so", "_build.json", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, env={**os.environ, **environment}, check=True)
    return json.loads((folder / "lganet_fast" / "_build.json").read_text())["native"]


def probe(folder):
    """What a fresh process says of the package in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_without_a_compiler_the_package_is_pure_python_and_says_why(tmp_path):
    reason = build(tmp_path, CXX=str(tmp_path / "no-such-compiler"))
    assert reason == "no C++ compiler was found when it was installed"
    assert not list((tmp_path / "lganet_fast").glob("*.so"))
    assert probe(tmp_path) == f"reference | {reason}"


def test_with_a_compiler_that_fails_the_package_is_pure_python_and_says_why(tmp_path):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    reason = build(tmp_path, CXX=str(broken), CC=str(broken))
    assert reason.startswith("compiling failed")
    assert probe(tmp_path) == f"reference | {reason}"


def library():
    """The built extension of the package under test."""
    if not native.LOADED:
        pytest.skip(f"no compiled extension: {native.REASON}")
    (path,) = Path(lganet_fast.__file__).parent.glob("_native*.so")
    return path


def test_runs_without_a_gpu_or_a_driver():
    path = library()
    assert probe(path.parent.parent) == "native | None"


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_refers_to_nothing_outside_the_stable_interface_of_torch():
    command = ["nm", "-D", "--undefined-only", str(library())]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    symbols = [line.split()[-1] for line in listing.splitlines()]
    torch_symbols = [s for s in symbols if re.search(r"torch|aoti|at\d|c10|3c10|2at", s)]
    stable = re.compile(r"^(torch_|aoti_torch_)")
    assert torch_symbols
    assert [s for s in torch_symbols if not stable.match(s)] == []
