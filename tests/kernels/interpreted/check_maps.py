"""pool, resize, warp_sum and weigh by the Triton kernels, in the interpreter, against float64."""

from __future__ import annotations

import lganet_fast.kernels.weigh as weighing
import pytest
import torch
from interpreter import TOLERANCES, on_the_cpu, values  # noqa: F401
from ops_checks import CHANNELS_LAST, LAYOUTS, uniform

from lganet_fast.kernels import launch
from lganet_fast.ops import compose, pool, resize, use_backend, warp_sum, weigh

DTYPES = list(TOLERANCES)


def last(x):
    return x.contiguous(memory_format=CHANNELS_LAST)


def sliced(x):
    """The same values as some channels of a wider map, the others not numbers."""
    wide = last(torch.full((x.shape[0], x.shape[1] + 5, *x.shape[2:]), torch.nan, dtype=x.dtype))
    wide[:, 2 : 2 + x.shape[1]] = x
    return wide[:, 2 : 2 + x.shape[1]]


FORMATS = {"contiguous": torch.Tensor.contiguous, "last": last, "sliced": sliced} | LAYOUTS


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["mean", "max"])
@pytest.mark.parametrize("norm", [False, True])
def test_pool(dtype, kind, norm):
    x = last(uniform(2, 8, 4, 6, 2).to(dtype))
    moments = uniform(2, 2, 8, seed=3, low=0.5)

    def run(x):
        return pool(x, kind, norm=(moments, 0.1) if norm else None, keep=True)

    values(run, x)
    assert run(x)[0].is_contiguous(memory_format=CHANNELS_LAST)
    assert (run(x)[1] is x) != norm


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("channels", [1, 3, 12])
def test_pool_layouts(layout, channels):
    x = FORMATS[layout](uniform(2, channels, 4, 6, 4))
    moments = uniform(2, 2, channels, seed=3)
    values(lambda x: pool(x, "max", norm=(moments, 0.1), keep=True), x)


def test_pool_keeps_only_on_request():
    x = last(uniform(1, 8, 2, 2, 2))
    assert pool(x, "mean", norm=(uniform(2, 1, 8), 0.1))[1].numel() == 0


def test_pool_hands_on_what_is_no_number():
    x = last(uniform(1, 8, 4, 4, 4))
    x[0, 3, 1, 1, 1] = torch.nan
    for kind in ("mean", "max"):
        assert pool(x, kind)[0].isnan().nonzero().tolist() == [[0, 3, 0, 0, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((3, 4, 5), (6, 8, 10)),
        ((5, 2, 4), (3, 7, 1)),
        ((1, 1, 3), (2, 1, 3)),
        ((2, 9, 2), (2, 9, 2)),
    ],
)
def test_resize(dtype, old, new):
    values(lambda x: resize(x, new, factor=3.0), last(uniform(2, 8, *old).to(dtype)))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("channels", [1, 3, 12])
def test_resize_layouts(layout, channels):
    values(lambda x: resize(x, (5, 4, 7)), FORMATS[layout](uniform(2, channels, 2, 3, 4)))


def flows(*size, dtype=torch.float32):
    """Two that leave the volume here and there, one of them with whole numbers."""
    a, b = (uniform(2, 3, *size, seed=s, low=-3, high=3).to(dtype) for s in (5, 6))
    b[:, :, ::2] = b[:, :, ::2].round()
    return a, b


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("size", [(5, 4, 6), (1, 5, 1)])
def test_warp_sum(dtype, pairs, size):
    base, *images = (last(uniform(2, 8, *size, seed=s).to(dtype)) for s in range(pairs + 1))
    shifts = [x.to(torch.promote_types(dtype, torch.float32)) for x in flows(*size)[:pairs]]
    with use_backend("reference"):
        exact = warp_sum([x.double() for x in images], [x.double() for x in shifts], base.double())
    out = warp_sum(images, shifts, base)
    assert out.dtype == dtype
    assert (out.double() - exact).abs().max() <= TOLERANCES[dtype] * exact.abs().max()


@pytest.mark.parametrize("layout", FORMATS)
def test_warp_sum_layouts(layout):
    """Without a base; the flows are the images."""
    a, b = map(FORMATS[layout], flows(3, 4, 5, dtype=torch.float64))
    values(lambda a, b: warp_sum([a, b], [b, a]), a, b)


