"""The machine code of the Triton kernels, compiled ahead of time for devices that are not here.

LGANET_FAST_ALL_TRITON=1 compiles every configuration for every architecture; without it, the first
configuration of a few launches for two of them.
"""

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ops_checks import CHANNELS_LAST
from test_cuda_resources import tool

from lganet_fast.ops import triton as backend

ALL = os.environ.get("LGANET_FAST_ALL_TRITON") == "1"
KIB = 1024
SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB a block may have
ARCHS = tuple(SHARED) if ALL else (89, 90)
HALF, FLOAT = torch.bfloat16, torch.float32


def missing():
    """What keeps the kernels from being compiled here."""
    if not backend.INSTALLED:
        return "triton is not installed"
    return None if tool() else "cuobjdump is not installed"


pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def attention(dtype, widths, windows, volume, dropout_p):
    """Every kernel that a call on such tokens launches."""
    from lganet_fast.kernels import attention as kernels

    tokens = volume[0] * volume[1] * volume[2]
    q, k, v = (torch.empty(1, tokens, width, dtype=dtype) for width in (widths[0], *widths))
    seed = torch.zeros(1, dtype=torch.int64) if dropout_p else None
    how = (seed, 0.7, windows, dropout_p, volume)
    out, lse = kernels.forward(q, k, v, *how)
    kernels.backward(v, q, k, v, out, lse, *how)


def correlate(dtype, channels, radius, memory_format):
    """Every kernel that a call on such maps launches."""
    from lganet_fast.kernels import correlate as kernels

    def volume(channels):
        return torch.empty(1, channels, 6, 6, 6, dtype=dtype).to(memory_format=memory_format)

    x, out = volume(channels), volume((2 * radius + 1) ** 3)
    kernels.forward(x, x, out, radius)
    for mirrored in (False, True):
        kernels.gradient(out, x, x, radius, mirrored)


RUNS, ONE, BOXES = (27, 1, 264), (7128, 1, 1), (22, 18, 18)
LAUNCHES = {
    "half runs": (attention, HALF, (64, 64), (27, 1, 1), RUNS, 0.1),
    "float boxes": (attention, FLOAT, (64, 64), (3, 3, 3), BOXES, 0.1),
    "half correlation": (correlate, HALF, 8, 1, CHANNELS_LAST),
}
if ALL:
    LAUNCHES |= {
        "float runs": (attention, FLOAT, (64, 64), (27, 1, 1), RUNS, 0.0),
        "half boxes": (attention, HALF, (64, 64), (3, 3, 3), BOXES, 0.1),
        "half one window": (attention, torch.float16, (64, 64), (1, 1, 1), ONE, 0.0),
        "half position": (attention, HALF, (8, 64), (1, 1, 1), ONE, 0.0),
        "float position": (attention, FLOAT, (8, 64), (1, 1, 1), ONE, 0.0),
        "half wide": (attention, torch.float16, (128, 128), (27, 1, 1), RUNS, 0.1),
        "float wide": (attention, FLOAT, (128, 128), (27, 1, 1), RUNS, 0.1),
        "float correlation": (correlate, FLOAT, 64, 1, CHANNELS_LAST),
        "float correlation, radius 2": (correlate, FLOAT, 16, 2, CHANNELS_LAST),
        "float correlation, contiguous": (correlate, FLOAT, 32, 1, torch.contiguous_format),
        "double correlation": (correlate, torch.float64, 16, 1, CHANNELS_LAST),
    }


def device(arch):
    """What Triton asks of a device when it compiles for one."""
    from triton.backends.compiler import GPUTarget

    return SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", arch, 32),
        get_current_device=lambda: arch,
        get_current_stream=lambda _: 0,
    )


@pytest.fixture
def compiled(request, monkeypatch):
    """[(kernel, configuration, compiled)] of one of LAUNCHES; what was compiled before is kept."""
    import triton

    from lganet_fast.kernels import attention, correlate

    arch, name, precision = request.param
    found = []

    def compile_one(kernel, programs, **arguments):
        configs = kernel.early_config_prune(kernel.configs, {}, **arguments)
        for config in configs if ALL else configs[:1]:
            done = kernel.fn.warmup(grid=(1,), **arguments, **config.all_kwargs())
            found.append((kernel.base_fn.__name__, config, done))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(Path(__file__).parent.parent / "build" / "triton"))
    for module in (attention, correlate):
        monkeypatch.setattr(module, "launch", compile_one)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = precision
    monkeypatch.setattr(triton.runtime.driver, "_active", device(arch))
    run, *how = LAUNCHES[name]
    run(*how)
    yield found
    torch.backends.cuda.matmul.fp32_precision = before


def listing(done, folder):
    """The machine code, as (address, instruction)."""
    path = folder / "kernel.cubin"
    path.write_bytes(done.asm["cubin"])
    text = subprocess.run([tool(), "-sass", path], check=True, capture_output=True, text=True)
    lines = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", text.stdout, re.M)
    return [(int(address, 16), code) for address, code in lines]


def in_loops(code):
    """The instructions between the target of a jump back and the jump."""
    jumps = [(at, re.search(r"\bBRA\b.*?0x([0-9a-f]+)", line)) for at, line in code]
    loops = [(int(found[1], 16), at) for at, found in jumps if found and int(found[1], 16) < at]
    return [line for at, line in code if any(start <= at <= end for start, end in loops)]


CASES = [(arch, name, "ieee") for arch in ARCHS for name in LAUNCHES]
CASES += [(arch, n, "tf32") for arch in ARCHS for n in LAUNCHES if ALL and n.startswith("float ")]


@pytest.mark.parametrize(
    "compiled", CASES, indirect=True, ids=lambda case: "-".join(map(str, case))
)
def test_resources(compiled, tmp_path, request):
    """Nothing spills in a loop; ptxas parks a few registers beside it, of half types only one."""
    arch, name, precision = request.node.callspec.params["compiled"]
    mma = name.startswith("half") or precision == "tf32"
    for kernel, config, done in compiled:
        what = f"{kernel} {config}"
        assert done.metadata.shared <= SHARED[arch] * KIB, what
        code = listing(done, tmp_path)
        text = "\n".join(line for _, line in code)
        spilled = re.findall(r"\b(?:LDL|STL)\b", text)
        assert len(spilled) <= (32 if name.startswith("float") else 2), what
        assert not re.search(r"\b(LDL|STL)\b", "\n".join(in_loops(code))), what
        assert "contiguous" in name or re.search(r"(LDG|LDGSTS)\S*\.128", text), what
        if "correlation" not in name:
            assert bool(re.search(r"\b(HMMA|HGMMA|UTC\w*MMA)", text)) == mma, what


def test_loops_are_found():
    code = [(0, "MOV R1, R2"), (16, "LDL R3, [R1]"), (32, "@P0 BRA 0x10"), (48, "STL [R1], R3")]
    assert in_loops(code) == ["LDL R3, [R1]", "@P0 BRA 0x10"]
