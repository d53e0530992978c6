"""The C++ sources compile without a warning, of one name behind another above all."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path.relative_to(ROOT) for path in (ROOT / "csrc").rglob("*.cpp"))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_no_warnings(source):
    headers = Path(torch.__file__).parent / "include"
    done = subprocess.run(
        [
            *("g++", "-std=c++20", "-fsyntax-only"),
            *("-Wall", "-Wextra", "-Wshadow=local", "-Werror", "-Wno-psabi"),
            *("-Icsrc", "-isystem", headers, "-isystem", sysconfig.get_path("include")),
            *("-DPy_LIMITED_API=0x030A0000", "-DTORCH_TARGET_VERSION=0x020a000000000000"),
            source,
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
