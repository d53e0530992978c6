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


HEADERS = Path(torch.__file__).parent / "include"
COMMAND = [
    *("g++", "-std=c++20", "-Wall", "-Wextra", "-Wshadow=local", "-Werror", "-Wno-psabi"),
    *("-Icsrc", "-isystem", HEADERS, "-isystem", sysconfig.get_path("include")),
    *("-DPy_LIMITED_API=0x030A0000", "-DTORCH_TARGET_VERSION=0x020a000000000000"),
]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def compile_quietly(*words):
    """Compile without a warning."""
    done = subprocess.run([*COMMAND, *words], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """What every source includes, read once for all of them."""
    header = tmp_path_factory.mktemp("common") / "common.h"
    header.write_text('#include "common/tensors.h"\n')
    compile_quietly("-x", "c++-header", header, "-o", f"{header}.gch")
    return header


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_no_warnings(source, common):
    compile_quietly("-fsyntax-only", "-include", common, source)
