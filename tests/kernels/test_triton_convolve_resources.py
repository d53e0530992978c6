"""The machine code of convolutions and passes over maps, compiled for devices that are not here.

LGANET_FAST_ALL_TRITON=1 compiles the first configuration for every architecture, 2 all of them;
without it, a few are compiled.
"""

import os
import re
from pathlib import Path

import pytest
import torch
from test_triton_resources import DOCS, FLOAT, HALF, KIB, SHARED, device, missing, usage, volumes

EXTENT = os.environ.get("LGANET_FAST_ALL_TRITON", "")
SIXTEEN = r"ld\.global\S*\.(v4\.b32|v2\.b64)|cp\.async\.cg\S* .*, 0x10, "

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def convolve(kind, inputs, outputs, capability):
    """The kernels of a convolution and its gradients, with all that they can do on the way."""
    from lganet_fast.kernels import convolve as kernels

    dtype = FLOAT if kind in ("tf32", "float32") else getattr(torch, kind)
    (x, y), norm = volumes(dtype, inputs, outputs), torch.empty(2, 1, inputs)
    weight, bias = torch.empty(outputs, inputs, 3, 3, 3), torch.empty(outputs)
    some = slice(None) if EXTENT == "2" else slice(1)
    packed = kernels.pack(weight, dtype, kind)
    for how in kernels.configs(inputs, outputs, kind, capability)[some]:
        more = {"config": how, "kind": kind}
        kernels.forward([x], packed, bias, norm, 0.1, True, y, y, True, outputs, **more)
    packed = kernels.pack(kernels.mirrored(weight), dtype, kind)
    for how in kernels.configs(outputs, inputs, kind, capability)[some]:
        kernels.forward([y], packed, outputs=inputs, config=how, mask=y, kind=kind)
    for how in kernels.weight_configs(inputs, outputs, kind, capability)[some]:
        kernels.weight_gradient([x], y, y, norm, 0.1, how, kind=kind)


def split(inputs, outputs, capability):
    """The convolution of a bfloat16 map by float32 weights in two parts, to float32."""
    from lganet_fast.kernels import convolve as kernels
    from lganet_fast.ops.convolve_split import parts_of

    x, out = volumes(torch.bfloat16, inputs)[0], volumes(FLOAT, outputs)[0]
    weight, bias = torch.empty(outputs, inputs, 3, 3, 3), torch.empty(outputs)
    packed = kernels.pack(parts_of(weight, 2), torch.bfloat16, "bfloat16")
    how = kernels.configs(2 * inputs, outputs, "bfloat16", capability)[0]
    more = {"config": how, "kind": "bfloat16", "out": out}
    kernels.forward([x, x], packed, bias, relu=True, outputs=outputs, **more)


def passes(dtype, channels, _):
    """The passes over maps: norm and its gradient, and all that follows a convolution."""
    from lganet_fast.kernels import epilogue, norm_act

    (x,) = volumes(dtype, channels)
    norm_act.apply(x, norm_act.moments(x), 0.1, x)
    norm_act.backward(x, x, torch.empty(1, channels), 0.1, x)
    epilogue.epilogue(x, torch.empty(channels), True, x, x, True)


LAUNCHES = {
    "half, 8 to 8": (convolve, "float16", 8, 8),
    "half, 64 to 64": (convolve, "float16", 64, 64),
    "TF32, 8 to 8": (convolve, "tf32", 8, 8),
    "TF32, 64 to 64": (convolve, "tf32", 64, 64),
    "float32, 8 to 8": (convolve, "float32", 8, 8),
    "float32, 64 to 64": (convolve, "float32", 64, 64),
    "bfloat16 to float32, 64 to 19": (split, 64, 19),
    "bfloat16 to float32, 24 to 3": (split, 24, 3),
    "half, passes over 24 channels": (passes, HALF, 24),
    "float32, passes over 64 channels": (passes, FLOAT, 64),
}
CASES = [(arch, name) for arch in SHARED for name in LAUNCHES]
SPILLED = {(100, "TF32, 64 to 64"): 8}  # bytes of a thread, of the masked convolution
SOME = [(90, "half, 8 to 8"), (89, "half, passes over 24 channels")]


@pytest.mark.parametrize(("arch", "name"), CASES if EXTENT else SOME)
def test_resources(arch, name, monkeypatch, tmp_path):
    """Registers and shared memory suffice, and the table in docs/kernels.md is right."""
    import triton

    from lganet_fast.kernels import convolve as convolution
    from lganet_fast.kernels import moments, norm_act, sweep

    found, registers, shared, products = [], {}, 0, set()

    def compile_only(kernel, grid, **arguments):
        task = "masked " if kernel.__name__ == "convolve_kernel" and found else ""
        warps = arguments.get("num_warps", 4)
        found.append((task + kernel.__name__, warps, kernel.warmup(grid=(1,), **arguments)))

    for module in (convolution, moments, norm_act, sweep):
        monkeypatch.setattr(module, "run", compile_only)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(Path(__file__).parents[2] / "build" / "triton"))
    monkeypatch.setattr(triton.runtime.driver, "_active", device(arch))
    run, *how = LAUNCHES[name]
    run(*how, (arch // 10, arch % 10))
    for kernel, warps, done in found:
        took, ptx = usage(done, tmp_path), done.asm["ptx"]
        assert took["STACK"] <= SPILLED.get((arch, name), 0), kernel
        assert took["LOCAL"] == 0, kernel
        assert done.metadata.shared <= SHARED[arch] * KIB, kernel
        assert took["REG"] * 32 * warps <= 65536, kernel
        # what joins moments reads 4 bytes a thread, side by side
        assert kernel == "join_kernel" or re.search(SIXTEEN, ptx), kernel
        some = set(re.findall(r"^\s*(?:@\S+ )?(mma|wgmma|tcgen05)\.(?:sync|mma)", ptx, re.M))
        if EXTENT != "2":  # after the first, float32 is multiplied in full too
            assert bool(some) == (run is not passes and kernel != "join_kernel"), kernel
        products |= some
        registers[kernel] = max(registers.get(kernel, 0), took["REG"])
        shared = max(shared, done.metadata.shared)
    if EXTENT != "2":
        check_cell(arch, name, [*registers.values(), -(-shared // KIB)], sorted(products))


def check_cell(arch, name, numbers, products):
    """Compare with the table, where it is of the Triton that compiled."""
    import triton

    text = DOCS.read_text()
    if f"Triton {triton.__version__}" not in text:
        return
    (cells,) = re.findall(rf"^\| {name} \|(.*)\|$", text, re.M)
    cell = dict(zip(SHARED, cells.split("|"), strict=True))[arch]
    assert [int(n) for n in re.findall(r"\b\d+\b", cell)] == numbers
    assert re.findall(r"[a-z]\w+", cell) == products
