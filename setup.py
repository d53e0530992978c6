"""Builds the compiled operators where that is possible; the metadata lives in pyproject.toml.

Without a C++ compiler, or without torch at build time, the install is pure Python and works all the
same, slower. Without nvcc, or with a torch that is a build without CUDA, it has the CPU's operators
alone. `lganet-fast doctor` shows the reason. Environment variables:

CXX, NVCC, CUDA_HOME     the compilers; nvcc is else looked for on the PATH
LGANET_FAST_CUDA_ARCHS   compute capabilities to compile for, "8.9;9.0" say, or "all"; else those of
                         the GPUs that are visible, or a short list where there are none
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import find_packages, setup

sys.path.insert(0, str(Path(__file__).parent))  # an isolated build does not have it there
from build_support.build import BuildNative, native_extension

setup(
    packages=[*find_packages(include=["lganet_fast", "lganet_fast.*"]), "lganet_fast.kernels"],
    package_dir={"lganet_fast.kernels": "kernels"},
    ext_modules=[native_extension()],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
