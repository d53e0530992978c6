"""Operations on the slabs of several processes, and their gradients, are those on whole volumes."""

from __future__ import annotations

import pytest
import slabs
import torch
import torch.multiprocessing as processes

from lganet_fast.runtime.ranks import Ranks
from lganet_fast.sharded.group import Group, spans_of
from lganet_fast.sharded.operations import reached


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_compute_what_one_does(count, tmp_path):
    processes.spawn(slabs.compare, (count, str(tmp_path)), nprocs=count)
    found = torch.load(tmp_path / "found.pt")
    assert list(found) == list(slabs.CASES)
    assert {name: error for name, error in found.items() if error > 1e-12} == {}


def test_one_process_too():
    alone = Group(Ranks(0, 1, torch.device("cpu")))
    assert max(slabs.differences(alone, name) for name in slabs.CASES) <= 1e-12
    slabs.statistics_agree(alone)


def test_planes_are_shared_out_without_gaps():
    for size in (4, 13, 100):
        spans = spans_of(size, 4)
        assert [plane for a, b in spans for plane in range(a, b)] == list(range(size))
        assert max(b - a for a, b in spans) - min(b - a for a, b in spans) <= 1


@pytest.mark.parametrize(
    ("ends", "span"),
    [((0.0, 0.0), (0, 2)), ((1.2, 4.7), (1, 6)), ((-9.0, -3.0), (0, 1)), ((8.5, 30.0), (8, 10))],
)
def test_planes_that_positions_read(ends, span):
    assert reached(*ends, 10) == span
    assert reached(float("nan"), 3.0, 10) == (0, 10)
