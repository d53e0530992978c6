"""The machine code of the CUDA weight gradient: each product once, copies of 16 bytes."""

import re

import pytest
from machine_code import ARCHS, cuobjdump, needs_cuda_code, short

pytestmark = needs_cuda_code
# type, exact -> (tiles of 16 rows, eights of outputs) of a warp's sums
FITTING = {
    ("Half", False): [(3, 2), (3, 3), (5, 1), (5, 2)],
    ("BFloat16", False): [(3, 2), (3, 3), (5, 1), (5, 2)],
    ("float", False): [(3, 2), (3, 3), (5, 1)],
    ("float", True): [(3, 2), (5, 1)],
}


def variant(name):
    """What a kernel's template arguments say: type, exact, rows and outputs."""
    number, exact, rows, outputs = re.search(
        r"multiply_boxesI(\S+?)Lb(\d)ELi(\d)ELi(\d)E", name
    ).groups()
    kind = next((kind for kind in ("BFloat16", "Half") if kind in number), "float")
    return (kind, exact == "1"), (int(rows), int(outputs))


@pytest.mark.parametrize("arch", ARCHS)
def test_every_variant_is_compiled_and_two_blocks_fit_on_a_multiprocessor(arch, usage):
    if arch not in usage:
        pytest.skip(f"not compiled for {arch}")
    found = {}
    for name, used in usage[arch].items():
        if short(name) == "multiply_boxes":
            kind, shape = variant(name)
            found.setdefault(kind, []).append(shape)
            warps = 8 if shape == (5, 1) and not kind[1] else 6
            assert 2 * warps // 4 * used["REG"] * 32 <= 65536 // 4, name  # a quarter's registers
    assert {kind: sorted(shapes) for kind, shapes in found.items()} == FITTING


def test_factors_of_products_are_read_once_and_multiplied_once(usage):
    arch = next(name for name in ARCHS if name in usage)
    names = [name for name in usage[arch] if short(name) == "multiply_boxes"]
    listing = cuobjdump("-sass", "-arch", arch, "-fun", ",".join(names))
    assert len(names) == sum(map(len, FITTING.values()))
    parts = {part.split(maxsplit=1)[0]: part for part in listing.split("Function : ")[1:]}
    for name in names:
        (kind, exact), (rows, outputs) = variant(name)
        columns = 3 * outputs
        products = r"HMMA\.1688\.F32\.TF32" if kind == "float" else r"HMMA\.16816\.F32"
        wanted = rows * columns * (3 if exact else 1)
        assert len(re.findall(products, parts[name])) == wanted, name
        assert len(re.findall("HMMA", parts[name])) == wanted, name
        loads = 0 if kind == "float" else rows + (columns + 1) // 2
        assert len(re.findall(r"LDSM\S*\.MT88", parts[name])) == loads, name
        assert len(re.findall(r"LDGSTS\S*\.128", parts[name])) == 3, name  # x, gradient and mask
