"""The machine code of the Triton convolution and of the passes over maps, compiled ahead of time.

LGANET_FAST_ALL_TRITON=1 compiles the first configuration of each launch for every architecture, =2
every configuration; without it, a few launches.
"""

import os
import re
from types import SimpleNamespace

import pytest
import torch
from ops_checks import CHANNELS_LAST
from test_triton_resources import FLOAT, HALF, KIB, SHARED, device, missing, usage

from lganet_fast.ops import triton as backend

EVERY = os.environ.get("LGANET_FAST_ALL_TRITON")
RUNNERS = ("convolve", "moments", "norm_act", "sweep")  # modules of kernels that launch by `run`

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def volume(dtype, channels):
    """A map of so many channels."""
    return torch.empty(1, channels, 6, 6, 6, dtype=dtype).to(memory_format=CHANNELS_LAST)


def convolve(dtype, inputs, outputs, kind, capability):
    """The kernels of a convolution and its gradients, with all that they can do on the way."""
    kernels = backend.kernels("convolve")
    x, y, norm = volume(dtype, inputs), volume(dtype, outputs), torch.empty(2, 1, inputs)
    weight, bias = torch.empty(outputs, inputs, 3, 3, 3), torch.empty(outputs)
    some = slice(None) if EVERY == "2" else slice(1)
    packed = kernels.pack(weight, dtype, kind)
    for how in kernels.configs(inputs, outputs, kind, capability)[some]:
        more = {"config": how, "kind": kind}
        kernels.forward([x], packed, bias, norm, 0.1, True, y, y, True, outputs, **more)
    packed = kernels.pack(kernels.mirrored(weight), dtype, kind)
    for how in kernels.configs(outputs, inputs, kind, capability)[some]:
        kernels.forward([y], packed, outputs=inputs, config=how, mask=y, kind=kind)
    for how in kernels.weight_configs(inputs, outputs, kind, capability)[some]:
        kernels.weight_gradient([x], y, y, norm, 0.1, how, kind=kind)


def sweep(dtype, channels, *_):
    """The passes over maps: norm and its gradient, and all that follows a convolution."""
    epilogue, norm_act = backend.kernels("epilogue"), backend.kernels("norm_act")
    x = volume(dtype, channels)
    norm_act.apply(x, norm_act.moments(x), 0.1, x)
    norm_act.backward(x, x, torch.empty(1, channels), 0.1, x)
    epilogue.epilogue(x, torch.empty(channels), True, x, x, True)


LAUNCHES = {
    "float16, 8 to 8": (convolve, torch.float16, 8, 8, "float16"),
    "bfloat16, 64 to 64": (convolve, HALF, 64, 64, "bfloat16"),
    "tf32, 24 to 24": (convolve, FLOAT, 24, 24, "tf32"),
    "tf32, 64 to 64": (convolve, FLOAT, 64, 64, "tf32"),
    "float32, 8 to 8": (convolve, FLOAT, 8, 8, "float32"),
    "float32, 64 to 64": (convolve, FLOAT, 64, 64, "float32"),
    "half, passes over 24 channels": (sweep, HALF, 24),
    "float32, passes over 64 channels": (sweep, FLOAT, 64),
}
CASES = [(arch, name) for arch in SHARED for name in LAUNCHES]
SOME = [(90, "float16, 8 to 8"), (89, "half, passes over 24 channels"), (80, "tf32, 24 to 24")]


@pytest.mark.parametrize(
    "case", CASES if EVERY else SOME, ids=lambda case: "-".join(map(str, case))
)
def test_nothing_spills(case, monkeypatch, tmp_path):
    """Nothing is spilled, a block fits, products are the matrix units', loads are of 16 bytes."""
    import triton

    arch, name = case
    run, *how = LAUNCHES[name]
    found = []

    def compile_only(kernel, grid, **arguments):
        found.append((kernel.__name__, arguments, kernel.warmup(grid=(1,), **arguments)))

    for module in RUNNERS:
        monkeypatch.setattr(backend.kernels(module), "run", compile_only)
    monkeypatch.setattr(triton.runtime.driver, "_active", device(arch))
    run(*how, (arch // 10, arch % 10))
    assert len(found) >= 3
    for kernel, arguments, done in found:
        numbers = {n: x for n, x in arguments.items() if isinstance(x, int | str)}
        what = SimpleNamespace(kernel=kernel, **numbers)
        took = usage(done, tmp_path)
        assert took["STACK"] == took["LOCAL"] == 0, what
        assert done.metadata.shared <= SHARED[arch] * KIB, what
        assert took["REG"] * 32 * arguments.get("num_warps", 4) <= 65536, what
        if "join" in kernel:  # reads a few parts
            continue
        ptx = done.asm["ptx"]
        sixteen = r"ld\.global\S*\.(v4\.b32|v2\.b64)|cp\.async\.cg\S* .*, 0x10, |cp\.async\.bulk"
        assert re.search(sixteen, ptx), what
        products = re.search(r"^\s*(?:@\S+ )?(mma|wgmma|tcgen05)\.(?:sync|mma)", ptx, re.M)
        full = arguments.get("PRECISION", "ieee") == "ieee" and how[0] == FLOAT
        assert bool(products) == (run is convolve and not full), what
