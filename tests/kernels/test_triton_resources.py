"""The machine code of the Triton kernels, compiled ahead of time for devices that are not here.

LGANET_FAST_ALL_TRITON=1 compiles every configuration for every architecture; without it, the first
configuration of a few launches.
"""

import os
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from machine_code import tool
from ops_checks import CHANNELS_LAST

from lganet_fast.ops import triton as backend

ALL = os.environ.get("LGANET_FAST_ALL_TRITON") == "1"
KIB = 1024
SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB a block may have
DOCS = Path(__file__).parents[2] / "docs" / "kernels.md"
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


def volumes(dtype, *channels, side=6):
    """Maps of so many channels each."""
    return [
        torch.empty(1, c, side, side, side, dtype=dtype).to(memory_format=CHANNELS_LAST)
        for c in channels
    ]


def pool(dtype, channels):
    """The two ways in which the network pools."""
    from lganet_fast.kernels import pool as kernels

    x, kept = volumes(dtype, channels, channels)
    (out,) = volumes(dtype, channels, side=3)
    kernels.forward(x, out, kept, torch.empty(2, 1, channels), 0.1, True)
    kernels.forward(x, out, None, None, 1.0, False)


def resize(dtype, channels):
    """Twice the size."""
    from lganet_fast.kernels import resize as kernels

    (x,), (out,) = volumes(dtype, channels, side=3), volumes(dtype, channels)
    kernels.forward(x, out, 2.0)


def warp_sum(dtype, channels):
    """Two maps that are read where flows point and added to a third, and one that is not."""
    from lganet_fast.kernels import warp_sum as kernels

    base, a, b, out = volumes(dtype, *[channels] * 4)
    flows = volumes(torch.float32, 3, 3)
    kernels.forward([a, b], flows, base, out)
    kernels.forward([a], flows[:1], None, out)


def weigh(dtype, channels):
    """Three maps and the gate."""
    from lganet_fast.kernels import weigh as kernels

    *maps, logits, z = volumes(dtype, *[channels] * 3, 3, 3 * channels)
    layers = [torch.empty(*s, dtype=dtype) for s in ((6, 24), (24, 6))]
    kernels.forward(maps, logits, *layers, z, torch.empty(2, 1, 3 * channels))


