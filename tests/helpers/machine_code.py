"""The output of cuobjdump for the compiled extension."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import lganet_fast
from lganet_fast.ops import native

ARCHS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
COMPILED = sorted(native.KERNELS["cuda"])  # empty if nothing is compiled for CUDA


def tool():
    """The path of cuobjdump: CUDA's, or Triton's."""
    spec = importlib.util.find_spec("triton")
    shipped = spec and Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return shutil.which("cuobjdump") or (str(shipped) if shipped and shipped.exists() else None)


needs_cuobjdump = pytest.mark.skipif(tool() is None, reason="cuobjdump is not installed")
needs_cuda_code = [
    needs_cuobjdump,
    pytest.mark.skipif(not COMPILED, reason=f"no CUDA: {native.missing('cuda')}"),
]


def cuobjdump(*arguments, path=None):
    """The output of cuobjdump for a file, by default the extension."""
    path = path or next(Path(lganet_fast.__file__).parent.glob("_native*.so"))
    command = [tool(), *arguments, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def resources():
    """Architecture -> kernel -> registers and bytes of stack, shared and local memory."""
    found, arch, name = {}, None, None
    for line in cuobjdump("--dump-resource-usage").splitlines():
        if line.startswith("arch = "):
            arch = found.setdefault(line.removeprefix("arch = ").strip(), {})
        elif match := re.match(r"\s*Function (\S+):", line):
            name = match[1]
        elif name and "REG:" in line:
            arch[name] = {key: int(n) for key, n in re.findall(r"([A-Z]+):(\d+)", line)}
    return found


def short(name):
    """A kernel's name without its namespaces and types."""
    return re.search(r"\d([a-z][a-z_]+)(?:I|E)", name)[1]
