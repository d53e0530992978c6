"""Builds the compiled operators where that is possible; the metadata lives in pyproject.toml.

Without a C++ compiler, or without torch at build time, the install is pure Python and works all the
same, slower; `lganet-fast doctor` shows the reason.
"""

import json
import os
import shutil
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

TORCH_TARGET = "0x020a000000000000"  # PyTorch 2.10, the oldest whose stable ABI has what is used
SOURCES = sorted(str(path) for path in Path("csrc").glob("*.cpp"))


def missing():
    """Why nothing can be compiled here; None where it can."""
    if os.name != "posix":
        return "only Linux and macOS builds compile it"
    if not shutil.which(os.environ.get("CXX", "c++").split()[0]):
        return "no C++ compiler was found when it was installed"
    try:
        import torch  # noqa: F401
    except ImportError:
        return "torch was missing when it was built"
    return None


class BuildNative(build_ext):
    """Compile if possible, and leave a note for `doctor` either way."""

    def run(self):
        """Build; a failure is recorded, not raised."""
        reason = missing()
        inplace = self.inplace  # the base class changes it while it runs
        if reason is None:
            try:
                self.use_torch()
                super().run()
            except Exception as error:  # any failure must leave a working pure-Python install
                reason = f"compiling failed: {str(error).strip().splitlines()[0]}"
                self.announce(f"lganet_fast: {reason}; installing without it", level=3)
        self.inplace = inplace
        if reason is not None:
            self.extensions.clear()
        self.leave_note(reason)

    def use_torch(self):
        """Point the extension at torch's headers and libraries."""
        from torch.utils import cpp_extension

        for extension in self.extensions:
            extension.include_dirs += ["csrc", *cpp_extension.include_paths()]
            extension.library_dirs += cpp_extension.library_paths()

    def leave_note(self, reason):
        """Write the reason beside the package's modules."""
        folder = Path(__file__).parent if self.inplace else Path(self.build_lib)
        note = folder / "lganet_fast" / "_build.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"native": reason}) + "\n")


native = Extension(
    "lganet_fast._native",
    SOURCES,
    depends=[str(path) for path in Path("csrc").glob("*.h")],
    libraries=["torch_cpu"],
    define_macros=[("Py_LIMITED_API", "0x030A0000"), ("TORCH_TARGET_VERSION", TORCH_TARGET)],
    extra_compile_args=[
        "-std=c++20",
        "-O3",
        "-ffp-contract=fast",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-fvisibility=hidden",
        "-Wno-psabi",  # vectors are never passed between two libraries
        "-g0",
    ],
    py_limited_api=True,
    language="c++",
)

setup(
    packages=find_packages(include=["lganet_fast", "lganet_fast.*"]),
    ext_modules=[native],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