def feed_forward(dtype, channels):
    """Both chains of layers."""
    from lganet_fast.kernels import feed_forward as kernels

    x, norm = torch.empty(1, 396, channels, dtype=dtype), [torch.empty(channels, dtype=dtype)] * 2
    for widths in ((4 * channels,), (channels // 8, 4 * channels)):
        sides = [channels, *widths, channels]
        weights = [
            torch.empty(*shape, dtype=dtype) for a, b in pairwise(sides) for shape in ((b, a), (b,))
        ]
        kernels.forward(x, x, weights, norm, 1e-5, True, x, x)


def layer_norm(dtype, channels):
    """What comes before the first of those chains."""
    from lganet_fast.kernels import feed_forward as kernels

    x, norm = torch.empty(1, 396, channels, dtype=dtype), [torch.empty(channels, dtype=dtype)] * 2
    kernels.forward(x, x, [], norm, 1e-5, True, x, x)


RUNS, ONE, BOXES = (27, 1, 264), (7128, 1, 1), (22, 18, 18)
LAUNCHES = {
    "half, boxes": (attention, HALF, (64, 64), (3, 3, 3), BOXES, 0.1),
    "half, position": (attention, HALF, (8, 64), (1, 1, 1), ONE, 0.0),
    "half, 128 wide": (attention, torch.float16, (128, 128), (27, 1, 1), RUNS, 0.1),
    "float32, boxes": (attention, FLOAT, (64, 64), (3, 3, 3), BOXES, 0.1),
    "float32, position": (attention, FLOAT, (8, 64), (1, 1, 1), ONE, 0.0),
    "float32, 128 wide": (attention, FLOAT, (128, 128), (27, 1, 1), RUNS, 0.1),
    "half, 8 channels": (correlate, HALF, 8, 1, CHANNELS_LAST),
    "half, 64 channels, radius 2": (correlate, HALF, 64, 2, CHANNELS_LAST),
    "float32, 64 channels": (correlate, FLOAT, 64, 1, CHANNELS_LAST),
    "float32, 16 channels, radius 2": (correlate, FLOAT, 16, 2, CHANNELS_LAST),
    "float32, 32 channels, contiguous": (correlate, FLOAT, 32, 1, torch.contiguous_format),
    "float64, 16 channels": (correlate, torch.float64, 16, 1, CHANNELS_LAST),
    "pool, half, 8 channels": (pool, HALF, 8),
    "pool, float32, 32 channels": (pool, FLOAT, 32),
    "resize, half, 8 channels": (resize, HALF, 8),
    "resize, float32, flow": (resize, FLOAT, 3),
    "warp_sum, half, 16 channels": (warp_sum, HALF, 16),
    "warp_sum, float32, 32 channels": (warp_sum, FLOAT, 32),
    "warp_sum, float32, flow": (warp_sum, FLOAT, 3),
    "weigh, half, 8 channels": (weigh, HALF, 8),
    "weigh, float32, 32 channels": (weigh, FLOAT, 32),
    "feed_forward, half, 64 wide": (feed_forward, HALF, 64),
    "feed_forward, half, 128 wide": (feed_forward, HALF, 128),
    "feed_forward, float32, 64 wide": (feed_forward, FLOAT, 64),
    "feed_forward, float32, 128 wide": (feed_forward, FLOAT, 128),
    "layer norm, half, 64 wide": (layer_norm, HALF, 64),
    "layer norm, float32, 128 wide": (layer_norm, FLOAT, 128),
}
PRODUCTS = (attention, feed_forward)  # what multiplies matrices


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

    arch, name, precision = request.param
    found = []

    def compile_one(kernel, programs, **arguments):
        configs = kernel.early_config_prune(kernel.configs, {}, **arguments)
        for config in configs if ALL else configs[:1]:
            done = kernel.fn.warmup(grid=(1,), **arguments, **config.all_kwargs())
            found.append((kernel.base_fn.__name__, config, done))

    def compile_only(kernel, grid, **arguments):
        done = kernel.warmup(grid=(1,), **arguments)
        warps = arguments.get("num_warps", 4)
        found.append((kernel.__name__, SimpleNamespace(num_warps=warps), done))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(Path(__file__).parents[2] / "build" / "triton"))
    for operation in backend.KERNELS:
        module = backend.kernels(operation)
        for way, instead in (("launch", compile_one), ("run", compile_only)):
            if hasattr(module, way):
                monkeypatch.setattr(module, way, instead)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = precision
    monkeypatch.setattr(triton.runtime.driver, "_active", device(arch))
    run, *how = LAUNCHES[name]
    run(*how)
    yield found
    torch.backends.cuda.matmul.fp32_precision = before


def usage(done, folder):
    """What a compiled kernel takes, by the name cuobjdump gives it."""
    path = folder / "kernel.cubin"
    path.write_bytes(done.asm["cubin"])
    command = [tool(), "--dump-resource-usage", path]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {key: int(n) for key, n in re.findall(r"\b([A-Z]+):(\d+)", text)}


CASES = [(arch, name, "ieee") for arch in SHARED for name in LAUNCHES]
CASES += [
    (a, n, "tf32") for a, n, _ in CASES if LAUNCHES[n][0] in PRODUCTS and LAUNCHES[n][1] == FLOAT
]
SOME = [(90, "half, boxes", "ieee"), (89, "float32, boxes", "tf32")]
SOME += [(86, "half, 8 channels", "ieee"), (80, "warp_sum, half, 16 channels", "ieee")]
SOME += [(86, "pool, half, 8 channels", "ieee"), (89, "weigh, half, 8 channels", "ieee")]
SOME += [(120, "resize, half, 8 channels", "ieee"), (90, "feed_forward, float32, 64 wide", "tf32")]


@pytest.mark.parametrize(
    "compiled", CASES if ALL else SOME, indirect=True, ids=lambda case: "-".join(map(str, case))
)
def test_resources(compiled, tmp_path, request):
    """No register is spilled, and the table in docs/kernels.md says what each launch takes."""
    arch, name, precision = request.node.callspec.params["compiled"]
    run, dtype, *_ = LAUNCHES[name]
    registers, shared, products = {}, 0, set()
    for kernel, config, done in compiled:
        what = f"{kernel} {config}"
        took = usage(done, tmp_path)
        assert took["STACK"] == took["LOCAL"] == 0, what
        assert done.metadata.shared <= SHARED[arch] * KIB, what
        assert took["REG"] * 32 * config.num_warps <= 65536, what
        assert (done.metadata.tmem_size or 0) <= 512, what  # columns of tensor memory, on 10.0
        ptx = done.asm["ptx"]
        sixteen = r"ld\.global\S*\.(v4\.b32|v2\.b64)|cp\.async\.cg\S* .*, 0x10, |cp\.async\.bulk"
        assert (
            kernel == "gate_kernel"
            or re.search(r"contiguous|flow$", name)
            or re.search(sixteen, ptx)
        ), what
        found = set(re.findall(r"^\s*(?:@\S+ )?(mma|wgmma|tcgen05)\.(?:sync|mma)", ptx, re.M))
        multiplies = run in PRODUCTS and (dtype != FLOAT or precision == "tf32")
        if run is attention:
            multiplies = multiplies or config.kwargs["PRECISION"] == "tf32x3"
        assert bool(found) == multiplies, what
        products |= found
        registers[kernel] = max(registers.get(kernel, 0), took["REG"])
        shared = max(shared, done.metadata.shared)
    numbers = [*registers.values(), -(-shared // KIB)]
    check_cell(arch, name, precision, (len(compiled), numbers, sorted(products)))


def check_cell(arch, name, precision, found):
    """Compare with the table, where it is of the Triton that compiled."""
    import triton

    text = DOCS.read_text()
    if f"Triton {triton.__version__}" not in text:
        return
    row = name.replace("float32", "TF32") if precision == "tf32" else name
    ((configs, cells),) = re.findall(rf"^\| {row} \| (\d+) \|(.*)\|$", text, re.M)
    cell = dict(zip(SHARED, cells.split("|"), strict=True))[arch]
    numbers = [int(n) for n in re.findall(r"\b\d+\b", cell)]
    if ALL:
        assert found == (int(configs), numbers, re.findall(r"[a-z]\w+", cell))
    else:
        assert all(n <= most for n, most in zip(found[1], numbers, strict=True))
