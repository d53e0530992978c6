"""The machine code of the CUDA kernels: no local memory, wide loads, products of matrices."""

import re

import pytest
from machine_code import ARCHS, cuobjdump, needs_cuda_code, short

pytestmark = needs_cuda_code


def test_parts_of_a_name():
    assert short("_ZN6lganet11warp_voxelsIffiEEvNS_5ArrayE") == "warp_voxels"


@pytest.mark.parametrize("arch", ARCHS)
def test_nothing_spills_and_nothing_is_in_local_memory(arch, usage):
    """A spilled register, or an array with an index known late, would show up as stack."""
    if arch not in usage:
        pytest.skip(f"not compiled for {arch}")
    assert {short(name) for name in usage[arch]} >= {
        *("warp_voxels", "warp_voxels_backward", "warp_channels", "warp_channels_backward"),
        *("find_peak", "finish_sums", "integrate_voxels", "invert_points"),
        *("convolve_maps", "finish_moments"),
    }
    for name, used in usage[arch].items():
        assert used["STACK"] == 0, name
        assert used["LOCAL"] == 0, name


def test_later_devices_are_served():
    """There is code that a driver can translate for a device that is newer than all of these."""
    assert re.search(r"sm_\d+\.ptx", cuobjdump("--list-ptx"))


def code_of(kernel, usage):
    """The machine code of all kernels of a name, for the first architecture that there is."""
    arch = next(name for name in ARCHS if name in usage)
    names = [name for name in usage[arch] if short(name) == kernel]
    listing = cuobjdump("-sass", "-arch", arch, "-fun", ",".join(names))
    parts = {part.split(maxsplit=1)[0]: part for part in listing.split("Function : ")[1:]}
    return {name: parts[name] for name in names}


@pytest.mark.parametrize("kernel", ["warp_channels", "warp_channels_backward"])
def test_channels_are_read_and_written_16_bytes_at_a_time(kernel, usage):
    code = code_of(kernel, usage)
    assert len(code) == 8  # four types of image, two of indices
    for name, text in code.items():
        assert len(re.findall(r"LDG\.E\.128", text)) >= 8, name  # a load for each corner
        assert kernel != "warp_channels" or "STG.E.128" in text


def test_convolutions_are_products_of_matrices(usage):
    """As many as are written down for a chunk of channels, each once; copies of 16 bytes beside."""
    code = code_of("convolve_maps", usage)
    assert len(code) == 20  # two half types of 7, TF32 of 4, float32 of 2
    for name, text in code.items():
        exact, planes, columns = map(int, re.search(r"Lb(\d)ELi(\d)ELi(\d+)E", name).groups())
        lines = 4 if columns == 8 and not exact else 2
        steps = 5 if planes == 1 else 3  # a loop of three for two planes
        products = steps * lines * 2 * (3 * columns // 8) * (3 if exact else 1)
        kind = "1688.F32.TF32" if "Half" not in name and "BFloat16" not in name else "16816.F32"
        assert len(re.findall(rf"HMMA\.{kind}", text)) == len(re.findall("HMMA", text)), name
        assert len(re.findall("HMMA", text)) == products, name
        assert re.search(r"LDGSTS\S*\.128", text), name
        assert "LDSM.16.M88.4" in text, name
