"""The environment variables for compiling; setup.py lists them."""

from __future__ import annotations

import os
import re
import shlex
import sys

CUDA_ARCHS = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


def cxx() -> str | None:
    """The C++ compiler of CXX without its options; None for the default compiler.

    An empty CXX is removed from the environment, because setuptools reads it too.
    """
    if "CXX" not in os.environ:
        return None
    if not os.environ["CXX"].strip():
        del os.environ["CXX"]
        return None
    return shlex.split(os.environ["CXX"])[0]


def nvcc() -> str:
    """The name or path of nvcc."""
    home = os.environ.get("CUDA_HOME")
    there = home and f"{home}/bin/nvcc"
    return os.environ.get("NVCC") or (there if there and os.path.exists(there) else "nvcc")


def cuda_archs() -> tuple[str, ...]:
    """The compute capabilities in LGANET_FAST_CUDA_ARCHS; empty if it is not set."""
    text = os.environ.get("LGANET_FAST_CUDA_ARCHS", "").strip()
    if not text:
        return ()
    if text == "all":
        return CUDA_ARCHS
    archs = tuple(re.split(r"[;,\s]+", text))
    if any(arch not in CUDA_ARCHS for arch in archs):
        sys.exit(
            f"LGANET_FAST_CUDA_ARCHS must name some of {', '.join(CUDA_ARCHS)}, "
            f"separated by semicolons, or be all; got {text!r}"
        )
    return archs
