"""Builds the compiled operators where that is possible; the metadata lives in pyproject.toml.

Without a C++ compiler, or without torch at build time, the install is pure Python and works all the
same, slower. Without nvcc, or with a torch that is a build without CUDA, it has the CPU's operators
alone. `lganet-fast doctor` shows the reason. Environment variables:

CXX, NVCC, CUDA_HOME     the compilers; nvcc is else looked for on the PATH
LGANET_FAST_CUDA_ARCHS   compute capabilities to compile for, "8.9;9.0" say, or "all"; else those of
                         the GPUs that are visible, or a short list where there are none
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

WORDS = 180  # characters of what a compiler says that doctor shows
ROOT = Path(__file__).parent
TORCH_TARGET = "0x020a000000000000"  # PyTorch 2.10, the oldest whose stable ABI has what is used
SOURCES = sorted(str(path) for path in Path("csrc").rglob("*.cpp"))
CUDA_SOURCES = sorted(Path("csrc").rglob("*.cu"))
HEADERS = sorted(str(path) for kind in ("*.h", "*.cuh") for path in Path("csrc").rglob(kind))
CUDA_ARCHS = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
# Where no GPU is visible: code for 8.0 also runs on 8.6 and 8.9, and drivers translate the PTX of
# 9.0, which is always added, for 10.0 and later.
FEW_CUDA_ARCHS = ("8.0", "9.0")


class NotPossibleError(Exception):
    """Why something cannot be compiled here."""


def missing():
    """Why nothing can be compiled here; None where it can."""
    if os.name != "posix":
        return "only Linux and macOS builds compile it"
    if not os.environ.get("CXX", "c++").strip():
        del os.environ["CXX"]  # set, but to nothing
    if not shutil.which(shlex.split(os.environ.get("CXX", "c++"))[0]):
        return "no C++ compiler was found when it was installed"
    try:
        import torch  # noqa: F401
    except ImportError:
        return "torch was missing when it was built"
    return None


def run_compiler(command, **_):
    """Run a compiler or linker; where it fails, the exception has its own words."""
    done = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, errors="replace"
    )
    sys.stderr.write(done.stdout + done.stderr)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        wrong = [line for line in lines if "error" in line.lower()]
        raise NotPossibleError((wrong or lines or [f"{command[0]} failed without a word"])[0])


def torch_folder(*parts):
    """A folder inside torch."""
    import torch

    return str(Path(torch.__file__).parent.joinpath(*parts))


def asked_archs():
    """The compute capabilities that LGANET_FAST_CUDA_ARCHS names; None where it is not set."""
    text = os.environ.get("LGANET_FAST_CUDA_ARCHS", "").strip()
    if not text:
        return None
    if text == "all":
        return list(CUDA_ARCHS)
    archs = re.split(r"[;,\s]+", text)
    wrong = [arch for arch in archs if arch not in CUDA_ARCHS]
    if wrong:
        sys.exit(
            f"LGANET_FAST_CUDA_ARCHS must name some of {', '.join(CUDA_ARCHS)}, "
            f"separated by semicolons, or be all; got {text!r}"
        )
    return archs


def visible_archs():
    """The compute capabilities of the GPUs that are visible; none where that stays unknown."""
    try:
        import torch

        count = torch.cuda.device_count()
        return sorted({"{}.{}".format(*torch.cuda.get_device_capability(i)) for i in range(count)})
    except Exception:  # a driver that is broken, say, is no reason not to compile
        return []


def codes_of(archs):
    """Compute capabilities as nvcc writes them: 90 for 9.0."""
    return {arch.replace(".", "") for arch in archs}


class Nvcc:
    """The CUDA compiler; raises NotPossibleError where there is none that fits torch."""

    def __init__(self):
        import torch

        if torch.version.cuda is None:
            raise NotPossibleError("torch was a build without CUDA when it was built")
        home = os.environ.get("CUDA_HOME")
        named = os.environ.get("NVCC") or (home and shutil.which(f"{home}/bin/nvcc"))
        self.path = shutil.which(named or "nvcc")
        if self.path is None:
            raise NotPossibleError("no nvcc was found when it was installed")
        version = re.search(r"release (\d+)\.", self.output("--version"))
        wanted = torch.version.cuda.split(".")[0]
        if version is None or version[1] != wanted:
            raise NotPossibleError(
                f"nvcc is of CUDA {version[1] if version else 'unknown'}, torch of {wanted}"
            )
        self.codes = self.find_architectures()

    def output(self, *arguments):
        """What nvcc prints."""
        done = subprocess.run([self.path, *arguments], check=False, capture_output=True, text=True)
        if done.returncode:
            text = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
            wrong = [line for line in text if "error" in line.lower()]
            raise NotPossibleError(f"compiling for CUDA failed: {(wrong or text)[0].strip()}")
        return done.stdout + done.stderr

    def library_folders(self):
        """Where the static CUDA runtime is; nvcc knows it, wherever it was installed."""
        line = next(x for x in self.output("--dryrun", "a.o").splitlines() if "LIBRARIES=" in x)
        return re.findall(r"-L([^\"\s]+)", line)

    def find_architectures(self):
        """Choose what to compile for; returns codes in order of age."""
        known = set(re.findall(r"sm_(\d+)", self.output("--list-gpu-code")))
        asked = asked_archs()
        codes = codes_of(asked or visible_archs())
        if asked and asked != list(CUDA_ARCHS) and codes - known:
            unknown = sorted(codes - known, key=int)
            raise NotPossibleError(f"this nvcc cannot compile for sm_{', sm_'.join(unknown)}")
        if not asked and (not codes or codes - known or min(map(int, codes)) < 80):
            codes = codes_of(FEW_CUDA_ARCHS)
        return sorted(codes & known, key=int)

    def architectures(self):
        """Flags: PTX for each generation, machine code from it, and the newest PTX itself."""
        first = {}
        for code in self.codes:
            first.setdefault("80" if int(code) < 90 else "90", []).append(code)
        flags = [
            f"-gencode=arch=compute_{codes[0]},code=sm_{code}"
            for codes in first.values()
            for code in codes
        ]
        newest = list(first.values())[-1][0]
        return [*flags, f"-gencode=arch=compute_{newest},code=compute_{newest}"]

    def compile(self, source, target, include_folders):
        """Compile one file; several of its architectures at a time."""
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CXX")
        self.output(
            *("-std=c++20", "-O3", "--expt-relaxed-constexpr"),
            *("-c", str(source), "-o", str(target)),
            *("-Xcompiler", "-fPIC,-fvisibility=hidden", "--threads", "2"),
            *(f"-I{folder}" for folder in include_folders),
            f"-DTORCH_TARGET_VERSION={TORCH_TARGET}",
            *(("-ccbin", shlex.split(compiler)[0]) if compiler else ()),
            *self.architectures(),
        )


class BuildNative(build_ext):
    """Compile if possible, and leave a note for `doctor` either way."""

    def run(self):
        """Build; a failure is recorded, not raised."""
        asked_archs()  # a wrong name is an error, not a reason to go without
        inplace = self.inplace  # the base class changes it while it runs
        try:
            reason = no_cuda = missing()
            if reason is None:
                self.use_torch()
                no_cuda = self.use_cuda()
                super().run()
        except Exception as error:  # any failure must leave a working pure-Python install
            words = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = no_cuda = f"compiling failed: {words[:WORDS]}"
            self.announce(f"lganet_fast: {reason}; installing without it", level=3)
        self.inplace = inplace
        if reason is not None:
            self.extensions.clear()
        self.leave_note({"native": reason, "cuda": no_cuda})

    def use_torch(self):
        """Point the extension at torch's headers and libraries."""
        for extension in self.extensions:
            extension.include_dirs += self.include_folders()
            extension.library_dirs.append(torch_folder("lib"))

    def build_extension(self, extension):
        """Compile several files at a time, those that have changed, then link."""

        def compile_one(source):
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
        self.force = True  # always linked: with or without CUDA, that may have changed
        super().build_extension(extension)

    def fresh(self, source, target):
        """Whether an object is newer than all that it is made of."""
        newest = max(Path(x).stat().st_mtime for x in (source, __file__, *HEADERS))
        return not self.force and target.exists() and target.stat().st_mtime > newest

    def include_folders(self):
        """Where the headers are."""
        api = torch_folder("include", "torch", "csrc", "api", "include")
        return ["csrc", torch_folder("include"), api]

    def use_cuda(self):
        """Compile the CUDA sources and add them to the extension; returns why not, or None."""
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
            return str(error)
        return None

    def use_nvcc(self, nvcc, source, target):
        """Compile one file, unless its object is newer than all that it is made of."""
        asked = target.with_suffix(".archs")
        archs = " ".join(nvcc.codes)
        if self.fresh(source, target) and asked.exists() and asked.read_text() == archs:
            return
        nvcc.compile(source, target, self.include_folders())
        asked.write_text(archs)

    def leave_note(self, reasons):
        """Write the reasons beside the package's modules."""
        folder = ROOT if self.inplace else Path(self.build_lib)
        note = folder / "lganet_fast" / "_build.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(reasons) + "\n")


native = Extension(
    "lganet_fast._native",
    SOURCES,
    depends=HEADERS,
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
    packages=[*find_packages(include=["lganet_fast", "lganet_fast.*"]), "lganet_fast.kernels"],
    package_dir={"lganet_fast.kernels": "kernels"},
    ext_modules=[native],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
