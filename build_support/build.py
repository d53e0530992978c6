"""The build command: compiles the extension if possible, else installs without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension
from setuptools.command.build_ext import build_ext

from . import environment
from .errors import NotPossibleError, first_error
from .nvcc import Nvcc

WORDS = 180  # characters of a compiler's message that doctor shows
ROOT = Path(__file__).parents[1]
# PyTorch 2.10, the oldest version whose stable ABI has all functions used
TORCH_TARGET = "0x020a000000000000"


def found(*endings: str) -> list[Path]:
    """The files of csrc/ with one of some endings, relative to ROOT, as setuptools wants them."""
    paths = (ROOT / "csrc").rglob("*")
    return sorted(path.relative_to(ROOT) for path in paths if path.suffix in endings)


CUDA_SOURCES = found(".cu")
HEADERS = found(".h", ".cuh", ".inl")
RECIPE = [ROOT / "setup.py", *Path(__file__).parent.glob("*.py")]  # of all objects


def native_extension() -> Extension:
    """The extension without the objects for CUDA."""
    return Extension(
        "lganet_fast._native",
        list(map(str, found(".cpp"))),
        depends=list(map(str, HEADERS)),
        libraries=["torch_cpu"],
        define_macros=[("Py_LIMITED_API", "0x030A0000"), ("TORCH_TARGET_VERSION", TORCH_TARGET)],
        extra_compile_args=[
            "-std=c++20",
            "-O3",
            "-ffp-contract=fast",
            "-fno-math-errno",
            "-fno-trapping-math",
            "-fvisibility=hidden",
            "-Wno-psabi",  # no vectors are passed between libraries
            "-g0",
        ],
        py_limited_api=True,
        language="c++",
    )


def missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    if os.name != "posix":
        return "only Linux and macOS builds compile it"
    if not shutil.which(environment.cxx() or "c++"):
        return "no C++ compiler was found when it was installed"
    try:
        import torch  # noqa: F401
    except ImportError:
        return "torch was missing when it was built"
    return None


def run_compiler(command: Sequence[Any], **_: Any) -> None:
    """Run a compiler or linker; raises NotPossibleError with its message if it fails."""
    done = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, errors="replace"
    )
    sys.stderr.write(done.stdout + done.stderr)
    if done.returncode:
        said = first_error(done.stderr + done.stdout)
        raise NotPossibleError(said or f"{command[0]} failed without a message")


def torch_folder(*parts: str) -> str:
    """A folder inside torch."""
    import torch

    return str(Path(torch.__file__).parent.joinpath(*parts))


def include_folders() -> list[str]:
    """The folders of the headers."""
    api = torch_folder("include", "torch", "csrc", "api", "include")
    return ["csrc", torch_folder("include"), api]


class BuildNative(build_ext):
    """Compiles if possible, and writes a note for `doctor` in any case."""

    def run(self) -> None:
        """Build; a failure is recorded, not raised."""
        environment.cuda_archs()  # raises for an unknown architecture
        archs, inplace = None, self.inplace  # the base class changes it while it runs
        try:
            reason = no_cuda = missing()
            if reason is None:
                self.use_torch()
                archs, no_cuda = self.use_cuda()
                super().run()
        except Exception as error:  # any failure must leave a working pure-Python install
            words = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = no_cuda = f"compiling failed: {words[:WORDS]}"
            self.announce(f"lganet_fast: {reason}; installing without it", level=3)
        self.inplace = inplace
        if reason is not None:
            self.extensions.clear()
        self.leave_note({"native": reason, "cuda": no_cuda, "archs": archs})

    def use_torch(self) -> None:
        """Point the extension at torch's headers and libraries."""
        for extension in self.extensions:
            extension.include_dirs += include_folders()
            extension.library_dirs.append(torch_folder("lib"))

    def build_extension(self, extension: Extension) -> None:
        """Compile the files that have changed, several at a time, then link."""

        def compile_one(source: str) -> str:
            (target,) = self.compiler.object_filenames([source], output_dir=self.build_temp)
            if not self.fresh(source, Path(target)):
                self.compiler.compile(
                    [source],
                    output_dir=self.build_temp,
                    macros=extension.define_macros,
                    include_dirs=extension.include_dirs,
                    extra_postargs=extension.extra_compile_args,
                )
            return target

        self.compiler.spawn = self.compiler.call = run_compiler  # old and new setuptools
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            extension.extra_objects += pool.map(compile_one, extension.sources)
        extension.sources = []
        self.force = True  # link always: whether CUDA is included may have changed
        super().build_extension(extension)

    def fresh(self, source: str | Path, target: Path) -> bool:
        """Whether an object is newer than all its sources."""
        newest = max(Path(path).stat().st_mtime for path in (source, *RECIPE, *HEADERS))
        return not self.force and target.exists() and target.stat().st_mtime > newest

    def use_cuda(self) -> tuple[list[str] | None, str | None]:
        """Compile the CUDA sources and add them to the extension.

        Returns the compute capabilities, or the reason why CUDA was not compiled; the other None.
        """
        try:
            nvcc = Nvcc()
            objects = {source: Path(self.build_temp) / f"{source}.o" for source in CUDA_SOURCES}
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(lambda s: self.use_nvcc(nvcc, s, objects[s]), CUDA_SOURCES))
            for extension in self.extensions:
                extension.extra_objects += map(str, objects.values())
                extension.library_dirs += nvcc.library_folders()
                extension.libraries += ["cudart_static", "rt", "dl", "pthread"]
        except NotPossibleError as error:
            self.announce(f"lganet_fast: {error}; installing without CUDA", level=3)
            return None, str(error)
        return nvcc.capabilities, None

    def use_nvcc(self, nvcc: Nvcc, source: Path, target: Path) -> None:
        """Compile one file, unless its object is newer than all its sources."""
        asked = target.with_suffix(".archs")
        archs = " ".join(nvcc.codes)
        if self.fresh(source, target) and asked.exists() and asked.read_text() == archs:
            return
        nvcc.compile(source, target, include_folders(), f"TORCH_TARGET_VERSION={TORCH_TARGET}")
        asked.write_text(archs)

    def leave_note(self, found: dict[str, Any]) -> None:
        """Write the note that `doctor` reads into the package."""
        folder = ROOT if self.inplace else Path(self.build_lib)
        note = folder / "lganet_fast" / "_build.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(found) + "\n")