def test_warp_sum_composes():
    a, b = flows(4, 5, 3, dtype=torch.float64)
    out = warp_sum([a], [b], b)
    with use_backend("reference"):
        torch.testing.assert_close(out, compose(a, b), rtol=0, atol=1e-13)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30, -1e30])
def test_warp_sum_of_wild_flows(value):
    """What points nowhere reads zero."""
    image, flow = last(uniform(1, 4, 3, 3, 3) + 2), torch.zeros(1, 3, 3, 3, 3, dtype=torch.float64)
    flow[0, 1, 1, 1, 1] = value
    out = warp_sum([image], [flow])
    assert (out == 0).nonzero()[:, 2:].tolist() == [[1, 1, 1]] * 4
    flow[:] = 0
    assert torch.equal(out[0, :, 0], warp_sum([image], [flow])[0, :, 0])


def weighing_of(channels, maps, dtype, *size):
    """The arguments of `weigh`, maps first, as one list of tensors."""
    parts = [last(uniform(2, channels, *size, seed=s).to(dtype)) for s in range(maps)]
    logits = last(uniform(2, maps, *size, seed=7, low=-4, high=4).to(dtype))
    width = channels * maps
    layers = [uniform(width // 4, width, seed=8), uniform(width, width // 4, seed=9)]
    return [*parts, logits, *(w.to(dtype) for w in layers)]


def weighed(*parts):
    *maps, logits, first, second = parts
    return weigh(maps, logits, first, second)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("maps", [2, 3])
@pytest.mark.parametrize("channels", [8, 12])
def test_weigh(dtype, maps, channels):
    parts = weighing_of(channels, maps, dtype, 4, 5, 7)
    values(weighed, *parts)
    z, norm = weighed(*parts)
    assert z.is_contiguous(memory_format=CHANNELS_LAST)
    assert norm.shape == (2, 2, maps * channels)
    assert (norm[0] == 0).all()


@pytest.mark.parametrize("parts", [1, 3])
def test_weigh_in_parts(parts, monkeypatch):
    """Fewer programs than blocks of voxels, and the same result bit for bit when asked again."""
    monkeypatch.setattr(weighing, "PARTS", parts)
    given = weighing_of(8, 3, torch.float32, 9, 10, 7)
    values(weighed, *given)
    for x, y in zip(weighed(*given), weighed(*given), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("layout", FORMATS)
def test_weigh_layouts(layout):
    values(weighed, *map_some(FORMATS[layout], weighing_of(4, 3, torch.float64, 3, 8, 9)))


def map_some(change, parts):
    """All but the two weights changed."""
    return [*map(change, parts[:-2]), *parts[-2:]]


def test_offsets_of_64_bits(monkeypatch):
    """The same numbers as with 32."""
    x, (a, b) = last(uniform(2, 8, 2, 4, 2)), flows(2, 4, 2)

    def run():
        parts = weighing_of(8, 3, torch.float32, 2, 3, 4)
        found = (*pool(x, "max"), resize(x, (3, 2, 4)), warp_sum([a, b], [b, a], a))
        return [*found, *weighed(*parts)]

    narrow = run()
    monkeypatch.setattr(launch, "OFFSETS_32", 1)
    for before, after in zip(narrow, run(), strict=True):
        assert torch.equal(before, after)


def test_operators():
    """What torch asks of operators: schemas, and shapes known without numbers."""
    x, (a, b) = last(uniform(1, 8, 2, 4, 2)), flows(2, 4, 2)
    operators = torch.ops.lganet_fast_triton
    *maps, logits, first, second = weighing_of(4, 2, torch.float32, 2, 3, 2)
    for operator, arguments in (
        (operators.pool, (x, "max", uniform(2, 1, 8), 0.1, True)),
        (operators.resize, (x, (3, 3, 3), 2.0)),
        (operators.warp_sum, ([a, b], [b, a], None)),
        (operators.weigh, (maps, logits, first, second)),
    ):
        torch.library.opcheck(operator.default, arguments, test_utils="test_faketensor")
        torch.library.opcheck(operator.default, arguments, test_utils="test_schema")
