"""Reading ahead in the background, so that loading overlaps computing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from torch.utils.data import Dataset

from .sample import Sample
from .sampler import ShardedSampler

AHEAD = 2  # samples per thread that may be ready before they are asked for


class Prefetcher:
    """Iterates over the samples that a sampler has left in its epoch, in the sampler's order.

    workers: threads that read ahead; 0 reads when asked. The sampler moves on when a sample is
    handed out, never when it is read, so that its state is where the consumer is. An exception
    while reading is raised in its sample's place. Threads read files and touch no GPU.
    """

    def __init__(self, dataset: Dataset[Sample], sampler: ShardedSampler, workers: int = 1) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.workers = workers

    def __iter__(self) -> Iterator[Sample]:
        """The samples left in this epoch."""
        indices = iter(self.sampler.upcoming())
        if not self.workers:
            yield from map(self._handed, map(self.dataset.__getitem__, indices))
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="lganet-data")

        def reading(count: int) -> Iterator[Future[Sample]]:
            return (pool.submit(self.dataset.__getitem__, i) for i in islice(indices, count))

        try:
            waiting = deque(reading(AHEAD * self.workers))
            while waiting:
                sample = waiting.popleft().result()
                waiting.extend(reading(1))
                yield self._handed(sample)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _handed(self, sample: Sample) -> Sample:
        self.sampler.advance()
        return sample
