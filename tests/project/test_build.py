"""The extension: what it may depend on, and what happens where it cannot be built."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from machine_code import cuobjdump, needs_cuobjdump

import lganet_fast
from lganet_fast.ops import native

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last, as in test_benchmarks

from build_support.errors import NotPossibleError  # noqa: E402
from build_support.nvcc import Nvcc  # noqa: E402

PROBE = (
    "import torch, lganet_fast; from lganet_fast.ops import choose_backend, native;"
    "flow = torch.zeros(1, 3, 4, 4, 4); lganet_fast.ops.warp(flow, flow);"
    "print(choose_backend('warp', 'cpu').backend, '|', native.REASON)"
)


def copy_sources(folder):
    """Copy what a build needs."""
    for name in ("lganet_fast", "csrc", "build_support"):
        ignored = shutil.ignore_patterns("*.so", "_build.json", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)


def run_setup(folder, environment):
    """Build in place in `folder` with a changed environment; returns the finished process."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True
    )


def note_of(folder):
    """What the build in `folder` left for the package."""
    return json.loads((folder / "lganet_fast" / "_build.json").read_text())


def build(folder, **environment):
    """Build a copy; returns why there is no extension."""
    copy_sources(folder)
    done = run_setup(folder, environment)
    assert done.returncode == 0, done.stderr
    assert note_of(folder)["cuda"] == note_of(folder)["native"]
    return note_of(folder)["native"]


def build_little(folder, **environment):
    """Build a copy with one small source of each kind; returns why it is without CUDA."""
    copy_sources(folder)
    for path in (folder / "csrc").rglob("*.c*"):
        if path.suffix in (".cpp", ".cu") and path.name != "module.cpp":
            path.unlink()
    (folder / "csrc" / "little.cu").write_text("__global__ void little(int* x) { ++*x; }\n")
    done = run_setup(folder, environment)
    assert done.returncode == 0, done.stderr
    assert note_of(folder)["native"] is None
    assert len(list((folder / "lganet_fast").glob("_native*.so"))) == 1
    return note_of(folder)["cuda"]


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


OLD = """#!/bin/sh
for word in "$@"; do
    [ "$word" = -std=c++20 ] && { echo "g++: error: unknown option '-std=c++20'" >&2; exit 1; }
done
"""


@pytest.mark.parametrize("empty", [False, True])
def test_a_compiler_that_is_too_old_is_heard_in_its_own_words(tmp_path, empty):
    old = tmp_path / "bin" / "c++"
    old.parent.mkdir()
    for name in ("c++", "g++", "gcc", "cc"):
        old.with_name(name).write_text(OLD)
        old.with_name(name).chmod(0o755)
    path = f"{old.parent}{os.pathsep}{os.environ['PATH']}"
    reason = build(tmp_path, CXX=" " if empty else str(old), CC=str(old), PATH=path, NVCC="none")
    assert reason == "compiling failed: g++: error: unknown option '-std=c++20'"


def test_an_environment_that_makes_no_sense_breaks_no_install(tmp_path):
    assert build(tmp_path, CXX="'").startswith("compiling failed")


def test_the_source_distribution_has_every_source(tmp_path):
    copy_sources(tmp_path)
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    shutil.copy(ROOT / "MANIFEST.in", tmp_path)
    command = [sys.executable, "setup.py", "-q", "sdist", "-d", "dist"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (made,) = (tmp_path / "dist").iterdir()
    with tarfile.open(made) as file:
        names = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    folders = ("build_support", "csrc", "kernels")
    sources = (path for name in folders for path in (ROOT / name).rglob("*.*"))
    wanted = {str(path.relative_to(ROOT)) for path in sources if path.suffix != ".pyc"}
    assert wanted <= names


needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="needs a C++ compiler"
)
needs_nvcc = pytest.mark.skipif(
    not torch.version.cuda or shutil.which("nvcc") is None,
    reason="needs nvcc and a build of PyTorch with CUDA",
)
needs_cuda_torch = pytest.mark.skipif(not torch.version.cuda, reason="PyTorch is without CUDA")


def script(path, text):
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_compiler
@needs_cuda_torch
def test_without_nvcc_there_is_a_build_for_the_cpu(tmp_path):
    reason = build_little(tmp_path, NVCC=str(tmp_path / "no-such-nvcc"))
    assert reason == "no nvcc was found when it was installed"


@needs_cuda_torch
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("echo little.cu: error: no; exit 1", "compiling for CUDA failed: little.cu: error: no"),
        ("echo release 1.0, V1.0.1", "nvcc is of CUDA 1, torch of "),
    ],
)
def test_an_nvcc_that_does_not_do_is_refused(tmp_path, monkeypatch, body, expected):
    monkeypatch.setenv("NVCC", script(tmp_path / "nvcc", body))
    with pytest.raises(NotPossibleError, match=expected):
        Nvcc()


def built_for(folder):
    """The architectures that a build in `folder` has machine code for, and PTX for."""
    (path,) = (folder / "lganet_fast").glob("_native*.so")
    elf, ptx = (cuobjdump(option, path=path) for option in ("--list-elf", "--list-ptx"))
    return set(re.findall(r"sm_\d+", elf)), set(re.findall(r"sm_\d+", ptx))


@needs_compiler
@needs_nvcc
@needs_cuobjdump
def test_architectures_can_be_chosen(tmp_path):
    """Neither a device nor a driver is needed to compile for one."""
    choice = {"LGANET_FAST_CUDA_ARCHS": "8.9; 8.0", "CUDA_VISIBLE_DEVICES": ""}
    assert build_little(tmp_path, **choice) is None
    assert built_for(tmp_path) == ({"sm_80", "sm_89"}, {"sm_80"})
    assert note_of(tmp_path)["archs"] == ["8.0+PTX", "8.9"]


FEW, EVERY = ["80", "90"], ["80", "86", "89", "90", "100", "120"]


@needs_nvcc
@pytest.mark.parametrize(
    ("asked", "device", "codes", "ptx"),
    [
        ("all", (8, 9), EVERY, "90"),
        ("8.6", (9, 0), ["86"], "86"),
        ("", (8, 9), ["89"], "89"),
        ("", (7, 5), FEW, "90"),
        ("", None, FEW, "90"),
    ],
)
def test_what_is_compiled_for(asked, device, codes, ptx, monkeypatch):
    """What is asked for, else the visible GPU; one that is too old or broken changes nothing."""

    def capability(_):
        if device is None:
            raise RuntimeError
        return device

    monkeypatch.setenv("LGANET_FAST_CUDA_ARCHS", asked)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    nvcc = Nvcc()
    assert (nvcc.codes, nvcc.ptx) == (codes, ptx)
    flags = " ".join(nvcc.architectures())
    assert re.findall(r"code=sm_(\d+)", flags) == codes
    assert re.findall(r"code=compute_(\d+)", flags) == [ptx]


def test_architectures_that_do_not_exist_are_an_error(tmp_path):
    copy_sources(tmp_path)
    environment = {"LGANET_FAST_CUDA_ARCHS": "8.9;native"}
    done = run_setup(tmp_path, environment)
    assert done.returncode != 0
    assert "LGANET_FAST_CUDA_ARCHS must name some of 8.0, 8.6" in done.stderr
    assert "separated by semicolons, or be all; got '8.9;native'" in done.stderr


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
    # nor to the CUDA runtime or driver: the one is linked in, the other found when it is needed
    assert [s for s in symbols if re.match(r"cuda|cu[A-Z]|aoti_torch_get_current_cuda", s)] == []
