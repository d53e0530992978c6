"""Operations on whole volumes and on slabs of them, for processes that compare both."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from lganet_fast import ops
from lganet_fast.errors import InputError
from lganet_fast.registration import separable
from lganet_fast.registration.objective import measure_for
from lganet_fast.runtime.ranks import Ranks
from lganet_fast.sharded import operations as slabs
from lganet_fast.sharded import statistics
from lganet_fast.sharded.exchange import planes
from lganet_fast.sharded.group import WAIT, Group
from lganet_fast.sharded.search import MEASURES, REPORTED, mean_part
from lganet_fast.volumes import intensity

SIZE = (9, 8, 13)  # no number of processes divides it
COARSE = (5, 6, 7)
STEPS = 5


def numbers(seed, *channels, size=SIZE, scale=1.0):
    """A volume (1, C, H, W, D) of each number of channels, float64."""
    generator = torch.Generator().manual_seed(seed)
    return [
        scale * torch.randn(1, c, *size, generator=generator, dtype=torch.float64) for c in channels
    ]


def far():
    """An image, and a flow of which much points to other slabs and out of the volume."""
    return [*numbers(1, 2), *numbers(2, 3, scale=6.0)]


def lncc(loss, halo):
    """A weighted loss of two images, whole and in slabs; weights are 0 in some slabs."""
    first, second, counts = numbers(5, 1, 1, 1)
    counts = counts.abs() * (torch.arange(SIZE[2]) < SIZE[2] // 2)

    def whole(first, second):
        return loss(first, second, counts)

    def part(group, first, second):
        return mean_part(group, loss, [first, second], group.cut(counts), SIZE, halo)[0]

    return [first, second], whole, part


def searched(name):
    """The measure that a search uses."""
    measure = measure_for(name, SIZE)
    return measure.searched or measure.loss


# name: inputs, what is computed of whole volumes, what of slabs
CASES = {
    "fetch": (
        numbers(0, 2),
        lambda x: x.flip(-1),
        lambda group, x: group.cut(
            planes(x, group, SIZE[2], [(0, SIZE[2])] * group.count).flip(-1)
        ),
    ),
    "halo": (
        numbers(0, 1),
        lambda x: torch.nn.functional.avg_pool3d(x, 5, 1, 2),
        lambda group, x: slabs.within(
            group,
            torch.nn.functional.avg_pool3d(slabs.with_halo(group, x, SIZE[2], 2), 5, 1, 2),
            SIZE[2],
            2,
        ),
    ),
    "warp": (
        far(),
        ops.warp,
        lambda group, x, flow: slabs.Aimed(group, flow, SIZE[2]).read(x),
    ),
    "warp, border": (
        far(),
        lambda x, flow: ops.warp(x, flow, padding="border"),
        lambda group, x, flow: slabs.Aimed(group, flow, SIZE[2]).read(x, "border"),
    ),
    "integrate": (
        numbers(3, 3, scale=3.0),
        lambda v: ops.integrate(v, STEPS),
        lambda group, v: slabs.integrate(group, v, SIZE[2], STEPS),
    ),
    "shrink": (
        numbers(4, 2),
        lambda x: separable.shrink(x, COARSE),
        lambda group, x: slabs.shrink(group, x, SIZE, COARSE),
    ),
    "stretch": (
        numbers(4, 3, size=COARSE),
        lambda x: separable.stretch_flow(x, SIZE),
        lambda group, x: slabs.Stretch(group, COARSE, SIZE, x)(x),
    ),
    "gradient loss": (
        numbers(6, 3),
        ops.gradient_loss,
        lambda group, x: slabs.gradient_loss(group, x, SIZE[2]),
    ),
    **{f"{name}, searched": lncc(searched(name), halo) for name, halo in MEASURES.items()},
    **{f"{name}, stated": lncc(measure_for(name, SIZE).loss, h) for name, h in REPORTED.items()},
}


def weights_of(out):
    """The weight of every number of a result in the sum that is differentiated."""
    return torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)


def gathered(group, x):
    """The whole of what lies in slabs; of scalars, the sum."""
    parts = group.objects(x.detach())
    return torch.stack(parts).sum(0) if x.ndim == 0 else torch.cat(parts, -1)


def differences(group, name):
    """By how much the results and gradients of slabs differ from those of whole volumes."""
    inputs, whole, part = CASES[name]
    inputs = [x.clone().requires_grad_(True) for x in inputs]
    wanted = whole(*inputs)
    scale = weights_of(wanted) if wanted.ndim else torch.ones(())
    expected = [wanted.detach(), *torch.autograd.grad((wanted * scale).sum(), inputs)]
    cuts = [group.cut(x.detach()).requires_grad_(True) for x in inputs]
    out = part(group, *cuts)
    own = group.cut(scale) if out.ndim else scale
    found = [out, *torch.autograd.grad((out * own).sum(), cuts)]
    pairs = zip(expected, (gathered(group, x) for x in found), strict=True)
    assert all(float(x.abs().max()) > 0 for x in expected)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def statistics_agree(group):
    """Order statistics and foreground of slabs are those of the whole, exactly."""
    image = numbers(7, 1)[0].float()
    image[image.abs() < 0.3] = math.nan
    own = group.cut(image)
    assert statistics.median(group, own.flatten()) == image.nanmedian()
    data = numbers(8, 1, size=(24, 20, 22))[0][0, 0].float()
    data[:, :, :6] = 0
    part = group.cut(data).numpy()
    window = statistics.window_of(group, part, 22)
    expected = intensity.window_of(data.numpy())
    assert np.allclose([window.low, window.high], [expected.low, expected.high], rtol=1e-5)
    boxes = (
        statistics.foreground_box(group, part, 22, 0.5),
        intensity.foreground_box(data.numpy(), 0.5),
    )
    assert np.array_equal(*boxes)
    for percent in (0, 31.7, 100):
        value = statistics.percentile(group, torch.from_numpy(part).flatten(), percent)
        assert np.isclose(value, np.percentile(data.numpy(), percent), rtol=1e-5)


def an_error_of_the_last_is_raised_by_all(group):
    """What it says names the process in the others."""

    def work():
        if group.rank == group.count - 1:
            raise InputError("no disk")

    with pytest.raises(InputError) as told:
        group.stage(work)
    last = group.rank == group.count - 1
    assert str(told.value) == ("no disk" if last else f"process {group.count - 1}: no disk")


def compare(rank, count, folder):
    """The work of one of `count` processes; rank 0 writes the differences of all cases."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", meeting, rank=rank, world_size=count, timeout=WAIT)
    group = Group.of(Ranks(rank, count, torch.device("cpu")))
    found = {name: differences(group, name) for name in CASES}
    statistics_agree(group)
    an_error_of_the_last_is_raised_by_all(group)
    if rank == 0:
        torch.save(found, Path(folder) / "found.pt")
    dist.destroy_process_group()
