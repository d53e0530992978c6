"""The order of pairs, and reading ahead in it."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from torch.utils.data import Dataset

from lganet_fast import InputError
from lganet_fast.data import Prefetcher, Sample, ShardedSampler


def test_two_ranks_take_what_one_process_takes_with_twice_the_batch():
    one = ShardedSampler(11, seed=3)
    ranks = [ShardedSampler(11, seed=3, rank=rank, world=2) for rank in (0, 1)]
    for _ in range(3):
        together = [index for step in zip(*ranks, strict=True) for index in step]
        assert together == list(one)[:10]
    assert {rank.epoch for rank in ranks} == {3}


def test_every_epoch_has_another_order_and_every_pair():
    sampler = ShardedSampler(20, seed=1)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(20))
    assert list(ShardedSampler(20, seed=2)) != first
    assert list(ShardedSampler(20, seed=1)) == first
    assert list(ShardedSampler(4, shuffle=False)) == [0, 1, 2, 3]


@pytest.mark.parametrize("taken", [0, 1, 6, 7, 9])
def test_goes_on_exactly_where_it_was(taken):
    def stream(sampler, count):
        out = []
        while len(out) < count:
            for index in sampler:
                out.append(index)
                if len(out) == count:
                    break
        return out

    whole = stream(ShardedSampler(7, seed=5), 20)
    before, after = ShardedSampler(7, seed=5), ShardedSampler(7, seed=5)
    assert stream(before, taken) == whole[:taken]
    after.load_state_dict(before.state_dict())
    assert stream(after, 20 - taken) == whole[taken:]


def test_refuses_the_state_of_another_order():
    with pytest.raises(InputError, match=r"saved run had length 7 .* this one has 8"):
        ShardedSampler(8).load_state_dict(ShardedSampler(7).state_dict())
    with pytest.raises(InputError, match="saved run had world 1"):
        ShardedSampler(8, world=2).load_state_dict(ShardedSampler(8).state_dict())


def test_refuses_too_few_pairs():
    with pytest.raises(InputError, match="1 pairs are too few for 2 processes"):
        ShardedSampler(1, world=2)


class Slow(Dataset):
    """Samples that take a while, longer for the first ones."""

    def __init__(self, length, wait=0.0, broken=None):
        self.length, self.wait, self.broken = length, wait, broken
        self.read = []

    def __getitem__(self, index):
        time.sleep(self.wait * (self.length - index))
        if index == self.broken:
            raise InputError(f"image {index} cannot be read")
        self.read.append((index, threading.get_ident()))
        volume = np.full((2, 2, 2), index, np.float32)
        return Sample(str(index), volume, volume, np.eye(4))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_keeps_the_order_and_counts_what_was_handed_out(workers):
    dataset, sampler = Slow(8, wait=0.002), ShardedSampler(8, seed=2)
    expected = sampler.upcoming()
    samples = iter(Prefetcher(dataset, sampler, workers))
    for place, index in enumerate(expected[:3], start=1):
        assert next(samples).name == str(index)
        assert sampler.state_dict()["position"] == place
    assert [int(sample.name) for sample in samples] == expected[3:]
    assert (sampler.epoch, sampler.position) == (1, 0)


def test_reads_ahead_in_another_thread():
    dataset, sampler = Slow(6), ShardedSampler(6, shuffle=False)
    samples = iter(Prefetcher(dataset, sampler, workers=1))
    next(samples)
    limit = time.monotonic() + 5
    while len(dataset.read) < 3 and time.monotonic() < limit:
        time.sleep(0.001)
    assert len(dataset.read) == 3
    assert threading.get_ident() not in {thread for _, thread in dataset.read}
    samples.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("lganet-data")]


@pytest.mark.parametrize("workers", [0, 2])
def test_raises_in_the_place_of_the_sample(workers):
    samples = iter(Prefetcher(Slow(4, broken=2), ShardedSampler(4, shuffle=False), workers))
    assert [next(samples).name for _ in range(2)] == ["0", "1"]
    with pytest.raises(InputError, match="image 2 cannot be read"):
        next(samples)
