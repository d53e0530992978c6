"""ops.mutual_information against histograms of SciPy's B-splines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ops_checks import (
    BACKENDS,
    CHANNELS_LAST,
    LAYOUTS,
    check_compiles,
    check_gradient_strictly,
    check_same,
    close,
    needs_native,
    uniform,
    values_and_gradients,
)
from scipy.interpolate import BSpline

from lganet_fast.ops import joint_histogram, mutual_information

SPLINE = BSpline.basis_element(np.arange(-2, 3), extrapolate=False)


def images(*shape):
    """Images that have something to do with each other, a few voxels outside [0, 1]."""
    a, noise = uniform(*shape, seed=1, low=-0.1, high=1.1), uniform(*shape, seed=2)
    return a, (1 - a).clamp(0, 1).sqrt() + 0.05 * noise


def weights(x, bins):
    place = 1 + np.clip(x, 0, 1) * (bins - 3)
    return np.nan_to_num(SPLINE(place[:, None] - np.arange(bins)))


def oracle(a, b, bins, weight=None):
    """The mean over channels of volumes, each counted by the sum of its weights."""
    total = value = 0.0
    for n, c in np.ndindex(*a.shape[:2]):
        own = np.ones(a[n, c].numel()) if weight is None else weight[n, 0].numpy().ravel()
        x, y = (weights(t[n, c].detach().double().numpy().ravel(), bins) for t in (a, b))
        joint = np.einsum("v,vi,vj->ij", own, x, y) / own.sum()
        there = joint > 0
        alone = np.outer(joint.sum(1), joint.sum(0))
        value += own.sum() * (joint[there] * np.log(joint[there] / alone[there])).sum()
        total += own.sum()
    return np.array(value / total)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bins", [4, 7, 32])
@pytest.mark.parametrize("shape", [(1, 1, 7, 6, 5), (2, 2, 1, 4, 3), (1, 1, 1, 1, 1)])
def test_values(shape, bins, backend):
    a, b = images(*shape)
    close(mutual_information(a, b, bins, backend=backend), oracle(a, b, bins))
    weight = uniform(shape[0], 1, *shape[2:], seed=4, low=0.1)
    close(mutual_information(a, b, bins, weight, backend), oracle(a, b, bins, weight))


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_alike_change_nothing_and_voxels_without_weight_do_not_count(backend):
    a, b = images(2, 1, 4, 5, 6)
    value = mutual_information(a, b, 8, backend=backend)
    close(mutual_information(a, b, 8, torch.full_like(a, 0.3), backend), value)
    wider = [torch.cat([x, uniform(2, 1, 4, 5, 3, seed=5)], 4) for x in (a, b)]
    seen = torch.ones_like(wider[0])
    seen[..., 6:] = 0
    close(mutual_information(*wider, 8, seen, backend), value)
    seen[1] = 0  # nothing of the second volume
    first = mutual_information(a[:1], b[:1], 8, backend=backend)
    close(mutual_information(*wider, 8, seen, backend), first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_it_measures(backend):
    """High for any function of the intensity, nearly 0 for none, alike if exchanged."""
    a, _ = images(1, 1, 20, 20, 20)
    other = uniform(*a.shape, seed=6, low=0)
    of_itself, inverted, bent, nothing = (
        mutual_information(a, b, 16, backend=backend).item()
        for b in (a, 1 - a, (2 * a.clamp(0, 1) - 1) ** 2, other)
    )
    assert of_itself == pytest.approx(inverted, rel=1e-9)
    assert of_itself > bent > 0.5 * of_itself
    assert 0 <= nothing < 0.05 * of_itself
    assert mutual_information(other, a, 16, backend=backend).item() == pytest.approx(nothing)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [0.0, 0.37, 1.0, -3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_image_says_nothing(level, dtype, backend):
    constant = torch.full((1, 1, 6, 7, 8), level, dtype=dtype)
    other = uniform(*constant.shape, low=0).to(dtype)
    for pair in ((constant, other), (other, constant), (constant, constant)):
        value, *grads = values_and_gradients(
            lambda a, b: mutual_information(a, b, backend=backend), *pair
        )
        assert abs(value.item()) < 2e-6
        assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types_compute_in_single_precision(dtype, backend):
    a, b = (t.to(dtype) for t in images(1, 1, 9, 10, 11))
    out = mutual_information(a, b, backend=backend)
    assert out.dtype == torch.float32
    close(out, oracle(a, b, 32), 2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "far", [1.0, 1.001, 7.0, 1e30, float("inf"), 0.0, -0.001, -1e30, -float("inf")]
)
def test_values_outside_count_as_the_ends_and_have_no_gradient(far, backend):
    a, b = (x.clamp(0, 1) for x in images(1, 1, 5, 6, 7))
    away = torch.zeros_like(a, dtype=torch.bool)
    away[..., 2:4] = True

    def run(value):
        leaf = torch.where(away, value, a).requires_grad_()
        out = mutual_information(leaf, b, 8, backend=backend)
        return out.detach(), torch.autograd.grad(out, leaf)[0]

    (value, grad), (wanted, _) = run(far), run(1.0 if far >= 1 else 0.0)
    close(value, wanted)
    assert (grad[away] == 0).all()
    assert grad[~away].isfinite().all()
    assert grad[~away].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient(backend):
    pair = [x.clamp(0.01, 0.99) for x in images(1, 2, 2, 3, 3)]
    check_gradient_strictly(lambda a, b: mutual_information(a, b, 6, backend=backend), *pair)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_with_weight(backend):
    pair = [x.clamp(0.01, 0.99) for x in images(2, 1, 2, 3, 3)]
    weight = uniform(2, 1, 2, 3, 3, seed=4, low=0.1)
    check_gradient_strictly(lambda a, b, w: mutual_information(a, b, 6, w, backend), *pair, weight)
    check_gradient_strictly(lambda a, b: mutual_information(a, b, 6, weight, backend), *pair)


def test_the_reference_needs_the_weights_of_some_voxels_at_a_time(monkeypatch):
    pair, weight = images(2, 1, 5, 6, 7), uniform(2, 1, 5, 6, 7, low=0.1)

    def run():
        return values_and_gradients(
            lambda a, b, w: mutual_information(a, b, 9, w, "reference"), *pair, weight
        )

    whole = run()
    sizes = []
    histogram = joint_histogram.histogram
    monkeypatch.setattr(joint_histogram, "AT_ONCE", 64)
    monkeypatch.setattr(
        joint_histogram,
        "histogram",
        lambda a, *others: sizes.append(a.numel()) or histogram(a, *others),
    )
    check_same(run(), whole, (1e-12, 1e-10, 1e-10, 1e-10))
    assert max(sizes) <= 64
    assert len(sizes) == 2 * 7  # again for the gradient


def test_second_derivative():
    leaves = [x.clamp(0.01, 0.99).requires_grad_() for x in images(1, 1, 2, 3, 2)]
    torch.autograd.gradgradcheck(
        lambda a, b: mutual_information(a, b, 6, backend="reference"), leaves
    )


@needs_native
def test_the_compiled_one_has_no_second_derivative():
    leaves = [x.requires_grad_() for x in images(1, 1, 2, 3, 2)]
    value = mutual_information(*leaves, 6, backend="native")
    grad = torch.autograd.grad(value, leaves[1], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles(backend):
    check_compiles(
        lambda a, b: mutual_information(a, b, 8, backend=backend), *images(1, 2, 5, 4, 6)
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, backend):
    pair, change = images(2, 2, 3, 4, 5), LAYOUTS[layout]
    for x, y in zip(
        *(
            values_and_gradients(lambda a, b: mutual_information(a, b, 8, backend=backend), *given)
            for given in (pair, map(change, pair))
        ),
        strict=True,
    ):
        close(x, y)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_only_where_asked_for(backend):
    a, b = images(1, 2, 5, 4, 6)
    run = lambda a, b: mutual_information(a, b, 8, backend=backend)  # noqa: E731
    _, *both = values_and_gradients(run, a, b)
    for i, expected in enumerate(both):
        leaves = [a.clone(), b.clone()]
        leaves[i].requires_grad_()
        run(*leaves).backward(uniform(seed=9))
        close(leaves[i].grad, expected, 1e-15)
        assert leaves[1 - i].grad is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    for shape in ((0, 1, 4, 4, 4), (1, 1, 0, 2, 2), (1, 0, 2, 2, 2)):
        a, b = (t.requires_grad_() for t in images(*shape))
        value = mutual_information(a, b, backend=backend)
        value.backward()
        assert value.isnan()
        assert b.grad.shape == b.shape


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_voxel_that_is_no_number(backend):
    a, b = images(2, 1, 3, 4, 5)
    a[0, 0, 1, 2, 3] = torch.nan
    value, grad, _ = values_and_gradients(
        lambda a, b: mutual_information(a, b, 8, backend=backend), a, b
    )
    assert value.isnan()
    inside = (a > 0) & (a < 1)
    assert grad[0][inside[0]].isnan().all()
    assert grad[1].isfinite().all()


TOLERANCES = {
    torch.float64: (1e-12, 1e-10, 1e-10),
    torch.float32: (1e-5, 5e-5, 5e-5),
    torch.bfloat16: (1e-5, 1e-2, 1e-2),
    torch.float16: (1e-5, 2e-3, 2e-3),
}


@needs_native
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("shape", "bins"), [((1, 1, 7, 6, 5), 4), ((2, 3, 9, 12, 37), 32), ((1, 1, 47, 60, 3), 64)]
)
def test_compiled_against_reference(shape, bins, weighted, dtype):
    pair = [x.to(dtype) for x in images(*shape)]
    weight = uniform(shape[0], 1, *shape[2:], seed=4, low=0) if weighted else None
    found, wanted = (
        values_and_gradients(
            lambda a, b, name=name: 8 * mutual_information(a, b, bins, weight, name), *pair
        )
        for name in ("native", "reference")
    )
    check_same(found, wanted, TOLERANCES[dtype])


@needs_native
def test_compiled_keeps_the_memory_format():
    pair = [x.contiguous(memory_format=CHANNELS_LAST) for x in images(2, 3, 4, 5, 6)]
    _, *grads = values_and_gradients(lambda a, b: mutual_information(a, b, backend="native"), *pair)
    assert all(grad.is_contiguous(memory_format=CHANNELS_LAST) for grad in grads)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("needed", [(True, True), (False, True), (True, False)])
def test_operator_is_well_formed(needed, dtype):
    pair = [
        t.to(dtype).requires_grad_(n) for t, n in zip(images(1, 2, 4, 3, 5), needed, strict=True)
    ]
    torch.library.opcheck(torch.ops.lganet_fast.mutual_information.default, (*pair, None, 6))
    plain = [t.detach() for t in pair]
    value, slopes = torch.ops.lganet_fast.mutual_information(*plain, None, 6)
    arguments = (torch.full_like(value, 2.0), *plain, None, slopes, *needed)
    torch.library.opcheck(torch.ops.lganet_fast.mutual_information_backward.default, arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": torch.zeros(1, 4, 4, 4)}, ValueError, r"a must have shape \(B, C, H, W, D\)"),
        ({"a": torch.zeros(1, 1, 4, 4, 4).byte()}, TypeError, "a must be .* got uint8"),
        ({"b": torch.zeros(1, 1, 4, 4, 5)}, ValueError, r"b must have shape \(1, 1, 4, 4, 4\)"),
        ({"b": torch.zeros(1, 1, 4, 4, 4).double()}, TypeError, "b must be float32, got float64"),
        ({"b": torch.zeros(1, 1, 4, 4, 4, device="meta")}, ValueError, "b must be on a's device"),
        ({"bins": 3}, ValueError, "bins must be an integer of at least 4, got 3"),
        ({"bins": 8.0}, ValueError, "bins must be an integer of at least 4, got 8.0"),
        ({"bins": 257}, ValueError, "bins must be at most 256, got 257"),
        ({"weight": torch.zeros(1, 2, 4, 4, 4)}, ValueError, "weight must have shape"),
        ({"weight": torch.zeros(1, 1, 4, 4, 4, device="meta")}, ValueError, "weight must be on"),
    ],
)
def test_errors(change, error, message):
    good = dict.fromkeys("ab", torch.zeros(1, 1, 4, 4, 4))
    mutual_information(**good)
    with pytest.raises(error, match=message):
        mutual_information(**good | change)
