"""The CUDA kernels, compiled for the host and run under the address and undefined sanitizers.

What is built and run is in tests/cuda/host, one pair of files for every operation; host_cuda.h
there says how to add one.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "host"
CSRC = Path(__file__).parents[2] / "csrc"
OPERATIONS = sorted(path.stem for path in HERE.glob("*.cpp"))
FLAGS = [
    *("-std=c++20", "-O0", "-g1", "-fPIC", "-shared", "-pthread", "-Wno-unknown-pragmas"),
    '-DLGANET_LAUNCH_HEADER="host_cuda.h"',
    '-DLGANET_MMA_HEADER="host_mma.h"',
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fvisibility=hidden"),
]


def missing():
    """What this machine lacks to build the kernels for the host; None where it lacks nothing."""
    for module in ("pybind11", "ninja", "torch"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    if sys.platform != "linux" or shutil.which("g++") is None:
        return "needs g++ on Linux"
    if not Path(runtime("libasan.so")).is_absolute():
        return "g++ comes without libasan"
    return None


def runtime(name):
    """Where g++ has a library; the bare name where it does not have it."""
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


pytestmark = pytest.mark.skipif(missing() is not None, reason=f"host build: {missing()}")


def write_rules(folder):
    """A ninja file that builds host_<operation>.so for every operation."""
    import pybind11

    torch_headers = Path(importlib.util.find_spec("torch").origin).parent / "include"
    paths = [HERE, CSRC, pybind11.get_include(), sysconfig.get_path("include"), torch_headers]
    includes = [f"-I{path}" for path in paths]
    lines = [
        "rule host",
        f"  command = g++ -MD -MF $out.d {shlex.join(FLAGS + includes)} $in -o $out",
        "  depfile = $out.d",
        *(f"build host_{name}.so: host {HERE / name}.cpp" for name in OPERATIONS),
    ]
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")


def ninja(folder, *targets):
    """Run ninja in `folder`, two compilers at a time."""
    command = [sys.executable, "-m", "ninja", "-C", str(folder), "-j2", "-k0", *targets]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def built():
    """The folder of the modules; what is up to date there is not compiled again."""
    folder = Path(__file__).parents[2] / "build" / "cuda_host"
    folder.mkdir(parents=True, exist_ok=True)
    write_rules(folder)
    ninja(folder)  # all together; each operation's own test reports what failed
    return folder


@pytest.mark.parametrize("operation", OPERATIONS)
def test_kernels_compile_for_the_host(operation, built):
    done = ninja(built, f"host_{operation}.so")
    assert done.returncode == 0, done.stdout


def test_kernels_under_sanitizers(built):
    """Those that compile, in one process."""
    paths = [built, HERE.parent, *sys.path]
    environment = os.environ | {
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-s"]
    there = (name for name in OPERATIONS if (built / f"host_{name}.so").exists())
    command += [str(HERE / f"check_{name}.py") for name in there]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
