"""What the checks in Triton's interpreter share; they run with TRITON_INTERPRET=1, on the CPU."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import triton.language as tl
from ops_checks import WRONG_GRADIENTS, check_same, uniform
from triton._C.libtriton import ir
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, interpreter_builder

from lganet_fast.ops import triton, use_backend

ALL = os.environ.get("LGANET_FAST_ALL_TRITON") == "1"
TOLERANCES = {
    torch.float64: 1e-13,
    torch.float32: 5e-6,
    torch.float16: 3e-3,
    torch.bfloat16: 2e-2,
}


def as_numbers(x):
    """The operand of a product: the interpreter keeps bfloat16 as its bits."""
    if x.dtype.scalar.name != "bf16":
        return x
    bits = x.data.astype(np.uint32) << 16
    return TensorHandle(bits.view(np.float32), tl.float32)


def tf32(x, nearest):
    """Float32 numbers as TF32 has them: rounded, or cut off as the tensor cores do."""
    bits = x.view(np.uint32) + np.uint32(0x1000 if nearest else 0)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def operands(a, b, precision):
    """The pairs of matrices that are multiplied for one product of float32."""
    a, b = (np.ascontiguousarray(x) for x in (a, b))
    if precision == ir.INPUT_PRECISION.TF32:
        return [(tf32(a, False), tf32(b, False))]
    if precision == ir.INPUT_PRECISION.TF32x3:
        (a, low_a), (b, low_b) = ((tf32(x, True), tf32(x - tf32(x, True), True)) for x in (a, b))
        return [(low_a, b), (a, low_b), (a, b)]
    return [(a, b)]


def product(dot):
    """The interpreter's product, that multiplies float32 as it is asked to."""

    def create_dot(self, a, b, d, precision, *rest):
        a, b = as_numbers(a), as_numbers(b)
        if a.data.dtype != np.float32:
            return dot(self, a, b, d, precision, *rest)
        for pair in operands(a.data, b.data, precision):
            x, y = (TensorHandle(z, tl.float32) for z in pair)
            d = dot(self, x, y, d, precision, *rest)
        return d

    return create_dot


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    """Let the CPU have the Triton path, without a race of configurations: the first one runs."""
    dot = InterpreterBuilder.create_dot
    monkeypatch.setattr(InterpreterBuilder, "create_dot", product(dot))
    if not ALL:  # checks of 32-bit overflow: half of the time, and volumes this small have none
        options = replace(interpreter_builder.options, sanitize_overflow=False)
        monkeypatch.setattr(interpreter_builder, "options", options)
    monkeypatch.setattr(triton, "refusal", lambda operation, device, **call: None)
    torch.use_deterministic_algorithms(True)
    with use_backend("triton"):
        yield
    torch.use_deterministic_algorithms(False)


def results(operation, leaves, weights):
    """The result and the gradient to each leaf of the sum of the result times `weights`."""
    leaves = [x.detach().requires_grad_() for x in leaves]
    out = operation(*leaves)
    out.backward(weights.to(out.dtype).expand_as(out))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def agree(operation, exact, *inputs):
    """Compare values and gradients with the float64 reference; wrong gradients must not pass.

    The scaled gradient is wrong by 1/1000: narrow types cannot tell.
    """
    tolerance = TOLERANCES[inputs[0].dtype]
    with use_backend("reference"):
        shape = exact(*(x.double() for x in inputs)).shape
        weights = uniform(*shape, seed=9).to(inputs[0].dtype)
        right = results(exact, [x.double() for x in inputs], weights.double())
    found = results(operation, inputs, weights)
    right = [x.to(found[0].dtype) for x in right]
    check_same(found, right, [tolerance] * len(found))
    for position in range(1, len(found)):
        for name, wrong in WRONG_GRADIENTS.items():
            if tolerance > 1e-3 and name == "scaled":
                continue
            distorted = [*found]
            distorted[position] = wrong(found[position])
            with pytest.raises(AssertionError):
                check_same(distorted, right, [tolerance] * len(found))


def values(operation, *inputs):
    """Compare every result with that of the reference in float64."""
    tolerance = TOLERANCES[inputs[0].dtype]
    found = operation(*inputs)
    with use_backend("reference"):
        right = operation(*(x.double() for x in inputs))
    for x, y in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, right)), strict=True):
        check_same([x], [y.to(x.dtype)], [tolerance])
