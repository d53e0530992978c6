"""The CUDA compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from . import environment
from .environment import CUDA_ARCHS
from .errors import NotPossibleError, first_error

# If no GPU is visible: code for 8.0 also runs on 8.6 and 8.9, and drivers translate the PTX of 9.0,
# which is always added, for 10.0 and later.
FEW_CUDA_ARCHS = ("8.0", "9.0")
OLDEST = 80  # compute capability 8.0


class Nvcc:
    """The CUDA compiler. Raises NotPossibleError if there is none for the CUDA version of torch.

    codes: the compute capabilities to compile for, as nvcc writes them, ascending.
    """

    def __init__(self) -> None:
        import torch

        if torch.version.cuda is None:
            raise NotPossibleError("torch was a build without CUDA when it was built")
        path = shutil.which(environment.nvcc())
        if path is None:
            raise NotPossibleError("no nvcc was found when it was installed")
        self.path = path
        version = re.search(r"release (\d+)\.", self.output("--version"))
        wanted = torch.version.cuda.split(".")[0]
        if version is None or version[1] != wanted:
            raise NotPossibleError(
                f"nvcc is of CUDA {version[1] if version else 'unknown'}, torch of {wanted}"
            )
        self.codes = self.choose_codes()

    def output(self, *arguments: str) -> str:
        """The output of nvcc. Raises NotPossibleError if it fails."""
        done = subprocess.run([self.path, *arguments], check=False, capture_output=True, text=True)
        if done.returncode:
            said = first_error(done.stderr.strip() or done.stdout) or "no output"
            raise NotPossibleError(f"compiling for CUDA failed: {said}")
        return done.stdout + done.stderr

    def library_folders(self) -> list[str]:
        """The folders of the static CUDA runtime, from nvcc."""
        line = next(x for x in self.output("--dryrun", "a.o").splitlines() if "LIBRARIES=" in x)
        return re.findall(r"-L([^\"\s]+)", line)

    def choose_codes(self) -> list[str]:
        """The requested architectures, else those of visible GPUs, else a few that run on all."""
        known = set(re.findall(r"sm_(\d+)", self.output("--list-gpu-code")))
        asked = environment.cuda_archs()
        codes = codes_of(asked or visible_archs())
        if asked and asked != CUDA_ARCHS and codes - known:
            unknown = sorted(codes - known, key=int)
            raise NotPossibleError(f"this nvcc cannot compile for sm_{', sm_'.join(unknown)}")
        if not asked and (not codes or codes - known or min(map(int, codes)) < OLDEST):
            codes = codes_of(FEW_CUDA_ARCHS)
        return sorted(codes & known, key=int)

    def architectures(self) -> list[str]:
        """Flags for machine code of each architecture, and for the newest PTX."""
        first: dict[str, list[str]] = {}
        for code in self.codes:
            first.setdefault("80" if int(code) < 90 else "90", []).append(code)
        flags = [
            f"-gencode=arch=compute_{codes[0]},code=sm_{code}"
            for codes in first.values()
            for code in codes
        ]
        return [*flags, f"-gencode=arch=compute_{self.ptx},code=compute_{self.ptx}"]

    @property
    def ptx(self) -> str:
        """The architecture of the PTX: the first of the newest generation."""
        return next((code for code in self.codes if int(code) >= 90), self.codes[0])

    @property
    def capabilities(self) -> list[str]:
        """The compute capabilities with code, such as 9.0, or 9.0+PTX with PTX."""
        return [f"{c[:-1]}.{c[-1]}" + "+PTX" * (c == self.ptx) for c in self.codes]

    def compile(self, source: Path, target: Path, includes: Iterable[str], macro: str) -> None:
        """Compile one file; several of its architectures at a time."""
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = environment.cxx()
        self.output(
            *("-std=c++20", "-O3", "--expt-relaxed-constexpr"),
            *("-c", str(source), "-o", str(target)),
            *("-Xcompiler", "-fPIC,-fvisibility=hidden", "--threads", "2"),
            *(f"-I{folder}" for folder in includes),
            f"-D{macro}",
            *(("-ccbin", compiler) if compiler else ()),
            *self.architectures(),
        )


def visible_archs() -> list[str]:
    """The compute capabilities of the visible GPUs; empty if unknown."""
    try:
        import torch

        count = torch.cuda.device_count()
        return sorted({"{}.{}".format(*torch.cuda.get_device_capability(i)) for i in range(count)})
    except Exception:  # for example a broken driver; compile all the same
        return []


def codes_of(archs: Iterable[str]) -> set[str]:
    """Compute capabilities as nvcc writes them: 90 for 9.0."""
    return {arch.replace(".", "") for arch in archs}
